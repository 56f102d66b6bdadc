"""Every option of SOL_SOCKET, IPPROTO_TCP and IPPROTO_IP that there is: set and asked on both kinds of sockets, it says the same; and it
takes effect, or the connection is the kernel's from then on.
"""

from __future__ import annotations

import socket
import struct

from compat.sockets import calls as c
from compat.sockets.flags import arrive
from compat.sockets.stage import Stage, scene

# by number: which values are tried. A connection is made for each.
VALUES: dict[tuple[int, int], tuple[int | bytes, ...]] = {
    (socket.SOL_SOCKET, socket.SO_LINGER): (struct.pack("ii", 1, 5), 1),
    (socket.SOL_SOCKET, socket.SO_RCVTIMEO): (struct.pack("ll", 5, 0), struct.pack("ll", 0, 1000001), 1),
    (socket.SOL_SOCKET, socket.SO_SNDTIMEO): (struct.pack("ll", 5, 0), struct.pack("ll", 0, 1000001), 1),
    (socket.SOL_SOCKET, 66): (struct.pack("qq", 5, 0),),
    (socket.SOL_SOCKET, 67): (struct.pack("qq", 5, 0),),
    (socket.SOL_SOCKET, socket.SO_BINDTODEVICE): (b"lo\0", b"nosuch\0"),
    (socket.SOL_SOCKET, 62): (1, 0),
    (socket.SOL_SOCKET, 26): (b"", 1),
    (socket.SOL_SOCKET, 57): (),
    (socket.IPPROTO_TCP, socket.TCP_CONGESTION): (b"reno", b"nosuch"),
    (socket.IPPROTO_TCP, 31): (b"nosuch",),
    (socket.IPPROTO_TCP, 19): (),
    (socket.IPPROTO_TCP, socket.TCP_CORK): (1, 0, b""),
    (socket.IPPROTO_IP, 7): (b"\0" * 8,),
}
USUAL: tuple[int, ...] = (0, 1, 5, -1)
RANGES = ((socket.SOL_SOCKET, range(1, 84)), (socket.IPPROTO_TCP, range(1, 46)), (socket.IPPROTO_IP, range(1, 52)))
# asked, they say what no two runs say alike: processes, cookies, counts, addresses, times
UNSTEADY = {(1, n) for n in (17, 28, 31, 49, 55, 56, 57, 59, 71, 77)} | {(6, n) for n in (11, 24, 26, 27, 28, 35, 38)} | {(0, 14)}


def asked(s: socket.socket, level: int, name: int) -> object:
    """What getsockopt says, with a length that fits and with one that does not."""
    said = []
    for length in (64, 4, 1, 0):
        room, n = c.ctypes.create_string_buffer(64), c.ctypes.c_uint(length)
        r = c.call("getsockopt", s, level, name, room, c.ctypes.byref(n))
        said.append(r if isinstance(r, str) else room.raw[: n.value].hex() if (level, name) not in UNSTEADY else n.value if length else 0)
    return said


def walk(stage: Stage, which: int) -> None:
    level, numbers = RANGES[which]
    for number in numbers:
        a, b = stage.ends_cheaply()
        values = VALUES.get((level, number), USUAL)
        answers = []
        for value in values:
            answers.append(c.put(a, level, number, value))
        stage.say(f"{level} {number}", answers)
        stage.say(f"{level} {number} asked", asked(a, level, number))
        c.send(a, b"there", socket.MSG_NOSIGNAL)
        came = c.recv(b, 5, socket.MSG_WAITALL) if c.poll(b, 1, 200) else "nothing"
        c.send(b, b"back", socket.MSG_NOSIGNAL)
        back = c.recv(a, 4) if c.poll(a, 1, 200) else "nothing"
        stage.say(f"{level} {number} in use", (came, back))
        a.close()
        b.close()


@scene()
def every_socket_option(stage: Stage) -> None:
    walk(stage, 0)


@scene()
def every_tcp_option(stage: Stage) -> None:
    walk(stage, 1)


