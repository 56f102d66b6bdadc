"""Checks of the endpoint records, their links to pairs, and the flow table."""

from __future__ import annotations

import socket

from ..declare import binary
from ..declare.binary import View
from ..declare.kernel_options import known
from ..declare.layout import CONSTANTS as C
from ..declare.reasons import REASONS
from .check_stack import COUNT_MAX, GEN_MAX
from .findings import Findings
from .flows import bucket_of
from .snapshot import Snapshot
from .words import DirectionWord, ReadIndex

DATAGRAM = C["FAMILY_DATAGRAM"]
V4_MAPPED = bytes(10) + b"\xff\xff"
FLAGS = sum(v for k, v in C.items() if k.startswith("EPF_"))
# beyond this the 46-bit ring index may have wrapped, and byte counts cannot be held against it
_UNWRAPPED = 1 << 40
# once in some seconds at most
_PAIRINGS_MAX = 1 << 28
BUFFER_MAX = 1 << 30  # the kernel takes no more: half of INT_MAX (socket(7))

_STATISTICS = ("tx_local", "tx_kernel", "tx_calls", "tx_full", "tx_bells", "rx_local", "rx_kernel", "rx_calls", "rx_lifts", "rx_lowers")
_WIRE = ("tx_wire", "rx_wire", "wire_lifts", "wire_handle")


def check_endpoints(found: Findings, shot: Snapshot) -> None:
    """Check all records ever used, the count of those in use, and the flow table."""
    used = 0
    cookies: dict[int, int] = {}
    for i in range(shot.endpoints_top):
        ep, at = binary.endpoint(shot.stack, i), f"endpoint[{i}]"
        found.within(at, ep, "state", C["EP_FREE"], C["EP_CLOSED"])
        found.within(at, ep, "gen", 1, GEN_MAX)
        if ep["state"] == C["EP_FREE"]:
            found.equal(at, ep, "pair", 0)
            found.equal(at, ep, "flow_next", 0)
            continue
        used += 1
        _record(found, shot, ep, at)
        if ep["family"] & DATAGRAM:
            _datagram(found, shot, ep, at, i)
        elif ep["pair"]:
            _paired(found, shot, ep, at, i)
        if ep["cookie"] in cookies:
            found.add(f"{at}.cookie", ep["cookie"], f"another than endpoint[{cookies[ep['cookie']]}] has")
        cookies[ep["cookie"]] = i
    found.equal("stack", binary.stack(shot.stack), "endpoints_used", used)
    top = binary.stack(shot.stack)["endpoints_top"]
    if top < shot.endpoints_there:
        beyond = binary.endpoint(shot.stack, top)
        found.expect(beyond["gen"] == 0, f"endpoint[{top}].gen", beyond["gen"], "0: beyond endpoints_top, never used")
    _flow_table(found, shot)


def _record(found: Findings, shot: Snapshot, ep: View, at: str) -> None:
    found.expect(0 < ep["cookie"] < 1 << 63, f"{at}.cookie", ep["cookie"], "a socket cookie")
    found.within(at, ep, "inode", 1, 0xFFFFFFFF)
    found.within(at, ep, "side", 0, 1)
    found.within(at, ep, "error", 0, 4095)
    found.expect(not ep["flags"] & ~FLAGS, f"{at}.flags", ep["flags"], "known flags")
    found.expect(ep["slot"] in (*range(shot.slots_top + 1), C["BURIED"]), f"{at}.slot", ep["slot"], f"0 to {shot.slots_top}, or buried")
    found.within(at, ep, "holders", 1, C["N_SLOTS"])
    found.within(at, ep, "lport", 1, 65535)
    found.within(at, ep, "created_ns", binary.stack(shot.stack)["made_ns"], shot.taken_ns)
    found.within(at, ep, "why_tx", 0, len(REASONS) - 1)
    found.within(at, ep, "why_rx", 0, len(REASONS) - 1)
    option = ep["opt_level"], ep["opt_name"]
    found.expect(known(*option), f"{at}.opt_name", option, "0, 0, a declared option, or flags of a call")
    for field in _STATISTICS:
        found.expect(ep[field] < COUNT_MAX, f"{at}.{field}", ep[field], "a plausible count, below 2^60")
    watched = ep["set_slot"] <= shot.slots_top or ep["set_slot"] == C["SET_MANY"]
    found.expect(watched, f"{at}.set_slot", ep["set_slot"], f"0 to {shot.slots_top}, or {C['SET_MANY']}")
    for field in ("sndbuf", "rcvbuf"):
        found.within(at, ep, field, 0, BUFFER_MAX)
    _policy(found, ep, at)
    _wire(found, shot, ep, at)
    if not ep["family"] & DATAGRAM:
        _connection(found, ep, at)


