"""Arrays of buffers and of messages: their limits, calls of no length, partial results, time-outs."""

from __future__ import annotations

import ctypes
import socket
import time

from compat.sockets import calls as c
from compat.sockets.flags import arrive
from compat.sockets.stage import Stage, scene

NOW, NOSIG = socket.MSG_DONTWAIT, socket.MSG_NOSIGNAL
IOV_MAX = 1024
HUGE = (1 << 63) + 5


def both(stage: Stage, label: str, fd: socket.socket, vector: object, count: int, names: tuple[str, str]) -> None:
    """A plain call and the message call with the same array."""
    plain, message = names
    stage.say(f"{plain} {label}", c.call(plain, fd, vector, count))
    head = c.Msghdr(iov=ctypes.cast(vector, ctypes.c_void_p) if vector else None, iovlen=count if count >= 0 else (1 << 64) + count)
    stage.say(f"{message} {label}", c.call(message, fd, ctypes.byref(head), NOW | NOSIG))


@scene()
def limits_of_arrays(stage: Stage) -> None:
    a, b = stage.ends()
    one = c.vector(c.buffers([1] * IOV_MAX))
    more = c.vector(c.buffers([1] * (IOV_MAX + 1)))
    for fd, names in ((a, ("writev", "sendmsg")), (b, ("readv", "recvmsg"))):
        both(stage, f"of {IOV_MAX}", fd, one, IOV_MAX, names)
        if fd is a:
            arrive(b, 2 * IOV_MAX)
        both(stage, f"of {IOV_MAX + 1}", fd, more, IOV_MAX + 1, names)
        both(stage, "of -1", fd, one, -1, names)
        both(stage, "of none", fd, one, 0, names)
        both(stage, "of none, nowhere", fd, None, 0, names)
        both(stage, "nowhere", fd, c.NOWHERE, 2, names)
        both(stage, f"nowhere of {IOV_MAX + 1}", fd, c.NOWHERE, IOV_MAX + 1, names)
    stage.say("nothing is left", c.recv(b, 10, NOW))


@scene()
def lengths_too_large(stage: Stage) -> None:
    """Negative as signed numbers, each and in sum."""
    a, b = stage.ends()
    c.send(a, b"12345")
    arrive(b, 5)
    for name, lengths in (("negative", (HUGE,)), ("second negative", (2, HUGE)), ("too large in sum", (1 << 62, 1 << 62))):
        rooms = c.buffers([8, 8])
        for fd, names in ((a, ("writev", "sendmsg")), (b, ("readv", "recvmsg"))):
            wrong = c.vector(rooms)
            for place, length in zip(wrong, lengths, strict=False):
                place.len = length
            if name != "too large in sum" or fd is b:
                both(stage, name, fd, wrong, len(lengths), names)
    stage.say("left", c.recv(b, 10, NOW))


@scene()
def empty_parts(stage: Stage) -> None:
    a, b = stage.ends()
    parts = c.buffers([0, 3, 0, 0, 4, 0])
    parts[1][:], parts[4][:] = b"abc", b"defg"
    stage.say("writev", c.call("writev", a, c.vector(parts), 6))
    into = c.buffers([0, 2, 0, 5, 0])
    arrive(b, 7)
    stage.say("readv", (c.call("readv", b, c.vector(into), 5), into[1].raw, into[3].raw))
    empty = c.vector(c.buffers([0, 0]))
    stage.say("writev of nothing", c.call("writev", a, empty, 2))
    stage.say("readv of nothing", c.call("readv", b, empty, 2))
    stage.say("send of nothing", (c.send(a, b""), c.call("write", a, b"", c.size(0)), c.send(a, b"", NOW)))
    stage.say("read of nothing", c.call("read", b, None, c.size(0)))
    stage.say("still open", c.recv(b, 1, NOW))


@scene()
def zero_length_at_the_end(stage: Stage) -> None:
    a, b = stage.ends()
    c.send(a, b"x")
    a.close()
    stage.say("none of it", (c.recv(b, 0), c.call("read", b, None, c.size(0))))
    stage.say("it", c.recv(b, 5))
    stage.say("none of the end", (c.recv(b, 0), c.recv(b, 5)))
    b.shutdown(socket.SHUT_WR)
    stage.say("send of nothing", c.send(b, b"", NOSIG))


@scene()
def many_sent(stage: Stage) -> None:
    """sendmmsg: how many, how long each, and where it stops."""
    a, b = stage.ends()
    vec, _ = c.many((3, 0, 5, 1), b"abcdef")
    stage.say("all", (c.call("sendmmsg", a, vec, 4, NOSIG), [m.len for m in vec]))
    stage.say("arrive", c.recv(b, 9, socket.MSG_WAITALL))
    stage.say("none", c.call("sendmmsg", a, vec, 0, 0))
    stage.say("nowhere", c.call("sendmmsg", a, c.NOWHERE, 2, 0))
    vec[2].hdr.iov = ctypes.cast(c.NOWHERE, ctypes.c_void_p)
    stage.say("the third is bad", (c.call("sendmmsg", a, vec, 4, NOSIG), [m.len for m in vec]))
    stage.say("arrive", c.recv(b, 3, socket.MSG_WAITALL))
    vec[0].hdr.iov = ctypes.cast(c.NOWHERE, ctypes.c_void_p)
    stage.say("the first is bad", c.call("sendmmsg", a, vec, 4, NOSIG))
    lot, _ = c.many([1] * 1030, b"z")
    stage.say("more than IOV_MAX", c.call("sendmmsg", a, lot, 1030, NOSIG))
    stage.say("arrive", len(c.recv(b, 1024, socket.MSG_WAITALL)))
    good, _ = c.many((2, 2), b"qq")
    a.shutdown(socket.SHUT_WR)
    stage.say("after shutdown", c.call("sendmmsg", a, good, 2, NOSIG))


