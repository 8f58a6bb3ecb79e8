"""Calls of the Python client etcd3, over gRPC.

    etcd3_client.py ETCD OTHER

takes the addresses of etcd's API on two nodes of a cluster. It exits with 0 if all responses are as expected.
"""

import sys
import tempfile
import threading

import etcd3
import grpc


def client(address):
    host, port = address.rsplit(":", 1)
    return etcd3.client(host=host, port=int(port), timeout=20)


(c, other) = map(client, sys.argv[1:])


def equal(seen, expected):
    assert seen == expected, f"{seen!r} instead of {expected!r}"


# Keys.
equal(c.get("absent"), (None, None))
c.put("app/a", "1")
value, meta = other.get("app/a")
equal((value, meta.key, meta.version), (b"1", b"app/a", 1))
equal(c.put("app/a", "2", prev_kv=True).prev_kv.value, b"1")
c.put("app/b", "3")
equal([(meta.key, value) for value, meta in other.get_prefix("app/")], [(b"app/a", b"2"), (b"app/b", b"3")])
equal([value for value, _ in other.get_prefix("app/", sort_order="descend", sort_target="key")], [b"3", b"2"])
equal([value for value, _ in other.get_range("app/a", "app/b")], [b"2"])
equal((c.put_if_not_exists("app/a", "x"), c.replace("app/a", "2", "4"), c.replace("app/a", "2", "5")), (False, True, False))
done, results = c.transaction(
    compare=[c.transactions.value("app/a") == "4", c.transactions.version("absent") == 0],
    success=[c.transactions.put("app/t", "1"), c.transactions.get("app/a")],
    failure=[c.transactions.delete("app/a")],
)
equal((done, results[1][0][0]), (True, b"4"))
equal(c.delete("app/b"), True)
equal(c.delete("app/b"), False)

# A watch of changes through another node, from a revision in the past.
begun = c.put("watched/0", "0").header.revision
events, cancel = other.watch_prefix("watched/", start_revision=begun)
c.put("watched/1", "1")
c.delete("watched/1")
seen = [next(events) for _ in range(3)]
equal([(type(event).__name__, event.key) for event in seen], [("PutEvent", b"watched/0"), ("PutEvent", b"watched/1"), ("DeleteEvent", b"watched/1")])
cancel()

# Leases and locks.
lease = c.lease(30)
c.put("leased", "1", lease=lease)
equal((lease.granted_ttl, lease.keys, 0 < lease.remaining_ttl <= 30), (30, [b"leased"], True))
equal(lease.refresh()[0].TTL, 30)
lease.revoke()
equal(other.get("leased"), (None, None))
first, second = c.lock("lock", ttl=30), other.lock("lock", ttl=30)
equal((first.acquire(), first.is_acquired(), second.acquire(timeout=0.5)), (True, True, False))
waiting = threading.Thread(target=lambda: second.acquire(timeout=20))
waiting.start()
equal(first.release(), True)
waiting.join()
equal((first.is_acquired(), second.is_acquired()), (False, True))
equal(second.release(), True)

# The cluster.
equal(sorted(member.name for member in c.members), ["host-0", "host-1", "host-2"])
assert c.status().leader.name.startswith("host-")
equal(list(c.list_alarms()), [])
c.defragment()
with tempfile.TemporaryFile() as file:
    c.snapshot(file)
    assert file.tell() > 512
c.compact(begun)
try:
    c.compact(begun)
    raise AssertionError("compacted twice")
except grpc.RpcError as error:
    equal((error.code(), error.details()), (grpc.StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted"))
assert c.delete_prefix("app/").deleted == 2
