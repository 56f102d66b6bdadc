"""The sockets calls of libc as a C program makes them, so that nothing of Python's own comes between: results are numbers, bytes, or the
name of an errno.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap
import os
import platform
import socket
import struct
from collections.abc import Sequence
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_PTR = ctypes.c_void_p
NOWHERE = _PTR(8)

# not in Python's socket module
SIOCATMARK, SIOCOUTQ, FIONREAD, FIONBIO = 0x8905, 0x5411, 0x541B, 0x5421
MSG_ZEROCOPY = 0x4000000
SYS_CLOSE = {"x86_64": 3, "aarch64": 57, "i686": 6}.get(platform.machine(), 3)

SYS_DUP3 = {"x86_64": 292, "aarch64": 24, "i686": 330}.get(platform.machine(), 292)

Answer = int | str


class Iovec(ctypes.Structure):
    _fields_ = [("base", _PTR), ("len", ctypes.c_size_t)]


class Msghdr(ctypes.Structure):
    _fields_ = [
        ("name", _PTR),
        ("namelen", ctypes.c_uint),
        ("iov", _PTR),
        ("iovlen", ctypes.c_size_t),
        ("control", _PTR),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class Mmsghdr(ctypes.Structure):
    _fields_ = [("hdr", Msghdr), ("len", ctypes.c_uint)]


class Timespec(ctypes.Structure):
    _fields_ = [("sec", ctypes.c_long), ("nsec", ctypes.c_long)]


class Pollfd(ctypes.Structure):
    _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short)]


def name_of(number: int) -> str:
    return errno.errorcode.get(number, str(number))


def call(name: str, *args: Any) -> Answer:
    """A function of libc that returns a number, or -1 and errno."""
    function = getattr(_libc, name)
    function.restype = ctypes.c_ssize_t if name not in ("recvmmsg", "sendmmsg", "setsockopt", "getsockopt", "poll") else ctypes.c_int
    ctypes.set_errno(0)
    r: int = function(*(a.fileno() if hasattr(a, "fileno") else a for a in args))
    if name not in ("recvmmsg", "sendmmsg") and r == 0xFFFFFFFF:  # an int in a register of 64 bits
        r = -1
    return name_of(ctypes.get_errno()) if r == -1 else r


def size(n: int) -> ctypes.c_size_t:
    return ctypes.c_size_t(n)


def send(fd: Any, data: bytes, flags: int = 0) -> Answer:
    return call("send", fd, data, size(len(data)), flags)


def recv(fd: Any, n: int, flags: int = 0) -> bytes | str:
    """What came, or the error."""
    room = ctypes.create_string_buffer(max(n, 1))
    r = call("recv", fd, room, size(n), flags)
    return r if isinstance(r, str) else room.raw[: min(r, n)]


def recv_n(fd: Any, n: int, flags: int = 0) -> Answer:
    """How much came."""
    return call("recv", fd, ctypes.create_string_buffer(max(n, 1)), size(n), flags)


def vector(buffers: Sequence[Any]) -> Any:
    made = (Iovec * max(len(buffers), 1))()
    for place, buffer in zip(made, buffers, strict=False):
        place.base, place.len = ctypes.cast(buffer, _PTR), ctypes.sizeof(buffer)
    return made


def buffers(sizes: Sequence[int]) -> list[Any]:
    return [(ctypes.c_char * n)() for n in sizes]


def header(parts: Any, count: int, control: int = 0) -> Msghdr:
    """The arrays live as long as the header does."""
    room = ctypes.create_string_buffer(max(control, 1))
    made = Msghdr(iov=ctypes.cast(parts, _PTR), iovlen=count, control=ctypes.cast(room, _PTR) if control else None, controllen=control)
    made.kept = (parts, room)
    return made


def recvmsg(fd: Any, sizes: Sequence[int], flags: int = 0, control: int = 0) -> object:
    """(bytes, flags, length of control data) or the error."""
    rooms = buffers(sizes)
    msg = header(vector(rooms), len(sizes), control)
    r = call("recvmsg", fd, ctypes.byref(msg), flags)
    if isinstance(r, str):
        return r
    whole = b"".join(room.raw for room in rooms)
    return (whole[:r] if r < len(whole) else whole, msg.flags, msg.controllen)


def many(sizes: Sequence[int], data: bytes = b"") -> tuple[Any, list[Any]]:
    """An array for recvmmsg or sendmmsg, one part each."""
    rooms = [(ctypes.c_char * n)(*[data[i % len(data) : i % len(data) + 1] for i in range(n)] if data else []) for n in sizes]
    vec = (Mmsghdr * len(sizes))()
    vec.kept = []
    for place, room in zip(vec, rooms, strict=True):
        parts = vector([room])
        vec.kept.append(parts)
        place.hdr.iov, place.hdr.iovlen = ctypes.cast(parts, _PTR), 1
    return vec, rooms


def poll(fd: Any, events: int, ms: int = 0) -> Answer:
    """revents of one descriptor."""
    p = Pollfd(fd.fileno() if hasattr(fd, "fileno") else fd, events)
    r = call("poll", ctypes.byref(p), ctypes.c_ulong(1), ms)
    return r if isinstance(r, str) else p.revents


def get(fd: Any, level: int, name: int) -> Answer:
    """An option that is an int."""
    value, length = ctypes.c_int(), ctypes.c_uint(4)
    r = call("getsockopt", fd, level, name, ctypes.byref(value), ctypes.byref(length))
    return r if isinstance(r, str) else value.value


def put(fd: Any, level: int, name: int, value: int | bytes) -> Answer:
    raw = value if isinstance(value, bytes) else struct.pack("i", value)
    return call("setsockopt", fd, level, name, raw, ctypes.c_uint(len(raw)))


def ioctl(fd: Any, request: int, value: int = 0) -> Answer:
    """The int that an ioctl fills in."""
    number = ctypes.c_int(value)
    r = call("ioctl", fd, ctypes.c_ulong(request), ctypes.byref(number))
    return r if isinstance(r, str) else number.value


def error_of(fd: Any) -> str:
    """SO_ERROR by name, which clears it."""
    r = get(fd, socket.SOL_SOCKET, socket.SO_ERROR)
    return r if isinstance(r, str) else name_of(r) if r else "none"


def connect(fd: Any, address: bytes) -> Answer:
    return call("connect", fd, address, ctypes.c_uint(len(address)))


def inet(port: int, host: str = "127.0.0.1") -> bytes:
    """A sockaddr_in."""
    return struct.pack("=H", socket.AF_INET) + struct.pack(">H", port) + socket.inet_aton(host) + bytes(8)


UNSPEC = bytes(16)


# f(number, a, b, c): the instruction itself, past everything that stands before libc's functions
_INSTRUCTION = {"x86_64": "4889f84889f74889d64889ca0f05c3", "aarch64": "e80300aae00301aae10302aae20303aa010000d4c0035fd6"}


@functools.cache
def _instruction() -> Any:
    memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(bytes.fromhex(_INSTRUCTION[platform.machine()]))
    at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    made = ctypes.CFUNCTYPE(*[ctypes.c_long] * 5)(at)
    made.memory = memory  # type: ignore[attr-defined]
    return made


def _unseen(number: int, *args: int) -> Answer:
    r = int(_instruction()(number, *args, *[0] * (3 - len(args))))
    return name_of(-r) if r < 0 else r


def raw_close(fd: int) -> Answer:
    """By the system call, unseen by whoever stands before libc's close and syscall."""
    return _unseen(SYS_CLOSE, fd)


def raw_dup(fd: int, to: int) -> int:
    """dup3(2) so."""
    r = _unseen(SYS_DUP3, fd, to, 0)
    assert isinstance(r, int), r
    return r


def peer_of(s: socket.socket) -> str:
    try:
        return "a peer" if s.getpeername()[1] else "no port"
    except OSError as error:
        return name_of(error.errno or 0)


def state_of(s: socket.socket) -> int:
    """TCP_INFO's tcpi_state."""
    return s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[0]


def pid_text() -> str:
    return str(os.getpid())