@scene()
def many_received(stage: Stage) -> None:
    """recvmmsg on a stream: partial results, the end, errors."""
    a, b = stage.ends()
    vec, rooms = c.many((4, 4, 4))
    c.send(a, b"abcdefghij")
    arrive(b, 10)
    stage.say("ten into twelve", (c.call("recvmmsg", b, vec, 3, NOW, None), [m.len for m in vec], [r.raw for r in rooms]))
    stage.say("nothing", c.call("recvmmsg", b, vec, 3, NOW, None))
    c.send(a, b"abcdef")
    arrive(b, 6)
    stage.say(
        "the first waits only",
        (c.call("recvmmsg", b, vec, 3, socket.MSG_WAITFORONE if hasattr(socket, "MSG_WAITFORONE") else 0x10000, None)),
    )
    stage.say("none", c.call("recvmmsg", b, vec, 0, NOW, None))
    c.send(a, b"abcdef")
    arrive(b, 6)
    vec[1].hdr.iov = ctypes.cast(c.NOWHERE, ctypes.c_void_p)
    stage.say("the second is bad", c.call("recvmmsg", b, vec, 3, NOW, None))
    stage.say("the rest", c.recv(b, 10, NOW))
    stage.say("the error was kept for later", c.recv(b, 10, NOW))
    stage.say("and is told once", c.recv(b, 10, NOW))
    a.shutdown(socket.SHUT_WR)
    fine, _ = c.many((4, 4, 4))
    arrive(b, 0)
    stage.say("the end", (c.call("recvmmsg", b, fine, 3, 0, None), [m.len for m in fine]))


@scene()
def many_into_nowhere(stage: Stage) -> None:
    """The lengths cannot be written: EFAULT, nothing crashes."""
    a, b = stage.ends()
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    page = libc.mmap(None, c.size(8192), 3, 0x22, -1, ctypes.c_long(0))
    vec, _ = c.many((4,))
    at = page + 4096 - ctypes.sizeof(c.Mmsghdr)
    ctypes.memmove(at, vec, ctypes.sizeof(c.Mmsghdr))
    libc.mprotect(ctypes.c_void_p(page), c.size(4096), 1)
    c.send(a, b"12345678")
    arrive(b, 8)
    stage.say("recvmmsg", c.call("recvmmsg", b, ctypes.c_void_p(at), 1, NOW, None))
    stage.say("sendmmsg", c.call("sendmmsg", a, ctypes.c_void_p(at), 1, NOW))
    stage.say("array nowhere", c.call("recvmmsg", b, c.NOWHERE, 2, NOW, None))
    stage.say("time-out nowhere", c.call("recvmmsg", b, vec, 1, NOW, c.NOWHERE))
    stage.say("a bad time-out", c.call("recvmmsg", b, vec, 1, NOW, ctypes.byref(c.Timespec(0, 2000000000))))


@scene()
def many_in_time(stage: Stage) -> None:
    """recvmmsg's time-out is looked at after each message."""
    a, b = stage.ends()
    vec, _ = c.many((4, 4, 4))
    c.send(a, b"12345678abcd")
    arrive(b, 12)
    none = c.Timespec(0, 0)
    stage.say("no time: one message", (c.call("recvmmsg", b, vec, 3, 0, ctypes.byref(none)), none.sec, none.nsec))
    long = c.Timespec(100, 0)
    stage.say("time enough", c.call("recvmmsg", b, vec, 2, 0, ctypes.byref(long)))
    stage.say("what is left of it", 98 < long.sec < 100)
    short = c.Timespec(0, 30_000_000)
    c.send(a, b"1234")
    waiter = stage.thread(lambda: c.call("recvmmsg", b, vec, 2, 0, ctypes.byref(short))).asleep()
    time.sleep(0.06)
    c.send(a, b"5678")
    stage.say("found when the next message comes", waiter.result())


@scene()
def pieces_and_waitall(stage: Stage) -> None:
    a, b = stage.ends()
    rooms = c.buffers([5, 5, 5])
    head = c.header(c.vector(rooms), 3)
    waiter = stage.thread(lambda: c.call("recvmsg", b, ctypes.byref(head), socket.MSG_WAITALL)).asleep()
    for part in (b"12", b"3456789", b"abcdef"):
        c.send(a, part)
        time.sleep(0.005)
    stage.say("all", (waiter.result(), [r.raw for r in rooms]))
    stage.say("flags", head.flags)
