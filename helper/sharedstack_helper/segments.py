"""The segments of one stack: made, or adopted from a helper that was killed, and retired.

1  `obtain` opens what lies under the names of this user, namespace and stack. Headers that are whole are *adopted*: participants
   still live in them. Anything else is *replaced*: retired for those who have it mapped, unlinked, made anew.
2  `publish` is called once the helper has its slot: state, then the magic last, so that whoever attaches by name finds all of it.
3  `drain` and `retire` on leaving: nobody pairs any more; then the names go.
The caller must hold the control socket, which keeps a second helper away from the names.
"""

from __future__ import annotations

import mmap
import os
import time
from dataclasses import dataclass
from typing import Literal

from sharedstack.declare import binary, layout, names
from sharedstack.declare.layout import CONSTANTS
from sharedstack.declare.options import OPTIONS

from . import bulk, shm
from .environment import Place
from .shm import Shared, UnfitError

Part = Literal["stack", "arena", "bulk", "wire"]


@dataclass(frozen=True)
class HelperSlot:
    """Where the header says that a helper lives."""

    index: int
    pid: int


@dataclass
class Segments:
    """The open segments; `bulk` is None where bulk memory is System V's (then `bulk_id` is its identifier)."""

    stack: Shared
    arena: Shared
    bulk: Shared | None
    bulk_id: int
    stack_map: mmap.mmap
    arena_map: mmap.mmap
    adopted: bool

    def __post_init__(self) -> None:
        self.stack_address = shm.address(self.stack_map)
        self.arena_address = shm.address(self.arena_map)
        self.stack_view = memoryview(self.stack_map)
        self.header = binary.stack(self.stack_view)
        self.arena_header = binary.arena(memoryview(self.arena_map))

    @property
    def fds(self) -> list[int]:
        """What is lent: stack, arena, and bulk where it has a descriptor."""
        lent = [self.stack.fd, self.arena.fd]
        return lent if self.bulk is None else [*lent, self.bulk.fd]

    @property
    def slots_top(self) -> int:
        """Slots ever used, as far as that can be believed."""
        return min(int(self.header["slots_top"]), CONSTANTS["N_SLOTS"])

    @property
    def endpoints_top(self) -> int:
        """Endpoint records ever used, as far as that can be believed."""
        return min(int(self.header["endpoints_top"]), CONSTANTS["N_ENDPOINTS"])

    def helper_slot(self) -> HelperSlot | None:
        """The slot of the helper that the header names, if it is marked as one."""
        index = int(self.header["helper"]) - 1
        if not 0 <= index < self.slots_top:
            return None
        slot = binary.slot(self.stack_view, index)
        return HelperSlot(index, int(slot["pid"])) if slot["flags"] & CONSTANTS["SLOT_HELPER"] else None

    def publish(self, slot: int) -> None:
        """The helper has its slot: open the stack to participants."""
        header = self.header
        header["options"] = (*(o.default for o in OPTIONS), *([0] * (64 - len(OPTIONS))))
        header["n_cpus"] = os.cpu_count() or 1
        header["helper"] = slot + 1
        header["pair_ok"] = 1
        header["state"] = CONSTANTS["STACK_READY"]
        self.arena_header["magic"] = CONSTANTS["ARENA_MAGIC"]
        header["magic"] = CONSTANTS["STACK_MAGIC"]

    def drain(self) -> None:
        """From now on nothing is paired and no ring is opened."""
        self.header["pair_ok"] = 0
        self.header["state"] = CONSTANTS["STACK_DRAINING"]

    def retire(self) -> None:
        """Tell participants that this stack is over, and remove its names; their mappings stay theirs."""
        self.header["helper"] = 0
        self.header["state"] = CONSTANTS["STACK_RETIRED"]
        for shared in (self.stack, self.arena, self.bulk):
            if shared is not None:
                shm.unlink(shared.name)
        if self.bulk is None:
            bulk.remove_huge(self.bulk_id)


