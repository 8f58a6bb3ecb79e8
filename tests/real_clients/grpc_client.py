"""A gRPC service with two servers, and a client that goes to them in turn by their name.

    grpc_client.py DNS A B

takes the address of a DNS server, and those of two servers to be, with one port. It then takes commands: `ask` prints the
servers that answered the next calls.
"""

import sys
from concurrent import futures

import grpc

DNS, *SERVERS = sys.argv[1:]
CALLS = 20


def serve(address):
    # A client looks its servers up again when a connection ends, so servers end theirs now and then.
    options = [("grpc.max_connection_age_ms", 200), ("grpc.so_reuseport", 0)]
    server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
    say = grpc.unary_unary_rpc_method_handler(lambda request, context: address.encode())
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Name", {"Say": say})])
    assert server.add_insecure_port(address) != 0, address
    server.start()
    return server


running = [serve(address) for address in SERVERS]
port = SERVERS[0].rsplit(":", 1)[1]
options = [("grpc.lb_policy_name", "round_robin"), ("grpc.dns_min_time_between_resolutions_ms", 200)]
channel = grpc.insecure_channel(f"dns://{DNS}/web.service.local:{port}", options=options)
say = channel.unary_unary("/test.Name/Say")
print("ready", flush=True)
for _ in sys.stdin:
    answered = {say(b"", wait_for_ready=True, timeout=20).decode() for _ in range(CALLS)}
    print(*sorted(answered), flush=True)
