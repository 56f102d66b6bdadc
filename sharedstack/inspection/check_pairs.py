"""Checks of the arena: pairs, their directions, chunks and units, and the chains of ring records."""

from __future__ import annotations

from collections import Counter

from ..declare import binary
from ..declare.binary import View
from ..declare.layout import CONSTANTS as C
from .check_residue import check_residue, residue_chunks
from .check_stack import COUNT_MAX, CPUS_MAX, GEN_MAX, check_lock
from .findings import Findings
from .ring_chain import check_chain
from .snapshot import Snapshot
from .words import ALIGN, INDEX_MASK, UNIT, Chunk, DirectionWord, LockWord, ReadIndex, ahead, take_ref, unread

ON_VALUES = 2  # off, on, and on with a recount due after a death
RECALL_PATIENCE_NS = 50_000_000  # PATIENCE_NS of endpoint/dgram_recall.c
RING_MAX = C["MAX_RING_UNITS"] * UNIT
Units = dict[int, str]


def check_pairs(found: Findings, shot: Snapshot) -> None:
    """Check all pairs ever used, and that the map of units is what their chunks take."""
    a = binary.arena(shot.arena)
    takes = _takes(shot)
    used, units = 0, Units()
    for i in range(shot.pairs_top):
        pair, at = binary.pair(shot.arena, i), f"pair[{i}]"
        found.within(at, pair, "state", C["PAIR_FREE"], C["PAIR_PARKED"])
        found.within(at, pair, "gen", 1, GEN_MAX)
        found.expect(not pair["pad"], f"{at}.pad", pair["pad"], "zero")
        # of an inbox, which no connection has afterwards
        inbox = pair["state"] == C["PAIR_PARKED"] or pair["endpoint"][0] == pair["cookie"][0] == 0 != pair["endpoint"][1]
        found.within(at, pair, "recall_ns", 0, shot.taken_ns + RECALL_PATIENCE_NS if inbox else 0)
        if pair["state"] == C["PAIR_FREE"]:
            for side in (0, 1):
                for field in ("rchunk", "wchunk", "rcookie", "wcookie"):
                    found.equal(f"{at}.dir[{side}]", pair["dir"][side], field, 0)
                check_residue(found, pair["dir"][side], f"{at}.dir[{side}]")
            continue
        if pair["state"] == C["PAIR_PARKED"]:
            # nobody's inbox: it keeps its memory only if a sender was inside when it was given up
            found.expect(pair["endpoint"] == (0, 0), f"{at}.endpoint", pair["endpoint"], "no ends, as it is parked")
            for side in (0, 1):
                _chunks(found, shot, pair["dir"][side], f"{at}.dir[{side}]", units)
                for field in ("rcookie", "wcookie"):
                    found.equal(f"{at}.dir[{side}]", pair["dir"][side], field, 0)
            continue
        used += 1
        _ends(found, shot, pair, at, i)
        for side in (0, 1):
            where, direction = f"{at}.dir[{side}]", pair["dir"][side]
            _direction(found, shot, direction, where)
            for field, cookie in zip(("wcookie", "rcookie"), _cookies(pair, side), strict=True):
                found.equal(where, direction, field, cookie)
            _counts(found, direction, where)
            _answered(found, direction, pair["dir"][1 - side], where)
            check_residue(found, direction, where)
            expected = takes[take_ref(i, side)]
            takers = DirectionWord.decode(direction["word"]).takers
            ok = takers == expected or (takers > expected and _takes_full(shot))
            found.expect(ok, f"{where}.word (takers)", takers, f"{expected}, as listed in slots' takes")
            _chunks(found, shot, direction, where, units)
    found.equal("arena", a, "pairs_used", used)
    found.within("arena", a, "cooling", 0, 1)
    if a["pairs_top"] < shot.pairs_there:
        beyond = binary.pair(shot.arena, shot.pairs_top)
        found.expect(beyond["gen"] == 0, f"pair[{shot.pairs_top}].gen", beyond["gen"], "0: beyond pairs_top, never used")
    _units(found, a, units)


