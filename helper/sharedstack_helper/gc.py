"""Endpoint records that outlived their kernel socket: found by asking the kernel, and freed.

1  candidates: records whose registrar is dead, or that several processes may hold; no others, because a live sole holder frees
   its own, and a socket that was reset is in no list of the kernel while its holder may still read;
2  the kernel's list of sockets, taken after the candidates: who is on it stays;
3  for those that are not, the descriptors of the living participants: who holds it open stays. Where bytes are unread for it, those of all
   processes: a program that was just executed is no participant yet, and will find them by the record;
4  the native core frees the rest, each if it still bears the same cookie.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sharedstack.declare import layout, scan
from sharedstack.declare.layout import CONSTANTS

from . import announce, diag
from .holders import everybody, held_open, holders
from .loop import Loop
from .native import Native
from .segments import Segments

_ENDPOINT = scan.reader(layout.ENDPOINT, ("state", "cookie", "inode", "flags", "slot", "holders"))
_FREE, _SHARED = CONSTANTS["EP_FREE"], CONSTANTS["EPF_SHARED"]
# Deaths come in groups: wait a moment for the rest, and spend at most a twentieth of the time on this.
_DELAY, _SHARE = 0.01, 20
_LAST_DELAY = 5.0

Participants = Callable[[], list[tuple[int, int]]]


@dataclass(frozen=True)
class _Candidate:
    index: int
    cookie: int
    inode: int
    shared: bool


class Collector:
    """Frees the endpoint records of sockets that are gone, some time after `request`."""

    def __init__(self, loop: Loop, native: Native, segments: Segments) -> None:
        self._loop, self._native, self._segments = loop, native, segments
        self._participants: Participants = list
        self._due = False
        self._delay = _DELAY
        self.freed = 0

    def look_at(self, participants: Participants) -> None:
        """Where to learn the slots and pids of the living."""
        self._participants = participants

    def request(self) -> None:
        """Someone died, or gave up a shared socket: collect soon, once for all requests until then."""
        if not self._due:
            self._due = True
            self._loop.later(self._delay, self._run)

    def _run(self) -> None:
        self._due = False
        began = time.monotonic()
        try:
            busy = self._collect()
        except OSError as error:
            announce.complain(f"cannot ask the kernel for its sockets: {error}; records of closed connections stay for now")
            busy = False
        cost = time.monotonic() - began
        self._delay = min(_LAST_DELAY, max(_DELAY, cost * _SHARE))
        if busy:
            self.request()

    def _collect(self) -> bool:
        """One collection; True if some records could not be freed because a table was locked."""
        candidates = list(self._candidates())
        if not candidates:
            return False
        live = diag.live_cookies()
        busy = False
        for one in self._unheld([c for c in candidates if c.cookie not in live]):
            freed = self._native.endpoint_gone(one.index, one.cookie)
            busy = busy or freed is None
            self.freed += bool(freed)
        return busy

    def _candidates(self) -> Iterable[_Candidate]:
        alive: dict[int, bool] = {}
        found = scan.records(self._segments.stack_view, layout.STACK_ENDPOINTS, self._segments.endpoints_top, _ENDPOINT)
        for index, (state, cookie, inode, flags, slot1, held_by) in enumerate(found):
            if state == _FREE or not cookie:
                continue
            if slot1 not in alive:
                alive[slot1] = 0 < slot1 <= CONSTANTS["N_SLOTS"] and self._native.slot_alive(slot1 - 1)
            shared = bool(flags & _SHARED) or held_by > 1
            if shared or not alive[slot1]:
                yield _Candidate(index, cookie, inode, shared)

    def _unheld(self, missing: list[_Candidate]) -> list[_Candidate]:
        """Those of them that no living participant holds open; where one cannot be looked at, shared ones are kept."""
        if not missing:
            return missing
        held, hidden = held_open(self._participants(), {c.inode for c in missing})
        unheld = [c for c in missing if c.inode not in held and not (hidden and c.shared)]
        unread = {c.inode for c in unheld if c.shared and self._native.unread(c.index, c.cookie)}
        if not unread:
            return unheld
        anywhere = holders(everybody(), unread, rights=False).of
        return [c for c in unheld if c.inode not in anywhere]
