"""Two gRPC servers, and a client that balances its calls among them by DNS name.

    grpc_client.py CHANNEL A B

takes the code that creates the client's channel, and the addresses of the two servers, with a common port. Each line of
standard input prints the servers that answer the next calls.
"""

import sys
from concurrent import futures

import grpc

CHANNEL, *SERVERS = sys.argv[1:]
CALLS = 20


def serve(address):
    # The client resolves the name again when a connection ends, so the servers limit the age of connections.
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
