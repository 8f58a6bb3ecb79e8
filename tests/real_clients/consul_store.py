"""Keys, sessions and transactions of the Python clients py-consul and python-consul.

    consul_store.py API OTHER

takes the addresses of the APIs of two nodes of a cluster with a store. It exits with 0 if all responses are as expected.
"""

import sys

import consul
from consul_expect import equal, rejects, when_changed

(c, other) = (consul.Consul(*address.rsplit(":", 1)) for address in sys.argv[1:])


def value(key, client=c):
    found = client.kv.get(key)[1]
    return found and found["Value"]


# Keys.
equal(c.kv.get("absent")[1], None)
equal(c.kv.put("app/a", "1", flags=7), True)
entry = other.kv.get("app/a")[1]
equal((entry["Key"], entry["Value"], entry["Flags"], entry["LockIndex"]), ("app/a", b"1", 7, 0))
equal(c.kv.put("app/a", "2", cas=0), False)
equal(c.kv.put("app/a", "2", cas=entry["ModifyIndex"]), True)
equal(c.kv.put("app/a", "3", cas=entry["ModifyIndex"]), False)
equal((value("app/a"), value("app/a", other)), (b"2", b"2"))
equal(c.kv.put("app/b/c", ""), True)
equal([found["Key"] for found in c.kv.get("app/", recurse=True)[1]], ["app/a", "app/b/c"])
equal(c.kv.get("app/", keys=True)[1], ["app/a", "app/b/c"])
equal(c.kv.get("app/", keys=True, separator="/")[1], ["app/a", "app/b/"])
equal(c.kv.get("app/a", consistency="stale")[1]["Key"], "app/a")
equal(c.kv.get("app/a", consistency="consistent")[1]["Value"], b"2")
equal(when_changed(lambda **how: c.kv.get("app/a", **how), lambda: other.kv.put("app/a", "4"))["Value"], b"4")
changed = when_changed(lambda **how: c.kv.get("app/", recurse=True, **how), lambda: other.kv.put("app/d", "new"))
equal([found["Key"] for found in changed], ["app/a", "app/b/c", "app/d"])
equal(c.kv.delete("app/a", cas=1), False)
equal(c.kv.delete("app/a"), True)
equal(c.kv.delete("app/", recurse=True), True)
equal(c.kv.get("app/", recurse=True)[1], None)

# Sessions and locks.
session = c.session.create(name="first", ttl=10, behavior="release", lock_delay=0)
second = other.session.create(name="second", ttl=10, behavior="delete", lock_delay=0)
info = c.session.info(session)[1]
equal((info["ID"], info["Name"], info["TTL"], info["Behavior"], info["LockDelay"]), (session, "first", "10s", "release", 0))
node = info["Node"]
equal([found["ID"] for found in c.session.node(node)[1]], [session])
equal({found["ID"] for found in other.session.list()[1]}, {session, second})
equal(c.kv.put("lock", "first", acquire=session), True)
equal(other.kv.put("lock", "second", acquire=second), False)
held = other.kv.get("lock")[1]
equal((held["Value"], held["Session"], held["LockIndex"]), (b"first", session, 1))
equal(c.session.renew(session)["ID"], session)
released = when_changed(lambda **how: other.kv.get("lock", **how), lambda: c.kv.put("lock", "free", release=session))
equal((released["Value"], released.get("Session")), (b"free", None))
equal(other.kv.put("lock", "second", acquire=second), True)
gone = when_changed(lambda **how: c.kv.get("lock", **how), lambda: other.session.destroy(second))
equal(gone, None)
rejects("invalid session", other.kv.put, "lock", "second", acquire=second)
rejects("not found", other.session.renew, second)
equal(c.session.destroy(session), True)
equal(c.session.list()[1], [])

# Transactions.
operations = [
    {"KV": {"Verb": "check-not-exists", "Key": "txn"}},
    {"KV": {"Verb": "set", "Key": "txn", "Value": "MQ=="}},
    {"KV": {"Verb": "get", "Key": "txn"}},
]
results = c.txn.put(operations)
equal(results["Errors"], None)
equal(results["Results"][-1]["KV"]["Value"], "MQ==")
rejects("exists", other.txn.put, operations)
equal(value("txn", other), b"1")
equal(c.kv.delete("txn"), True)

assert ":" in c.status.leader()
equal(len(c.status.peers()), 3)