def name(place: Place, part: Part) -> str:
    """POSIX name of a part of the stack."""
    return names.segment(place.uid, place.netns, place.stack, part)


def obtain(place: Place) -> tuple[Segments, str]:
    """The segments of `place`, adopted or new, and why an older set was replaced ("" if there was none to replace).

    Raises HelperError where shared memory cannot be had.
    """
    why = ""
    try:
        adopted = _adopt(place)
        if adopted is not None:
            return adopted, ""
    except UnfitError as unfit:
        why = str(unfit)
    return replace(place), why


def replace(place: Place) -> Segments:
    """Retire and unlink whatever lies under the names, and make new segments."""
    _retire_old(place)
    for part in ("stack", "arena", "bulk"):
        shm.unlink(name(place, part))
    return _create(place)


def _create(place: Place) -> Segments:
    made: list[Shared] = []
    try:
        bulk_id = bulk.create_huge(bulk.huge_key(name(place, "bulk")))
        posix = None
        units = bulk.N_UNITS
        if bulk_id is None:
            units = bulk.units_for(bulk.free_bytes(str(shm.FOLDER))) if shm.FOLDER.is_dir() else units
            posix = shm.create(name(place, "bulk"), layout.BULK_BYTES)
            made.append(posix)
        arena = shm.create(name(place, "arena"), layout.ARENA_BYTES)
        made.append(arena)
        stack = shm.create(name(place, "stack"), layout.STACK_BYTES)
        made.append(stack)
        _reserve_headers(stack, arena)
        segments = Segments(stack, arena, posix, -1 if bulk_id is None else bulk_id, stack.map(), arena.map(), adopted=False)
    except Exception:
        for shared in made:
            shm.unlink(shared.name)
            shared.close()
        raise
    _write_headers(place, segments, units)
    return segments


def _write_headers(place: Place, segments: Segments, units: int) -> None:
    arena, header = segments.arena_header, segments.header
    arena["layout_hash"] = layout.HASH
    arena["uid"] = (place.uid, place.uid)
    arena["bulk_kind"] = CONSTANTS["BULK_POSIX" if segments.bulk else "BULK_SYSV_HUGE"]
    arena["bulk_id"] = segments.bulk_id
    arena["n_units"] = units
    header["layout_hash"] = layout.HASH
    header["version"] = CONSTANTS["VERSION"]
    header["uid"] = place.uid
    header["netns"] = place.netns
    header["made_ns"] = time.monotonic_ns()
    for part in ("stack", "arena", "bulk"):
        header[f"{part}_name"] = b"" if part == "bulk" and segments.bulk is None else name(place, part).encode()


def _adopt(place: Place) -> Segments | None:
    stack = shm.find(name(place, "stack"))
    if stack is None:
        return None
    opened = [stack]
    try:
        shm.check(stack, place.uid, layout.STACK_BYTES)
        arena = _must_find(place, "arena", layout.ARENA_BYTES, opened)
        _reserve_headers(stack, arena)
        stack_map, arena_map = stack.map(), arena.map()
        _check_stack(place, binary.stack(memoryview(stack_map)))
        header = binary.arena(memoryview(arena_map))
        _check_arena(place, header)
        posix, bulk_id = None, -1
        if header["bulk_kind"] == CONSTANTS["BULK_POSIX"]:
            posix = _must_find(place, "bulk", layout.BULK_BYTES, opened)
        else:
            bulk_id = int(header["bulk_id"])
            if not bulk.owns_huge(bulk_id, place.uid, layout.BULK_BYTES):
                raise UnfitError(f"System V memory {bulk_id} of the arena is gone or not ours")
        segments = Segments(stack, arena, posix, bulk_id, stack_map, arena_map, adopted=True)
        _reserve_used(segments)
    except Exception:
        for shared in opened:
            shared.close()
        raise
    return segments


def _must_find(place: Place, part: Part, size: int, opened: list[Shared]) -> Shared:
    found = shm.find(name(place, part))
    if found is None:
        raise UnfitError(f"{name(place, part)} is missing")
    opened.append(found)
    shm.check(found, place.uid, size)
    return found


