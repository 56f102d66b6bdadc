"""What packets of established flows on lo meet in a ruleset: the rules that count, change or may drop them.

A packet is walked through each base chain that lo's packets pass, as the kernel would, but with answers of three kinds: a step that may fit
lets the walk go on both ways. So what is found is never too little. Not looked at (docs/policy.md says why each may be ignored): chains of
type nat, which see a connection's first packet alone; hook forward; counters.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from . import xtables
from .packet import Answer, Network, Packet, Value
from .ruleset import Chain, Expression, Rule, Ruleset, Verdict

# Where packets on lo arrive, and where they leave.
_ARRIVES, _LEAVES = ("ingress", "prerouting", "input"), ("output", "postrouting", "egress")
_FAMILIES = {4: ("inet", "ip", "netdev"), 6: ("inet", "ip6", "netdev")}
_DEPTH = 32  # NFT_JUMP_STACK_SIZE is 16
# Steps that only look: what they load may be anything.
_LOADS = {"rt", "socket", "osf", "hash", "xfrm", "fib", "byteorder", "tunnel", "inner"}
_HARMLESS = {"counter", "last", "notrack"}
_EFFECTS = {
    "limit": "limits the rate of packets",
    "quota": "counts bytes against a quota",
    "connlimit": "counts connections",
    "log": "logs packets",
    "queue": "hands packets to a program",
    "dup": "duplicates packets",
    "fwd": "forwards packets",
    "tproxy": "redirects packets",
    "synproxy": "answers for connections",
    "numgen": "counts packets to choose among them",
    "reject": "may reject packets",
    "nat": "changes addresses",
    "masq": "changes addresses",
    "redir": "changes addresses",
    "dynset": "notes packets in a set",
    "flow_offload": "takes flows elsewhere",
    "secmark": "marks packets",
}
_COUNTER = (1, "NFT_REG_1")  # NFT_OBJECT_COUNTER; pyroute2 takes the number for a register's


@dataclass(frozen=True)
class Finding:
    """What keeps packets in the kernel: of IP version 4, 6, or 0 for both; and what it is, for people."""

    version: int
    text: str


@dataclass
class _Walk:
    """One packet's way."""

    ruleset: Ruleset
    packet: Packet
    found: list[Finding] = field(default_factory=list)
    untracks: bool = False

    def base(self, chain: Chain) -> None:
        """From a hook."""
        arrives = chain.hook in _ARRIVES
        if self._chain(chain, arrives, 0) and chain.drops:
            self._note(chain, None, "drops by its policy what no rule of it accepts")

    def _note(self, chain: Chain, rule: Rule | None, what: str) -> None:
        where = f"nft {chain.text}" + (f" handle {rule.handle}" if rule else "")
        self.found.append(Finding(self.packet.version, f"{where} {what}"))

    def _chain(self, chain: Chain, arrives: bool, depth: int) -> bool:
        """May a packet come out of it at its end, or by return?"""
        returns = False
        for rule in chain.rules:
            fits, verdicts = self._rule(chain, rule, arrives)
            if fits is False or not verdicts:
                continue
            goes_on = fits is None
            for verdict in verdicts:
                if verdict.code in ("drop", "queue"):
                    self._note(chain, rule, "may drop packets" if verdict.code == "drop" else _EFFECTS["queue"])
                elif verdict.code == "return":
                    returns = True
                elif verdict.code == "continue":
                    goes_on = True
                elif verdict.code in ("jump", "goto"):
                    target = self.ruleset.chains.get((chain.family, chain.table, verdict.chain))
                    back = target is None or depth >= _DEPTH or self._chain(target, arrives, depth + 1)
                    returns |= back and verdict.code == "goto"
                    goes_on |= back and verdict.code == "jump"
            if not goes_on:
                return returns
        return True

    def _rule(self, chain: Chain, rule: Rule, arrives: bool) -> tuple[Answer, list[Verdict]]:
        """Does it fit, and what may become of the packet then; its effects are noted."""
        registers: dict[str, Value] = {}
        fits: Answer = True
        for step in rule.steps:
            if step.kind == "immediate" and isinstance(step.given.get("DATA"), Verdict):
                return fits, [step.given["DATA"]]
            if step.kind == "lookup" and "VERDICT" in str(step.given.get("DREG", "")):
                answer, verdicts = self._mapped(chain, step, registers)
                return (fits if answer is True else answer), verdicts
            if step.kind in ("reject", "synproxy"):
                self._note(chain, rule, _EFFECTS[step.kind])
                return fits, [Verdict("stolen")]
            answer = self._step(chain, rule, step, registers, arrives)
            if answer is False:
                return False, []
            fits = fits if answer is True else None
        return fits, []

    def _step(self, chain: Chain, rule: Rule, step: Expression, registers: dict[str, Value], arrives: bool) -> Answer:
        kind, given = step.kind, step.given
        if kind in ("match", "target"):
            return self._of_xtables(chain, rule, step)
        if kind == "notrack":
            self.untracks = True
        elif kind == "objref" and given.get("IMM_TYPE") not in _COUNTER:
            self._note(chain, rule, "limits, counts or marks packets by an object")
            return None
        elif kind in ("meta", "ct", "payload", "exthdr") and "SREG" in given:
            self._note(chain, rule, f"changes packets, or marks them ({kind} {given.get('KEY', 'bytes')})".lower())
        elif kind in ("meta", "ct", "payload"):
            registers[str(given.get("DREG"))] = self._loaded(kind, given, arrives)
        elif kind == "bitwise":
            value, mask, xor = registers.get(str(given.get("SREG"))), given.get("MASK"), given.get("XOR")
            plain = value is not None and isinstance(mask, bytes) and isinstance(xor, bytes)
            registers[str(given.get("DREG"))] = value.masked(mask, xor) if plain and value and mask and xor else Value.unknown(4)
        elif kind == "immediate":
            registers[str(given.get("DREG"))] = Value.of(given["DATA"]) if isinstance(given.get("DATA"), bytes) else Value.unknown(4)
        elif kind in ("cmp", "range"):
            return _compared(kind, given, registers.get(str(given.get("SREG"))))
        elif kind == "lookup":
            answer = self._looked_up(chain, given, registers)
            return (None if answer is None else not answer) if given.get("FLAGS") else answer
        elif kind in _LOADS or (kind == "numgen" and "RANDOM" in str(given.get("TYPE"))) or (kind == "exthdr" and "DREG" in given):
            registers[str(given.get("DREG"))] = Value.unknown(16)
            return None if kind == "exthdr" else True
        elif kind not in _HARMLESS and kind != "objref":
            self._note(chain, rule, _EFFECTS.get(kind, f"has a step that is not understood ({kind})"))
            registers[str(given.get("DREG"))] = Value.unknown(16)
            return None
        return True

    def _loaded(self, kind: str, given: Mapping[str, Any], arrives: bool) -> Value:
        if kind == "meta":
            return self.packet.meta(str(given.get("KEY")), arrives) or Value.unknown(16)
        if kind == "ct":
            return self.packet.state if given.get("KEY") == "STATE" else Value.unknown(16)
        return self.packet.header(str(given.get("BASE")).removesuffix("_HEADER"), int(given.get("OFFSET", 0)), int(given.get("LEN", 1)))

    def _looked_up(self, chain: Chain, given: Mapping[str, Any], registers: dict[str, Value]) -> Answer:
        value = registers.get(str(given.get("SREG")))
        if value is None or value == Value.unknown(value.size):
            return None  # whatever is in the set
        elements = self.ruleset.elements(chain.family, chain.table, str(given.get("SET")))
        if elements is None:
            return None
        answers = [value.within(one.low, one.high) if len(one.low) == value.size else None for one in elements]
        return True if True in answers else None if None in answers else False

    def _mapped(self, chain: Chain, step: Expression, registers: dict[str, Value]) -> tuple[Answer, list[Verdict]]:
        """What a verdict map may say."""
        value = registers.get(str(step.given.get("SREG")), Value.unknown(0))
        elements = self.ruleset.elements(chain.family, chain.table, str(step.given.get("SET")))
        if elements is None:
            return None, [Verdict("drop")]
        answers = [(value.within(one.low, one.high) if len(one.low) == value.size else None, one.verdict) for one in elements]
        verdicts = [verdict for answer, verdict in answers if answer is not False and verdict]
        return True if any(answer is True for answer, _ in answers) else None if verdicts else False, verdicts

    def _of_xtables(self, chain: Chain, rule: Rule, step: Expression) -> Answer:
        """What iptables-nft has left as it was."""
        name, info = str(step.given.get("NAME")), step.given.get("INFO")
        if step.kind == "match":
            if name in xtables.STATEFUL:
                self._note(chain, rule, f"counts packets (match {name})")
            return xtables.fits(name, int(step.given.get("REV") or 0), info if isinstance(info, bytes) else b"", self.packet.state)
        if name == "NOTRACK" or (name == "CT" and chain.table == "raw"):
            self.untracks = True
        else:
            self._note(chain, rule, f"changes, logs or drops packets (target {name})")
        return True


