"""The checker: clean on a sound stack, and it sees when any declared field is flipped."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from unit.fix_mutations import EXCEPTIONS, FIELDS, NEIGHBOURS_AS_GOOD, mutations
from unit.fix_stack import build, with_datagrams

from sharedstack.declare import binary
from sharedstack.declare.layout import CONSTANTS as C
from sharedstack.inspection.check import check, check_live
from sharedstack.inspection.snapshot import Snapshot
from sharedstack.inspection.words import Chunk, DirectionWord, LockWord, ReadIndex


def test_a_sound_stack_is_clean() -> None:
    assert [str(f) for f in check(build())] == []
    assert [str(f) for f in check(with_datagrams())] == []


def test_flipping_any_field_is_seen() -> None:
    shot = with_datagrams()
    missed: dict[str, list[str]] = {}
    fields = set()
    for field, where, mutant in mutations(shot, -1):
        fields.add(field)
        if not check(mutant):
            missed.setdefault(field, []).append(where)
    assert fields >= FIELDS
    assert {f: w for f, w in missed.items() if f not in EXCEPTIONS} == {}
    assert len(missed) <= 0.05 * len(fields)


def test_flipping_one_bit_is_seen_where_a_neighbour_is_wrong() -> None:
    shot = with_datagrams()
    allowed = set().union(*NEIGHBOURS_AS_GOOD.values()) | EXCEPTIONS.keys()
    missed: dict[str, list[str]] = {}
    for field, where, mutant in mutations(shot, 1):
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
