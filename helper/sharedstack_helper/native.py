"""The native core, by ctypes: what needs atomic operations on shared memory is done there.

All functions run in the main thread, because the helper's slot is witnessed by the thread that claimed it.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
from collections.abc import Callable
from typing import Any, Protocol

from sharedstack import paths

from .environment import HelperError


class Mapped(Protocol):
    """Where a stack and its arena are mapped."""

    @property
    def stack_address(self) -> int:
        """Address of the stack segment."""

    @property
    def arena_address(self) -> int:
        """Address of the arena segment."""


class Native:
    """The functions `shs_native_*` on one pair of mapped segments; errors are raised as OSError.

    BlockingIOError is never raised for a lock held by the living: `reap` and `endpoint_gone` return None there.
    """

    def __init__(self, segments: Mapped) -> None:
        library = _load()
        self._stack = ctypes.c_void_p(segments.stack_address)
        self._arena = ctypes.c_void_p(segments.arena_address)
        u32, u64, address = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p
        self._claim = _function(library, "claim", ctypes.c_int, address, u32, u32)
        self._release = _function(library, "release", None, address, u32)
        self._slot_alive = _function(library, "slot_alive", ctypes.c_int, address, u32)
        self._reap = _function(library, "reap", ctypes.c_int, address, address, u32)
        self._settle = _function(library, "settle", None, address)
        self._lower_all = _function(library, "lower_all", ctypes.c_int, address, address)
        self._lower = _function(library, "lower", None, address, address, u32, ctypes.POINTER(u64), ctypes.POINTER(u32))
        self._cool = _function(library, "cool", ctypes.c_int, address, address, u32)
        self._search = _function(library, "search", None, address)
        self._probe = _function(library, "probe", ctypes.c_int, address, u32, u64)
        self._sole = _function(library, "sole", ctypes.c_int, address, address, u32, u64, u32)
        self._unread = _function(library, "unread", ctypes.c_int, address, address, u32, u64)
        self._endpoint_gone = _function(library, "endpoint_gone", ctypes.c_int, address, address, u32, u64, u32)

    def claim(self, pid: int, flags: int) -> int:
        """Claim a slot for this process, witnessed by the calling thread; returns its index."""
        return _checked(self._claim(self._stack, pid, flags), "claim a participant slot")

    def release(self, slot: int) -> None:
        """Give back a slot that this thread claimed."""
        self._release(self._stack, slot)

    def cool(self, patience: int) -> int:
        """Give back the memory of rings that carried nothing since the last call, and pairs that were cold for more than `patience` calls.

        Returns how many pairs are worth another call.
        """
        return int(self._cool(self._stack, self._arena, patience))

    def slot_alive(self, slot: int) -> bool:
        """False once the kernel has marked the slot's home thread as ended (and nobody vouches for the process)."""
        return bool(self._slot_alive(self._stack, slot))

    def reap(self, slot: int) -> bool:
        """Release all that a dead participant held; False if a table is locked by the living: try again later."""
        return self._tried(self._reap(self._stack, self._arena, slot), "reap a slot") is not None

    def settle(self) -> None:
        """Put right what participants that died or left may have left uneven: the number of threads that spin."""
        self._settle(self._stack)

    def search(self) -> None:
        """A search for holders begins: before any `probe` of it."""
        self._search(self._stack)

    def probe(self, endpoint: int, cookie: int) -> bool:
        """From now on `sole` sees whether the connection is shared, or lowered; False: it is not that one any more."""
        return int(self._probe(self._stack, endpoint, cookie)) == 0

    def sole(self, endpoint: int, cookie: int, slot: int) -> bool | None:
        """Only one descriptor, of that participant, was found since `probe`. False: it is not so any more; None: try later."""
        result = self._tried(self._sole(self._stack, self._arena, endpoint, cookie, slot), "free a connection of its former holders")
        return None if result is None else bool(result)

    def unread(self, endpoint: int, cookie: int) -> bool:
        """Does the ring hold something for that record's socket?"""
        return bool(self._unread(self._stack, self._arena, endpoint, cookie))

    def endpoint_gone(self, endpoint: int, cookie: int, holders: int) -> bool | None:
        """Free an endpoint record if it still has this cookie and so many holders: was it so? None: a table is locked, try again later."""
        result = self._tried(self._endpoint_gone(self._stack, self._arena, endpoint, cookie, holders), "free an endpoint")
        return None if result is None else bool(result)

    def lower_all(self) -> int:
        """Shut every ring; returns how many were open."""
        return _checked(self._lower_all(self._stack, self._arena), "lower all")

    def lower(self, ends: list[list[int]]) -> list[int]:
        """Shut the rings of records, given by endpoint and cookie; how many each had open, 0 where it is another socket's by now."""
        shut = (ctypes.c_uint32 * len(ends))()
        numbers = (ctypes.c_uint64 * (2 * len(ends)))(*itertools.chain.from_iterable(ends))
        self._lower(self._stack, self._arena, len(ends), numbers, shut)
        return list(shut)

    @staticmethod
    def _tried(result: int, what: str) -> int | None:
        return None if result == -errno.EBUSY else _checked(result, what)


def _load() -> ctypes.CDLL:
    try:
        path = paths.native_library()
        return ctypes.CDLL(str(path))
    except (FileNotFoundError, OSError) as error:
        raise HelperError(f"cannot load the native core: {error}") from error


class WantedXsk(ctypes.Structure):
    """struct shs_xsk_wanted of native/link/xsk.h."""

    _fields_ = tuple((name, ctypes.c_uint32) for name in ("n_frames", "frame_bytes", "ifindex", "queue", "parts", "busy_us"))


def open_xsk(memory: int, wanted: WantedXsk) -> tuple[int, int]:
    """An AF_XDP socket on a queue, with its frames at address `memory`: its descriptor, and QUEUE_* of it.

    Raises HelperError.
    """
    flags = ctypes.c_uint32()
    opener = _function(_load(), "xsk_open", ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    try:
        return _checked(opener(memory, ctypes.byref(wanted), ctypes.byref(flags)), "open"), int(flags.value)
    except OSError as error:
        what = {
            errno.EPERM: "it needs CAP_NET_RAW, and CAP_NET_ADMIN to poll busily",
            errno.EOPNOTSUPP: "packets that take several frames need Linux 6.6: set a smaller MTU (ip link set NAME mtu 1500)",
            errno.ENOPROTOOPT: "busy polling needs Linux 5.11",
            errno.ENOBUFS: "it needs locked memory: raise the limit (ulimit -l)",
            errno.EBUSY: "another program has the queue",
            errno.EAFNOSUPPORT: "the kernel has no AF_XDP (CONFIG_XDP_SOCKETS)",
        }.get(error.errno or 0, "see `dmesg`")
        raise HelperError(
            f"cannot open queue {wanted.queue} of interface {wanted.ifindex}: {os.strerror(error.errno or 0)}; {what}"
        ) from error


def function(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    """`shs_native_<name>`, for whoever has a part of the core of its own to call. Raises HelperError."""
    return _function(_load(), name, result, *arguments)


def _function(library: ctypes.CDLL, name: str, result: type[ctypes.c_int] | None, *arguments: type) -> ctypes._NamedFuncPointer:
    try:
        function = library[f"shs_native_{name}"]
    except AttributeError as error:
        raise HelperError(f"the native core is of another version: {error}; install the package again") from error
    function.restype, function.argtypes = result, arguments
    return function


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise OSError(-result, f"cannot {what}: {os.strerror(-result)}")
    return result