def _cookies(pair: View, side: int) -> tuple[int, int]:
    """Whose end writes to this direction, whose end reads there; of an inbox one reads its first, and many write."""
    mine, others = pair["cookie"][side], pair["cookie"][1 - side]
    return (0 if pair["endpoint"][0] == pair["cookie"][0] == 0 else mine), others


def _takes(shot: Snapshot) -> Counter[int]:
    """How often each direction is listed by live slots."""
    slots = (binary.slot(shot.stack, i) for i in range(shot.slots_top))
    return Counter(handle for slot in slots if slot["state"] == C["SLOT_LIVE"] for handle in slot["takes"] if handle)


def _takes_full(shot: Snapshot) -> bool:
    """A process with more takers than places lists only some of them."""
    return any(all(binary.slot(shot.stack, i)["takes"]) for i in range(shot.slots_top))


def _ends(found: Findings, shot: Snapshot, pair: View, at: str, index: int) -> None:
    """Each named endpoint names the pair back, with its side."""
    found.within(at, pair, "made_ns", binary.stack(shot.stack)["made_ns"], shot.taken_ns)
    ends, cookies = pair["endpoint"], pair["cookie"]
    if ends[0] == cookies[0] == 0:
        _inbox(found, shot, pair, at, index)
        return
    for field in ("looks", "empty", "empty_ns", "mark", "mark_ns", "mark_left"):
        found.equal(at, pair, field, 0)
    for side in (0, 1):
        found.equal(f"{at}.dir[{side}]", pair["dir"][side], "wr_seen", 0)
    _bounds(found, shot, pair, at)
    found.expect(any(ends), f"{at}.endpoint", ends, "at least one end: a pair that both have left is free")
    found.expect(ends[0] != ends[1], f"{at}.endpoint", ends, "two ends")
    found.expect(cookies[0] != cookies[1], f"{at}.cookie", cookies, "two sockets")
    for side, number in enumerate(ends):
        found.expect(0 < cookies[side] < 1 << 63, f"{at}.cookie[{side}]", cookies[side], "a socket cookie")
        if number == 0:
            continue
        if not found.expect(number <= shot.endpoints_top, f"{at}.endpoint[{side}]", number, f"0 to {shot.endpoints_top}"):
            continue
        ep = binary.endpoint(shot.stack, number - 1)
        if found.expect(ep["state"] != C["EP_FREE"], f"{at}.endpoint[{side}]", number, "an endpoint in use"):
            found.expect(ep["pair"] == index + 1, f"{at}.endpoint[{side}]", number, f"an endpoint whose pair is {index + 1}")
            found.expect(ep["side"] == side, f"endpoint[{number - 1}].side", ep["side"], f"{side}, as in its pair")


def _bounds(found: Findings, shot: Snapshot, pair: View, at: str) -> None:
    """No ring holds more than what its writer set by SO_SNDBUF, or its reader by SO_RCVBUF."""
    if not all(0 < number <= shot.endpoints_top for number in pair["endpoint"]):
        return
    ends = [binary.endpoint(shot.stack, number - 1) for number in pair["endpoint"]]
    for side in (0, 1):
        bounds = [bound for bound in (ends[side]["sndbuf"], ends[1 - side]["rcvbuf"]) if bound]
        found.equal(f"{at}.dir[{side}]", pair["dir"][side], "most", min(bounds, default=0))


