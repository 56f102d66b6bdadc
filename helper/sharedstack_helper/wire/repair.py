"""TCP_REPAIR as the native core does it (native/repair/repair.h), for a descriptor that the helper holds a copy of."""

from __future__ import annotations

import ctypes
import errno
import os
import socket

from .. import native
from .engine import Image, Taken

_REPAIR, _REPAIR_QUEUE, _QUEUE_SEQ = 19, 20, 21  # TCP_* of linux/tcp.h
_NO_QUEUE, _SEND_QUEUE = 0, 2


class BusyError(Exception):
    """Data is queued, or not acknowledged: try again later."""


class Repair:
    """The functions, found once; errors are OSError."""

    def __init__(self) -> None:
        u32, number, text, address = ctypes.c_uint32, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p
        self._begin = native.function("repair_begin", number, number)
        self._end = native.function("repair_end", number, number, number, text, u32)
        self._read = native.function("repair_read", number, number, address)
        self._write = native.function("repair_write", number, number, address, text, u32, text, u32)

    def begin(self, fd: int) -> int:
        """The kernel leaves the connection alone from now on; returns what `end` is to restore."""
        return _checked(self._begin(fd), "repair a connection")

    def read(self, fd: int) -> Image:
        """What the kernel knows of it. BusyError: not now."""
        image = Image()
        result = self._read(fd, image.address)
        if result == -errno.EAGAIN:
            raise BusyError
        _checked(result, "read a connection")
        return image

    def write(self, fd: int, taken: Taken) -> int:
        """Make the descriptor that connection again; returns how many of the unsent bytes it has, the rest is for `end`."""
        return _checked(
            self._write(fd, taken.image.address, taken.unsent, len(taken.unsent), taken.unread, len(taken.unread)),
            "write a connection",
        )

    def sent(self, fd: int, taken: Taken) -> int:
        """How many of the unsent bytes the descriptor has been given, which another helper had written; it is in repair again."""
        with socket.socket(fileno=os.dup(fd)) as s:
            s.setsockopt(socket.IPPROTO_TCP, _REPAIR, 1)
            s.setsockopt(socket.IPPROTO_TCP, _REPAIR_QUEUE, _SEND_QUEUE)
            at = s.getsockopt(socket.IPPROTO_TCP, _QUEUE_SEQ)
            s.setsockopt(socket.IPPROTO_TCP, _REPAIR_QUEUE, _NO_QUEUE)
        return min((at - int(taken.image.fields["snd_una"])) & 0xFFFFFFFF, len(taken.unsent))

    @staticmethod
    def under_way(fd: int) -> bool:
        """Is it in repair?"""
        with socket.socket(fileno=os.dup(fd)) as s:
            return bool(s.getsockopt(socket.IPPROTO_TCP, _REPAIR))

    def end(self, fd: int, reuse: int, fresh: bytes = b"") -> None:
        """The kernel goes on with it, and sends `fresh` first, whatever room its buffer has."""
        _checked(self._end(fd, reuse, fresh, len(fresh)), "end a repair")


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise OSError(-result, f"cannot {what}: {os.strerror(-result)}")
    return int(result)