@scene()
def every_ip_option(stage: Stage) -> None:
    walk(stage, 2)


@scene()
def odd_arguments(stage: Stage) -> None:
    a, _b = stage.ends()
    for level, name in ((1, socket.SO_RCVBUF), (6, socket.TCP_NODELAY), (1, socket.SO_RCVTIMEO), (1, socket.SO_RCVLOWAT), (1, 37)):
        stage.say("nowhere", c.call("setsockopt", a, level, name, c.NOWHERE, c.ctypes.c_uint(16)))
        stage.say("short", c.call("setsockopt", a, level, name, b"\1", c.ctypes.c_uint(1)))
        stage.say("empty", c.call("setsockopt", a, level, name, None, c.ctypes.c_uint(0)))
        stage.say("negative length", c.call("setsockopt", a, level, name, b"\1\0\0\0", c.ctypes.c_int(-4)))
        stage.say("asked nowhere", c.call("getsockopt", a, level, name, c.NOWHERE, c.ctypes.byref(c.ctypes.c_uint(4))))
    stage.say("level", c.put(a, 77, 1, 1))
    stage.say("no socket", c.put(0, 1, 2, 1))


@scene()
def buffers(stage: Stage) -> None:
    """What is set is said, doubled; and bounds how much is taken."""
    a, b = stage.ends()
    for name in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        for value in (0, 1, 4096, 100000):
            stage.say(f"{name} to {value}", (c.put(a, 1, name, value), c.get(a, 1, name)))
    del b


@scene()
def bounded_by_buffers(stage: Stage) -> None:
    """Small buffers at both ends: a sender is stopped soon."""
    a, b = stage.ends()
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    b.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sent = 0
    while isinstance(r := c.send(a, b"s" * 1000, socket.MSG_DONTWAIT), int):
        sent += r
    stage.say("stopped", r)
    stage.say("soon", sent < 30_000)  # two buffers of 8 KiB, and a ring of no more
    stage.say("events", c.poll(a, 4, 0))
    got = 0
    while got < sent:
        got += len(b.recv(65536))
    stage.say("all came", got == sent)
    stage.say("writable", c.poll(a, 4, 1000))


@scene()
def corked(stage: Stage) -> None:
    """TCP_CORK and no delay: everything arrives when it is taken out; without, at once."""
    a, b = stage.ends()
    a.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    c.send(a, b"one")
    c.send(a, b"two")
    a.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    arrive(b, 6)
    stage.say("received", c.recv(b, 10))
    for name in (
        "TCP_NODELAY",
        "TCP_QUICKACK",
        "TCP_KEEPIDLE",
        "TCP_KEEPINTVL",
        "TCP_KEEPCNT",
        "TCP_USER_TIMEOUT",
        "TCP_MAXSEG",
        "TCP_DEFER_ACCEPT",
        "TCP_SYNCNT",
        "TCP_LINGER2",
        "TCP_WINDOW_CLAMP",
        "TCP_NOTSENT_LOWAT",
    ):
        number = getattr(socket, name)
        stage.say(name, (c.put(a, 6, number, 7), c.get(a, 6, number)))
        stage.say("in use", (c.send(a, b"x"), c.recv(b, 1)))
    stage.say("congestion", (c.put(a, 6, socket.TCP_CONGESTION, b"reno"), a.getsockopt(6, socket.TCP_CONGESTION, 16)))
    stage.say("in use", (c.send(a, b"x" * 5000), len(b.recv(5000, socket.MSG_WAITALL))))


@scene()
def sends_within_a_low_mark(stage: Stage) -> None:
    """TCP_NOTSENT_LOWAT and SO_SNDLOWAT: writable, and not."""
    a, b = stage.ends()
    stage.say("cannot be set", c.put(a, 1, socket.SO_SNDLOWAT, 100))
    a.setsockopt(6, socket.TCP_NOTSENT_LOWAT, 1)
    stage.say("writable", c.poll(a, 4, 0))
    c.send(a, b"x")
    stage.say("received", c.recv(b, 1))
    stage.say("writable", c.poll(a, 4, 100))
