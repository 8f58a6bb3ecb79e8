// Calls of the client etcd3 for Node.js, over gRPC.
//
//     etcd3_client.js ETCD OTHER
//
// takes the addresses of etcd's API on two nodes of a cluster. It exits with 0 if all responses are as expected. The client's
// calls without a request, such as that for the members, fail before they are sent.

"use strict";

const assert = require("node:assert/strict");
const { once } = require("node:events");
const { Etcd3, EtcdLockFailedError } = require("etcd3");

const [client, other] = process.argv.slice(2).map((address) => new Etcd3({ hosts: `http://${address}` }));

/** Waits for a number of events of a watch. */
function events(watch, count) {
  const seen = [];
  return new Promise((done, failed) => {
    const see = (kind) => (kv) => {
      seen.push([kind, kv.key.toString(), kv.value.toString()]);
      if (seen.length === count) done(seen);
    };
    watch.on("put", see("put")).on("delete", see("delete")).on("error", failed);
  });
}

async function main() {
  // Keys.
  assert.equal(await client.get("absent").string(), null);
  await client.put("app/a").value("1");
  assert.equal(await other.get("app/a").string(), "1");
  const previous = await client.put("app/a").value("2").getPrevious();
  assert.equal(previous.value.toString(), "1");
  await client.put("app/b").value("3");
  assert.deepEqual(await other.getAll().prefix("app/").strings(), { "app/a": "2", "app/b": "3" });
  assert.deepEqual(await other.getAll().prefix("app/").sort("Key", "Descend").keys(), ["app/b", "app/a"]);
  const transaction = (value) =>
    client
      .if("app/a", "Value", "==", value)
      .and("absent", "Version", "==", 0)
      .then(client.put("app/t").value("1"), client.get("app/a"))
      .else(client.delete().key("app/t"))
      .commit();
  assert.equal((await transaction("2")).succeeded, true);
  assert.equal((await transaction("other")).succeeded, false);
  assert.equal(await other.get("app/t").string(), null);
  assert.equal((await client.delete().key("app/b")).deleted, "1");

  // A watch of changes through another node, from a revision in the past.
  const begun = (await client.put("watched/0").value("0")).header.revision;
  const watch = await other.watch().prefix("watched/").startRevision(begun).create();
  const seen = events(watch, 3);
  await client.put("watched/1").value("1");
  await client.delete().key("watched/1");
  assert.deepEqual(await seen, [
    ["put", "watched/0", "0"],
    ["put", "watched/1", "1"],
    ["delete", "watched/1", ""],
  ]);
  await watch.cancel();

  // Leases and locks.
  const lease = client.lease(30);
  await lease.put("leased").value("1");
  assert.equal(await other.get("leased").string(), "1");
  await lease.keepaliveOnce();
  await lease.revoke();
  assert.equal(await other.get("leased").string(), null);
  const lock = await client.lock("lock").ttl(30).acquire();
  await assert.rejects(other.lock("lock").ttl(30).acquire(), EtcdLockFailedError);
  await lock.release();
  await (await other.lock("lock").ttl(30).acquire()).release();

  // An election.
  const first = client.election("elect", 30).campaign("one");
  await once(first, "elected");
  const observer = await other.election("elect", 30).observe();
  assert.equal(observer.leader(), "one");
  const second = other.election("elect", 30).campaign("two");
  const elected = once(second, "elected");
  await first.resign();
  await elected;
  while (observer.leader() !== "two") await once(observer, "change");
  await observer.cancel();
  await second.resign();
}

const limit = setTimeout(() => {
  console.error("no response in time");
  process.exit(1);
}, 60000);
main().then(
  () => {
    clearTimeout(limit);
    client.close();
    other.close();
  },
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
