"""The dead: noticing them, and giving back what they held.

A participant is dead when the kernel has marked its slot's robust futex, or, where no futex can tell (its home thread ended, or
it was killed while claiming), when its process is gone. Pidfds only say when to look: each event is followed by a sweep
over all slots, so that none is missed and nothing hangs on which process it was.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable

from sharedstack.declare import layout, scan
from sharedstack.declare.layout import CONSTANTS

from . import environment
from .loop import Look, Loop
from .native import Native
from .segments import Segments

_FREE, _CLAIMED, _LIVE = CONSTANTS["SLOT_FREE"], CONSTANTS["SLOT_CLAIMED"], CONSTANTS["SLOT_LIVE"]
_STATE_BITS, _PIDNS_BITS = CONSTANTS["SLOT_STATE_BITS"], CONSTANTS["SLOT_PIDNS_BITS"]
_STATES, _PIDNS = (1 << _STATE_BITS) - 1, (1 << _PIDNS_BITS) - 1
_SLOT = scan.reader(layout.SLOT, ("state", "gen", "pid", "pidns"))
# A busy lock is tried again after 5 ms, then ever more seldom: a stopped owner costs next to nothing.
_FIRST_RETRY, _LAST_RETRY = 0.005, 1.28
_MAX_WATCHED = 4096
# A process that cannot be watched, for want of descriptors, is looked at instead.
_FIRST_LOOK, _LAST_LOOK = 0.5, 8.0


class Reaper:
    """Watches the processes of participants and reaps the slots of those that died.

    `bury` is called with a slot before it is reaped, `on_death` after deaths.
    """

    def __init__(
        self, loop: Loop, native: Native, segments: Segments, own_slot: int, bury: Callable[[int], None], on_death: Callable[[], None]
    ) -> None:
        self._loop, self._native, self._segments, self._own = loop, native, segments, own_slot
        self._bury, self._on_death = bury, on_death
        self._pidns = environment.pid_namespace()
        self._watched: dict[int, int] = {}
        self._retry_in = _FIRST_RETRY
        self._retrying = False
        self._look = Look(loop, self._look_again, _FIRST_LOOK, _LAST_LOOK)
        self.reaped = 0

    def watch(self, pid: int) -> bool:
        """Look again when this process ends; False if it is gone already."""
        if pid in self._watched:
            return True
        if not 0 < pid < 1 << 31 or pid == os.getpid() or len(self._watched) >= _MAX_WATCHED:
            return True
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        except OSError:  # no descriptors left, or not the id of a process
            self._look.within(_FIRST_LOOK)
            return True
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        if poller.poll(0):  # a zombie
            os.close(pidfd)
            return False
        self._watched[pid] = pidfd
        self._loop.watch(pidfd, lambda: self._ended(pid))
        return True

    def sweep(self) -> None:
        """Reap all slots whose participants are dead, and watch the processes of the living."""
        busy = died = False
        for slot in self._slots():
            if not self._dead(slot):
                continue
            died = True
            self._bury(slot)
            if self._native.reap(slot):
                self.reaped += 1
            else:
                busy = True
        self._native.settle()
        if died:
            self._on_death()
        self._retry(busy)

    def participants(self) -> list[tuple[int, int]]:
        """Slot and pid of the living (0 where the pid is of another pid namespace), without the helper itself."""
        living = []
        for slot in self._slots():
            if self._native.slot_alive(slot):
                _, _, pid, pidns = self._read(slot)
                living.append((slot, pid if pidns == self._pidns else 0))
        return living

    def _slots(self) -> list[int]:
        top = self._segments.slots_top
        found = scan.records(self._segments.stack_view, layout.STACK_SLOTS, top, _SLOT)
        return [slot for slot, (state, *_) in enumerate(found) if state != _FREE and slot != self._own]

    def _read(self, slot: int) -> tuple[int, ...]:
        return _SLOT.unpack_from(self._segments.stack_view, layout.STACK_SLOTS + slot * layout.SLOT.size)

    def _dead(self, slot: int) -> bool:
        """Decide on one slot, which its owner may give back, and another may claim, at any moment.

        A futex that shows death counts only for a slot that was claimed to the end (`live`) and is of the same generation before
        and after; a process that is gone, only while the slot still bears its id, which is cleared before it changes hands. While
        it is claimed, the id is in the word by which it was.
        """
        before, gen, pid, pidns = self._read(slot)
        alive = self._native.slot_alive(slot)
        state, gen_after, _, _ = self._read(slot)
        if not alive and state & _STATES not in (_FREE, _CLAIMED):
            return gen == gen_after
        ours, claimer = pidns == self._pidns, before & _STATES == _CLAIMED and before >> _STATE_BITS != 0
        if claimer:
            pid, ours = before >> _STATE_BITS + _PIDNS_BITS, before >> _STATE_BITS & _PIDNS == self._pidns & _PIDNS
        if pid == 0 or not ours or self.watch(pid):
            return False
        state, gen_after, pid_after, _ = self._read(slot)
        if claimer:
            return state == before
        return state & _STATES in (_CLAIMED, _LIVE) and (gen, pid) == (gen_after, pid_after)

    def _ended(self, pid: int) -> None:
        pidfd = self._watched.pop(pid)
        self._loop.forget(pidfd)
        os.close(pidfd)
        self.sweep()
        self._on_death()  # also where its slots were reaped before its sockets were closed

    def _retry(self, busy: bool) -> None:
        if not busy:
            self._retry_in = _FIRST_RETRY
        elif not self._retrying:
            self._retrying = True
            self._loop.later(self._retry_in, self._again)
            self._retry_in = min(self._retry_in * 2, _LAST_RETRY)

    def _look_again(self) -> None:
        """Some process may end unwatched: its futex tells, but nobody says when to look at it."""
        self.sweep()

    def _again(self) -> None:
        self._retrying = False
        self.sweep()
