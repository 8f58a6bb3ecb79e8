// Calls and watches of the Consul client for Node.js.
//
//     consul_client.js API
//
// takes the address of an agent's API. It exits with 0 if all responses are as expected.

"use strict";

const assert = require("node:assert/strict");
const Consul = require("consul");

const [host, port] = process.argv[2].split(":");
const consul = new Consul({ host, port });

/** Returns the states of a watch in order. */
function states(options) {
  const watch = consul.watch({ backoffFactor: 10, ...options });
  const [seen, waiting] = [[], []];
  const deliver = (state) => (waiting.length > 0 ? waiting.shift()(state) : seen.push(state));
  watch.on("change", deliver);
  watch.on("error", (error) => deliver(error));
  return {
    next: () => (seen.length > 0 ? Promise.resolve(seen.shift()) : new Promise((done) => waiting.push(done))),
    end: () => watch.end(),
  };
}

/** Waits until a watch has the expected state. */
async function until(watch, read, expected) {
  for (;;) {
    const state = await watch.next();
    if (state instanceof Error) throw state;
    if (JSON.stringify(read(state)) === JSON.stringify(expected)) return;
  }
}

async function rejects(reason, call) {
  await assert.rejects(call, (error) => {
    assert.match(`${error.message} ${error.response?.body}`, reason);
    return true;
  });
}

async function main() {
  const self = await consul.agent.self();
  assert.equal(self.Config.NodeName, "host-a");
  assert.deepEqual((await consul.agent.members()).map(({ Name, Status }) => [Name, Status]), [["host-a", 1]]);
  assert.match(await consul.status.leader(), /:/);
  assert.equal((await consul.status.peers()).length, 1);
  assert.deepEqual((await consul.agent.members({ wan: true })).map(({ Name }) => Name), ["host-a.dc1"]);
  assert.equal((await consul.event.fire({ name: "deploy", payload: "v2", dc: "dc1" })).Name, "deploy");
  assert.deepEqual((await consul.event.list("deploy")).map(({ Payload }) => Payload), ["v2"]);
  await consul.agent.reload();
  assert.deepEqual(await consul.catalog.datacenters(), ["dc1"]);
  assert.deepEqual((await consul.catalog.node.list()).map(({ Node }) => Node), ["host-a"]);

  const names = states({ method: consul.catalog.service.list, options: { wait: "20s" } });
  const healthy = states({ method: consul.health.service, options: { service: "db", passing: true, wait: "20s" } });
  const ids = (entries) => entries.map(({ Service }) => Service.ID);
  await until(names, (state) => state, {});
  await until(healthy, ids, []);

  const check = { ttl: "1h", deregister_critical_service_after: "1h" };
  await consul.agent.service.register({ name: "db", id: "db:1", port: 5432, tags: ["primary"], meta: { a: "b" }, check });
  await until(names, (state) => state, { db: ["primary"] });
  await consul.agent.check.pass({ id: "service:db:1", note: "well" });
  await until(healthy, ids, ["db:1"]);
  const [entry] = await consul.health.service({ service: "db", tag: "primary" });
  assert.deepEqual([entry.Service.Port, entry.Service.Meta, entry.Checks[1].Output], [5432, { a: "b" }, "well"]);
  assert.equal((await consul.agent.service.list())["db:1"].Service, "db");
  assert.equal((await consul.agent.check.list())["service:db:1"].Status, "passing");
  assert.equal((await consul.catalog.node.services("host-a")).Services["db:1"].Port, 5432);
  assert.deepEqual((await consul.catalog.service.nodes("db")).map(({ ServiceID }) => ServiceID), ["db:1"]);
  assert.equal((await consul.health.node("host-a")).length, 2);
  assert.equal((await consul.health.checks("db")).length, 1);
  assert.deepEqual(await consul.health.state("critical"), []);

  await consul.agent.check.fail("service:db:1");
  await until(healthy, ids, []);
  await consul.agent.check.warn("service:db:1");
  await consul.agent.check.pass("service:db:1");
  await until(healthy, ids, ["db:1"]);
  await consul.agent.check.register({ name: "second", serviceid: "db:1", ttl: "1h" });
  await consul.agent.check.fail("second");
  await until(healthy, ids, []);
  await consul.agent.check.deregister("second");
  await until(healthy, ids, ["db:1"]);
  await consul.agent.service.maintenance({ id: "db:1", enable: true, reason: "disk" });
  await until(healthy, ids, []);
  await consul.agent.service.maintenance({ id: "db:1", enable: false });
  await until(healthy, ids, ["db:1"]);
  await consul.agent.maintenance({ enable: true, reason: "kernel" });
  await until(healthy, ids, []);
  await consul.agent.maintenance(false);
  await until(healthy, ids, ["db:1"]);
  await consul.agent.service.deregister("db:1");
  await until(healthy, ids, []);
  await until(names, (state) => state, {});
  names.end();
  healthy.end();

  const node = { node: "n1", address: "10.1.10.11", service: { service: "s1", port: 80 } };
  await consul.catalog.register({ ...node, check: { name: "c1", status: "passing" } });
  assert.deepEqual((await consul.catalog.node.list()).map(({ Node }) => Node), ["host-a", "n1"]);
  assert.equal((await consul.catalog.node.services("n1")).Services.s1.Port, 80);
  assert.deepEqual((await consul.health.node("n1")).map(({ CheckID }) => CheckID), ["c1"]);
  await consul.catalog.deregister({ node: "n1" });
  assert.deepEqual((await consul.catalog.node.list()).map(({ Node }) => Node), ["host-a"]);

  await rejects(/no store/, () => consul.kv.get("a"));
  await rejects(/no store/, () => consul.kv.set("a", "b"));
  await rejects(/no store/, () => consul.session.create({}));
  await rejects(/no prepared queries/, () => consul.query.list());
  await rejects(/no store/, () => consul.transaction.create([{}]));
  await rejects(/not accepted over HTTP/, () => consul.agent.service.register({ name: "x", check: { args: ["true"], interval: "1s" } }));
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
