"""Rules as the walk sees them, wherever they come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """What becomes of a packet: accept, drop, continue, return, queue, jump or goto a chain."""

    code: str
    chain: str = ""


@dataclass(frozen=True)
class Expression:
    """One step of a rule: `kind` as nftables calls it, and what it is given."""

    kind: str
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """`handle` names it to people (nft -a list ruleset)."""

    handle: int
    steps: tuple[Expression, ...]


@dataclass(frozen=True)
class Element:
    """Of a set: the first key, the last one, and of a verdict map what it says."""

    low: bytes
    high: bytes
    verdict: Verdict | None = None


@dataclass
class Chain:
    """A chain, with `hook` empty where it is only jumped to. `drops`: what no rule decided is dropped."""

    family: str
    table: str
    name: str
    hook: str = ""
    type: str = ""
    drops: bool = False
    rules: list[Rule] = field(default_factory=list)

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.family} {self.table} {self.name}"


@dataclass
class Ruleset:
    """All chains, by family, table and name; `elements` yields those of a set, None where they are not to be known."""

    chains: dict[tuple[str, str, str], Chain] = field(default_factory=dict)
    elements: Callable[[str, str, str], list[Element] | None] = lambda *_: None