def _policy(found: Findings, ep: View, at: str) -> None:
    """Verdicts are of rules that there can be, and a connection's flag says whether there is one (written right behind them)."""
    for field in ("denied", "denied_peer"):
        found.within(at, ep, field, 0, C["VERDICT_UNJUDGED"])
    if not ep["family"] & DATAGRAM:
        denied = bool(ep["denied"] or ep["denied_peer"])
        found.expect(denied == bool(ep["flags"] & C["EPF_DENIED"]), f"{at}.denied", ep["denied"], "0, or EPF_DENIED is set")


def _wire(found: Findings, shot: Snapshot, ep: View, at: str) -> None:
    """Whose connection it is, an engine's or the kernel's: the generation counts how often it was lifted."""
    word, links = ep["wire"], binary.stack(shot.stack)["n_nics"]
    state, link = word & C["WIRE_STATE_MASK"], word >> C["WIRE_LINK_SHIFT"] & C["WIRE_LINK_MASK"]
    lifts = word >> C["WIRE_GEN_SHIFT"]
    begun, spare = word & C["WIRE_BEGUN"], word & (1 << C["WIRE_LINK_SHIFT"]) - 1 & ~(C["WIRE_STATE_MASK"] | C["WIRE_BEGUN"])
    known = not spare and (not begun or state == C["WIRE_LIFTING"]) and (not link or link < max(links, 1))
    found.expect(known, f"{at}.wire", word, f"a WIRE_* state and one of {links} links")
    ahead = int(state == C["WIRE_LIFTING"])  # the helper counts it in between
    expected = range(ep["wire_lifts"], ep["wire_lifts"] + ahead + 1)
    found.expect(lifts in expected, f"{at}.wire", word, f"a generation that agrees with wire_lifts, {ep['wire_lifts']}")
    found.within(at, ep, "wire_why", 0, len(REASONS) - 1)
    if not ep["wire_lifts"]:
        for field in _WIRE:
            found.expect(ep[field] == 0, f"{at}.{field}", ep[field], "0 while it was never lifted to an engine")


def _connection(found: Findings, ep: View, at: str) -> None:
    """What a connection's record has, and a datagram socket's need not have."""
    found.within(at, ep, "rport", 1, 65535)
    if found.expect(ep["family"] in (socket.AF_INET, socket.AF_INET6), f"{at}.family", ep["family"], "AF_INET or AF_INET6"):
        for field in ("laddr", "raddr"):
            mapped = ep[field].startswith(V4_MAPPED)
            if ep["family"] == socket.AF_INET:
                found.expect(mapped, f"{at}.{field}", ep[field], "::ffff:a.b.c.d, as the family is AF_INET")
            found.expect(any(ep[field][12:] if mapped else ep[field]), f"{at}.{field}", ep[field], "an address, not the wildcard")
    found.expect(ep["tx_calls"] <= ep["tx_local"], f"{at}.tx_calls", ep["tx_calls"], "not more than tx_local bytes")
    found.expect(ep["rx_calls"] <= ep["rx_local"], f"{at}.rx_calls", ep["rx_calls"], "not more than rx_local bytes")
    found.expect(not (ep["pair"] and ep["flags"] & C["EPF_UNPAIRED"]), f"{at}.flags", ep["flags"], "not EPF_UNPAIRED, as it has a pair")
    found.within(at, ep, "pairings", 1 if ep["pair"] else 0, _PAIRINGS_MAX)
    if not ep["pairings"]:
        for field in ("side", "tx_local", "rx_local", "rx_lifts"):
            found.expect(ep[field] == 0, f"{at}.{field}", ep[field], "0 while it was never paired")


