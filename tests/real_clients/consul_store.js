// Keys, sessions, locks and transactions of the Consul client for Node.js.
//
//     consul_store.js API OTHER
//
// takes the addresses of the APIs of two nodes of a cluster with a store. It exits with 0 if all responses are as expected.

"use strict";

const assert = require("node:assert/strict");
const Consul = require("consul");

const [consul, other] = process.argv.slice(2).map((address) => {
  const [host, port] = address.split(":");
  return new Consul({ host, port });
});

/** Waits until a watch of a key has the expected state. */
function until(watch, expected) {
  return new Promise((done, failed) => {
    watch.on("change", (state) => expected(state) && done(state));
    watch.on("error", failed);
  });
}

async function main() {
  assert.equal(await consul.kv.get("absent"), undefined);
  assert.equal(await consul.kv.set({ key: "app/a", value: "1", flags: 7 }), true);
  const entry = await other.kv.get("app/a");
  assert.deepEqual([entry.Value, entry.Flags, entry.LockIndex], ["1", 7, 0]);
  // The client returns `undefined` for `false`.
  assert.equal(await consul.kv.set({ key: "app/a", value: "2", cas: "0" }), undefined);
  assert.equal(await consul.kv.set({ key: "app/a", value: "2", cas: entry.ModifyIndex }), true);
  await consul.kv.set("app/b/c", "3");
  assert.deepEqual(await other.kv.keys("app/"), ["app/a", "app/b/c"]);
  assert.deepEqual(await other.kv.keys({ key: "app/", separator: "/" }), ["app/a", "app/b/"]);
  assert.deepEqual((await other.kv.get({ key: "app/", recurse: true })).map(({ Value }) => Value), ["2", "3"]);
  assert.equal((await other.kv.get({ key: "app/a", raw: true })).toString(), "2");

  // A lock passes to the session that watches it.
  const first = await consul.session.create({ name: "first", ttl: "10s", lockdelay: "0s", behavior: "delete" });
  const second = await other.session.create({ name: "second", ttl: "10s", lockdelay: "0s", behavior: "delete" });
  assert.equal((await other.session.get(first.ID)).Name, "first");
  assert.deepEqual((await other.session.list()).map(({ Name }) => Name).sort(), ["first", "second"]);
  assert.equal(await consul.kv.set({ key: "lock", value: "first", acquire: first.ID }), true);
  assert.equal(await other.kv.set({ key: "lock", value: "second", acquire: second.ID }), undefined);
  const watch = other.watch({ method: other.kv.get, options: { key: "lock", wait: "20s" }, backoffFactor: 10 });
  await until(watch, (state) => state?.Session === first.ID);
  const free = until(watch, (state) => state === undefined);
  assert.equal((await consul.session.renew(first.ID))[0].ID, first.ID);
  await consul.session.destroy(first.ID);
  await free;
  const held = until(watch, (state) => state?.Session === second.ID);
  assert.equal(await other.kv.set({ key: "lock", value: "second", acquire: second.ID }), true);
  await held;
  watch.end();
  await assert.rejects(() => consul.session.renew(first.ID), /not found/);
  const ended = new RegExp(`invalid session "${first.ID}"`);
  await assert.rejects(() => consul.kv.set({ key: "lock", value: "", acquire: first.ID }), ended);
  await other.session.destroy(second.ID);

  const { Results, Errors } = await consul.transaction.create([
    { KV: { Verb: "set", Key: "app/t", Value: "MQ==" } },
    { KV: { Verb: "get", Key: "app/t" } },
  ]);
  assert.deepEqual([Errors, Results[1].KV.Value], [null, "MQ=="]);
  await assert.rejects(() => consul.transaction.create([{ KV: { Verb: "check-not-exists", Key: "app/t" } }]), /conflict/i);
  assert.equal(await consul.kv.del("app/a"), true);
  assert.equal(await consul.kv.del({ key: "app/", recurse: true }), true);
  assert.equal(await other.kv.get({ key: "app/", recurse: true }), undefined);
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
