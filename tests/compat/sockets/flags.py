"""Flags of single calls, alone and together, on what came by one way and by both."""

from __future__ import annotations

import select
import socket
import time
from select import EPOLLIN, POLLIN, epoll

from compat.sockets import calls as c
from compat.sockets.stage import Stage, scene

PEEK, TRUNC, ALL, NOW, NOSIG, MORE, OOB, ERRQ = (
    socket.MSG_PEEK,
    socket.MSG_TRUNC,
    socket.MSG_WAITALL,
    socket.MSG_DONTWAIT,
    socket.MSG_NOSIGNAL,
    socket.MSG_MORE,
    socket.MSG_OOB,
    socket.MSG_ERRQUEUE,
)


def arrive(s: socket.socket, n: int) -> None:
    """Until n bytes are there for reading."""
    until = time.monotonic() + 5
    while c.ioctl(s, c.FIONREAD) != n and time.monotonic() < until:
        time.sleep(0.0005)


def natively(s: socket.socket, data: bytes) -> None:
    """By the kernel's stream, whatever is lifted: with control data."""
    s.sendmsg([data], [(socket.SOL_SOCKET, 37, b"\0\0\0\0")])


@scene()
def peek_and_wait_for_all(stage: Stage) -> None:
    a, b = stage.ends()
    c.send(a, b"12345")
    waiter = stage.thread(lambda: c.recv(b, 8, PEEK | ALL)).asleep()
    stage.say("waits for more", waiter.waits())
    c.send(a, b"678")
    stage.say("peeked", waiter.result())
    stage.say("and again", c.recv(b, 8, PEEK | ALL))
    stage.say("not waiting", c.recv(b, 20, PEEK | ALL | NOW))
    stage.say("all of it", c.recv(b, 8, ALL))
    c.send(a, b"ab")
    a.shutdown(socket.SHUT_WR)
    stage.say("up to the end", c.recv(b, 8, PEEK | ALL))
    stage.say("received", c.recv(b, 8, ALL))


@scene()
def peek_over_many_sends(stage: Stage) -> None:
    a, b = stage.ends()
    for i in range(5):
        c.send(a, bytes([65 + i]) * 10)
    arrive(b, 50)
    stage.say("more than the first", c.recv(b, 35, PEEK))
    stage.say("everything", c.recv(b, 100, PEEK))
    stage.say("in parts", c.recvmsg(b, (7, 13, 40), PEEK))
    stage.say("receives 15", c.recv(b, 15))
    stage.say("from the middle of one", c.recv(b, 100, PEEK))
    stage.say("the rest", c.recv(b, 100))


@scene()
def peek_where_ring_and_kernel_meet(stage: Stage) -> None:
    """Bytes that came by the kernel's stream between others."""
    a, b = stage.ends()
    c.send(a, b"first ")
    natively(a, b"second ")
    c.send(a, b"third")
    arrive(b, 18)
    stage.say("everything", c.recv(b, 100, PEEK))
    stage.say("not waiting", c.recv(b, 100, PEEK | NOW))
    stage.say("all", c.recv(b, 18, PEEK | ALL))
    stage.say("in order", c.recv(b, 18, ALL))


@scene()
def truncate(stage: Stage) -> None:
    """MSG_TRUNC throws bytes of a stream away."""
    a, b = stage.ends()
    for part in (b"0123456789", b"abcdefghij"):
        c.send(a, part)
    arrive(b, 20)
    stage.say("peek and trunc", c.recv_n(b, 15, PEEK | TRUNC))
    stage.say("of nowhere", c.call("recv", b, None, c.size(4), TRUNC))
    stage.say("in parts", c.recv_n(b, 9, TRUNC))
    stage.say("rest", c.recv(b, 100))
    waiter = stage.thread(lambda: c.recv_n(b, 6, TRUNC | ALL)).asleep()
    c.send(a, b"xyz")
    c.send(a, b"uvw")
    stage.say("waits for all", waiter.result())
    stage.say("nothing", c.recv_n(b, 6, TRUNC | NOW))
    big = c.buffers((3, 3))
    c.send(a, b"parted")
    arrive(b, 6)
    stage.say("message of two parts", c.call("recvmsg", b, c.ctypes.byref(c.header(c.vector(big), 2)), TRUNC))
    stage.say("nothing is left", c.recv_n(b, 6, NOW))


@scene()
def nothing_to_receive(stage: Stage) -> None:
    """Each flag on an empty stream, not waiting."""
    _a, b = stage.ends()
    for name, flags in (
        ("", 0),
        ("peek", PEEK),
        ("all", ALL),
        ("trunc", TRUNC),
        ("peek all", PEEK | ALL),
        ("errqueue", ERRQ),
        ("oob", OOB),
    ):
        stage.say(name, c.recv(b, 10, flags | NOW))
        stage.say(f"{name}, none wanted", c.recv(b, 0, flags | NOW))
    stage.say("error queue, waiting", c.recv(b, 10, ERRQ))
    stage.say("urgent, waiting", c.recv(b, 10, OOB))


