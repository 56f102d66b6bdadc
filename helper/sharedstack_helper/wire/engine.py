"""An engine on a lent interface, as the native core drives it: the area and the queues of its connections, and calls by ctypes.

A thread of the helper's tends it (`Tender`): it does what there is to do where no participant does. Everything else runs in
the main thread.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from sharedstack.declare import binary
from sharedstack.declare.layout import BY_NAME, CONSTANTS

from .. import native, shm
from ..environment import HelperError
from ..nic.interface import Interface
from ..nic.steering import Address, mapped, unmapped

CONNECTIONS = 1024
QUEUE = 1 << 17  # bytes of a queue, of which a connection has two
_MAIN, _TENDER = 2, 4  # lock tags of the helper's two threads; 1 is that of its work on the tables
_STRAYS = 1 << 18
_IMAGE = BY_NAME["tcp_image"]


class Stack(Protocol):
    """Where a stack and its arena are mapped."""

    @property
    def stack_address(self) -> int:
        """Address of the stack segment."""

    @property
    def arena_address(self) -> int:
        """Address of the arena segment."""

    @property
    def bulk(self) -> shm.Shared | None:
        """Where rings are; None: in System V memory."""

    @property
    def bulk_id(self) -> int:
        """Identifier of that."""


class _Parts(ctypes.Structure):
    """struct shs_wire_parts of native/wire/port.h."""

    _fields_ = (
        ("area", ctypes.c_void_p),
        ("queues", ctypes.c_void_p),
        ("nic", ctypes.c_void_p),
        ("frames", ctypes.c_void_p),
        ("area_bytes", ctypes.c_uint64),
        ("queue_bytes", ctypes.c_uint64),
        ("frame_bytes", ctypes.c_uint64),
    )


class _Lowered(ctypes.Structure):
    """struct shs_lowered of native/wire/tend.h."""

    _fields_ = (
        ("image", ctypes.c_uint8 * _IMAGE.size),
        ("n_unsent", ctypes.c_uint32),
        ("n_unread", ctypes.c_uint32),
        ("state", ctypes.c_uint32),
        ("error", ctypes.c_uint32),
    )


class _Moving(ctypes.Structure):
    """What was taken out of the engine last: memory that outlives the helper, of which the keeper has a descriptor."""

    _fields_ = (
        ("cookie", ctypes.c_uint64),
        ("endpoint1", ctypes.c_uint32),
        ("lowered", _Lowered),
        ("unsent", ctypes.c_uint8 * QUEUE),
        ("unread", ctypes.c_uint8 * QUEUE),
    )


class _Seen(ctypes.Structure):
    """struct shs_wire_seen of native/wire/tend.h."""

    _fields_ = (
        ("handle", ctypes.c_uint64),
        ("tx_off", ctypes.c_uint64),
        ("cookie", ctypes.c_uint64),
        ("laddr", ctypes.c_uint8 * 16),
        ("raddr", ctypes.c_uint8 * 16),
        ("lport", ctypes.c_uint16),
        ("rport", ctypes.c_uint16),
        ("state", ctypes.c_uint32),
        ("ep1", ctypes.c_uint32),
    )


class _UdpOpen(ctypes.Structure):
    """struct shs_udp_open of native/engine/engine.h."""

    _fields_ = (
        ("laddr", ctypes.c_uint8 * 16),
        ("raddr", ctypes.c_uint8 * 16),
        ("lport", ctypes.c_uint16),
        ("rport", ctypes.c_uint16),
        ("rx_size", ctypes.c_uint32),
        ("rx_off", ctypes.c_uint64),
        ("cookie", ctypes.c_uint64),
        ("ep1", ctypes.c_uint32),
    )


class Image:
    """struct tcp_image: fields by name."""

    def __init__(self) -> None:
        self.memory = bytearray(_IMAGE.size)
        self.fields = binary.View(_IMAGE, memoryview(self.memory))
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))


@dataclass
class Taken:
    """What was taken out of an engine: its image, bytes not acknowledged or not sent, bytes not read, state and errno."""

    image: Image
    unsent: bytes
    unread: bytes
    state: int
    error: int


@dataclass(frozen=True)
class Figures:
    """Of a lifted connection: bytes that programs sent and received, when a segment was last seen (ns), and its TCP_* state."""

    sent: int
    received: int
    last_ns: int
    state: int


@dataclass(frozen=True)
class Seen:
    """A record of the engine; `place`: of a TCP connection's queues; endpoint (plus one) and cookie: of datagrams."""

    handle: int
    local: tuple[Address, int]
    remote: tuple[Address, int]
    state: int
    place: int
    endpoint1: int
    cookie: int


