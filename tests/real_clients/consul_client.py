"""Calls of the Python clients py-consul and python-consul to an agent.

    consul_client.py API GOSSIP BACKEND

takes the addresses of an agent's API, of another agent's gossip, and of a web server. It exits with 0 if all
responses are as expected.
"""

import sys

import consul
from consul_expect import equal, rejects, when_changed

API, GOSSIP, BACKEND = sys.argv[1:]
host, port = API.rsplit(":", 1)
backend_host, backend_port = BACKEND.rsplit(":", 1)
c = consul.Consul(host=host, port=int(port))
# python-consul has no gRPC checks.
OLD = not hasattr(consul.Check, "grpc")


def statuses(service):
    return {check["CheckID"]: check["Status"] for check in c.health.checks(service)[1]}


def wait_for(read, expected):
    """Blocks until the expected result is read."""
    index, seen = None, read()
    while seen != expected:
        index, _ = c.health.state("any", index=index, wait="30s")
        seen = read()


# The agent and the cluster.
equal(c.agent.self()["Config"]["NodeName"], "host-a")
equal(c.agent.self()["Config"]["Datacenter"], "dc1")
equal([(member["Name"], member["Status"]) for member in c.agent.members()], [("host-a", 1)])
equal(set(c.agent.self()), {"Config", "Coord", "DebugConfig", "Member", "Meta", "Stats", "xDS"})
assert c.agent.self()["Member"] in c.agent.members()
equal([member["Name"] for member in c.agent.members(wan=True)], ["host-a.dc1"])
assert ":" in c.status.leader()
equal(len(c.status.peers()), 1)
equal(c.coordinate.datacenters(), [{"Datacenter": "dc1", "AreaID": "wan", "Coordinates": []}])
equal(c.coordinate.nodes()[1], [])
if not OLD:
    equal(c.coordinate.node("host-a")[1], None)
    rejects("no network coordinates", c.coordinate.update, "host-a", {})
    assert c.agent.metrics()["Gauges"]
    equal(c.agent.reload(), True)
    equal(c.agent.force_leave("host-z"), False)
if OLD:
    # python-consul sends GET, as before Consul 1.0.
    rejects("allowed: PUT", c.agent.join, GOSSIP)
else:
    nodes = when_changed(c.catalog.nodes, lambda: equal(c.agent.join(GOSSIP), True))
    equal([node["Node"] for node in nodes], ["host-a", "host-b"])
    equal({member["Name"]: member["Status"] for member in c.agent.members()}, {"host-a": 1, "host-b": 1})

# A service with a TTL check.
ttl = consul.Check.ttl("1h")
equal(c.agent.service.register("db", service_id="db:1", address="10.0.0.9", port=5432, tags=["primary"], check=ttl), True)
equal(c.agent.services()["db:1"]["Address"], "10.0.0.9")
equal(c.agent.checks()["service:db:1"]["Status"], "critical")
equal(c.health.service("db", passing=True)[1], [])
for report, status in [
    (c.agent.check.ttl_pass, "passing"),
    (c.agent.check.ttl_warn, "warning"),
    (c.agent.check.ttl_fail, "critical"),
    (c.agent.check.ttl_pass, "passing"),
]:
    entries = when_changed(lambda **how: c.health.service("db", **how), lambda: report("service:db:1", "test"))
    equal([(check["Status"], check["Output"]) for check in entries[0]["Checks"][1:]], [(status, "test")])
    equal(c.agent.checks()["service:db:1"]["Status"], status)
entry = c.health.service("db", passing=True, tag="primary", dc="dc1", near="_agent")[1][0]
equal(entry["Node"]["Node"], "host-a")
equal((entry["Service"]["ID"], entry["Service"]["Port"], entry["Service"]["Tags"]), ("db:1", 5432, ["primary"]))
equal(c.health.service("db", tag="standby")[1], [])

# The catalog.
names = when_changed(c.catalog.services, lambda: c.agent.service.register("cache", tags=["hot"]))
equal(names, {"cache": ["hot"], "db": ["primary"]})
names = when_changed(c.catalog.services, lambda: c.agent.service.deregister("cache"))
equal(names, {"db": ["primary"]})
equal(c.catalog.datacenters(), ["dc1"])
equal({node["Node"]: node["Address"] for node in c.catalog.nodes()[1]}["host-a"], "10.0.0.7")
equal(c.catalog.node("host-a")[1]["Services"]["db:1"]["Service"], "db")
equal(c.catalog.node("absent")[1], None)
service = c.catalog.service("db", tag="primary")[1][0]
equal((service["ServiceID"], service["ServiceAddress"], service["Address"]), ("db:1", "10.0.0.9", "10.0.0.7"))
equal(c.catalog.service("nothing")[1], [])
equal({check["CheckID"] for check in c.health.node("host-a")[1]}, {"serfHealth", "service:db:1"})
equal([check["ServiceID"] for check in c.health.state("passing")[1] if check["ServiceID"]], ["db:1"])
equal(c.health.state("critical")[1], [])

# Checks of every kind: accepted probes, and rejected kinds.
web = {"address": backend_host, "port": int(backend_port)}
http = consul.Check.http(f"http://{BACKEND}/healthz", "100ms", timeout="5s", deregister="10m", header={"x-a": ["b"]})
tcp = consul.Check.tcp(backend_host, int(backend_port), "100ms")
for name, check in [("by-http", http), ("by-tcp", tcp)]:
    equal(c.agent.service.register(name, check=check, **web), True)
    wait_for(lambda: statuses(name), {f"service:{name}": "passing"})
if not OLD:
    equal(c.agent.service.register("by-grpc", check=consul.Check.grpc(f"{BACKEND}/web", "1s"), **web), True)
    equal(statuses("by-grpc"), {"service:by-grpc": "critical"})
    equal(c.agent.service.deregister("by-grpc"), True)
