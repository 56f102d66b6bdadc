"""How connections end: lingering, resets beside unread bytes, deaths, names afterwards."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from select import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP

from compat.sockets import calls as c
from compat.sockets.stage import Stage, scene

ALL = POLLIN | POLLOUT | POLLRDHUP | POLLERR | POLLHUP


def linger(s: socket.socket, on: int, seconds: int) -> None:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", on, seconds))


def after(stage: Stage, what: str, s: socket.socket) -> None:
    """All that an end has to say when its connection is over."""
    stage.say(f"{what}: events", c.poll(s, ALL, 1000))
    stage.say(f"{what}: receives", c.recv_n(s, 100, socket.MSG_DONTWAIT))
    stage.say(f"{what}: again", c.recv_n(s, 100, socket.MSG_DONTWAIT))
    stage.say(f"{what}: sends", c.send(s, b"x", socket.MSG_NOSIGNAL))
    stage.say(f"{what}: error", c.error_of(s))
    stage.say(f"{what}: peer's name", c.peer_of(s))
    stage.say(f"{what}: own name", s.getsockname()[0])


@scene()
def names_after_an_end(stage: Stage) -> None:
    a, b = stage.ends()
    b.shutdown(socket.SHUT_WR)
    stage.say("after the peer's shutdown", c.peer_of(a))
    a.shutdown(socket.SHUT_WR)
    c.poll(a, POLLHUP, 1000)
    stage.say("after both", c.peer_of(a))
    stage.say("shutdown again", c.call("shutdown", a, socket.SHUT_WR))
    stage.say("and of the other end", c.call("shutdown", b, socket.SHUT_RD))
    after(stage, "first", a)
    after(stage, "second", b)


@scene()
def reset_keeps_what_came(stage: Stage) -> None:
    """Bytes that were there before a reset are received first."""
    a, b = stage.ends()
    stage.say("sent", c.send(a, b"before"))
    linger(a, 1, 0)
    a.close()
    stage.say("events", c.poll(b, ALL, 1000))
    stage.say("received", c.recv(b, 100))
    after(stage, "then", b)


@scene()
def reset_beside_unread(stage: Stage) -> None:
    """Both ends have unread bytes when one closes."""
    a, b = stage.ends()
    c.send(a, b"to b")
    c.send(b, b"to a")
    stage.say("unread", (c.ioctl(a, c.FIONREAD), c.ioctl(b, c.FIONREAD)))
    a.close()
    stage.say("events", c.poll(b, ALL, 1000))
    stage.say("received", c.recv(b, 100))
    after(stage, "then", b)


@scene()
def reset_after_shutdown(stage: Stage) -> None:
    """A close with unread bytes when the end had been sent already."""
    a, b = stage.ends()
    c.send(b, b"unread")
    a.shutdown(socket.SHUT_WR)
    stage.say("end", c.recv(b, 10))
    a.close()
    after(stage, "then", b)


@scene()
def read_part_and_close(stage: Stage) -> None:
    a, b = stage.ends()
    c.send(a, b"12345678")
    stage.say("part", c.recv(b, 4))
    stage.say("peeked", c.recv(b, 2, socket.MSG_PEEK))
    b.close()
    after(stage, "peer", a)


@scene()
def sends_to_a_closed_end(stage: Stage) -> None:
    a, b = stage.ends()
    b.close()
    stage.say("events", c.poll(a, ALL, 1000))
    stage.say("first send", c.send(a, b"1", socket.MSG_NOSIGNAL))
    c.poll(a, POLLERR | POLLHUP, 1000)
    stage.say("error pending", c.error_of(a))
    after(stage, "then", a)


@scene()
def lingers(stage: Stage) -> None:
    """Nothing unsent: no close waits, whatever it is told."""
    for on, seconds in ((0, 0), (1, 0), (1, 1)):
        for blocking in (True, False):
            a, b = stage.ends()
            linger(a, on, seconds)
            a.setblocking(blocking)
            c.send(a, b"sent")
            start = time.monotonic()
            stage.say("close", c.call("close", a.detach()))
            stage.say("not for long", time.monotonic() - start < 0.5)  # the kernel waits for an acknowledgement, which may be delayed
            stage.say(f"received, linger {on} {seconds}", c.recv(b, 100))
            stage.say("then", c.recv(b, 100))


def fill(s: socket.socket) -> int:
    """Until nothing more is taken, nor will be."""
    sent, data = 0, b"f" * 65536
    while True:
        while isinstance(r := c.send(s, data, socket.MSG_DONTWAIT), int):
            sent += r
        if not c.poll(s, POLLOUT, 50):
            return sent


def drain(s: socket.socket) -> tuple[int, str]:
    got = 0
    while isinstance(r := c.recv(s, 1 << 20), bytes) and r:
        got += len(r)
    return got, r if isinstance(r, str) else "end"


@scene()
def lingers_with_unsent(stage: Stage) -> None:
    """The peer reads nothing until the close has returned."""
    for on, seconds, wait in ((0, 0, 0), (1, 0, 0), (1, 1, 1000))[: 3 if stage.lifted else 2]:
        a, b = stage.ends()
        sent = fill(a)
        linger(a, on, seconds)
        a.setblocking(wait == 0)  # to linger waits all the same
        start = time.monotonic()
        stage.say(f"close, linger {on} {seconds}", c.call("close", a.detach()))
        stage.took("it", start, wait)
        got, end = drain(b)
        stage.say("all came", got == sent if end == "end" else "a part")
        stage.say("and then", end)


@scene()
def lingers_until_read(stage: Stage) -> None:
    """A close that lingers returns when the peer has taken all."""
    a, b = stage.ends()
    sent = fill(a)
    linger(a, 1, 10)
    fd = a.detach()
    waiter = stage.thread(lambda: c.call("close", fd))
    waiter.asleep()
    stage.say("waits", waiter.waits())
    got, end = drain(b)
    stage.say("all came", (got == sent, end))
    stage.say("close", waiter.result())


def dies(stage: Stage, how: str, data: bytes) -> None:
    """A child has an end of its own, and unread bytes or none, when it dies."""
    listener = stage.listener()
    told, tell = os.pipe()
    ready, is_ready = os.pipe()
    pid = os.fork()
    if pid == 0:
        listener.close()
        s = socket.socket()
        s.connect(("127.0.0.1", int(os.read(told, 10))))
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(24 if stage.lifted else 1):
            s.sendall(b"w" * 200)
            s.recv(200, socket.MSG_WAITALL)
        os.write(is_ready, b"x")
        os.read(told, 1)
        if how == "exit":
            os._exit(0)
        if how == "exec":
            os.execv("/bin/true", ["true"])
        time.sleep(10)
        os._exit(1)
    os.write(tell, str(listener.getsockname()[1]).encode())
    b, _ = listener.accept()
    b.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(24 if stage.lifted else 1):
        assert b.recv(200, socket.MSG_WAITALL)
        b.sendall(b"w" * 200)
    os.read(ready, 1)
    if stage.lifted:
        stage.look(b)
    c.send(b, data)
    os.write(tell, b"x")
    if how == "kill":
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    stage.say(f"{how}: events", (c.poll(b, POLLRDHUP, 1000) or 0) != 0)
    stage.say(f"{how}: received", c.recv(b, 100))
    b.close()


@scene()
def peer_dies(stage: Stage) -> None:
    for how in ("exit", "exec", "kill"):
        dies(stage, how, b"")


@scene()
def peer_dies_with_unread(stage: Stage) -> None:
    for how in ("exit", "exec", "kill"):
        dies(stage, how, b"unread")


@scene()
def half_open_long(stage: Stage) -> None:
    """One way is shut, the other goes on, both by turns and by much."""
    for first, second in ((0, 1), (1, 0)):
        ends = stage.ends()
        one, other = ends[first], ends[second]
        c.send(one, b"last")
        one.shutdown(socket.SHUT_WR)
        for _ in range(3):
            stage.say("the other way", c.send(other, b"z" * 3000))
            stage.say("arrives", len(one.recv(3000, socket.MSG_WAITALL)))
        stage.say("last words", c.recv(other, 100))
        stage.say("and the end", c.recv(other, 100))
        other.shutdown(socket.SHUT_RD)
        stage.say("still sends", c.send(other, b"more"))
        stage.say("arrives", c.recv(one, 100))
        other.close()
        stage.say("end", c.recv(one, 100))