@dataclass(frozen=True)
class KeptLink:
    """A link that another helper lent: what the keeper knows of it, and its descriptors in the order of `Engine.kept`."""

    name: str
    busy_us: int
    mode: str
    fds: list[int]


class Engine:
    """One engine and its interface, whose driver who waits polls for `busy_us`; or one that another helper had, adopted as it is.

    Raises HelperError where it cannot be had.
    """

    def __init__(self, stack: Stack, interface_name: str, segment: str, busy_us: int, kept: KeptLink | None = None) -> None:
        self._functions = _functions()
        self._adopt(segment, kept) if kept else self._make(interface_name, segment, busy_us)
        os.ftruncate(self._moving_fd, ctypes.sizeof(_Moving))
        self._moving = _Moving.from_buffer(mmap.mmap(self._moving_fd, ctypes.sizeof(_Moving)))
        self._maps = [self.area.map(), self.queues.map(), self.interface.header.map(), self.interface.packets.map()]
        addresses = [ctypes.addressof(ctypes.c_char.from_buffer(m)) for m in self._maps]
        if not kept:
            self._functions["format"](addresses[0], CONNECTIONS, int.from_bytes(os.urandom(8), "little"))
        parts = _Parts(*addresses, self.area.size, self.queues.size, self.interface.packets.size)
        self.tender = ctypes.create_string_buffer(int(self._functions["tender_bytes"]()))
        fds = (ctypes.c_int * len(self.interface.fds))(*self.interface.fds)
        bulk = stack.bulk.fd if stack.bulk else -1
        result = self._functions["attach"](
            self.tender, stack.stack_address, stack.arena_address, ctypes.byref(parts), fds, len(fds), bulk, stack.bulk_id
        )
        if result < 0:
            self.close()
            raise HelperError(f"cannot use interface {interface_name}: {os.strerror(-result)}")
        self._reserved = 0
        self._strays = ctypes.create_string_buffer(_STRAYS)

    def _make(self, interface_name: str, segment: str, busy_us: int) -> None:
        self.interface = Interface(interface_name, segment + "-nic", busy_us)
        self._moving_fd = os.memfd_create("sharedstack.moving", os.MFD_CLOEXEC)
        size = int(self._functions["bytes"](CONNECTIONS))
        for name in ("-area", "-queues"):
            shm.unlink(segment + name)
        try:
            self.area = shm.create(segment + "-area", size)
            self.queues = shm.create(segment + "-queues", 2 * QUEUE * CONNECTIONS)
            self.area.reserve(size)
        except HelperError:
            self.interface.close()
            raise

    def _adopt(self, segment: str, kept: KeptLink) -> None:
        self._moving_fd, area, queues, *fds = kept.fds
        self.interface = Interface.adopted(kept.name, segment + "-nic", kept.busy_us, kept.mode, fds)
        self.area = shm.Shared(segment + "-area", area, os.fstat(area).st_size)
        self.queues = shm.Shared(segment + "-queues", queues, os.fstat(queues).st_size)

    @property
    def kept(self) -> list[int]:
        """Descriptors by which another helper can adopt it."""
        return [self._moving_fd, self.area.fd, self.queues.fd, *self.interface.kept]

    @property
    def fds(self) -> list[int]:
        """What is lent, in the order of message `wire`."""
        return [self.area.fd, self.queues.fd, self.interface.header.fd, self.interface.packets.fd, *self.interface.fds]

    def reserve(self, place: int) -> tuple[int, int]:
        """Offsets of the send and the receive queue of a place, whose memory is there from now on. HelperError where it is used up."""
        if place >= self._reserved:
            self.queues.reserve(2 * QUEUE, 2 * QUEUE * place)
            self._reserved = place + 1
        return 2 * QUEUE * place, 2 * QUEUE * place + QUEUE

    def begin(self, endpoint1: int, word: int) -> int | None:
        """The word by which its participant waits for the end of the lift; None: it has given up."""
        begun = word | CONSTANTS["WIRE_BEGUN"]
        return begun if self._functions["begin"](self.tender, endpoint1, word, begun) == 0 else None

    def open(self, endpoint1: int, image: Image, from_word: int, word: int) -> int:
        """The endpoint's connection is the engine's: 0; or -errno, and nothing was done."""
        return int(self._functions["open"](self.tender, _MAIN, endpoint1, image.address, from_word, word))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Meanwhile nobody else takes packets from the interface: some are of a connection that is on its way."""
        self._functions["hold"](self.tender, _MAIN, 1)
        try:
            yield
        finally:
            self._functions["hold"](self.tender, _MAIN, 0)

    def take(self, endpoint1: int, cookie: int, word: int) -> Taken | None:
        """Take a connection out of the engine, `held`; None where its word is another one by now. To be followed by `finish`."""
        moving = self._moving
        moving.endpoint1, moving.cookie = endpoint1, cookie
        out = [ctypes.byref(one) for one in (moving.lowered, moving.unsent, moving.unread)]
        result = self._functions["take"](self.tender, _MAIN, endpoint1, word, *out, ctypes.c_uint32(QUEUE))
        return None if result < 0 else self.taken(endpoint1, cookie)

    def taken(self, endpoint1: int, cookie: int) -> Taken | None:
        """What was taken out of the engine last, by whatever helper; None: that is another connection."""
        moving = self._moving
        if (moving.endpoint1, moving.cookie) != (endpoint1, cookie):
            return None
        lowered, image = moving.lowered, Image()
        image.memory[:] = bytes(lowered.image)
        unsent, unread = bytes(moving.unsent[: lowered.n_unsent]), bytes(moving.unread[: lowered.n_unread])
        return Taken(image, unsent, unread, int(lowered.state), int(lowered.error))

    def seen(self, datagrams: bool = False) -> Iterator[Seen]:
        """The records of TCP connections, or of datagrams."""
        one = _Seen()
        for i in itertools.count():
            result = self._functions["seen"](self.tender, datagrams, i, ctypes.byref(one))
            if result == -errno.ENOENT:
                return
            if result == 0:
                local, remote = (unmapped(bytes(one.laddr)), int(one.lport)), (unmapped(bytes(one.raddr)), int(one.rport))
                place = int(one.tx_off) // (2 * QUEUE)
                yield Seen(int(one.handle), local, remote, int(one.state), place, int(one.ep1), int(one.cookie))

    def bury(self, slot: int) -> None:
        """What a dead participant held of the engine is free, and repaired."""
        self._functions["bury"](self.tender, _MAIN, slot + 1)

    def forget(self, handle: int) -> None:
        """A record that is nobody's."""
        self._functions["forget"](self.tender, _MAIN, ctypes.c_uint64(handle))

    def strays(self) -> bytes:
        """Packets of no connection that have come: length (u32) and bytes of each frame."""
        n = int(self._functions["strays"](self.tender, _MAIN, self._strays, ctypes.c_uint32(_STRAYS)))
        return self._strays.raw[:n]

    def finish(self, endpoint1: int, word: int) -> None:
        """The endpoint is the kernel's again."""
        self._functions["close"](self.tender, endpoint1, word)

    def figures(self, endpoint1: int) -> Figures | None:
        """None: it is not lifted."""
        values = (ctypes.c_uint64 * 4)()
        return Figures(*values) if self._functions["figures"](self.tender, endpoint1, values) == 0 else None

    def open_datagrams(
        self, endpoint1: int, cookie: int, local: tuple[Address, int], remote: tuple[Address, int], from_word: int, word: int
    ) -> int | None:
        """The endpoint's datagrams from and to `remote` are the engine's: its handle; None, and nothing was done: it has no room."""
        open_ = _UdpOpen(lport=local[1], rport=remote[1], cookie=cookie, ep1=endpoint1)
        open_.laddr[:], open_.raddr[:] = mapped(local[0]), mapped(remote[0])
        handle = ctypes.c_uint64()
        done = self._functions["udp_open"](self.tender, _MAIN, ctypes.byref(open_), from_word, word, ctypes.byref(handle))
        return int(handle.value) if done == 0 else None

    def close_datagrams(self, handle: int) -> None:
        """Its packets come no more by the interface: what has come is in the ring when this returns."""
        self._functions["udp_close"](self.tender, _MAIN, ctypes.c_uint64(handle))

    def datagrams(self, handle: int) -> tuple[int, int]:
        """How many were sent and received."""
        values = (ctypes.c_uint64 * 2)()
        self._functions["udp_figures"](self.tender, ctypes.c_uint64(handle), values)
        return int(values[0]), int(values[1])

    def tend(self, kick: int) -> int:
        """One round of what there is to do, a second at most; in a thread of its own. Returns how many connections there are."""
        return int(self._functions["tend"](self.tender, _TENDER, kick))

    def close(self) -> None:
        """Give the interface back. No connection may be lifted any more."""
        self._functions["detach"](self.tender)
        self.interface.close()
        os.close(self._moving_fd)
        for held in (self.area, self.queues):
            shm.unlink(held.name)
            held.close()