@scene()
def message_flags(stage: Stage) -> None:
    """What recvmsg says beside the bytes."""
    a, b = stage.ends()
    for flags in (0, PEEK, NOW, ALL, PEEK | TRUNC, 0x40000000):
        c.send(a, b"12345678")
        arrive(b, 8)
        stage.say(f"flags {flags:#x}", c.recvmsg(b, (4, 4), flags, 64))
        b.recv(100, NOW) if flags & PEEK else None
    stage.say("at the end", (a.shutdown(socket.SHUT_WR), c.recvmsg(b, (4,), 0, 64)))


@scene()
def more_to_come(stage: Stage) -> None:
    """MSG_MORE and what is not marked: all arrives, in order."""
    a, b = stage.ends()
    for flags in (MORE, MORE, 0):
        stage.say("sent", c.send(a, b"abc", flags))
    stage.say("received", c.recv(b, 9, ALL))
    c.send(a, b"tail", MORE)
    a.shutdown(socket.SHUT_WR)
    stage.say("up to the end", (c.recv(b, 4, ALL), c.recv(b, 4)))


@scene()
def unusual_send_flags(stage: Stage) -> None:
    a, b = stage.ends()
    for name, flag in (
        ("eor", socket.MSG_EOR),
        ("confirm", socket.MSG_CONFIRM),
        ("dontroute", socket.MSG_DONTROUTE),
        ("fastopen", 0x20000000),
    ):
        stage.say(name, c.send(a, name.encode(), flag | NOSIG))
    stage.say("received", c.recv(b, 100, NOW) if c.poll(b, POLLIN, 1000) else "nothing")
    stage.say("peek is not for sending", c.send(a, b"p", PEEK))
    stage.say("nor waitall", c.send(a, b"w", ALL))
    stage.say("in order", c.recv(b, 2, ALL))


@scene()
def low_water(stage: Stage) -> None:
    """SO_RCVLOWAT, for receives and for each kind of wait."""
    a, b = stage.ends()
    c.put(b, socket.SOL_SOCKET, socket.SO_RCVLOWAT, 20)
    ready = epoll()
    ready.register(b, EPOLLIN)
    c.send(a, b"x" * 10)
    arrive(b, 10)
    stage.say("poll with 10 of 20", c.poll(b, POLLIN, 20))
    stage.say("epoll with 10 of 20", len(ready.poll(0.02)))
    stage.say("select with 10 of 20", len(select.select([b], [], [], 0.02)[0]))
    stage.say("receive what there is, not waiting", c.recv_n(b, 4, NOW))
    waiter = stage.thread(lambda: c.recv_n(b, 100)).asleep()
    stage.say("a receive waits", waiter.waits())
    c.send(a, b"x" * 4)
    stage.say("still", waiter.waits())
    c.send(a, b"x" * 20)
    stage.say("until 20", waiter.result())
    c.send(a, b"y" * 19)
    arrive(b, 19)
    stage.say("poll with 19", c.poll(b, POLLIN, 20))
    c.send(a, b"y")
    stage.say("poll with 20", c.poll(b, POLLIN, 1000))
    stage.say("epoll with 20", len(ready.poll(1)))
    stage.say("a small receive does not wait", c.recv_n(b, 7))
    c.put(b, socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
    stage.say("lowered to 1", c.poll(b, POLLIN, 1000))
    a.shutdown(socket.SHUT_WR)
    c.put(b, socket.SOL_SOCKET, socket.SO_RCVLOWAT, 50)
    stage.say("the end is enough", c.poll(b, POLLIN, 1000))
    stage.say("received", (c.recv_n(b, 100), c.recv_n(b, 100)))
    stage.say("said", c.get(b, socket.SOL_SOCKET, socket.SO_RCVLOWAT))


@scene()
def low_water_above_unread(stage: Stage) -> None:
    """Set while some bytes are unread."""
    a, b = stage.ends()
    c.send(a, b"x" * 10)
    arrive(b, 10)
    c.put(b, socket.SOL_SOCKET, socket.SO_RCVLOWAT, 20)
    stage.say("poll with 10 of 20", c.poll(b, POLLIN, 20))
    stage.say("received", c.recv_n(b, 100, NOW))
    c.send(a, b"x" * 10)
    arrive(b, 10)
    stage.say("poll with 10 of 20 again", c.poll(b, POLLIN, 20))
