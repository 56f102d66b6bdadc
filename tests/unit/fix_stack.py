"""A synthetic stack for tests of `inspect`: built field by field over the declared layout, consistent in all that the checker knows.

Slots: 0 the helper, 1 and 2 programs, 3 free again. Endpoints: 0-1 a connection over IPv4 with unread records, 2-3 one over
IPv6 whose first ring was just outgrown, 4 not paired, 5 free again. Pairs: 0 and 1 of those connections, 2 free again.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from sharedstack.declare import binary, layout, names
from sharedstack.declare.binary import View
from sharedstack.declare.layout import CONSTANTS as C
from sharedstack.inspection.flows import bucket_of
from sharedstack.inspection.snapshot import Snapshot
from sharedstack.inspection.words import Chunk, DirectionWord, ReadIndex, aligned, bell_ref, take_ref

UID, NETNS, STACK = 1000, 0x1003, "main"
NOW = 5_000_000_000
MADE = 1_000_000_000
V4 = bytes(10) + b"\xff\xff"
NAME = names.segment(UID, NETNS, STACK, "stack").lstrip("/").removesuffix(".stack")


@dataclass
class Record:
    """A ring record to be written."""

    length: int
    ksent: int
    kind: int = C["REC_DATA"]


class Builder:
    """Makes the memory; each method adds one consistent thing."""

    def __init__(self) -> None:
        self.stack = memoryview(bytearray(layout.STACK_ENDPOINTS + 7 * layout.ENDPOINT.size))
        self.arena = memoryview(bytearray(layout.ARENA_PAIRS + 4 * layout.PAIR.size))
        self.bulk: dict[int, bytes] = {}
        self.next_unit = 0

    def headers(self) -> None:
        s, a = binary.stack(self.stack), binary.arena(self.arena)
        s["magic"], s["layout_hash"], s["version"] = C["STACK_MAGIC"], layout.HASH, C["VERSION"]
        s["uid"], s["netns"], s["made_ns"], s["n_cpus"] = UID, NETNS, MADE, 2
        s["state"], s["helper"], s["pair_ok"] = C["STACK_READY"], 1, 1
        s["endpoint_hint"], s["endpoints_used"], s["endpoints_top"], s["slots_top"] = 5, 5, 6, 4
        s["options"] = tuple(o.default for o in layout.OPTIONS) + (0,) * (64 - len(layout.OPTIONS))
        s["totals"] = tuple(range(len(layout.COUNTERS))) + (0,) * (64 - len(layout.COUNTERS))
        for part in ("stack", "arena", "bulk"):
            s[f"{part}_name"] = names.segment(UID, NETNS, STACK, part).encode()
        a["magic"], a["layout_hash"], a["uid"] = C["ARENA_MAGIC"], layout.HASH, (UID, UID)
        a["bulk_kind"], a["bulk_id"], a["n_units"] = C["BULK_POSIX"], -1, C["N_UNITS"]
        a["pair_hint"], a["pairs_used"], a["pairs_top"] = 2, 2, 3

    def slot(self, index: int, pid: int, comm: str, flags: int = 0) -> View:
        slot = binary.slot(self.stack, index)
        slot["robust"], slot["state"], slot["gen"], slot["pid"], slot["uid"] = pid, C["SLOT_LIVE"], 1, pid, UID
        slot["start_ns"], slot["pidns"], slot["flags"], slot["bits"] = MADE + index, 4026531836, flags, 64
        slot["comm"] = comm.encode()
        slot["counters"] = tuple(range(10, 10 + len(layout.COUNTERS))) + (0,) * (64 - len(layout.COUNTERS))
        bell = slot["bells"][0]
        bell["name"], bell["used"] = 0x1234_5678_9ABC_DEF0 + index, 1
        return slot

    def endpoint(self, index: int, family: int, local: tuple[bytes, int], remote: tuple[bytes, int], slot: int) -> View:
        ep = binary.endpoint(self.stack, index)
        ep["state"], ep["gen"], ep["cookie"], ep["inode"] = C["EP_LIVE"], 1, 7001 + index, 90001 + index
        ep["slot"], ep["holders"], ep["family"] = slot + 1, 1, family
        (ep["laddr"], ep["lport"]), (ep["raddr"], ep["rport"]) = local, remote
        ep["created_ns"] = MADE + 1000 + index
        ep["tx_kernel"], ep["rx_kernel"] = 400, 400
        at = layout.STACK_FLOWS + bucket_of(ep) * 4
        ep["flow_next"] = int.from_bytes(self.stack[at : at + 4], "little")
        self.stack[at : at + 4] = (index + 1).to_bytes(4, "little")
        return ep

    def chunk(self, log: int, base: int) -> Chunk:
        size = 1 << log
        first = -(-self.next_unit // size) * size
        self.next_unit = first + size
        a = binary.arena(self.arena)
        words = list(a["units"])
        for unit in range(first, first + size):
            words[unit // 64] |= 1 << unit % 64
        a["units"] = tuple(words)
        a["units_used"] = a["units_used"] + size
        return Chunk(first, log, base)

    def pair(self, index: int, ends: tuple[int, int]) -> View:
        pair = binary.pair(self.arena, index)
        pair["state"], pair["gen"], pair["made_ns"] = C["PAIR_LIVE"], 1, MADE + 2000
        pair["endpoint"] = (ends[0] + 1, ends[1] + 1)
        for side, end in enumerate(ends):
            ep = binary.endpoint(self.stack, end)
            ep["pair"], ep["side"], ep["pairings"] = index + 1, side, 1
        pair["cookie"] = tuple(binary.endpoint(self.stack, e)["cookie"] for e in ends)
        for side, d in enumerate(pair["dir"]):
            d["wcookie"], d["rcookie"] = pair["cookie"][side], pair["cookie"][1 - side]
            d["tx_on"] = d["rx_on"] = 1
            d["ksent"] = d["taken"] = 400
            d["pub_ns"], d["wcpu"], d["rcpu"] = MADE + 3000, 1, 0
        return pair

    def ring(self, d: View, start: int, records: list[Record], *, opener: int | None, takers: int = 0) -> Chunk:
        """An open (or shut) ring with `records` unread from index `start`; a REC_SWITCH record goes on in a new chunk."""
        chunk = self.chunk(0, 64)
        d["rchunk"], index = chunk.encode(), start
        for r in records:
            at, step = chunk.place(index), layout.RECORD.size + aligned(r.length)
            raw = bytearray(layout.RECORD.size)
            view = View(layout.RECORD, memoryview(raw))
            view["len"], view["kind"], view["ksent"] = r.length, r.kind, r.ksent
            index += step
            if r.kind == C["REC_SWITCH"]:
                chunk = self.chunk(2, index)
                view["ksent"] = chunk.encode()
            self.bulk[at] = bytes(raw)
        d["wchunk"], d["rd"], d["rd_seen"] = chunk.encode(), ReadIndex(start, 0).encode(), start
        d["word"] = DirectionWord(index, opener is not None, False, takers).encode()
        d["opener"] = 0 if opener is None else opener + 1
        return chunk


def build() -> Snapshot:
    """The synthetic stack described above, clean to the checker."""
    b = Builder()
    b.headers()
    b.slot(0, 4000, "sharedstack-hel", C["SLOT_HELPER"])
    server, client = b.slot(1, 4001, "redis-server"), b.slot(2, 4002, "redis-cli")
    client["spinning"] = 1
    s = binary.stack(b.stack)
    s["spinners"] = 1
    binary.slot(b.stack, 3)["gen"] = 2
    one, two = (V4 + bytes([127, 0, 0, 1]), 6379), (V4 + bytes([127, 0, 0, 1]), 40000)
    six, seven = (bytes(15) + b"\1", 6379), (bytes(15) + b"\1", 40001)
    b.endpoint(0, socket.AF_INET, one, two, 1)
    b.endpoint(1, socket.AF_INET, two, one, 2)
    b.endpoint(2, socket.AF_INET6, six, seven, 1)
    b.endpoint(3, socket.AF_INET6, seven, six, 2)
    b.endpoint(4, socket.AF_INET, (V4 + bytes([10, 0, 0, 1]), 51000), (V4 + bytes([10, 0, 0, 9]), 80), 2)["why_tx"] = 1
    binary.endpoint(b.stack, 5)["gen"] = 3
    first, second = b.pair(0, (0, 1)), b.pair(1, (2, 3))
    binary.pair(b.arena, 2)["gen"] = 1
    b.ring(first["dir"][0], 1024, [Record(64, 300), Record(100, 400)], opener=2)
    b.ring(first["dir"][1], 2048, [], opener=None, takers=1)
    server["takes"] = (take_ref(0, 1),) + (0,) * 63
    b.ring(second["dir"][0], 640, [Record(200, 400), Record(0, 0, C["REC_SWITCH"]), Record(5000, 400)], opener=2)
    second["dir"][0]["bell"] = bell_ref(2, 0)
    client["bells"][0]["armed"] = 1
    for i in range(4):
        ep = binary.endpoint(b.stack, i)
        ep["tx_local"], ep["tx_calls"], ep["rx_local"], ep["rx_calls"], ep["rx_lifts"] = 0, 0, 0, 0, 1
    ep = binary.endpoint(b.stack, 0)
    ep["tx_local"], ep["tx_calls"] = 164 + 600, 9
    binary.endpoint(b.stack, 1)["rx_local"] = 600
    return Snapshot(NAME, NOW, b.stack, b.arena, b.bulk)


def with_datagrams() -> Snapshot:
    """The same, and in the free places a datagram socket that sends to itself: endpoint 5, inbox 2, link 0."""
    shot = build()
    b = Builder()
    b.stack, b.arena, b.bulk = shot.stack, shot.arena, shot.bulk
    b.next_unit = 8
    here, port = V4 + bytes([127, 0, 0, 1]), 5353
    ep = b.endpoint(5, socket.AF_INET + C["FAMILY_DATAGRAM"], (here, port), (bytes(16), 0), 1)
    inbox = binary.pair(b.arena, 2)
    inbox["state"], inbox["gen"], inbox["made_ns"] = C["PAIR_LIVE"], 2, MADE + 2000
    inbox["endpoint"], inbox["cookie"] = (0, 6), (0, ep["cookie"])
    inbox["looks"], inbox["empty"], inbox["empty_ns"] = 40, 38, MADE + 9000
    inbox["mark"], inbox["mark_ns"], inbox["mark_left"] = 39, MADE + 9500, 3
    ep["pair"], ep["side"] = 3, 1
    ring = inbox["dir"][0]
    ring["tx_on"] = ring["rx_on"] = 1
    ring["rcookie"] = ep["cookie"]
    source = port << 32 | 0x0100007F
    b.ring(ring, 512, [Record(0, source, C["REC_DATAGRAM"]), Record(30, source, C["REC_DATAGRAM"])], opener=1)
    ring["wr_seen"] = 512
    s, a = binary.stack(b.stack), binary.arena(b.arena)
    s["endpoints_used"], a["pairs_used"], s["links_used"], s["links_top"] = 6, 3, 1, 1
    links = memoryview(bytearray(layout.LINK.size))
    link = binary.link(links, 0)
    link["word"] = 4 << C["LINK_STATE_BITS"] | C["LINK_ALLOWED"]
    link["sender"] = link["receiver"] = 6
    link["pair"], link["pair_gen"], link["dport"], link["sport"] = 3, 2, port, port
    link["wanted_ns"], link["allowed_ns"] = MADE + 8000, MADE + 9600
    link["daddr"] = link["saddr"] = here
    at = layout.STACK_LINK_BUCKETS + port % C["N_LINK_BUCKETS"] * 4
    b.stack[at : at + 4] = (1).to_bytes(4, "little")
    return Snapshot(NAME, NOW, b.stack, b.arena, b.bulk, links)


def copy(shot: Snapshot) -> Snapshot:
    """A snapshot that can be changed without changing `shot`."""
    parts = (memoryview(bytearray(part)) for part in (shot.stack, shot.arena))
    return Snapshot(shot.name, shot.taken_ns, *parts, dict(shot.bulk), memoryview(bytearray(shot.links)))