def _inbox(found: Findings, shot: Snapshot, pair: View, at: str, index: int) -> None:
    """The pair of a datagram socket: one end, which names it back; the reader's looks are in order."""
    number = pair["endpoint"][1]
    if found.expect(0 < number <= shot.endpoints_top, f"{at}.endpoint[1]", number, f"1 to {shot.endpoints_top}"):
        ep = binary.endpoint(shot.stack, number - 1)
        named = ep["state"] != C["EP_FREE"] and ep["pair"] == index + 1 and ep["family"] & C["FAMILY_DATAGRAM"]
        found.expect(bool(named), f"{at}.endpoint[1]", number, f"a datagram socket's endpoint whose pair is {index + 1}")
        found.equal(f"{at}.dir[0]", pair["dir"][0], "most", ep["rcvbuf"])
    found.expect(pair["looks"] < COUNT_MAX, f"{at}.looks", pair["looks"], "a plausible count, below 2^60")
    found.within(at, pair, "mark_left", 0, 1 << 32)
    for field in ("empty_ns", "mark_ns"):
        found.within(at, pair, field, 0, shot.taken_ns)
    for field in ("empty", "mark"):
        found.expect(pair[field] <= pair["looks"], f"{at}.{field}", pair[field], f"at most looks, {pair['looks']}")
    used, unused = pair["dir"]
    seen, index = used["wr_seen"], DirectionWord.decode(used["word"]).index
    plausible = seen % ALIGN == 0 and seen < 1 << C["WORD_INDEX_BITS"] and ahead(index, seen) <= 2 * RING_MAX
    found.expect(plausible, f"{at}.dir[0].wr_seen", seen, f"an earlier write index (it is {index} now)")
    # a connection may have had it before: its locks stay, and its index, at which nothing is left
    at = f"{at}.dir[1]"
    left = {"wlock", "rlock", "word", "rd", "rd_seen", "re_chunks"}
    check_residue(found, unused, at)
    for field, _ in unused.items():
        if field not in left:
            found.equal(at, unused, field, 0)
    index, rd = DirectionWord.decode(unused["word"]).index, ReadIndex.decode(unused["rd"])
    found.equal(at, unused, "word", index)
    found.expect((rd.index, rd.consumed) == (index, 0), f"{at}.rd", unused["rd"], f"{index}, where it is written")
    found.equal(at, unused, "rd_seen", index)


def _direction(found: Findings, shot: Snapshot, d: View, at: str) -> None:
    """Ranges, references to slots, and what an open ring needs."""
    word, rd = DirectionWord.decode(d["word"]), ReadIndex.decode(d["rd"])
    found.expect(word.index % ALIGN == 0, f"{at}.word (index)", word.index, f"a multiple of {ALIGN}")
    for field in ("tx_on", "rx_on"):
        found.within(at, d, field, 0, ON_VALUES)
    for field in ("wslot", "opener"):
        found.within(at, d, field, 0, shot.slots_top)
    for field in ("wcpu", "rcpu"):
        found.within(at, d, field, 0, CPUS_MAX)
    thread = LockWord.decode(d["rthread"])
    plausible = not d["rthread"] or (thread.slot is not None and thread.slot < shot.slots_top and not thread.waiters)
    found.expect(plausible, f"{at}.rthread", d["rthread"], "0, or a thread of a slot")
    check_lock(found, shot, f"{at}.wlock", d["wlock"])
    check_lock(found, shot, f"{at}.rlock", d["rlock"])
    found.within(at, d, "pub_ns", 0, shot.taken_ns)
    seen = d["rd_seen"]
    plausible = seen % ALIGN == 0 and seen < 1 << C["WORD_INDEX_BITS"] and ahead(rd.index, seen) <= 2 * RING_MAX
    found.expect(plausible or not d["tx_on"], f"{at}.rd_seen", seen, f"an earlier read index (it is {rd.index} now)")
    if word.open:
        opener = d["opener"]
        live = 0 < opener <= shot.slots_top and binary.slot(shot.stack, opener - 1)["state"] == C["SLOT_LIVE"]
        found.expect(live, f"{at}.opener", opener, "a live slot, as the ring is open")
        found.expect(d["rx_on"] != 0, f"{at}.rx_on", d["rx_on"], "not 0, as the ring is open")
        found.expect(d["rchunk"] != 0, f"{at}.rchunk", 0, "a chunk, as the ring is open")
    bell = d["bell"]
    if bell:
        slot, number = divmod(bell - 1, C["N_BELLS"])
        ok = slot < shot.slots_top and binary.slot(shot.stack, slot)["state"] == C["SLOT_LIVE"]
        ok = ok and binary.slot(shot.stack, slot)["bells"][number]["used"] != 0
        found.expect(ok, f"{at}.bell", bell, "0, or a bell in use of a live slot")


