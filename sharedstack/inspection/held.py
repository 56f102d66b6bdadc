"""Who holds which lock, in which state that process is, and for how long others have seen it so.

A lock word says nothing of time, and taking a lock is too cheap to note one. So what is known comes from those who had to wait: each notes
in its slot whose lock it waits for, or did not get, and since when. Who holds a lock that nobody wants is shown without a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..declare import binary, wire
from ..declare.binary import View
from ..declare.layout import CONSTANTS as C
from . import processes
from .snapshot import SHM, NoStackError, Snapshot, read_segment
from .words import LockWord

if TYPE_CHECKING:
    from .state import Participant

STATES = {"T": "stopped (T)", "t": "stopped by a tracer (t)", "D": "in an uninterruptible wait (D)"}


@dataclass(frozen=True)
class HeldLock:
    """A lock that somebody holds; `owner` says in words who.

    `state` is the process's, as in /proc/PID/stat ("T" stopped, "t" by a tracer), empty where it is not known; `awaited_ns`: for how long
    others have waited for a lock of that thread, or not got it; None: nobody has.
    """

    lock: str
    slot: int
    pid: int
    thread: int
    waiters: bool
    owner: str
    state: str = ""
    awaited_ns: int | None = None


def held(shot: Snapshot, participants: list[Participant], *, live: bool) -> list[HeldLock]:
    """All locks that are held; those of engines, and what /proc knows, only where the stack is `live`."""
    by_slot = {p.slot: p for p in participants}
    awaited = _awaited(shot, participants)
    found = []
    for name, word in [*_words(shot), *(_engines(shot) if live else ())]:
        if not word:
            continue
        lock = LockWord.decode(word)
        p = by_slot.get(-1 if lock.slot is None else lock.slot)
        state = processes.state(p.pid) if live and p and p.pid and p.alive else ""
        since = awaited.get(word & ~C["LOCK_WAITERS"])
        found.append(
            HeldLock(
                name,
                -1 if lock.slot is None else lock.slot,
                p.pid if p else 0,
                lock.tag,
                lock.waiters,
                _owner(p, state),
                state,
                None if since is None else max(0, shot.taken_ns - since),
            )
        )
    return found


def _words(shot: Snapshot) -> Iterator[tuple[str, int]]:
    yield "ctl", binary.stack(shot.stack)["ctl"]
    yield "arena", binary.arena(shot.arena)["lock"]
    for i in range(shot.pairs_top):
        pair = binary.pair(shot.arena, i)
        if pair["state"] == C["PAIR_LIVE"]:
            yield from ((f"pair[{i}].dir[{side}].{name}", pair["dir"][side][name]) for side in (0, 1) for name in ("wlock", "rlock"))


def _engines(shot: Snapshot) -> Iterator[tuple[str, int]]:
    """The locks of the engines of lent interfaces, which are in segments of their own."""
    for number in range(min(binary.stack(shot.stack)["n_nics"], C["N_NICS"])):
        try:
            area = read_segment(SHM / f"{shot.name}.wire-{number}-area", wire.WIRE.size)
        except NoStackError:
            continue
        yield f"wire[{number}]", View(wire.WIRE, memoryview(area))["lock"]


def _awaited(shot: Snapshot, participants: list[Participant]) -> dict[int, int]:
    """Since when (ns CLOCK_MONOTONIC) somebody who lives has missed a lock of a thread, by its word."""
    since: dict[int, int] = {}
    for p in participants:
        slot = binary.slot(shot.stack, p.slot)
        if p.alive and slot["awaits"] and slot["awaits_ns"]:
            since[slot["awaits"]] = min(slot["awaits_ns"], since.get(slot["awaits"], slot["awaits_ns"]))
    return since


def _owner(p: Participant | None, state: str) -> str:
    if p is None:
        return "nobody alive: the next user repairs and goes on"
    if not p.alive:
        return f"{p.comm} ({p.own_pid}), dead: the next user repairs and goes on"
    return f"{p.comm} ({p.pid or p.own_pid})" + (f", {STATES[state]}: others wait, or go by the kernel" if state in STATES else "")
