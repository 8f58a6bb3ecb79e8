"""Calls of the Python client etcd3gw, over etcd's JSON gateway.

    etcd3gw_client.py ETCD OTHER

takes the addresses of etcd's API on two nodes of a cluster. It exits with 0 if all responses are as expected.
"""

import sys

import etcd3gw
from etcd3gw.exceptions import WatchTimedOut


def client(address):
    host, port = address.rsplit(":", 1)
    return etcd3gw.client(host=host, port=int(port), api_path="/v3/")


(c, other) = map(client, sys.argv[1:])


def equal(seen, expected):
    assert seen == expected, f"{seen!r} instead of {expected!r}"


# Keys.
equal(c.get("absent"), [])
equal(c.put("app/a", "1"), True)
equal((other.get("app/a"), other.get("app/a", metadata=True)[0][1]["version"]), ([b"1"], "1"))
c.put("app/b", "2")
equal([(found["key"], value) for value, found in other.get_prefix("app/")], [(b"app/a", b"1"), (b"app/b", b"2")])
equal([value for value, _ in c.get_prefix("app/", sort_order="descend", sort_target="key")], [b"2", b"1"])
equal((c.create("app/c", "1"), other.create("app/c", "1")), (True, False))
equal((c.replace("app/c", "1", "2"), other.replace("app/c", "1", "2")), (True, False))
equal((c.delete("app/c"), c.delete("app/c")), (True, False))

# Watches of changes through another node.
events, cancel = other.watch_prefix("watched/")
c.put("watched/1", "1")
c.delete("watched/1")
seen = [next(events) for _ in range(2)]
equal([(event.get("type"), event["kv"]["key"], event["kv"].get("value")) for event in seen], [(None, b"watched/1", b"1"), ("DELETE", b"watched/1", None)])
cancel()
try:
    other.watch_once("never", timeout=1)
    raise AssertionError("a change of a key that was never written")
except WatchTimedOut:
    pass

# Leases and locks.
lease = c.lease(ttl=30)
c.put("leased", "1", lease=lease)
equal((lease.keys(), 0 < lease.ttl() <= 30, lease.refresh()), ([b"leased"], True, 30))
lease.revoke()
equal((other.get("leased"), lease.ttl()), ([], -1))
first, second = c.lock("lock", ttl=30), other.lock("lock", ttl=30)
equal((first.acquire(), first.is_acquired(), second.acquire()), (True, True, False))
first.refresh()
equal((first.release(), second.acquire(), second.release()), (True, True, True))

# The cluster.
equal(sorted(member["name"] for member in c.members()), ["host-0", "host-1", "host-2"])
assert c.status()["leader"] in {member["ID"] for member in c.members()}
equal(c.delete_prefix("app/"), True)
