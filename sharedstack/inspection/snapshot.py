"""A copy of the used parts of a stack's segments: what every other module of this package works on.

Segments are read with pread(2), never mapped: a read through a mapping of shared memory allocates the pages that it
touches, and inspecting must not use up a small /dev/shm. Of ring memory only the record headers are copied, never a
byte that a program sent. A snapshot can be written to a file and read back.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..declare import binary, layout, names
from ..declare.layout import CONSTANTS as C
from .words import Chunk, DirectionWord, ahead, aligned, unread

SHM = Path("/dev/shm")
SO_NETNS_COOKIE = 71
_HEADERS_MAX = 1 << 16

Parts = dict[int, bytes]


class NoStackError(Exception):
    """There is no stack of that name, or it cannot be read; the message says which and what to do."""


class LayoutError(Exception):
    """The memory has another layout than this installation; the message names both hashes."""


@dataclass
class Snapshot:
    """Parts of the segments by offset, when they were taken (ns CLOCK_MONOTONIC), and of which stack."""

    name: str
    taken_ns: int
    stack: memoryview
    arena: memoryview
    bulk: Parts = field(default_factory=dict)
    links: memoryview = field(default_factory=lambda: memoryview(b""))
    policy: bytes = bytes(layout.BY_NAME["policy"].size)

    @property
    def endpoints_there(self) -> int:
        """Endpoint records copied: one more than were ever used, where there is room for one."""
        return max(len(self.stack) - layout.STACK_ENDPOINTS, 0) // layout.ENDPOINT.size

    @property
    def links_top(self) -> int:
        """Links in the snapshot that were ever used."""
        return min(int(binary.stack(self.stack)["links_top"]), len(self.links) // layout.LINK.size)

    @property
    def pairs_there(self) -> int:
        """Pairs copied, likewise."""
        return max(len(self.arena) - layout.ARENA_PAIRS, 0) // layout.PAIR.size

    @property
    def slots_top(self) -> int:
        """Slots in the snapshot that were ever used."""
        return min(int(binary.stack(self.stack)["slots_top"]), C["N_SLOTS"])

    @property
    def endpoints_top(self) -> int:
        """Endpoint records in the snapshot that were ever used."""
        return min(int(binary.stack(self.stack)["endpoints_top"]), self.endpoints_there)

    @property
    def pairs_top(self) -> int:
        """Pairs in the snapshot that were ever used."""
        return min(int(binary.arena(self.arena)["pairs_top"]), self.pairs_there)


def netns_cookie() -> int:
    """SO_NETNS_COOKIE of the calling process; 0 where the kernel has none (before Linux 5.14)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            raw = probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
        except OSError:
            return 0
    value: int = struct.unpack("<Q", raw)[0]
    return value


def find(uid: int, stack: str) -> str:
    """Base name (without `.stack`) of the segments of this stack in our network namespace; NoStackError if none."""
    name = names.segment(uid, netns_cookie(), stack, "stack").lstrip("/").removesuffix(".stack")
    if (SHM / f"{name}.stack").exists():
        return name
    others = sorted(p.name.removesuffix(".stack") for p in SHM.glob(f"{names.SHM_PREFIX}.*.stack"))
    hint = f"; there are: {', '.join(others)}" if others else ""
    raise NoStackError(f"no stack `{stack}` of uid {uid} in this network namespace ({SHM / name}.stack){hint}")


class _Reader:
    """pread(2) on a segment; short reads are filled with zeros."""

    def __init__(self, path: Path) -> None:
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as e:
            raise NoStackError(f"cannot read {path}: {e.strerror}; run as the user whose stack it is, or as root") from e

    def __call__(self, offset: int, size: int) -> bytes:
        got = b""
        while len(got) < size and (more := os.pread(self.fd, size - len(got), offset + len(got))):
            got += more
        return got.ljust(size, b"\0")

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def read_segment(path: Path, size: int) -> bytes:
    """The first bytes of a segment. NoStackError if it cannot be read."""
    with _Reader(path) as read:
        return read(0, size)


