"""Keeping a stack's participants to the policy.

1  the rules are written into the stack's segment before it is opened; then (`begin`), and with them, into each participant's slot, which
   of them concern it;
2  who comes later is unjudged, and lifts nothing, until its nudge has come: then its slot is written (`judge`);
3  each time the core goes over the records of those who were judged: what is denied is lowered, what is not any more may be lifted;
4  `reload` does 1 and 3 for everybody. A file that cannot be understood changes nothing.
A process that takes a slot while there is no helper is judged by the next one.

What participants read lies in a segment that is theirs. Where the helper itself lifts something (the wire path), it asks its own copy of
the rules, and its own note of whom they concern.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from sharedstack.declare import layout, scan
from sharedstack.declare.layout import CONSTANTS
from sharedstack.inspection.processes import outside_pid

from .. import native
from ..environment import Place
from ..gc import Participants
from ..holders import holders
from ..loop import Loop
from ..segments import Segments
from ..settings import usual_file
from . import file, people
from .rules import Policy
from .table import End, Table

_SLOT = scan.reader(layout.SLOT, ("gen", "pid", "pidns", "rules_gen"))
_ENDPOINT = scan.reader(layout.ENDPOINT, ("state", "inode", "flags", "family"))
_SHARED, _LIVE, _DATAGRAM = CONSTANTS["EPF_SHARED"], CONSTANTS["EP_LIVE"], CONSTANTS["FAMILY_DATAGRAM"]
_UNJUDGED = CONSTANTS["VERDICT_UNJUDGED"]
_AGAIN = 0.002


@dataclass(frozen=True)
class Source:
    """Where the policy is. One that was named must be there; where the usual one is not, everything is allowed."""

    path: Path | None
    named: bool

    @classmethod
    def of(cls, named: Path | None) -> Source:
        """The file that was named, else the usual one, beside the helper's settings."""
        settings = usual_file(os.environ)
        return cls(named or (settings and settings.with_name("policy.toml")), named is not None)

    def read(self) -> Policy:
        """What it says. Raises PolicyError."""
        return file.read(self.path) if self.path and (self.named or os.path.lexists(self.path)) else Policy()


class Enforcer:
    """The policy of one stack. Everything runs in the main thread.

    `participants` yields slot and pid of the living; `obey` is called when what was lifted by the helper may have to be lowered.
    """

    def __init__(self, loop: Loop, place: Place, segments: Segments, source: Source, table: Table, participants: Participants) -> None:
        self._loop, self._place, self._segments, self._source = loop, place, segments, source
        self._participants, self._table = participants, table
        self._known: dict[int, tuple[int, int]] = {}  # slot: its generation, and which rules concern it
        self._stale: set[int] = set()  # slots whose records have still to be gone over
        self._retrying = False
        self._obey: Callable[[], None] = lambda: None
        u32, u64, address = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p
        self._put = native.function("policy_slot", None, address, u32, u64)
        self._apply = native.function("policy_apply", ctypes.c_int, address, address, ctypes.c_char_p, u32, ctypes.POINTER(u32))

    @property
    def policy(self) -> Policy:
        """What is in force."""
        return self._table.policy

    def obeyed_by(self, obey: Callable[[], None]) -> None:
        """Who lowers what the helper itself has lifted."""
        self._obey = obey

    def begin(self) -> None:
        """Put the policy in force, for all who are there."""
        self._known = dict(self._judged(slot for slot, _ in self._participants())) if self._table.policy.active else {}
        self._table.write(self._segments.stack_address, {slot: concern for slot, (_, concern) in self._known.items()})
        self._go_over(set(range(CONSTANTS["N_SLOTS"])))

    def judge(self) -> None:
        """Some process may have taken a slot."""
        if not self._table.policy.active:
            return
        fresh = {slot for slot, _ in self._participants() if not self._is_known(slot)}
        for slot, (gen, concern) in self._judged(fresh):
            self._known[slot] = gen, concern
            self._put(self._segments.stack_address, slot, concern)
        if fresh:
            self._go_over(fresh)

    def reload(self) -> str:
        """Read the file again: what is in force now, for people. PolicyError: nothing has changed."""
        self._table = Table(self._source.read())
        self.begin()
        return describe(self.policy)

    def verdict(self, slot: int, local: End, remote: End) -> int:
        """On a connection of the participant in a slot: 0, allowed; a rule's number plus one; or a VERDICT_*."""
        if not self._table.policy.active:
            return 0
        return self._table.verdict(self._known[slot][1], local, remote) if self._is_known(slot) else _UNJUDGED

    def _is_known(self, slot: int) -> bool:
        """Has it been judged since it was claimed?"""
        if not 0 <= slot < CONSTANTS["N_SLOTS"]:
            return False  # its registrar has gone
        gen, _, _, rules_gen = self._read(slot)
        return slot in self._known and self._known[slot][0] == gen and rules_gen != 0

    def _read(self, slot: int) -> tuple[int, ...]:
        return _SLOT.unpack_from(self._segments.stack_view, layout.STACK_SLOTS + slot * layout.SLOT.size)

    def _judged(self, slots: Iterable[int]) -> Iterable[tuple[int, tuple[int, int]]]:
        """Of each slot its generation and the rules that concern it; none that changes hands meanwhile."""
        uid = self._place.uid
        for slot in slots:
            gen, pid, pidns, _ = self._read(slot)
            ours = outside_pid(pid, pidns)
            who = people.who(ours, uid) if ours else people.unknown(uid)
            if self._read(slot)[:3] == (gen, pid, pidns):
                yield slot, (gen, self._table.policy.concerning(who))

    def _go_over(self, slots: set[int]) -> None:
        """The records of these participants, now, or as soon as the tables can be had."""
        self._stale |= slots
        if not self._retrying:
            self._again()

    def _again(self) -> None:
        fresh = bytes(slot in self._stale for slot in range(CONSTANTS["N_SLOTS"]))
        held = self._held()
        pairs = (ctypes.c_uint32 * (2 * len(held)))(*(number for pair in held for number in pair))
        done = self._apply(self._segments.stack_address, self._segments.arena_address, fresh, len(held), pairs)
        self._retrying = done == -errno.EBUSY
        if self._retrying:
            self._loop.later(_AGAIN, self._again)
            return
        self._stale.clear()
        self._obey()

    def _held(self) -> list[tuple[int, int]]:
        """Shared records that one of the stale participants has: record and slot."""
        records = scan.records(self._segments.stack_view, layout.STACK_ENDPOINTS, self._segments.endpoints_top, _ENDPOINT)
        shared = {
            inode: index
            for index, (state, inode, flags, family) in enumerate(records)
            if state == _LIVE and flags & _SHARED and family < _DATAGRAM
        }
        if not shared or not self._table.policy.active:
            return []
        slots = {pid: slot for slot, pid in self._participants() if pid and slot in self._stale}
        found = holders(slots, set(shared), rights=False).of
        return [(shared[inode], slots[pid]) for inode, pids in found.items() for pid in pids]


def describe(policy: Policy) -> str:
    """In one line, for people."""
    if not policy.source:
        return "no policy: everything is allowed"
    count = len(policy.rules)
    return f"{policy.source}: {count} rule{'s' * (count != 1)}, {'deny' if policy.default_deny else 'allow'} by default"
