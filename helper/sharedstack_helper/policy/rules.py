"""What a policy is: rules in an order, the first that applies to an end of a connection decides.

A rule has two halves. Users, groups and programs say whom it concerns; that is found out once for each participant. Addresses and ports
say which of their connections it applies to; that is compared for each (table.py).
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network

Span = tuple[int, int]  # the first and the last
Network = IPv4Network | IPv6Network


class Side(StrEnum):
    """Which end of a connection, as the participant sees it."""

    EITHER = ""
    LOCAL = "local_"
    REMOTE = "remote_"


@dataclass(frozen=True)
class Participant:
    """A process by whose rules its ends of connections are judged.

    `gids` are its group and its supplementary groups, `program` the path of its executable. None: it could not be found out, and then a
    rule that asks for it concerns the participant if it denies.
    """

    uid: int
    gids: frozenset[int] | None
    program: str | None


@dataclass(frozen=True)
class Rule:
    """A rule; what is empty is not asked for."""

    name: str
    deny: bool
    programs: tuple[str, ...] = ()
    uids: tuple[Span, ...] = ()
    gids: tuple[Span, ...] = ()
    addresses: tuple[tuple[Side, Network], ...] = ()
    ports: tuple[tuple[Side, Span], ...] = ()

    def concerns(self, who: Participant) -> bool:
        """Is the rule about that participant, whatever the connection?"""
        if self.uids and not _within(who.uid, self.uids):
            return False
        if self.gids and not (self.deny if who.gids is None else any(_within(gid, self.gids) for gid in who.gids)):
            return False
        if not self.programs:
            return True
        return self.deny if who.program is None else any(fnmatch.fnmatchcase(who.program, glob) for glob in self.programs)


@dataclass(frozen=True)
class Policy:
    """All rules in their order, what holds where none applies, and whether the kernel's own rules on lo are respected."""

    rules: tuple[Rule, ...] = ()
    default_deny: bool = False
    heed_lo: bool = True
    source: str = field(default="", compare=False)

    @property
    def active(self) -> bool:
        """Does it deny anything?"""
        return self.default_deny or any(rule.deny for rule in self.rules)

    def concerning(self, who: Participant) -> int:
        """The rules that concern a participant: bit i for rule i."""
        return sum(1 << i for i, rule in enumerate(self.rules) if rule.concerns(who))


def _within(number: int, spans: tuple[Span, ...]) -> bool:
    return any(first <= number <= last for first, last in spans)
