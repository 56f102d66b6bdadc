"""A snapshot decoded into plain records, the same ones for the tables, JSON and msgpack."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from ..declare import binary, layout, scan
from ..declare.binary import View
from ..declare.counters import COUNTERS
from ..declare.kernel_options import shown
from ..declare.layout import CONSTANTS as C
from ..declare.options import OPTIONS
from ..declare.reasons import REASONS
from . import processes
from .held import HeldLock, held
from .lent import Link, links
from .snapshot import Snapshot
from .words import UNIT, Chunk, DirectionWord, ahead, unread

STACK_STATES = {C["STACK_READY"]: "ready", C["STACK_DRAINING"]: "draining", C["STACK_RETIRED"]: "retired"}
SLOT_STATES = {C["SLOT_CLAIMED"]: "claimed", C["SLOT_LIVE"]: "live", C["SLOT_DEAD"]: "dead"}
EP_STATES = {C["EP_LIVE"]: "live", C["EP_CLOSED"]: "closed"}
_OPTION = next(i for i, r in enumerate(REASONS) if r.name == "option")
_MAPPED = bytes(10) + b"\xff\xff"
# Reasons that come and go with what the ends do.
_PASSING = ("reader_asleep", "not_reading", "native_reader", "peer_unknown", "idle", "lowered_rule", "unjudged", "lo_rules")
_RECORD = scan.reader(layout.ENDPOINT, ("state", "pair", "wire"))
EP_FLAGS = {k[4:].lower(): v for k, v in C.items() if k.startswith("EPF_")}


@dataclass(frozen=True)
class Participant:
    """A process that has mapped the stack; `pid` as we see it (0: not visible), `own_pid` as it sees itself."""

    slot: int
    state: str
    pid: int
    own_pid: int
    comm: str
    bits: int
    helper: bool
    alive: bool
    spinning: int
    counters: dict[str, int]
    told: dict[int, str]
    """Why sockets, by inode, will have no endpoint record."""


@dataclass(frozen=True)
class Path:
    """One direction as an endpoint sees it.

    `why` is a reason's name, "none" on the local or the wire path; `option` names the option where the reason is one, and `rule` what
    keeps it where that is a rule; empty else.
    """

    path: str
    why: str
    local_bytes: int
    kernel_bytes: int
    waiting: int
    ring: int
    option: str = ""
    wire_bytes: int = 0
    rule: str = ""


@dataclass(frozen=True)
class Endpoint:
    """An endpoint record."""

    index: int
    proto: str
    state: str
    local: str
    remote: str
    cookie: int
    inode: int
    pair: int | None
    side: int
    flags: list[str]
    slot: int
    tx: Path
    rx: Path
    processes: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class End:
    """Of an endpoint record what it takes to name it to people and to the helper."""

    index: int
    cookie: int
    local: str
    remote: str
    processes: list[dict[str, Any]]


@dataclass(frozen=True)
class State:
    """All of a stack that `inspect` shows."""

    stack: dict[str, Any]
    participants: list[Participant]
    endpoints: list[Endpoint]
    locks: list[HeldLock]
    memory: dict[str, Any]
    counters: dict[str, int]
    options: dict[str, int]
    links: list[Link] = field(default_factory=list)


def reason(code: int) -> str:
    """Name of a reason; unknown codes are shown as numbers."""
    return REASONS[code].name if code < len(REASONS) else f"reason {code}"


def decode(shot: Snapshot, *, live: bool) -> State:
    """Decode; `live` looks into /proc for what the snapshot cannot know (not for a snapshot from a file)."""
    s = binary.stack(shot.stack)
    participants = _participants(shot, live)
    holders = _holders(participants) if live else {}
    eps = [binary.endpoint(shot.stack, i) for i in range(shot.endpoints_top)]
    return State(
        stack={
            "name": shot.name,
            "state": STACK_STATES.get(s["state"], str(s["state"])),
            "uid": s["uid"],
            "netns": s["netns"],
            "layout": f"{s['layout_hash']:#x}",
            "helper": next((p.pid for p in participants if p.helper and p.alive), None),
            "pairing": bool(s["pair_ok"]),
            "cpus": s["n_cpus"],
            "spinners": s["spinners"],
            "age_ns": shot.taken_ns - s["made_ns"],
        },
        participants=participants,
        endpoints=[_endpoint(shot, ep, i, holders.get(ep["inode"], [])) for i, ep in enumerate(eps) if ep["state"] != C["EP_FREE"]],
        locks=held(shot, participants, live=live),
        memory=_memory(shot),
        counters=_sum(s["totals"], participants),
        options={o.name: value for o, value in zip(OPTIONS, s["options"], strict=False)},
        links=links(shot) if live else [],
    )


def used(shot: Snapshot) -> list[int]:
    """Records that are in use."""
    return [i for i, (state, _, _) in enumerate(_records(shot)) if state != C["EP_FREE"]]


def lifted(shot: Snapshot) -> list[int]:
    """Of those the ones that are not the kernel's already: a ring is open, or an engine has it. Cheap, however many are idle.

    Of the two ends of a connection one stands for both.
    """
    free, engines, mask = C["EP_FREE"], C["WIRE_ON"], C["WIRE_STATE_MASK"]
    found, rings = [], _open_pairs(shot)
    for i, (state, pair, wire) in enumerate(_records(shot)):
        if state != free and (pair in rings or wire & mask == engines):
            found.append(i)
            rings.discard(pair)
    return found


def ends(shot: Snapshot, indices: list[int]) -> list[End]:
    """These records, and which participants hold their sockets."""
    holders = _holders(_participants(shot, True)) if indices else {}
    found = []
    for i in indices:
        ep = binary.endpoint(shot.stack, i)
        local, remote = processes.printable(ep["laddr"], ep["lport"]), processes.printable(ep["raddr"], ep["rport"])
        found.append(End(i, ep["cookie"], local, remote, holders.get(ep["inode"], [])))
    return found


def _records(shot: Snapshot) -> Iterable[tuple[int, ...]]:
    return scan.records(shot.stack, layout.STACK_ENDPOINTS, shot.endpoints_top, _RECORD)


def _open_pairs(shot: Snapshot) -> set[int]:
    """Pairs of which a ring is open, plus one, as a record names them."""
    place, size = layout.PAIR.place("dir"), layout.PAIR.size
    first, second = (place.offset + side * place.item + layout.DIRECTION.place("word").offset for side in (0, 1))
    word, arena, bit = struct.Struct("<Q").unpack_from, shot.arena, C["WORD_OPEN"]
    pairs = enumerate(range(layout.ARENA_PAIRS, layout.ARENA_PAIRS + shot.pairs_top * size, size), 1)
    return {i for i, at in pairs if (word(arena, at + first)[0] | word(arena, at + second)[0]) & bit}


def _named(values: tuple[int, ...]) -> dict[str, int]:
    return {c.name: value for c, value in zip(COUNTERS, values, strict=False)}


def _sum(totals: tuple[int, ...], participants: list[Participant]) -> dict[str, int]:
    return {name: total + sum(p.counters[name] for p in participants) for name, total in _named(totals).items()}


def _participants(shot: Snapshot, live: bool) -> list[Participant]:
    found = []
    for i in range(shot.slots_top):
        slot = binary.slot(shot.stack, i)
        if slot["state"] == C["SLOT_FREE"]:
            continue
        pid = processes.outside_pid(slot["pid"], slot["pidns"]) if live else slot["pid"]
        dead = slot["state"] == C["SLOT_DEAD"] or processes.slot_dead(slot["robust"], slot["flags"])
        found.append(
            Participant(
                slot=i,
                state=SLOT_STATES.get(slot["state"] & (1 << C["SLOT_STATE_BITS"]) - 1, str(slot["state"])),
                pid=pid,
                own_pid=slot["pid"],
                comm=binary.text(slot["comm"]),
                bits=slot["bits"],
                helper=bool(slot["flags"] & C["SLOT_HELPER"]),
                alive=not dead and (not live or not pid or processes.alive(pid)),
                spinning=slot["spinning"],
                counters=_named(slot["counters"]),
                told={one >> C["TOLD_SHIFT"]: reason(one & ((1 << C["TOLD_SHIFT"]) - 1)) for one in slot["told"] if one},
            )
        )
    return found


def _holders(participants: list[Participant]) -> dict[int, list[dict[str, Any]]]:
    """Which participants hold which socket, by inode."""
    holders: dict[int, list[dict[str, Any]]] = {}
    for p in participants:
        for inode, fds in (processes.sockets(p.pid) if p.pid and p.alive else {}).items():
            holders.setdefault(inode, []).append({"pid": p.pid, "comm": p.comm, "fds": fds})
    return holders


def _endpoint(shot: Snapshot, ep: View, index: int, holders: list[dict[str, Any]]) -> Endpoint:
    return Endpoint(
        index=index,
        proto="udp" if ep["family"] & C["FAMILY_DATAGRAM"] else "tcp",
        state=EP_STATES.get(ep["state"], str(ep["state"])),
        local=processes.printable(ep["laddr"], ep["lport"]),
        remote=processes.printable(ep["raddr"], ep["rport"]),
        cookie=ep["cookie"],
        inode=ep["inode"],
        pair=ep["pair"] - 1 if ep["pair"] else None,
        side=ep["side"],
        flags=[name for name, bit in EP_FLAGS.items() if ep["flags"] & bit],
        slot=-1 if ep["slot"] == C["BURIED"] else ep["slot"] - 1,
        tx=_ruled(shot, ep, _links(shot, ep, index) if ep["family"] & C["FAMILY_DATAGRAM"] else _path(shot, ep, sends=True)),
        rx=_ruled(shot, ep, _path(shot, ep, sends=False)),
        processes=holders,
    )


def _ruled(shot: Snapshot, ep: View, path: Path) -> Path:
    """The same path, with what keeps it in the kernel where that is a rule, and more to the point than why it is there just now."""
    verdict, connection = ep["denied"] or ep["denied_peer"], not ep["family"] & C["FAMILY_DATAGRAM"]
    passing = path.path == "kernel" and connection and path.why in _PASSING
    family = C["KEPT_INET"] if ep["laddr"].startswith(_MAPPED) else C["KEPT_INET6"]
    if passing and ep["flags"] & C["EPF_DENIED"]:
        path = replace(path, why="unjudged" if verdict == C["VERDICT_UNJUDGED"] else "lowered_rule")
    elif passing and ep["pair"] and binary.stack(shot.stack)["kept"] & family:
        path = replace(path, why="lo_rules")
    if path.why not in ("lowered_rule", "lo_rules"):
        return path
    policy = binary.policy(memoryview(shot.policy))
    if path.why == "lo_rules":
        return replace(path, rule=binary.text(policy["lo_rule"]))
    rule = binary.text(policy["rules"][verdict - 1]["name"]) if 0 < verdict <= C["N_RULES"] else "the default"
    return replace(path, rule=rule if ep["denied"] else f"{rule}, by which the other end is judged")


def _links(shot: Snapshot, ep: View, index: int) -> Path:
    """Where a datagram socket's datagrams go: by an engine, to some peer at least; by a ring, if a reading receiver has allowed it."""
    if ep["wire"] & C["WIRE_STATE_MASK"] == C["WIRE_ON"]:
        return _path(shot, ep, sends=True)
    for i in range(shot.links_top):
        link = binary.link(shot.links, i)
        allowed = link["word"] & (1 << C["LINK_STATE_BITS"]) - 1 == C["LINK_ALLOWED"]
        if allowed and link["sender"] == index + 1 and 0 < link["pair"] <= shot.pairs_top and not ep["flags"] & C["EPF_KERNEL_ONLY"]:
            d = binary.pair(shot.arena, link["pair"] - 1)["dir"][0]
            if DirectionWord.decode(d["word"]).pushable:
                return Path("local", "none", ep["tx_local"], ep["tx_kernel"], 0, 0)
    path = Path("kernel", reason(ep["why_tx"]) if ep["why_tx"] else "reader_asleep", ep["tx_local"], ep["tx_kernel"], 0, 0)
    return _not_an_engines(path, ep, sends=True)


