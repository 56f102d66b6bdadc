"""Endpoint records that outlived their kernel socket: found by asking the kernel, and freed.

1  candidates: records whose registrar is dead, or that several processes may hold; no others, because a live sole holder frees
   its own, and a socket that was reset is in no list of the kernel while its holder may still read. One that such a holder
   closed, but could not free because a table was locked, is freed at once;
2  the kernel's list of sockets, taken after the candidates: who is on it stays;
3  for those that are not, the descriptors of the living participants: who holds it open stays. Where bytes are unread for it, those of all
   processes: a program that was just executed is no participant yet, and will find them by the record. So will whoever takes a descriptor
   out of a Unix socket: while any is under way, all such records stay;
4  the native core frees the rest, each if it still bears the same cookie, and nobody has come to have it since step 1.

A record whose registrar is dead, and whose socket is not gone, is held by somebody else, who may be no participant: nobody tells when he
closes it, nor when a descriptor that is under way is dropped. So those are looked for again, ever more seldom.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sharedstack.declare import layout, scan
from sharedstack.declare.layout import CONSTANTS

from . import announce, diag
from .holders import any_under_way, everybody, held_open, holders
from .loop import Look, Loop
from .native import Native
from .segments import Segments

_ENDPOINT = scan.reader(layout.ENDPOINT, ("state", "cookie", "inode", "flags", "slot", "holders"))
_FREE, _CLOSED, _SHARED = CONSTANTS["EP_FREE"], CONSTANTS["EP_CLOSED"], CONSTANTS["EPF_SHARED"]
# Deaths come in groups: wait a moment for the rest, and spend at most a twentieth of the time on this.
_DELAY, _SHARE = 0.01, 20
_LAST_DELAY = 5.0
_FIRST, _LAST = 0.03, 30.0

Participants = Callable[[], list[tuple[int, int]]]


@dataclass(frozen=True)
class _Candidate:
    index: int
    cookie: int
    inode: int
    holders: int
    shared: bool
    alive: bool  # its registrar
    closed: bool  # by its only holder


class Collector:
    """Frees the endpoint records of sockets that are gone, some time after `request`."""

    def __init__(self, loop: Loop, native: Native, segments: Segments) -> None:
        self._native, self._segments = native, segments
        self._participants: Participants = list
        self._look = Look(loop, self._run, _FIRST, _LAST)
        self._delay = _DELAY
        self.freed = 0

    def look_at(self, participants: Participants) -> None:
        """Where to learn the slots and pids of the living."""
        self._participants = participants

    def request(self) -> None:
        """Someone died, or gave up a shared socket: collect soon, once for all requests until then."""
        self._look.within(self._delay)

    def _run(self) -> None:
        began = time.monotonic()
        try:
            busy, left = self._collect()
        except OSError as error:
            announce.complain(f"cannot ask the kernel for its sockets: {error}; records of closed connections stay for now")
            busy, left = False, True
        cost = time.monotonic() - began
        self._delay = min(_LAST_DELAY, max(_DELAY, cost * _SHARE))
        if busy:
            self.request()
        elif left:
            self._look.again(self._delay)

    def _collect(self) -> tuple[bool, bool]:
        """One collection: could some records not be freed because a table was locked, and does somebody hold a dead one's socket?"""
        candidates = list(self._candidates())
        if not candidates:
            return False, False
        busy = kept = False
        gone = [c for c in candidates if c.closed]
        if len(gone) < len(candidates):
            live = diag.live_cookies()
            unheld, kept = self._unheld([c for c in candidates if not c.closed and c.cookie not in live])
            gone += unheld
        for one in gone:
            freed = self._native.endpoint_gone(one.index, one.cookie, one.holders)
            busy = busy or not freed
            self.freed += bool(freed)
        return busy, kept or sum(not c.alive for c in candidates) > sum(not c.alive for c in gone)

    def _candidates(self) -> Iterable[_Candidate]:
        alive: dict[int, bool] = {}
        found = scan.records(self._segments.stack_view, layout.STACK_ENDPOINTS, self._segments.endpoints_top, _ENDPOINT)
        for index, (state, cookie, inode, flags, slot1, held_by) in enumerate(found):
            if state == _FREE or not cookie:
                continue
            if slot1 not in alive:
                alive[slot1] = 0 < slot1 <= CONSTANTS["N_SLOTS"] and self._native.slot_alive(slot1 - 1)
            shared, closed = bool(flags & _SHARED) or held_by > 1, state == _CLOSED
            if shared or closed or not alive[slot1]:
                yield _Candidate(index, cookie, inode, held_by, shared, alive[slot1], closed)

    def _unheld(self, missing: list[_Candidate]) -> tuple[list[_Candidate], bool]:
        """Those of them that no living participant holds open; where one cannot be looked at, shared ones are kept. And whether some
        are kept because descriptors are under way."""
        if not missing:
            return missing, False
        held, hidden = held_open(self._participants(), {c.inode for c in missing})
        unheld = [c for c in missing if c.inode not in held and not (hidden and c.shared)]
        unread = {c.inode for c in unheld if c.shared and self._native.unread(c.index, c.cookie)}
        if not unread:
            return unheld, False
        anywhere = set(holders(everybody(), unread, rights=False).of)
        if unread - anywhere:
            if any_under_way(everybody()):
                return [c for c in unheld if c.inode not in unread], True
            anywhere |= set(holders(everybody(), unread, rights=False).of)  # one may have been taken out since the first look
        return [c for c in unheld if c.inode not in anywhere], False
