"""What one thread does to a socket while another waits on it; time-outs."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from select import POLLIN, POLLOUT, POLLRDHUP
from typing import Any

from compat.sockets import calls as c
from compat.sockets.ending import fill
from compat.sockets.stage import Stage, Waiter, scene

NOSIG = socket.MSG_NOSIGNAL


def in_epoll(s: socket.socket, ms: int) -> list[int]:
    ready = select.epoll()
    ready.register(s, select.EPOLLIN | select.EPOLLRDHUP)
    return [events for _, events in ready.poll(ms / 1000)]


def in_select(s: socket.socket, seconds: float) -> int | str:
    try:
        return len(select.select([s], [], [], seconds)[0])
    except OSError as error:
        return c.name_of(error.errno or 0)


WAITS: dict[str, Callable[[socket.socket], Any]] = {
    "recv": lambda s: c.recv(s, 100),
    "recv all": lambda s: c.recv(s, 100, socket.MSG_WAITALL),
    "peek": lambda s: c.recv(s, 100, socket.MSG_PEEK),
    "poll": lambda s: c.poll(s, POLLIN | POLLRDHUP, 150),
    "select": lambda s: in_select(s, 0.15),
    "epoll": lambda s: in_epoll(s, 150),
}


def waiter_in(stage: Stage, what: str, s: socket.socket) -> Waiter:
    return stage.thread(lambda: WAITS[what](s)).asleep()


@scene()
def shut_while_waiting(stage: Stage) -> None:
    """shutdown by another thread ends the wait."""
    for how in (socket.SHUT_RD, socket.SHUT_RDWR):
        for what in WAITS:
            a, b = stage.ends()
            waiter = waiter_in(stage, what, a)
            start = time.monotonic()
            stage.say("shutdown", c.call("shutdown", a, how))
            stage.say(f"{what}, {how}", waiter.result())
            stage.say("at once", time.monotonic() - start < 0.1)
            stage.say("peer", c.poll(b, POLLIN | POLLRDHUP, 100 if how else 0))


@scene()
def peer_shuts_while_waiting(stage: Stage) -> None:
    for what in WAITS:
        a, b = stage.ends()
        waiter = waiter_in(stage, what, a)
        b.shutdown(socket.SHUT_WR)
        stage.say(what, waiter.result())


@scene()
def closed_while_waiting_in_recv(stage: Stage) -> None:
    """The kernel keeps a socket open for a call that is inside: it receives what comes, and only then it is closed."""
    for what in ("recv", "peek"):
        a, b = stage.ends()
        number = a.fileno()
        waiter = waiter_in(stage, what, a)
        stage.say("close", c.call("close", number))
        stage.say("it goes on", waiter.waits())
        stage.say("the peer sends", c.send(b, b"late", NOSIG))
        stage.say(what, waiter.result())
        stage.say("then the peer sees", (c.poll(b, POLLIN, 1000) & POLLIN, c.recv(b, 10)))
        a.detach()


@scene()
def closed_and_number_taken_while_waiting(stage: Stage) -> None:
    """The number is another connection's at once: the waiting call has nothing to do with it."""
    a, b = stage.ends()
    x, y = stage.ends()
    waiter = waiter_in(stage, "recv", a)
    stage.say("dup2 over it", c.call("dup2", x, a) == a.fileno())
    c.send(y, b"for the new one")
    stage.say("it goes on", waiter.waits())
    c.send(b, b"for the old one", NOSIG)
    stage.say("it got", waiter.result())
    stage.say("the new one", c.recv(a, 100, socket.MSG_DONTWAIT))


@scene()
def closed_while_waiting_otherwise(stage: Stage) -> None:
    """poll and select keep the socket; epoll forgets it."""
    for what in ("poll", "select", "epoll"):
        a, _b = stage.ends()
        waiter = waiter_in(stage, what, a)
        stage.say("close", c.call("close", a.fileno()))
        stage.say(what, waiter.result())
        a.detach()


@scene()
def polled_closed_and_sent_to(stage: Stage) -> None:
    a, b = stage.ends()
    waiter = waiter_in(stage, "poll", a)
    stage.say("close", c.call("close", a.fileno()))
    stage.say("the peer sends", c.send(b, b"late", NOSIG))
    stage.say("poll", waiter.result())
    a.detach()


