"""`talk.py PORT CONNECTIONS SECONDS`: messages that an echo server has to send back, on some connections one after the other.

Prints "whole", how many connections it had, and how many messages came back on them. The server has to close when we have half-closed.
"""

import hashlib
import socket
import sys
import time

SIZE = 2000


def talk(port: int, seconds: float) -> int:
    """Messages on one connection."""
    until, count = time.monotonic() + seconds, 0
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.settimeout(20)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while time.monotonic() < until or count < 10:
            data = hashlib.shake_128(b"%d" % count).digest(SIZE)
            s.sendall(data)
            assert (back := s.recv(SIZE, socket.MSG_WAITALL)) == data, f"message {count}: {len(back)} bytes came back"
            count += 1
        s.shutdown(socket.SHUT_WR)
        assert (rest := s.recv(1)) == b"", f"{rest!r} after the end"
    return count


if __name__ == "__main__":
    port, connections = int(sys.argv[1]), int(sys.argv[2])
    messages = sum(talk(port, float(sys.argv[3]) / connections) for _ in range(connections))
    print("whole", connections, messages)
