"""Checks of the links of datagram senders, and of the table that finds them by destination port."""

from __future__ import annotations

from ..declare import binary
from ..declare.binary import View
from ..declare.layout import CONSTANTS as C
from .check_endpoints import V4_MAPPED
from .check_stack import COUNT_MAX
from .findings import Findings
from .snapshot import Snapshot

STATE = (1 << C["LINK_STATE_BITS"]) - 1


def check_links(found: Findings, shot: Snapshot) -> None:
    """Check all links ever used, the count of those in use, and the chains."""
    used = 0
    for i in range(shot.links_top):
        link, at = binary.link(shot.links, i), f"link[{i}]"
        state = link["word"] & STATE
        known = state <= C["LINK_ALLOWED"] and link["word"] < COUNT_MAX
        if not found.expect(known, f"{at}.word", link["word"], "a known state and a plausible generation"):
            continue
        if state == C["LINK_FREE"]:
            continue
        used += 1
        if _datagram_end(found, shot, link["sender"], f"{at}.sender"):
            found.equal(at, link, "sport", binary.endpoint(shot.stack, link["sender"] - 1)["lport"])
        found.within(at, link, "dport", 1, 65535)
        one_family = link["saddr"].startswith(V4_MAPPED) == link["daddr"].startswith(V4_MAPPED)
        found.expect(one_family, f"{at}.saddr", link["saddr"], "an address of the family of daddr")
        found.within(at, link, "wanted_ns", binary.stack(shot.stack)["made_ns"], shot.taken_ns)
        found.within(at, link, "denied_ns", 0, shot.taken_ns)
        if state == C["LINK_ALLOWED"]:
            _allowed(found, shot, link, at)
    found.equal("stack", binary.stack(shot.stack), "links_used", used)
    _chains(found, shot)


def _datagram_end(found: Findings, shot: Snapshot, number: int, where: str) -> bool:
    there = 0 < number <= shot.endpoints_top
    ep = binary.endpoint(shot.stack, number - 1) if there else None
    ok = ep is not None and ep["state"] != C["EP_FREE"] and ep["family"] & C["FAMILY_DATAGRAM"]
    return found.expect(bool(ok), where, number, "a datagram socket's endpoint in use")


def _allowed(found: Findings, shot: Snapshot, link: View, at: str) -> None:
    """A permission names its receiver, that receiver's inbox and its generation."""
    if _datagram_end(found, shot, link["receiver"], f"{at}.receiver"):
        found.equal(at, link, "dport", binary.endpoint(shot.stack, link["receiver"] - 1)["lport"])
    found.within(at, link, "allowed_ns", binary.stack(shot.stack)["made_ns"], shot.taken_ns)
    if not found.within(at, link, "pair", 1, shot.pairs_top):
        return
    pair = binary.pair(shot.arena, link["pair"] - 1)
    found.expect(pair["endpoint"][1] == link["receiver"], f"{at}.pair", link["pair"], f"the inbox of endpoint {link['receiver']}")
    found.equal(at, link, "pair_gen", pair["gen"])


def _chains(found: Findings, shot: Snapshot) -> None:
    """Each link in use is in the chain of its destination port, once; nothing else is in any chain."""
    seen: set[int] = set()
    for number in range(C["N_LINK_BUCKETS"]):
        at, where = binary.link_bucket(shot.stack, number), f"links[{number}]"
        while at:
            fresh = 0 < at <= shot.links_top and at not in seen
            if not found.expect(fresh, where, at, f"0, or a link up to {shot.links_top} that is in no other chain"):
                break
            seen.add(at)
            link = binary.link(shot.links, at - 1)
            ok = link["word"] & STATE and link["dport"] % C["N_LINK_BUCKETS"] == number
            found.expect(bool(ok), where, at, "a link in use, to a port of this bucket")
            at, where = link["next"], f"link[{at - 1}].next"
    for i in range(shot.links_top):
        if binary.link(shot.links, i)["word"] & STATE and i + 1 not in seen:
            found.add(f"link[{i}].dport", "no chain", "the chain of its destination port")
