"""The checker: clean on a sound stack, and it sees when any declared field is flipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from unit.fix_stack import build, copy, with_datagrams

from sharedstack.declare import binary, layout
from sharedstack.declare.layout import CONSTANTS as C
from sharedstack.declare.model import Struct, scalar_size
from sharedstack.inspection.check import check, check_live
from sharedstack.inspection.snapshot import Snapshot
from sharedstack.inspection.words import Chunk, DirectionWord, LockWord, ReadIndex

# Fields whose flipped value nobody can know to be wrong.
EXCEPTIONS = {
    "slot.robust_links": "belongs to the owner's libc: pointers that mean nothing to others",
    "bell.name": "random by design",
    "bell.armed": "a number that is another one each time, 0 or not",
}

# With only the lowest bit flipped: fields of which a neighbouring value is as good.
NEIGHBOURS_AS_GOOD = {
    "counters and statistics": {
        "slot.counters", "stack.totals", "endpoint.tx_kernel", "endpoint.tx_calls", "endpoint.tx_full", "endpoint.tx_bells",
        "endpoint.tx_local", "endpoint.rx_kernel", "endpoint.rx_lowers", "endpoint.rx_lifts", "endpoint.rx_local", "endpoint.rx_calls",
        "endpoint.pairings",
    },
    "times: any that has passed will do": {
        "slot.start_ns", "endpoint.created_ns", "pair.made_ns", "direction.pub_ns", "pair.empty_ns", "pair.mark_ns",
        "link.wanted_ns", "link.allowed_ns",
    },
    "identity that only the kernel knows": {"slot.pid", "slot.robust", "slot.pidns", "slot.comm", "endpoint.inode", "stack.n_cpus"},
    "stream positions that only the kernel knows": {
        "direction.ksent", "record.ksent", "pair.looks", "pair.empty", "pair.mark", "pair.mark_left",
    },
    "bytes of the head record, and padding up to the alignment": {"direction.rd", "record.len"},
    "hints, heuristics, informative": {
        "stack.endpoint_hint", "arena.pair_hint", "direction.wcpu", "direction.rcpu", "direction.wslot", "endpoint.why_tx",
        "endpoint.why_rx", "endpoint.slot", "endpoint.flags", "slot.flags", "direction.opener",
    },
    "settings of which both values are lawful": {
        "arena.cooling", "endpoint.error", "stack.pair_ok", "stack.options", "direction.tx_on", "direction.rx_on",
    },
    "another thread may be meant, asleep or not": {"bell.armed", "direction.bell"},
}  # fmt: skip


@dataclass
class Place:
    """A struct in a snapshot: which buffer, and where."""

    name: str
    struct: Struct
    buffer: Callable[[Snapshot], memoryview]
    offset: int


def _live(count: int, state: Callable[[int], int], live: int, at_most: int) -> list[int]:
    return [i for i in range(count) if state(i) == live][:at_most]


def _places(shot: Snapshot) -> Iterator[Place]:
    """The headers, and some records in use of each class; works on a snapshot of any stack."""
    yield Place("stack", layout.STACK, lambda s: s.stack, 0)
    yield Place("arena", layout.ARENA, lambda s: s.arena, 0)
    for i in _live(shot.slots_top, lambda i: binary.slot(shot.stack, i)["state"], C["SLOT_LIVE"], 3):
        at = layout.STACK_SLOTS + i * layout.SLOT.size
        yield Place(f"slot[{i}]", layout.SLOT, lambda s: s.stack, at)
        yield Place(f"slot[{i}].bells[0]", layout.BELL, lambda s: s.stack, at + layout.SLOT.place("bells").offset)
    for i in _live(shot.endpoints_top, lambda i: binary.endpoint(shot.stack, i)["state"], C["EP_LIVE"], 6):
        yield Place(f"endpoint[{i}]", layout.ENDPOINT, lambda s: s.stack, layout.STACK_ENDPOINTS + i * layout.ENDPOINT.size)
    for i in range(shot.links_top):
        yield Place(f"link[{i}]", layout.LINK, lambda s: s.links, i * layout.LINK.size)
    for i in _live(shot.pairs_top, lambda i: binary.pair(shot.arena, i)["state"], C["PAIR_LIVE"], 3):
        at = layout.ARENA_PAIRS + i * layout.PAIR.size
        yield Place(f"pair[{i}]", layout.PAIR, lambda s: s.arena, at)
        for d in (0, 1):
            where = at + layout.PAIR.place("dir").offset + d * layout.DIRECTION.size
            yield Place(f"pair[{i}].dir[{d}]", layout.DIRECTION, lambda s: s.arena, where)


def _flipped(shot: Snapshot, place: Place, field: str, item: int, mask: int) -> Snapshot:
    p = place.struct.place(field)
    size = scalar_size(p.field.type) or 1
    mutant = copy(shot)
    at = place.offset + p.offset + item * size
    buffer = place.buffer(mutant)
    if p.field.type == "u8":
        size = p.size
    flip = mask if mask >= 0 else (1 << 8 * size) - 1
    value = int.from_bytes(buffer[at : at + size], "little") ^ flip
    buffer[at : at + size] = value.to_bytes(size, "little")
    return mutant


def _mutations(shot: Snapshot, mask: int) -> Iterator[tuple[str, str, Snapshot]]:
    """(field, where, mutant): each scalar field of each place; arrays at the first, second and last item."""
    for place in _places(shot):
        for p in place.struct.placed():
            if scalar_size(p.field.type) is None:
                continue
            items = {0} if p.field.type == "u8" else {0, min(1, p.field.count - 1), p.field.count - 1}
            for item in sorted(items):
                name = f"{place.struct.name}.{p.field.name}"
                yield name, f"{place.name}.{p.field.name}[{item}]", _flipped(shot, place, p.field.name, item, mask)
    for at, raw in list(shot.bulk.items())[:8]:
        for p in layout.RECORD.placed():
            mutant = copy(shot)
            value = bytearray(raw)
            flip = mask if mask >= 0 else (1 << 8 * p.size) - 1
            changed = int.from_bytes(value[p.offset : p.offset + p.size], "little") ^ flip
            value[p.offset : p.offset + p.size] = changed.to_bytes(p.size, "little")
            mutant.bulk[at] = bytes(value)
            yield f"record.{p.field.name}", f"record at {at}.{p.field.name}", mutant
    for number in (i for i in range(C["N_FLOW_BUCKETS"]) if binary.flow_bucket(shot.stack, i)):
        mutant = copy(shot)
        at = layout.STACK_FLOWS + number * 4
        flip = mask if mask >= 0 else 0xFFFFFFFF
        mutant.stack[at : at + 4] = (binary.flow_bucket(shot.stack, number) ^ flip).to_bytes(4, "little")
        yield "flow", f"flow[{number}]", mutant


def test_a_sound_stack_is_clean() -> None:
    assert [str(f) for f in check(build())] == []
    assert [str(f) for f in check(with_datagrams())] == []


def test_flipping_any_field_is_seen() -> None:
    shot = with_datagrams()
    missed: dict[str, list[str]] = {}
    fields = set()
    for field, where, mutant in _mutations(shot, -1):
        fields.add(field)
        if not check(mutant):
            missed.setdefault(field, []).append(where)
    assert fields >= {f"{s.name}.{p.field.name}" for s in layout.STRUCTS for p in s.placed() if scalar_size(p.field.type)}
    assert {f: w for f, w in missed.items() if f not in EXCEPTIONS} == {}
    assert len(missed) <= 0.05 * len(fields)


def test_flipping_one_bit_is_seen_where_a_neighbour_is_wrong() -> None:
    shot = with_datagrams()
    allowed = set().union(*NEIGHBOURS_AS_GOOD.values()) | EXCEPTIONS.keys()
    missed: dict[str, list[str]] = {}
    for field, where, mutant in _mutations(shot, 1):
        if not check(mutant):
            missed.setdefault(field, []).append(where)
    assert {f: w for f, w in missed.items() if f not in allowed} == {}


def _change(what: str, index: int, field: str, value: object) -> Callable[[Snapshot], None]:
    def change(shot: Snapshot) -> None:
        view = getattr(binary, what)(shot.arena if what in ("pair", "arena") else shot.stack, *([index] if index >= 0 else []))
        view[field] = value

    return change


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (_change("endpoint", 0, "state", C["EP_FREE"]), "endpoint[0]"),
        (_change("endpoint", 1, "flow_next", 2), "endpoint[1].flow_next"),
        (_change("endpoint", 4, "lport", 51002), "endpoint[4].flow"),
        (_change("endpoint", 4, "cookie", 7001), "endpoint[4].cookie"),
        (_change("endpoint", 2, "pair", 1), "endpoint[2]"),
        (_change("endpoint", 0, "side", 1), "endpoint[0]"),
        (_change("endpoint", 6, "gen", 1), "endpoint[6].gen"),
        (_change("stack", -1, "slots_top", 5), "slot[4].gen"),
        (_change("stack", -1, "ctl", LockWord(3, 1, False).encode()), "stack.ctl"),
        (_change("slot", 1, "state", C["SLOT_FREE"]), "slot[1]"),
        (_change("arena", -1, "units_used", 1), "arena.units_used"),
        (_change("pair", 0, "endpoint", (1, 1)), "pair[0].endpoint"),
    ],
)
def test_each_invariant_names_its_structure(change: Callable[[Snapshot], None], where: str) -> None:
    shot = build()
    change(shot)
    found = [f.where for f in check(shot)]
    assert any(f.startswith(where) for f in found), found


def _direction(shot: Snapshot, pair: int = 0, side: int = 0) -> binary.View:
    view: binary.View = binary.pair(shot.arena, pair)["dir"][side]
    return view


def test_overlapping_chunks_are_seen() -> None:
    shot = build()
    _direction(shot, 0, 1)["rchunk"] = _direction(shot, 0, 1)["wchunk"] = _direction(shot)["rchunk"]
    assert any("a unit that" in str(f) for f in check(shot))


def test_an_open_ring_of_a_dead_opener_is_seen() -> None:
    shot = build()
    _direction(shot)["opener"] = 4  # slot 3 is free
    assert [f.where for f in check(shot)] == ["pair[0].dir[0].opener"]


def test_taken_beyond_ksent_is_seen() -> None:
    shot = build()
    _direction(shot, 0, 1)["taken"] = 401
    assert [f.where for f in check(shot)] == ["pair[0].dir[1].taken"]


def test_a_lock_in_use_or_buried_is_no_finding() -> None:
    shot = build()
    _direction(shot)["wlock"] = LockWord(1, 3, True).encode()
    _direction(shot)["rlock"] = 0xFFFF << C["LOCK_SLOT_SHIFT"]
    assert check(shot) == []


def test_a_growth_that_its_writer_died_in_is_no_finding_while_the_lock_names_it() -> None:
    shot = build()
    d = _direction(shot, 1, 0)
    record = 640 + 16 + 208  # the switch was written, but not published
    d["word"] = DirectionWord(record, True, False, 0).encode()
    assert any("wchunk" in f.where for f in check(shot))
    d["wlock"] = LockWord(1, 1, False).encode()
    assert check(shot) == []


def test_an_index_that_wrapped_is_no_finding() -> None:
    shot = build()
    d = _direction(shot, 0, 1)
    top = 1 << C["WORD_INDEX_BITS"]
    d["rchunk"] = d["wchunk"] = Chunk(1, 0, top - 1024).encode()
    d["rd"], d["rd_seen"] = ReadIndex(16, 0).encode(), top - 512
    d["word"] = DirectionWord(16, False, False, 1).encode()
    assert check(shot) == []


def test_a_passing_state_of_a_live_stack_is_not_reported() -> None:
    sound, moving = build(), build()
    _direction(moving, 0, 1)["taken"] = 401
    shots = iter([moving, sound])
    assert check_live(lambda: next(shots), wait=lambda _: None) == []
    assert [f.where for f in check_live(lambda: moving, wait=lambda _: None)] == ["pair[0].dir[1].taken"]