def _path(shot: Snapshot, ep: View, *, sends: bool) -> Path:
    """Which way the bytes of one direction go now, and if by the kernel, why."""
    wire_bytes = ep["tx_wire"] if sends else ep["rx_wire"]
    if ep["wire"] & C["WIRE_STATE_MASK"] == C["WIRE_ON"]:
        local_bytes, kernel_bytes = (ep["tx_local"], ep["tx_kernel"]) if sends else (ep["rx_local"], ep["rx_kernel"])
        return Path("wire", "none", local_bytes, kernel_bytes, 0, 0, wire_bytes=wire_bytes)
    return _not_an_engines(_beside_wire(shot, ep, sends), ep, sends=sends)


def _not_an_engines(path: Path, ep: View, *, sends: bool) -> Path:
    """The same path; why it is not an engine's, if that is what keeps it with the kernel."""
    path = replace(path, wire_bytes=ep["tx_wire"] if sends else ep["rx_wire"])
    if ep["family"] & C["FAMILY_DATAGRAM"]:
        remote = ep["wire_why"] and path.why in ("peer_unknown", "not_linked", "reader_asleep")
    else:
        remote = path.why == "peer_unknown" and (ep["flags"] & C["EPF_REMOTE"] or ep["wire_why"])
    return replace(path, why=reason(ep["wire_why"]) if ep["wire_why"] else "wire_young") if remote else path