class Tender:
    """The thread that tends an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kick = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._leaving = False
        self._thread = threading.Thread(target=self._run, name="tender", daemon=True)
        self._thread.start()

    def kick(self) -> None:
        """There is something new: a connection, or the end."""
        os.eventfd_write(self._kick, 1)

    def stop(self) -> None:
        """Return when the thread has ended."""
        self._leaving = True
        self.kick()
        self._thread.join()
        os.close(self._kick)

    def _run(self) -> None:
        while not self._leaving:
            self._engine.tend(self._kick)
            try:
                os.eventfd_read(self._kick)
            except BlockingIOError:
                continue


def _functions() -> dict[str, Any]:
    u32, u64, address, number = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_int
    declared: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "bytes": (u64, (u32,)),
        "format": (None, (address, u32, u64)),
        "tender_bytes": (u64, ()),
        "attach": (number, (address, address, address, address, address, u32, number, number)),
        "detach": (None, (address,)),
        "tend": (number, (address, u32, number)),
        "begin": (number, (address, u32, u32, u32)),
        "open": (number, (address, u32, u32, address, u32, u32)),
        "hold": (None, (address, u32, u32)),
        "take": (number, (address, u32, u32, u32, address, address, address, u32)),
        "strays": (u32, (address, u32, address, u32)),
        "close": (None, (address, u32, u32)),
        "figures": (number, (address, u32, address)),
        "seen": (number, (address, u32, u32, address)),
        "forget": (None, (address, u32, u64)),
        "bury": (None, (address, u32, u32)),
        "udp_open": (number, (address, u32, address, u32, u32, address)),
        "udp_close": (None, (address, u32, u64)),
        "udp_figures": (number, (address, u64, address)),
    }
    return {name: native.function(f"wire_{name}", result, *arguments) for name, (result, arguments) in declared.items()}
