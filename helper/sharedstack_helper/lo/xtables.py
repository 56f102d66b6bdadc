"""Matches of xtables that iptables-nft hands to nftables as they are: which of them count, and what the one for states says."""

from __future__ import annotations

import struct

from .packet import Answer, Value, together

# What a packet leaves a trace in.
STATEFUL = frozenset(("limit", "hashlimit", "recent", "quota", "connlimit", "connbytes", "statistic", "quota2", "rateest"))
_STATE_ONLY = 1  # XT_CONNTRACK_STATE
_CONNTRACK = 146  # where struct xt_conntrack_mtinfo2 and 3 have match_flags, invert_flags and state_mask


def fits(name: str, revision: int, info: bytes, state: Value) -> Answer:
    """Does the match fit a packet in one of these states?"""
    if name == "comment":
        return True
    states = [struct.unpack("=I", value.to_bytes(4))[0] for value, _ in state.ways]  # the same bits as there (XT_CONNTRACK_STATE_BIT)
    if name == "conntrack" and revision >= 2 and len(info) >= _CONNTRACK + 6:
        flags, inverted, mask = struct.unpack_from("=HHH", info, _CONNTRACK)
        if flags == _STATE_ONLY:
            return together(bool(mask & one) != bool(inverted & _STATE_ONLY) for one in states)
    if name == "state" and len(info) >= 4:
        (mask,) = struct.unpack_from("=I", info)
        return together(bool(mask & one) for one in states)
    return None
