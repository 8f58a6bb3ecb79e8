"""A gRPC service with two servers, and a client that goes to them in turn by their name.

    grpc_client.py CHANNEL A B

takes the code that makes the client's channel, and the addresses of two servers to be, with one port. It then takes
commands: `ask` prints the servers that answered the next calls.
"""

import sys
from concurrent import futures

import grpc

CHANNEL, *SERVERS = sys.argv[1:]
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
made = {"grpc": grpc}
exec(CHANNEL, made)
say = made["channel"].unary_unary("/test.Name/Say")
print("ready", flush=True)
for _ in sys.stdin:
    answered = {say(b"", wait_for_ready=True, timeout=20).decode() for _ in range(CALLS)}
    print(*sorted(answered), flush=True)