def take(name: str, *, bulk: bool = False) -> Snapshot:
    """Copy the segments called `name`, with the headers of unread ring records if `bulk`.

    NoStackError if they cannot be read, LayoutError if they are of another layout.
    """
    with _Reader(SHM / f"{name}.stack") as read, _Reader(SHM / f"{name}.arena") as read_arena:
        require_layout(read(0, layout.STACK.size), f"stack {name}")
        # tops only grow: reading them first, the copy may miss a newcomer but never ends inside a record
        tops = binary.stack(memoryview(read(0, layout.STACK.size)))
        # one record more than were ever used: it must be untouched
        n_endpoints = min(tops["endpoints_top"] + 1, C["N_ENDPOINTS"])
        n_pairs = min(binary.arena(memoryview(read_arena(0, layout.ARENA.size)))["pairs_top"] + 1, C["N_PAIRS"])
        n_slots = min(tops["slots_top"] + 1, C["N_SLOTS"])
        low = _counted_once(lambda: read(0, layout.STACK_SLOTS + n_slots * layout.SLOT.size), n_slots)
        high = read(layout.STACK_FLOWS, layout.STACK_ENDPOINTS - layout.STACK_FLOWS + n_endpoints * layout.ENDPOINT.size)
        links = read(layout.STACK_LINKS, min(tops["links_top"], C["N_LINKS"]) * layout.LINK.size)
        policy = read(layout.STACK_POLICY, layout.BY_NAME["policy"].size)
        arena = read_arena(0, layout.ARENA_PAIRS + n_pairs * layout.PAIR.size)
    shot = Snapshot(
        name, time.monotonic_ns(), memoryview(bytearray(low.ljust(layout.STACK_FLOWS, b"\0") + high)), memoryview(bytearray(arena))
    )
    shot.links, shot.policy = memoryview(bytearray(links)), policy
    if bulk:
        shot.bulk = _headers(shot)
    return shot


_LOOKS = 10  # at a stack whose participants come and go all the time


def _counted_once(look: Callable[[], bytes], n_slots: int) -> bytes:
    """The header and the slots as `look` reads them, but not while what a participant that has gone had counted is added to the totals.

    Then it would be missing, or be there twice: so two looks have to agree on the totals and on who has a slot.
    """
    before: object = None
    for _ in range(_LOOKS):
        low = look()
        view = memoryview(low)
        now = (binary.stack(view)["totals"], [binary.slot(view, i)["state"] for i in range(n_slots)])
        if now == before:
            break
        before = now
    return low


def require_layout(header: bytes, what: str) -> None:
    """LayoutError unless the segment header has our magic and layout hash."""
    found = binary.stack(memoryview(header))
    if found["magic"] != C["STACK_MAGIC"]:
        raise LayoutError(f"{what}: magic is {found['magic']:#x}, expected {C['STACK_MAGIC']:#x}: not a stack segment")
    if found["layout_hash"] != layout.HASH:
        raise LayoutError(
            f"{what}: layout hash is {found['layout_hash']:#x}, this installation's is {layout.HASH:#x}: "
            "use the inspect of the version that made it, or restart the helper"
        )


def unread_ring(shot: Snapshot, pair: int, side: int) -> tuple[Chunk | None, int, int]:
    """Chunk, read index and write index of a direction."""
    direction = binary.pair(shot.arena, pair)["dir"][side]
    return Chunk.decode(direction["rchunk"]), unread(direction).index, DirectionWord.decode(direction["word"]).index


def _headers(shot: Snapshot) -> Parts:
    """Headers of the unread records of all live pairs, by offset in the bulk segment."""
    header = binary.arena(shot.arena)
    if header["bulk_kind"] == C["BULK_SYSV_HUGE"]:
        from .sysv import SysvReader

        with SysvReader(header["bulk_id"]) as read:
            return _walk_all(shot, read)
    with _Reader(SHM / f"{shot.name}.bulk") as read:
        return _walk_all(shot, read)


def _walk_all(shot: Snapshot, read: _Reader) -> Parts:
    parts: Parts = {}
    for pair in range(shot.pairs_top):
        if binary.pair(shot.arena, pair)["state"] == C["PAIR_LIVE"]:
            for side in (0, 1):
                _walk(parts, read, *unread_ring(shot, pair, side))
    return parts


def _walk(parts: Parts, read: _Reader, chunk: Chunk | None, index: int, end: int) -> None:
    """Copy record headers from `index` to `end`; stop where they make no sense, the checker will say so."""
    for _ in range(_HEADERS_MAX):
        left = ahead(end, index)
        if not left or chunk is None or chunk.first + chunk.units > C["N_UNITS"]:
            return
        at = chunk.place(index)
        raw = read(at, layout.RECORD.size)
        parts[at] = raw
        record = binary.View(layout.RECORD, memoryview(raw))
        step = layout.RECORD.size + aligned(record["len"])
        if step > left:
            return
        if record["kind"] == C["REC_SWITCH"]:
            chunk = Chunk.decode(record["ksent"])
        index += step