@scene()
def closed_while_waiting_in_send(stage: Stage) -> None:
    a, b = stage.ends()
    before = fill(a)
    waiter = stage.thread(lambda: c.send(a, b"s" * 500000, NOSIG)).asleep()
    stage.say("close", c.call("close", a.fileno()))
    stage.say("it goes on", waiter.waits())
    got = 0
    while isinstance(r := c.recv(b, 1 << 20), bytes) and r:
        got += len(r)
    stage.say("sent", waiter.result())
    stage.say("all came", got - before)
    stage.say("end", r)
    a.detach()


@scene()
def shut_while_waiting_in_send(stage: Stage) -> None:
    """It begins on an empty connection: whether a full one still takes a part depends on when the peer's kernel acknowledged what."""
    a, b = stage.ends()
    waiter = stage.thread(lambda: c.send(a, b"s" * 20_000_000, NOSIG)).asleep()
    stage.say("shutdown", c.call("shutdown", a, socket.SHUT_WR))
    sent = waiter.result()
    stage.say("it ends, with a part", 0 < sent < 20_000_000 if isinstance(sent, int) else sent)
    stage.say("and the next", c.send(a, b"x", NOSIG))
    b.close()


@scene(lifts=False)
def closed_while_waiting_in_accept(stage: Stage) -> None:
    listener = stage.listener()
    address = listener.getsockname()
    waiter = stage.thread(lambda: c.call("accept", listener, None, None)).asleep()
    stage.say("close", c.call("close", listener.fileno()))
    stage.say("it goes on", waiter.waits())
    a = socket.create_connection(address)
    fd = waiter.result()
    stage.say("accepted", isinstance(fd, int) and fd >= 0)
    listener.detach()
    b = socket.socket(fileno=fd)
    stage.say("talks", (c.send(a, b"hi"), c.recv(b, 10)))
    other = stage.listener()
    waiter = stage.thread(lambda: c.call("accept", other, None, None)).asleep()
    stage.say("shutdown", c.call("shutdown", other, socket.SHUT_RD))
    stage.say("it ends", waiter.result())


@scene()
def receive_in_time(stage: Stage) -> None:
    """SO_RCVTIMEO of several lengths, set before and between."""
    a, b = stage.ends()
    for ms in (15, 40):
        b.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, ms * 1000))
        for name, flags in (("recv", 0), ("peek", socket.MSG_PEEK), ("all", socket.MSG_WAITALL)):
            start = time.monotonic()
            stage.say(name, c.recv(b, 10, flags))
            stage.took(f"{name} {ms}", start, ms)
    c.send(a, b"part")
    start = time.monotonic()
    stage.say("a part of all", c.recv(b, 10, socket.MSG_WAITALL))
    stage.took("in", start, 40)
    vec, _ = c.many((4, 4))
    start = time.monotonic()
    stage.say("recvmmsg", c.call("recvmmsg", b, vec, 2, 0, None))
    stage.took("in", start, 40)
    b.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 0))
    waiter = waiter_in(stage, "recv", b)
    stage.say("none: waits", waiter.waits(0.1))
    c.send(a, b"came")
    stage.say("came", waiter.result())


@scene()
def send_in_time(stage: Stage) -> None:
    a, b = stage.ends()
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20000)  # no growth while we look
    b.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20000)
    fill(a)
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 10000))
    c.send(a, b"x" * 1000000, NOSIG)  # what there is room for after all
    for ms in (20, 50):
        a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, ms * 1000))
        start = time.monotonic()
        c.send(a, b"x" * 1000000, NOSIG)  # nothing, or a part: how much room there is, is nobody's promise
        stage.took(f"send {ms}", start, ms)
    stage.say("events", c.poll(a, POLLOUT))
    stage.say(
        "option", c.call("getsockopt", a, 1, socket.SO_SNDTIMEO, c.ctypes.create_string_buffer(16), c.ctypes.byref(c.ctypes.c_uint(16)))
    )
    del b


@scene()
def two_receivers(stage: Stage) -> None:
    """Two threads wait for one stream: each gets what it asked for, nothing twice."""
    a, b = stage.ends()
    waiters = [stage.thread(lambda: c.recv(b, 4, socket.MSG_WAITALL)).asleep() for _ in range(2)]
    c.send(a, b"1111")
    c.send(a, b"2222")
    got = b"".join(w.result() for w in waiters)
    stage.say("all", sorted(got) == sorted(b"11112222"))
    stage.say("nothing more", c.recv(b, 4, socket.MSG_DONTWAIT))
