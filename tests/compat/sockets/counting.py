"""What is asked of a connection beside its bytes: counts, names, TCP_INFO, v4 in v6."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import time
from select import POLLIN, POLLOUT

from compat.sockets import calls as c
from compat.sockets.stage import Stage, scene


def acknowledged(s: socket.socket) -> None:
    """Until the kernel's send queue is empty: acknowledgements may be delayed."""
    until = time.monotonic() + 2
    while c.ioctl(s, c.SIOCOUTQ) != 0 and time.monotonic() < until:
        time.sleep(0.001)


@scene()
def unread(stage: Stage) -> None:
    a, b = stage.ends()
    acknowledged(a)
    stage.say("none", (c.ioctl(b, c.FIONREAD), c.ioctl(a, c.SIOCOUTQ)))
    for n in (1, 7, 5000):
        c.send(a, b"u" * n)
        acknowledged(a)
        stage.say(f"{n} more", (c.ioctl(b, c.FIONREAD), c.ioctl(a, c.SIOCOUTQ)))
    stage.say("after a part", (c.recv_n(b, 3), c.ioctl(b, c.FIONREAD)))
    stage.say("after a peek", (c.recv_n(b, 9, socket.MSG_PEEK), c.ioctl(b, c.FIONREAD)))
    stage.say("nowhere", c.call("ioctl", b, c.ctypes.c_ulong(c.FIONREAD), c.NOWHERE))
    a.shutdown(socket.SHUT_WR)
    stage.say("the end counts nothing", (c.ioctl(b, c.FIONREAD), c.ioctl(a, c.FIONREAD)))
    stage.say("all", c.recv_n(b, 10000, socket.MSG_WAITALL))
    stage.say("none", (c.ioctl(b, c.FIONREAD), c.recv(b, 1)))
    stage.say("at the end", (c.ioctl(b, c.FIONREAD), c.ioctl(b, c.SIOCOUTQ)))


INFO = struct.Struct("8B24I")


def info(s: socket.socket) -> tuple[int, ...]:
    raw = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return INFO.unpack_from(raw)


@scene()
def tcp_info(stage: Stage) -> None:
    """States and what does not depend on the stream; times since the last data are sensible."""
    a, b = stage.ends()
    c.send(a, b"1")
    c.recv(b, 1)
    for name, s in (("client", a), ("server", b)):
        said = info(s)
        stage.say(f"{name}: state", said[0])
        stage.say(f"{name}: retransmits, probes, backoff", said[2:5])
        stage.say(f"{name}: mss", said[10] > 500)
        stage.say(f"{name}: unacknowledged, lost", (said[13], said[15]))
        stage.say(f"{name}: length", len(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 512)) > 100)
        stage.say(f"{name}: a part", len(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 20)))
    a.shutdown(socket.SHUT_WR)
    stage.say("end", c.recv(b, 1))
    until = time.monotonic() + 5
    while c.state_of(a) == 4 and time.monotonic() < until:  # FIN_WAIT1: the answer to its FIN is under way
        time.sleep(0.001)
    stage.say("states", (c.state_of(a), c.state_of(b)))
    b.shutdown(socket.SHUT_WR)
    c.recv(a, 1)
    stage.say("states", (c.state_of(a) in (6, 7), c.state_of(b)))


@scene()
def names(stage: Stage) -> None:
    a, b = stage.ends()
    stage.say("each other's", (a.getsockname() == b.getpeername(), b.getsockname() == a.getpeername()))
    raw = c.ctypes.create_string_buffer(b"\xff" * 16, 16)
    length = c.ctypes.c_uint(4)
    stage.say("cut short", (c.call("getsockname", a, raw, c.ctypes.byref(length)), length.value, raw.raw[:8].hex()[:4], raw.raw[4:8]))
    stage.say("nowhere", (c.call("getsockname", a, c.NOWHERE, c.ctypes.byref(c.ctypes.c_uint(16))), c.call("getpeername", a, raw, None)))
    for name in ("SO_TYPE", "SO_PROTOCOL", "SO_DOMAIN", "SO_ACCEPTCONN", "SO_ERROR"):
        stage.say(name, (c.get(a, socket.SOL_SOCKET, getattr(socket, name)), c.get(b, socket.SOL_SOCKET, getattr(socket, name))))


@scene()
def mapped(stage: Stage) -> None:
    """An IPv6 listener of all addresses, a client of IPv4: ::ffff:a.b.c.d."""
    listener = socket.socket(socket.AF_INET6)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(("::", 0))
    listener.listen()
    a = socket.socket()
    a.connect(("127.0.0.1", listener.getsockname()[1]))
    b, _ = listener.accept()
    if stage.lifted:
        stage.warm(a, b)
    stage.say("names", (b.getpeername()[0], b.getsockname()[0], a.getpeername()[0]))
    stage.say("there and back", (c.send(a, b"four"), c.recv(b, 10), c.send(b, b"six"), c.recv(a, 10)))
    stage.say("family", b.family.name)
    d = socket.socket(socket.AF_INET6)
    d.connect(("::ffff:127.0.0.1", listener.getsockname()[1]))
    e, _ = listener.accept()
    if stage.lifted:
        stage.warm(d, e)
    stage.say("mapped at both ends", (c.send(d, b"six"), c.recv(e, 10), d.getpeername()[0]))
    only = socket.socket(socket.AF_INET6)
    only.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    stage.say(
        "only six",
        c.connect(
            only,
            struct.pack("=H", socket.AF_INET6)
            + struct.pack(">HI", 9, 0)
            + socket.inet_pton(socket.AF_INET6, "::ffff:127.0.0.1")
            + bytes(4),
        ),
    )


@scene()
def six(stage: Stage) -> None:
    a, b = stage.ends(socket.AF_INET6)
    stage.say("there and back", (c.send(a, b"six"), c.recv(b, 10), c.send(b, b"6"), c.recv(a, 10)))
    stage.say("names", (a.getpeername()[0], b.getpeername()[0]))
    b.close()
    stage.say("end", c.recv(a, 10))


@scene()
def flags_of_the_file(stage: Stage) -> None:
    a, b = stage.ends()
    stage.say("flags", (fcntl.fcntl(a, fcntl.F_GETFL), fcntl.fcntl(a, fcntl.F_GETFD)))
    c.ioctl(a, c.FIONBIO, 1)
    stage.say("not waiting", (fcntl.fcntl(a, fcntl.F_GETFL) & os.O_NONBLOCK != 0, c.recv(a, 1)))
    fcntl.fcntl(a, fcntl.F_SETFL, fcntl.fcntl(a, fcntl.F_GETFL) & ~os.O_NONBLOCK)
    waiter = stage.thread(lambda: c.recv(a, 10)).asleep()
    stage.say("waiting", waiter.waits(0.02))
    c.send(b, b"now")
    stage.say("came", waiter.result())
    stage.say("seek", c.call("lseek", a, c.ctypes.c_long(0), 0))
    stage.say("sync", c.call("fsync", a))
    stage.say("truncate", c.call("ftruncate", a, c.ctypes.c_long(0)))
    stage.say("is a socket", os.fstat(a.fileno()).st_mode & 0o170000 == 0o140000)
    stage.say("no terminal", os.isatty(a.fileno()))
    stage.say("events", c.poll(a, POLLIN | POLLOUT))
    stage.say("strange ioctl", c.call("ioctl", a, c.ctypes.c_ulong(0x1234), None))
