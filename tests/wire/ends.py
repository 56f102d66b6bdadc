"""A program of the wire tests that does one thing to a connection on the wire path, and says what became of it.

ends.py serve ADDRESS PORT WHAT     accepts one connection, exchanges messages until it is lifted, does WHAT, prints what it saw
ends.py ask ADDRESS PORT WHAT       the other side
Each message is 8 bytes; 400 of them warm the connection up. WHAT is a name of `DEEDS`: what either side does after that.
"""

from __future__ import annotations

import array
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable

WARM = 400


def warm(s: socket.socket, first: bool) -> None:
    for i in range(WARM):
        if first:
            s.sendall(struct.pack("=Q", i))
        got = s.recv(8, socket.MSG_WAITALL)
        assert got == struct.pack("=Q", i), (i, got)
        if not first:
            s.sendall(got)


def outcome(call: Callable[[], object]) -> str:
    try:
        return repr(call())
    except OSError as error:
        return type(error).__name__


def until_end(s: socket.socket) -> bytes:
    got = b""
    while b := s.recv(65536):
        got += b
    return got


# client's deed, server's deed: each returns what is printed


def half_close(s: socket.socket, first: bool) -> str:
    if first:
        s.sendall(b"last words")
        s.shutdown(socket.SHUT_WR)
        return repr(until_end(s))
    got = until_end(s)
    s.sendall(b"goodbye")
    s.close()
    return repr(got)


def close_with_unread(s: socket.socket, first: bool) -> str:
    if first:
        s.sendall(b"x" * 1000)
        time.sleep(0.5)
        return outcome(lambda: s.recv(10)) + " " + outcome(lambda: s.send(b"more"))
    time.sleep(0.2)
    s.close()
    return "closed"


def linger_zero(s: socket.socket, first: bool) -> str:
    if first:
        return outcome(lambda: s.recv(10))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
    return "closed"


def killed(s: socket.socket, first: bool) -> str:
    if first:
        return repr(until_end(s))
    s.sendall(b"written before death")
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


def killed_with_unread(s: socket.socket, first: bool) -> str:
    if first:
        s.sendall(b"never read")
        time.sleep(0.5)
        return outcome(lambda: s.recv(10))
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


def forked(s: socket.socket, first: bool) -> str:
    """The child goes on, the parent closes; then nobody has it."""
    if first:
        s.sendall(b"to the child")
        return repr(until_end(s))
    child = os.fork()
    if child == 0:
        got = s.recv(100)
        s.sendall(b"child: " + got)
        os._exit(0)
    s.close()
    os.waitpid(child, 0)
    return "waited"


def both_read(s: socket.socket, first: bool) -> str:
    """Parent and child send in turn on one connection."""
    if first:
        s.sendall(b"1")
        got = s.recv(100)
        s.sendall(b"2")
        return repr(got + until_end(s))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(reader, 1)
        s.sendall(b"child " + s.recv(1))
        os._exit(0)
    s.sendall(b"parent " + s.recv(1) + b", ")
    os.write(writer, b".")
    os.waitpid(child, 0)
    s.close()
    return "waited"


def executed(s: socket.socket, first: bool) -> str:
    """A plain program writes to it as its standard output."""
    if first:
        return repr(until_end(s))
    done = subprocess.run(["/bin/echo", "said by echo"], stdout=s.fileno(), check=True)
    s.close()
    return f"status {done.returncode}"


def duplicated(s: socket.socket, first: bool) -> str:
    if first:
        s.sendall(b"question")
        return repr(until_end(s))
    with s.dup() as copy:
        got = copy.recv(100)
        s.sendall(b"answer to " + got)
    s.close()
    return repr(got)


def passed(s: socket.socket, first: bool) -> str:
    """Through a Unix socket, to oneself."""
    if first:
        s.sendall(b"question")
        return repr(until_end(s))
    a, b = socket.socketpair()
    a.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [s.fileno()]))])
    s.close()
    _, rights, _, _ = b.recvmsg(1, 100)
    with socket.socket(fileno=array.array("i", rights[0][2])[0]) as received:
        got = received.recv(100)
        received.sendall(b"answer to " + got)
    return repr(got)


def options(s: socket.socket, first: bool) -> str:
    """One that the kernel alone has, and urgent data."""
    if first:
        s.sendall(b"a")
        s.send(b"!", socket.MSG_OOB)
        s.sendall(b"b")
        return repr(until_end(s))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 0)
    select.select([], [], [s])
    got = s.recv(1) + s.recv(1, socket.MSG_OOB) + s.recv(1)
    s.sendall(got)
    s.close()
    return repr(got)


def urgent(s: socket.socket, first: bool) -> str:
    """Urgent data is waited for, by poll."""
    if first:
        time.sleep(0.2)
        s.sendall(b"a")
        s.send(b"!", socket.MSG_OOB)
        return repr(until_end(s))
    poller = select.poll()
    poller.register(s, select.POLLPRI)
    events = poller.poll(5000)[0][1]
    got = s.recv(1) + s.recv(1, socket.MSG_OOB)
    s.sendall(got)
    s.close()
    return f"{events} {got!r}"


def peeked(s: socket.socket, first: bool) -> str:
    if first:
        s.sendall(b"abcdef")
        return repr(until_end(s))
    time.sleep(0.1)
    few, more = bytearray(2), bytearray(10)
    seen = s.recvmsg_into([few, bytearray(), more], 0, socket.MSG_PEEK)[0]
    got = s.recv(3, socket.MSG_PEEK) + bytes(few) + bytes(more) + bytes([seen]) + s.recv(100)
    s.sendall(got)
    s.close()
    return repr(got)


def timed_out(s: socket.socket, first: bool) -> str:
    if first:
        time.sleep(0.8)
        s.sendall(b"late")
        return repr(until_end(s))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 300_000))
    start = time.monotonic()
    first_try = outcome(lambda: s.recv(10))
    took = time.monotonic() - start
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 5, 0))
    got = s.recv(10)
    s.close()
    return f"{first_try} {0.28 < took < 0.6} {got!r}"


def interrupted(s: socket.socket, first: bool) -> str:
    if first:
        time.sleep(0.6)
        s.sendall(b"after the alarm")
        return repr(until_end(s))
    seen = []
    signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    got = s.recv(100)
    s.close()
    return f"{len(seen)} {got!r}"


DEEDS = {
    f.__name__: f
    for f in (
        half_close, close_with_unread, linger_zero, killed, killed_with_unread, forked, both_read, executed, duplicated, passed, options,
        urgent, peeked, timed_out, interrupted,
    )
}  # fmt: skip


def main(role: str, address: str, port: int, what: str) -> None:
    if role == "serve":
        listener = socket.create_server((address, port))
        print("ready", flush=True)
        s = listener.accept()[0]
        listener.close()
    else:
        s = socket.create_connection((address, port), 10)
        s.settimeout(None)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    warm(s, role == "ask")
    print(DEEDS[what](s, role == "ask"), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