def _counts(found: Findings, d: View, at: str) -> None:
    """Stream counts: nobody takes from the kernel what was not given to it."""
    for field in ("ksent", "taken"):
        found.expect(d[field] < COUNT_MAX, f"{at}.{field}", d[field], "a plausible count, below 2^60")
    if d["tx_on"] == d["rx_on"] == 1:
        found.expect(d["taken"] <= d["ksent"], f"{at}.taken", d["taken"], f"at most ksent, {d['ksent']}")


def _answered(found: Findings, d: View, other: View, at: str) -> None:
    """0, or an earlier index of the other direction; indices wrap, so that earlier means: less than half of all behind."""
    index, answered = DirectionWord.decode(other["word"]).index, d["answered"]
    plausible = answered % ALIGN == 0 and answered <= INDEX_MASK and ahead(index, answered) <= INDEX_MASK // 2
    found.expect(plausible or not answered, f"{at}.answered", answered, f"0, or an earlier index of the other direction ({index})")


def _chunks(found: Findings, shot: Snapshot, d: View, at: str, units: Units) -> None:
    """Chunks are sound, belong to this direction alone, and hold what is between the indices."""
    word, rd = DirectionWord.decode(d["word"]), unread(d)
    limit = min(binary.arena(shot.arena)["n_units"], C["N_UNITS"])
    chunks: dict[str, Chunk | None] = {}
    for field, packed in (("rchunk", d["rchunk"]), ("wchunk", d["wchunk"]), *residue_chunks(d)):
        chunk = Chunk.decode(packed)
        sound = chunk is None or (
            not chunk.extra
            and chunk.units <= C["MAX_RING_UNITS"]
            and 0 <= chunk.first <= limit - chunk.units
            and chunk.first % chunk.units == 0
        )
        if not found.expect(sound, f"{at}.{field}", packed, f"a chunk of a power of two of {limit} units, at a multiple of its size"):
            return
        if chunk is not None and not (field == "wchunk" and d["wchunk"] == d["rchunk"]):
            for unit in range(chunk.first, chunk.first + chunk.units):
                if unit in units:
                    found.add(f"{at}.{field}", f"unit {unit}", f"a unit that {units[unit]} does not have")
                units.setdefault(unit, f"{at}.{field}")
        chunks[field] = chunk
    rchunk, wchunk = chunks["rchunk"], chunks["wchunk"]
    if not found.expect((rchunk is None) == (wchunk is None), f"{at}.wchunk", d["wchunk"], "a chunk if and only if rchunk is one"):
        return
    pending = ahead(word.index, rd.index)
    if rchunk is None or wchunk is None:
        found.expect(pending == 0 and rd.consumed == 0, f"{at}.rd", d["rd"], "the write index, as there is no ring")
        return
    room = rchunk.bytes + (wchunk.bytes if d["wchunk"] != d["rchunk"] else 0)
    if not found.expect(
        pending <= room, f"{at}.{'re_rd' if d['re_on'] else 'rd'}", rd.index, f"at most {room} bytes behind the write index, {word.index}"
    ):
        return
    if pending == 0:
        found.expect(rd.consumed == 0, f"{at}.rd (consumed)", rd.consumed, "0 in an empty ring")
    for field, chunk, index, lock in (("rchunk", rchunk, rd.index, "rlock"), ("wchunk", wchunk, word.index, "wlock")):
        early = 0 < ahead(chunk.base, index) <= RING_MAX
        if early and not d[lock]:
            found.add(f"{at}.{field} (base)", chunk.base, f"not beyond the index, {index}, while nobody holds {lock}")
    check_chain(found, shot, d, at)


def _units(found: Findings, a: View, units: Units) -> None:
    """The map has exactly the units of live chunks."""
    marked = {w * 64 + b for w, bits in enumerate(a["units"]) for b in range(64) if bits >> b & 1}
    found.within("arena", a, "adrift", 0, 1)
    lost = marked - units.keys() if a["adrift"] else set()  # whoever takes the lock next finds them
    for unit in sorted(marked - units.keys() - lost)[:8]:
        found.add(f"arena.units (unit {unit})", "in use", "free: no live pair has it")
    for unit in sorted(units.keys() - marked)[:8]:
        found.add(f"arena.units (unit {unit})", "free", f"in use by {units[unit]}")
    found.equal("arena", a, "units_used", len(units) + len(lost))