def _compared(kind: str, given: Mapping[str, Any], value: Value | None) -> Answer:
    if value is None:
        return None
    if kind == "range":
        low, high = given.get("FROM_DATA"), given.get("TO_DATA")
        inside = value.within(low, high) if isinstance(low, bytes) and isinstance(high, bytes) else None
        return _not(inside) if "NEQ" in str(given.get("OP")) else inside
    data, op = given.get("DATA"), str(given.get("OP"))
    if not isinstance(data, bytes) or not data:
        return None
    lowest, highest, number = bytes(len(data)), b"\xff" * len(data), int.from_bytes(data)
    if op in ("EQ", "NEQ"):
        same = value.within(data, data)
        return same if op == "EQ" else _not(same)
    if op in ("LTE", "GT"):
        inside = value.within(lowest, data)
        return inside if op == "LTE" else _not(inside)
    if op == "GTE":
        return value.within(data, highest)
    return value.within(lowest, (number - 1).to_bytes(len(data))) if op == "LT" and number else None


def _not(answer: Answer) -> Answer:
    return None if answer is None else not answer


def look(ruleset: Ruleset, own: Iterable[Network], lo: int) -> list[Finding]:
    """What packets of established flows between these addresses meet; `lo` is the interface's number."""
    addresses, found = tuple(own), list[Finding]()
    base = [chain for chain in ruleset.chains.values() if chain.hook in (*_ARRIVES, *_LEAVES) and chain.type != "nat"]
    for version, families in _FAMILIES.items():
        for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
            walk = _Walk(ruleset, Packet(version, protocol, addresses, lo))
            for again in (False, True):
                walk = _Walk(ruleset, replace(walk.packet, untracked=walk.untracks))
                for chain in base:
                    if chain.family in families:
                        walk.base(chain)
                if again or not walk.untracks:
                    break
            found += [one for one in walk.found if one not in found]
    return found
