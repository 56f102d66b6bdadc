"""Which error comes first, when several things are wrong at once; and that bytes stay where they were."""

from __future__ import annotations

import ctypes
import socket

from compat.sockets import calls as c
from compat.sockets.flags import arrive
from compat.sockets.stage import Stage, scene

NOW, NOSIG = socket.MSG_DONTWAIT, socket.MSG_NOSIGNAL
N = c.size(10)


def sends(stage: Stage, label: str, s: object) -> None:
    """All ways to send, good and bad."""
    good = c.header(c.vector(c.buffers([4])), 1)
    bad_array = c.Msghdr(iov=c.NOWHERE, iovlen=1)
    address = c.inet(9)
    stage.say(f"{label}: send", c.send(s, b"data", NOSIG))
    stage.say(f"{label}: of nothing", c.send(s, b"", NOSIG))
    stage.say(f"{label}: from nowhere", c.call("send", s, c.NOWHERE, N, NOSIG))
    stage.say(f"{label}: nothing from nowhere", c.call("send", s, c.NOWHERE, c.size(0), NOSIG))
    stage.say(f"{label}: to an address", c.call("sendto", s, b"data", c.size(4), NOSIG, address, ctypes.c_uint(16)))
    stage.say(f"{label}: to nowhere", c.call("sendto", s, b"data", c.size(4), NOSIG, c.NOWHERE, ctypes.c_uint(16)))
    stage.say(f"{label}: to a long address", c.call("sendto", s, b"data", c.size(4), NOSIG, address, ctypes.c_uint(300)))
    stage.say(f"{label}: message", c.call("sendmsg", s, ctypes.byref(good), NOSIG))
    stage.say(f"{label}: message nowhere", c.call("sendmsg", s, c.NOWHERE, NOSIG))
    stage.say(f"{label}: array nowhere", c.call("sendmsg", s, ctypes.byref(bad_array), NOSIG))
    named = c.header(c.vector(c.buffers([4])), 1)
    named.name, named.namelen = c.NOWHERE, 16
    stage.say(f"{label}: name nowhere", c.call("sendmsg", s, ctypes.byref(named), NOSIG))
    control = c.header(c.vector(c.buffers([4])), 1)
    control.control, control.controllen = c.NOWHERE, 32
    stage.say(f"{label}: control nowhere", c.call("sendmsg", s, ctypes.byref(control), NOSIG))
    stage.say(f"{label}: urgent", c.send(s, b"", socket.MSG_OOB | NOSIG))


def receives(stage: Stage, label: str, s: object) -> None:
    address, length = ctypes.create_string_buffer(16), ctypes.c_uint(16)
    room = ctypes.create_string_buffer(16)
    stage.say(f"{label}: recv", c.recv(s, 4, NOW))
    stage.say(f"{label}: of nothing", c.recv(s, 0, NOW))
    stage.say(f"{label}: into nowhere", c.call("recv", s, c.NOWHERE, N, NOW))
    stage.say(f"{label}: message nowhere", c.call("recvmsg", s, c.NOWHERE, NOW))
    stage.say(f"{label}: array nowhere", c.call("recvmsg", s, ctypes.byref(c.Msghdr(iov=c.NOWHERE, iovlen=1)), NOW))
    stage.say(f"{label}: from", (c.call("recvfrom", s, room, c.size(2), NOW, address, ctypes.byref(length)), length.value))
    stage.say(f"{label}: length nowhere", c.call("recvfrom", s, room, c.size(2), NOW, address, c.NOWHERE))
    stage.say(f"{label}: address nowhere", c.call("recvfrom", s, room, c.size(2), NOW, c.NOWHERE, ctypes.byref(length)))
    stage.say(f"{label}: urgent", c.recv(s, 1, socket.MSG_OOB | NOW))
    stage.say(f"{label}: error queue", c.recv(s, 1, socket.MSG_ERRQUEUE | NOW))


@scene()
def connected(stage: Stage) -> None:
    a, b = stage.ends()
    sends(stage, "connected", a)
    got = c.recv(b, 1000, NOW)
    stage.say("in all", len(got) if isinstance(got, bytes) else got)
    c.recv(b, 1000, NOW)
    c.send(a, b"0123456789abcdefghij")
    arrive(b, 20)
    receives(stage, "with bytes", b)
    stage.say("left", c.recv(b, 100, NOW))
    receives(stage, "without", b)


@scene()
def shut(stage: Stage) -> None:
    a, b = stage.ends()
    a.shutdown(socket.SHUT_WR)
    sends(stage, "shut for sending", a)
    receives(stage, "at the end", b)
    b.shutdown(socket.SHUT_RD)
    receives(stage, "shut for reading", b)
    stage.say("shutdown of what", (c.call("shutdown", a, 3), c.call("shutdown", a, -1)))


@scene()
def reset(stage: Stage) -> None:
    a, b = stage.ends()
    a.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, c.struct.pack("ii", 1, 0))
    a.close()
    stage.say("send of nothing", c.send(b, b"", NOSIG))
    sends(stage, "reset", b)
    receives(stage, "reset", b)


@scene(lifts=False)
def not_connected(stage: Stage) -> None:
    for name, s in (("new", socket.socket()), ("listening", stage.listener())):
        sends(stage, name, s)
        receives(stage, name, s)
        stage.say(f"{name}: shutdown", c.call("shutdown", s, socket.SHUT_RDWR) if name == "new" else "-")
        stage.say(f"{name}: unread", (c.ioctl(s, c.FIONREAD), c.ioctl(s, c.SIOCOUTQ), c.ioctl(s, c.SIOCATMARK)))


@scene(lifts=False)
def no_descriptor(stage: Stage) -> None:
    for fd in (-1, 9999, 1 << 30):
        sends(stage, str(fd), fd)
        receives(stage, str(fd), fd)
        stage.say(
            f"{fd}: rest", [c.call(name, fd) for name in ("close", "dup")] + [c.call("shutdown", fd, 1), c.poll(fd, 1), c.get(fd, 1, 2)]
        )


@scene()
def writes_beyond(stage: Stage) -> None:
    """A buffer that ends in nowhere: what is before it arrives, or nothing."""
    a, b = stage.ends()
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    page = libc.mmap(None, c.size(8192), 3, 0x22, -1, ctypes.c_long(0))
    libc.mprotect(ctypes.c_void_p(page + 4096), c.size(4096), 0)
    stage.say("send", c.call("send", a, ctypes.c_void_p(page + 4096), N, NOSIG))
    c.send(a, b"x" * 30)
    arrive(b, 30)
    stage.say("recv", c.call("recv", b, ctypes.c_void_p(page + 4096), N, NOW))
    stage.say(
        "recv into a read-only one",
        (libc.mprotect(ctypes.c_void_p(page), c.size(4096), 1), c.call("recv", b, ctypes.c_void_p(page), N, NOW)),
    )
    stage.say("all is there", len(c.recv(b, 100, NOW)))