def _check_stack(place: Place, header: binary.View) -> None:
    wanted: dict[str, int] = {
        "magic": CONSTANTS["STACK_MAGIC"],
        "layout_hash": layout.HASH,
        "version": CONSTANTS["VERSION"],
        "uid": place.uid,
        "netns": place.netns,
    }
    _compare(header, wanted, "stack")
    for part in ("stack", "arena"):
        if binary.text(header[f"{part}_name"]) != name(place, part):
            raise UnfitError(f"the header's {part}_name is corrupt")
    for field, top in (("slots_top", "N_SLOTS"), ("endpoints_top", "N_ENDPOINTS")):
        if header[field] > CONSTANTS[top]:
            raise UnfitError(f"{field} is {header[field]}, more than {CONSTANTS[top]}")
    if header["state"] not in (CONSTANTS["STACK_READY"], CONSTANTS["STACK_DRAINING"]):
        raise UnfitError("its last helper had retired it")


def _check_arena(place: Place, header: binary.View) -> None:
    _compare(header, {"magic": CONSTANTS["ARENA_MAGIC"], "layout_hash": layout.HASH}, "arena")
    if header["uid"] != (place.uid, place.uid):
        raise UnfitError(f"the arena belongs to the uids {header['uid']}")
    if header["bulk_kind"] not in (CONSTANTS["BULK_POSIX"], CONSTANTS["BULK_SYSV_HUGE"]):
        raise UnfitError(f"the arena's bulk_kind is {header['bulk_kind']}")
    if not bulk.MIN_UNITS <= header["n_units"] <= bulk.N_UNITS or header["pairs_top"] > CONSTANTS["N_PAIRS"]:
        raise UnfitError(f"the arena has {header['n_units']} units and {header['pairs_top']} pairs")


def _compare(header: binary.View, wanted: dict[str, int], what: str) -> None:
    for field, value in wanted.items():
        if header[field] != value:
            raise UnfitError(f"the {what} header's {field} is {header[field]:#x}, not {value:#x}")


def _reserve_headers(stack: Shared, arena: Shared) -> None:
    """What anybody may touch without asking for it: both headers, the flow table and the policy."""
    stack.reserve(shm.PAGE)
    stack.reserve(layout.STACK_ENDPOINTS - layout.STACK_FLOWS, layout.STACK_FLOWS)
    stack.reserve(layout.STACK_BYTES - layout.STACK_POLICY, layout.STACK_POLICY)
    arena.reserve(shm.PAGE)


def _reserve_used(segments: Segments) -> None:
    """What was ever used is going to be looked at."""
    segments.stack.reserve(segments.slots_top * layout.SLOT.size, layout.STACK_SLOTS)
    segments.stack.reserve(segments.endpoints_top * layout.ENDPOINT.size, layout.STACK_ENDPOINTS)
    segments.stack.reserve(int(segments.header["links_top"]) * layout.LINK.size, layout.STACK_LINKS)
    segments.arena.reserve(int(segments.arena_header["pairs_top"]) * layout.PAIR.size, layout.ARENA_PAIRS)


def _retire_old(place: Place) -> None:
    """Whoever still has the old stack mapped shall know that it is over, as far as we know its header."""
    try:
        old = shm.find(name(place, "stack"))
    except UnfitError:
        return
    if old is None:
        return
    try:
        if os.fstat(old.fd).st_uid == place.uid and old.size >= shm.PAGE:
            old.reserve(shm.PAGE)
            with old.map(shm.PAGE) as memory, memoryview(memory) as view:
                header = binary.stack(view)
                if header["magic"] == CONSTANTS["STACK_MAGIC"] and header["version"] == CONSTANTS["VERSION"]:
                    header["pair_ok"] = 0
                    header["state"] = CONSTANTS["STACK_RETIRED"]
    finally:
        old.close()
