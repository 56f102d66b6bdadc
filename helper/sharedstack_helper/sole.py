"""Connections that several processes held, and one holds now: found by looking, and lifted (again) from then on.

An accepted connection that a child serves is shared by fork until the parent has closed it; one that was stored with us, until
somebody has taken it. Nobody tells when the others are gone, so after each event that may mean it (a participant attached or died, a
shared one was closed or met) the holders are looked for, as native/endpoint/sole.c says. While something is shared still that would
pay to be lifted, the look is repeated, ever more seldom.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from sharedstack.declare import layout, scan
from sharedstack.declare.layout import CONSTANTS

from .gc import Participants
from .holders import everybody, holders
from .loop import Look, Loop
from .native import Native
from .segments import Segments

_ENDPOINT = scan.reader(layout.ENDPOINT, ("state", "cookie", "inode", "pair", "flags", "family"))
_SLOT = scan.reader(layout.SLOT, ("state", "sharing"))
_LIVE, _DATAGRAM = CONSTANTS["EP_LIVE"], CONSTANTS["FAMILY_DATAGRAM"]
_SHARED, _KERNEL_ONLY, _STORED = (CONSTANTS[f"EPF_{name}"] for name in ("SHARED", "KERNEL_ONLY", "STORED"))
_REMOTE, _UNPAIRED = CONSTANTS["EPF_REMOTE"], CONSTANTS["EPF_UNPAIRED"]
_NEVER = CONSTANTS["EPF_RDSHUT"] | CONSTANTS["EPF_WRSHUT"] | CONSTANTS["EPF_SEALED"] | CONSTANTS["EPF_PINNED"]
# The first look comes at once, and at most a fifth of a CPU is spent on this.
_DELAY, _SHARE = 0.003, 5
_FIRST, _LAST = 0.03, 30.0


@dataclass(frozen=True)
class _Candidate:
    index: int
    cookie: int
    inode: int


class Sole:
    """Looks who holds shared connections, some time after `request`, and as long as there are any."""

    def __init__(self, loop: Loop, native: Native, segments: Segments, participants: Participants) -> None:
        self._native, self._segments, self._participants = native, segments, participants
        self._look = Look(loop, self._run, _FIRST, _LAST)
        self._cost = 0.0

    def request(self) -> None:
        """Somebody came, went, or gave up a shared socket."""
        self._look.within(max(_DELAY, self._cost * _SHARE))

    def _run(self) -> None:
        candidates = list(self._candidates())
        if not candidates:
            return
        began = time.process_time()
        left = self._find(candidates)
        self._cost = time.process_time() - began
        if left:
            self._look.again(self._cost * _SHARE)

    def _candidates(self) -> Iterable[_Candidate]:
        """Shared connections, and stored ones that were taken back, whose peer is there to lift them with."""
        found = scan.records(self._segments.stack_view, layout.STACK_ENDPOINTS, self._segments.endpoints_top, _ENDPOINT)
        for index, (state, cookie, inode, pair, flags, family) in enumerate(found):
            if state != _LIVE or not flags & _SHARED or flags & _NEVER or family >= _DATAGRAM:
                continue
            # of what was stored the pair may have gone by a look that did not come to its end; an idle connection has given it back
            if flags & _STORED or (not flags & _KERNEL_ONLY and (pair or flags & (_REMOTE | _UNPAIRED))):
                yield _Candidate(index, cookie, inode)

    def _find(self, candidates: list[_Candidate]) -> bool:
        """One search for all of them; is any left that may yet come to have one holder?"""
        self._native.search()
        probed = [one for one in candidates if self._native.probe(one.index, one.cookie)]
        calm = {slot for slot, (_, sharing) in enumerate(self._slots()) if not sharing}
        slots = {pid: slot for slot, pid in self._participants()}
        if 0 in slots:  # one of another pid namespace, where /proc may not show us who has what
            return bool(probed)
        among = holders(slots, {one.inode for one in probed}, rights=False)
        likely = [one for one in probed if among.sole(one.inode) is not None]
        if not likely:
            return bool(probed)
        among = holders(everybody(), {one.inode for one in likely}, rights=True)
        done = 0
        for one in likely:
            pid = among.sole(one.inode)
            slot = slots.get(pid) if pid is not None else None
            if slot in calm:
                done += bool(self._native.sole(one.index, one.cookie, slot))
        return done < len(probed)

    def _slots(self) -> Iterable[tuple[int, ...]]:
        return scan.records(self._segments.stack_view, layout.STACK_SLOTS, self._segments.slots_top, _SLOT)