def _beside_wire(shot: Snapshot, ep: View, sends: bool) -> Path:
    """The same of a connection that is not an engine's."""
    local_bytes, kernel_bytes = (ep["tx_local"], ep["tx_kernel"]) if sends else (ep["rx_local"], ep["rx_kernel"])
    why = ep["why_tx"] if sends else ep["why_rx"]
    if not 0 < ep["pair"] <= shot.pairs_top or ep["side"] > 1:
        return Path("kernel", reason(why) if why else "peer_unknown", local_bytes, kernel_bytes, 0, 0)
    pair, side = binary.pair(shot.arena, ep["pair"] - 1), ep["side"] if sends else 1 - ep["side"]
    d = pair["dir"][side]
    word, rd, chunk = DirectionWord.decode(d["word"]), unread(d), Chunk.decode(d["wchunk"])
    waiting, ring = ahead(word.index, rd.index), chunk.bytes if chunk else 0
    writer = binary.endpoint(shot.stack, pair["endpoint"][side] - 1) if 0 < pair["endpoint"][side] <= shot.endpoints_top else None
    refused = writer is not None and writer["flags"] & (C["EPF_KERNEL_ONLY"] | C["EPF_WRSHUT"])
    if d["tx_on"] and d["rx_on"] and word.pushable and not refused:
        return Path("local", "none", local_bytes, kernel_bytes, waiting, ring)
    why, option = _why(shot, pair, ep, why, sends)
    return Path("kernel", reason(why) if why else "reader_asleep", local_bytes, kernel_bytes, waiting, ring, option)