command = consul.Check.script(["/bin/true"], "10s")
rejects("not accepted over HTTP", c.agent.service.register, "x", check=command)
rejects("runs no checks in Docker containers", c.agent.service.register, "x", check=consul.Check.docker("id", "sh", "true", "10s"))
# A check of the node.
assert c.agent.check.register("of the node", check=ttl)
assert c.agent.check.ttl_pass("of the node")
equal((c.agent.checks()["of the node"]["ServiceID"], c.agent.checks()["of the node"]["Status"]), ("", "passing"))
assert c.agent.check.deregister("of the node")
assert "of the node" not in c.agent.checks()
equal(c.agent.check.register("Second", check=ttl, check_id="second", service_id="db:1"), True)
equal(c.agent.check.ttl_fail("second"), True)
equal(statuses("db"), {"service:db:1": "passing", "second": "critical"})
equal(c.agent.check.deregister("second"), True)
equal(statuses("db"), {"service:db:1": "passing"})
# The client returns `False` for a 404.
equal(c.agent.check.ttl_pass("second"), False)
equal(c.agent.service.deregister("nothing"), False)

# Maintenance.
equal(c.agent.service.maintenance("db:1", "true", "new disk"), True)
equal(statuses("db"), {"_service_maintenance:db:1": "critical", "service:db:1": "passing"})
equal(c.health.service("db", passing=True)[1], [])
equal(c.agent.service.maintenance("db:1", "false"), True)
equal(c.agent.maintenance("true", "new kernel"), True)
equal([check["Notes"] for check in c.health.node("host-a")[1] if check["CheckID"] == "_node_maintenance"], ["new kernel"])
equal(c.agent.maintenance("false"), True)
equal(len(c.health.service("db", passing=True)[1]), 1)

# External nodes.
rejects("this agent is in dc1", c.catalog.register, "n1", "10.1.10.11", dc="dc2")
known = {node["Node"] for node in c.catalog.nodes()[1]}
equal(c.catalog.register("n1", "10.1.10.11", service={"service": "s1"}, check={"name": "c1", "status": "passing"}), True)
equal(c.catalog.register("n1", "10.1.10.11", service={"service": "s2"}), True)
names = when_changed(
    c.catalog.services,
    lambda: equal(c.catalog.register("n2", "10.1.10.12", service={"service": "s1", "tags": ["master"]}), True),
)
equal({name: names[name] for name in ["s1", "s2"]}, {"s1": ["master"], "s2": []})
equal({node["Node"] for node in c.catalog.nodes()[1]} - known, {"n1", "n2"})
rejects("No path to datacenter dc2", c.catalog.nodes, dc="dc2")
equal(set(c.catalog.node("n1")[1]["Services"]), {"s1", "s2"})
equal({node["Node"] for node in c.catalog.service("s1")[1]}, {"n1", "n2"})
equal({node["Node"] for node in c.catalog.service("s1", tag="master")[1]}, {"n2"})
equal([check["Status"] for check in c.health.node("n1")[1]], ["passing"])
entries = when_changed(
    lambda **how: c.health.service("s1", **how),
    lambda: c.catalog.register("n1", "10.1.10.11", check={"name": "c1", "status": "critical"}),
)
equal([entry["Node"]["Node"] for entry in entries], ["n1", "n2"])
equal([entry["Node"]["Node"] for entry in c.health.service("s1", passing=True)[1]], ["n2"])
equal(c.catalog.deregister("n1", check_id="c1"), True)
equal(c.catalog.deregister("n2", service_id="s1"), True)
equal({node["Node"] for node in c.catalog.nodes()[1]} - known, {"n1", "n2"})
equal({node["Node"] for node in c.catalog.service("s1")[1]}, {"n1"})
equal(c.catalog.deregister("n1"), True)
equal(c.catalog.deregister("n2"), True)
equal({node["Node"] for node in c.catalog.nodes()[1]}, known)

# Tags that the catalog changes.
if not OLD:
    equal(c.agent.service.register("tagged", tags=["v1"], enable_tag_override=True), True)
    equal(c.agent.services()["tagged"]["EnableTagOverride"], True)
    equal(c.catalog.register("host-a", "10.0.0.7", service={"service": "tagged", "tags": ["v2"]}), True)
    equal(c.agent.services()["tagged"]["Tags"], ["v2"])
    equal(c.agent.service.deregister("tagged"), True)

# User events.
equal(c.event.fire("deploy", "v2")["Name"], "deploy")
if not OLD:
    equal(c.event.fire("local", dc="dc1")["Name"], "local")
    rejects("No path to datacenter dc2", c.event.fire, "far", dc="dc2")
wait_for(lambda: [event["Name"] for event in c.event.list(name="deploy")[1]], ["deploy"])

# Unsupported endpoints respond with an error.
for part, call, arguments in [
    ("no store", c.kv.get, ["a"]),
    ("no store", c.kv.put, ["a", "b"]),
    ("no store", c.kv.delete, ["a"]),
    ("no store", c.session.create, []),
    ("no store", c.session.list, []),
    ("no ACLs", c.acl.list if OLD else c.acl.token.list, []),
    ("no prepared queries", c.query.list, []),
    ("no store", c.txn.put, [[]]),
    ("the node needs no registration", c.catalog.register, ["host-a", "10.0.0.7"]),
    ("To remove a node, make it leave", c.catalog.deregister, ["host-a"]),
]:
    rejects(part, call, *arguments)

for name in ["db:1", "by-http", "by-tcp"]:
    equal(c.agent.service.deregister(name), True)
equal(c.agent.services(), {})
