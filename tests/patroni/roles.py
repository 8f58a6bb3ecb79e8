"""Reports the roles of PostgreSQL servers at each change.

    roles.py PORT...

polls `pg_is_in_recovery()` of each server and prints a word with a letter for each: P for a primary, R for a replica, and
- for a server that does not answer. After "TWO" two servers were primary at the same time.
"""

import sys
import time

import psycopg2

connections = {}


def role(port):
    try:
        if port not in connections:
            connections[port] = psycopg2.connect(
                host="127.0.0.1", port=port, user="postgres", dbname="postgres", connect_timeout=2
            )
            connections[port].autocommit = True
        with connections[port].cursor() as cursor:
            cursor.execute("SELECT pg_is_in_recovery()")
            return "R" if cursor.fetchone()[0] else "P"
    except psycopg2.Error:
        connections.pop(port, None)
        return "-"


last = None
while True:
    roles = {port: role(port) for port in sys.argv[1:]}
    primaries = [port for port, seen in roles.items() if seen == "P"]
    # The servers are asked one after the other: the first one was primary all the time if it still is.
    if len(primaries) > 1 and role(primaries[0]) == "P":
        print("TWO", *primaries, flush=True)
    word = "".join(roles.values())
    if word != last:
        print(word, flush=True)
        last = word
    time.sleep(0.02)
