"""The demo's stand-in where redis is missing: plain Python sockets and epoll, 64-byte messages, one thread each.

`echo.py server PORT` and `echo.py client PORT CONNECTIONS PIPELINE REQUESTS`; the client prints what redis-benchmark --csv would.
It is run as a file: programs that know nothing of the package.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time
from typing import cast

MESSAGE = b"x" * 64


def server(port: int) -> None:
    """Send back what comes, for ever."""
    listener = socket.create_server(("127.0.0.1", port), backlog=512)
    with selectors.DefaultSelector() as ready:
        ready.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is listener:
                    accepted = listener.accept()[0]
                    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    ready.register(accepted, selectors.EVENT_READ)
                    continue
                connection = cast(socket.socket, key.fileobj)
                try:
                    data = connection.recv(65536)
                    if data:
                        connection.sendall(data)
                except ConnectionError:
                    data = b""
                if not data:
                    ready.unregister(connection)
                    connection.close()


def client(port: int, connections: int, pipeline: int, requests: int) -> None:
    """Send `requests` messages over the connections, `pipeline` at a time on each, and print rate and latencies (ms)."""
    batch = MESSAGE * pipeline
    took: list[int] = []
    with selectors.DefaultSelector() as ready:
        waiting: dict[socket.socket, tuple[int, int]] = {}  # bytes to come, when the batch was sent (ns)
        for _ in range(connections):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ready.register(connection, selectors.EVENT_READ)
            waiting[connection] = (len(batch), 0)
        began = time.perf_counter_ns()
        left = requests // pipeline
        for connection in list(waiting):
            waiting[connection] = (len(batch), time.perf_counter_ns())
            connection.sendall(batch)
            left -= 1
        while waiting:
            for key, _ in ready.select():
                connection = cast(socket.socket, key.fileobj)
                size, sent = waiting[connection]
                data = connection.recv(65536)
                if not data:
                    raise ConnectionResetError("the server closed the connection")
                size -= len(data)
                now = time.perf_counter_ns()
                if size > 0:
                    waiting[connection] = (size, sent)
                    continue
                took.append(now - sent)
                if left > 0:
                    waiting[connection] = (len(batch), now)
                    connection.sendall(batch)
                    left -= 1
                else:
                    ready.unregister(connection)
                    connection.close()
                    del waiting[connection]
        seconds = (time.perf_counter_ns() - began) / 1e9
    took.sort()
    p50, p99 = (took[min(int(len(took) * part), len(took) - 1)] / 1e6 for part in (0.5, 0.99))
    print('"test","rps","p50_latency_ms","p99_latency_ms"')
    print(f'"ECHO","{len(took) * pipeline / seconds:.2f}","{p50:.4f}","{p99:.4f}"')


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[2:]]
    if sys.argv[1] == "server":
        server(*numbers)
    else:
        client(*numbers)