def _datagram(found: Findings, shot: Snapshot, ep: View, at: str, index: int) -> None:
    """The record of a datagram socket has an inbox of its own, which names it."""
    known = ep["family"] - DATAGRAM in (socket.AF_INET, socket.AF_INET6)
    found.expect(known, f"{at}.family", ep["family"], "FAMILY_DATAGRAM + AF_INET or AF_INET6")
    found.within(at, ep, "side", 1, 1)
    found.equal(at, ep, "pairings", 0)
    if not found.within(at, ep, "pair", 1, shot.pairs_top):
        return
    pair = binary.pair(shot.arena, ep["pair"] - 1)
    found.expect(pair["state"] == C["PAIR_LIVE"], f"{at}.pair", ep["pair"], "a live pair")
    found.expect(pair["endpoint"] == (0, index + 1), f"{at}.pair", ep["pair"], f"an inbox whose endpoint is {index + 1}")
    found.expect(pair["cookie"] == (0, ep["cookie"]), f"{at}.cookie", ep["cookie"], f"{pair['cookie'][1]}, as in its inbox")


def _paired(found: Findings, shot: Snapshot, ep: View, at: str, index: int) -> None:
    """The pair names this record and its cookie on its side; the other end has the mirrored addresses."""
    if not found.within(at, ep, "pair", 1, shot.pairs_top) or ep["side"] > 1:
        return
    pair, side = binary.pair(shot.arena, ep["pair"] - 1), ep["side"]
    if not found.expect(pair["state"] == C["PAIR_LIVE"], f"{at}.pair", ep["pair"], "a live pair"):
        return
    found.expect(pair["endpoint"][side] == index + 1, f"{at}.pair", ep["pair"], f"a pair whose endpoint[{side}] is {index + 1}")
    found.expect(pair["cookie"][side] == ep["cookie"], f"{at}.cookie", ep["cookie"], f"{pair['cookie'][side]}, as in its pair")
    found.expect(pair["made_ns"] >= ep["created_ns"], f"{at}.created_ns", ep["created_ns"], "not after its pair was made")
    other = pair["endpoint"][1 - side] - 1
    if 0 <= other < shot.endpoints_top and other != index:
        mate = binary.endpoint(shot.stack, other)
        for mine, its in (("laddr", "raddr"), ("raddr", "laddr"), ("lport", "rport"), ("rport", "lport"), ("family", "family")):
            found.expect(ep[mine] == mate[its], f"{at}.{mine}", ep[mine], f"the {its} of endpoint[{other}], its mate")
    _statistics(found, ep, pair, at)


def _statistics(found: Findings, ep: View, pair: View, at: str) -> None:
    """Counts of ring bytes may lag behind the indices (they are written later), never lead, while there was but one pair."""
    if ep["pairings"] > 1:
        return
    sends, receives = pair["dir"][ep["side"]], pair["dir"][1 - ep["side"]]
    written, rd = DirectionWord.decode(sends["word"]).index, ReadIndex.decode(receives["rd"])
    if ep["tx_local"] < _UNWRAPPED:
        found.expect(ep["tx_local"] <= written, f"{at}.tx_local", ep["tx_local"], f"at most the write index, {written}")
    if ep["rx_local"] < _UNWRAPPED:
        found.expect(ep["rx_local"] <= rd.index + rd.consumed, f"{at}.rx_local", ep["rx_local"], f"at most the read index, {rd.index}")


def _flow_table(found: Findings, shot: Snapshot) -> None:
    """Each record in use is in the chain of its own bucket, once; nothing else is in any chain, and none is a circle."""
    seen: dict[int, int] = {}
    for number in range(C["N_FLOW_BUCKETS"]):
        link, where = binary.flow_bucket(shot.stack, number), f"flow[{number}]"
        while link:
            if not found.expect(link <= shot.endpoints_top, where, link, f"0 to {shot.endpoints_top}"):
                break
            ep = binary.endpoint(shot.stack, link - 1)
            if not found.expect(link not in seen, where, link, f"an endpoint not yet in flow[{seen.get(link)}]"):
                break
            seen[link] = number
            if found.expect(ep["state"] != C["EP_FREE"], where, link, "an endpoint in use"):
                found.expect(bucket_of(ep) == number, f"endpoint[{link - 1}].flow", number, f"bucket {bucket_of(ep)}, of its addresses")
            link, where = ep["flow_next"], f"endpoint[{link - 1}].flow_next"
    for i in range(shot.endpoints_top):
        ep = binary.endpoint(shot.stack, i)
        if ep["state"] != C["EP_FREE"] and i + 1 not in seen:
            found.add(f"endpoint[{i}].flow", "no chain", f"bucket {bucket_of(ep)}")
