"""Mutations of a stack: every declared field of its records flipped, one at a time; and which flips nobody can see, with why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from unit.fix_stack import copy

from sharedstack.declare import binary, layout, nic, policy, wire
from sharedstack.declare.layout import CONSTANTS as C
from sharedstack.declare.model import Struct, scalar_size
from sharedstack.inspection.snapshot import Snapshot

# An engine's area is in no snapshot yet: shs_engine_check looks at it, in tests/sim; nor is a lent interface, see tests/wire. Rules are
# what somebody wrote into a file: any will do.
SNAPSHOT = [s for s in layout.STRUCTS if s not in (*policy.STRUCTS, *wire.STRUCTS, *nic.STRUCTS)]
FIELDS = frozenset(f"{s.name}.{p.field.name}" for s in SNAPSHOT for p in s.placed() if scalar_size(p.field.type))

# Fields whose flipped value nobody can know to be wrong.
EXCEPTIONS = {
    "slot.robust_links": "belongs to the owner's libc: pointers that mean nothing to others",
    "bell.name": "random by design",
    "bell.armed": "a number that is another one each time, 0 or not",
}

# With only the lowest bit flipped: fields of which a neighbouring value is as good.
NEIGHBOURS_AS_GOOD = {
    "counters and statistics": {
        "slot.sharing", "stack.probes",
        "slot.counters", "stack.totals", "endpoint.tx_kernel", "endpoint.tx_calls", "endpoint.tx_full", "endpoint.tx_bells",
        "endpoint.tx_local", "endpoint.rx_kernel", "endpoint.rx_lowers", "endpoint.rx_lifts", "endpoint.rx_local", "endpoint.rx_calls",
        "endpoint.pairings", "endpoint.tx_wire", "endpoint.rx_wire",
    },
    "whose set has it, if anybody's": {"endpoint.set_slot"},
    "as the program set them, where there is no ring to bound": {"endpoint.sndbuf", "endpoint.rcvbuf"},
    "times: any that has passed will do": {
        "slot.awaits_ns",
        "slot.start_ns", "endpoint.created_ns", "pair.made_ns", "direction.pub_ns", "pair.empty_ns", "pair.mark_ns", "pair.recall_ns",
        "link.wanted_ns", "link.allowed_ns", "link.denied_ns",
    },
    "identity that only the kernel knows": {"slot.pid", "slot.robust", "slot.pidns", "slot.comm", "endpoint.inode", "stack.n_cpus"},
    "stream positions that only the kernel knows": {
        "direction.ksent", "direction.re_ksent", "direction.re_base", "record.ksent",
        "pair.looks", "pair.empty", "pair.mark", "pair.mark_left",
    },
    "bytes of the head record, and padding up to the alignment": {"direction.rd", "direction.re_rd", "record.len"},
    "hints, heuristics, informative": {
        "stack.endpoint_hint", "arena.pair_hint", "direction.wcpu", "direction.rcpu", "direction.rthread", "direction.wslot",
        "endpoint.why_tx", "endpoint.why_rx", "endpoint.wire_why", "endpoint.slot", "endpoint.flags", "slot.flags", "direction.opener",
        "endpoint.denied", "endpoint.denied_peer",
    },
    "settings of which both values are lawful": {
        "arena.cooling", "arena.adrift", "endpoint.error", "endpoint.wire", "stack.pair_ok", "stack.n_nics", "stack.options", "stack.kept",
        "direction.tx_on", "direction.rx_on",
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


def mutations(shot: Snapshot, mask: int) -> Iterator[tuple[str, str, Snapshot]]:
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