def _why(shot: Snapshot, pair: View, ep: View, why: int, sends: bool) -> tuple[int, str]:
    """The end's own reason, else the other end's for the same direction; 0: the reader sleeps. And the option, if it is one."""
    option = _option(ep)
    other = pair["endpoint"][1 - ep["side"]]
    if not why and not option and 0 < other <= shot.endpoints_top:
        mate = binary.endpoint(shot.stack, other - 1)
        why, option = mate["why_rx"] if sends else mate["why_tx"], _option(mate)
    return (_OPTION if option else why), option


def _option(ep: View) -> str:
    """What made a connection the kernel's, in both directions, if it was an option."""
    return shown(ep["opt_level"], ep["opt_name"]) if ep["flags"] & C["EPF_KERNEL_ONLY"] else ""


def _memory(shot: Snapshot) -> dict[str, Any]:
    s, a = binary.stack(shot.stack), binary.arena(shot.arena)
    rings: dict[int, int] = {}
    for i in range(shot.pairs_top):
        pair = binary.pair(shot.arena, i)
        for d in pair["dir"] if pair["state"] == C["PAIR_LIVE"] else ():
            for packed in {d["rchunk"], d["wchunk"]}:
                chunk = Chunk.decode(packed)
                if chunk:
                    rings[chunk.bytes] = rings.get(chunk.bytes, 0) + 1
    return {
        "unit_bytes": UNIT,
        "units_used": a["units_used"],
        "units": a["n_units"],
        "rings": {str(size): rings[size] for size in sorted(rings)},
        "pairs_used": a["pairs_used"],
        "pairs": C["N_PAIRS"],
        "endpoints_used": s["endpoints_used"],
        "endpoints": C["N_ENDPOINTS"],
        "links_used": s["links_used"],
        "links": C["N_LINKS"],
        "slots_top": s["slots_top"],
        "slots": C["N_SLOTS"],
        "bulk": "System V, huge pages" if a["bulk_kind"] == C["BULK_SYSV_HUGE"] else "POSIX",
    }
