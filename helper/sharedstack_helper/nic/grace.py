"""When is no CPU handling a packet any more by what a map of a BPF program held before?

Packets are handled with soft interrupts off, so that a CPU on which some thread has run since is done with them. A thread of its own
visits each CPU in turn, before all ordinary ones if it may: moved like that, an ordinary thread waits on a busy CPU for its turn, 3 ms or
more each time. Where CPUs may not be visited, or soft interrupts can be pre-empted (a real-time kernel): a grace period of RCU, by
membarrier(2), some milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import queue
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path

from ..environment import HelperError

_MEMBARRIER_GLOBAL, _MEMBARRIER = 1, 324


def settle() -> None:
    """Return when all that began before has ended. HelperError: that cannot be known."""
    if _preemptible() or not _visitor().visit():
        _grace_period()


class _Visitor:
    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[bool] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="visitor", daemon=True).start()

    def visit(self) -> bool:
        """All CPUs; False: they cannot all be visited. For one thread at a time."""
        self._asked.put(None)
        return self._done.get()

    def _run(self) -> None:
        with suppress(OSError):  # it may not: then it takes its turn
            os.sched_setscheduler(threading.get_native_id(), os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        while True:
            self._asked.get()
            self._done.put(_visit_all())


@cache
def _visitor() -> _Visitor:
    return _Visitor()


@cache
def _preemptible() -> bool:
    return Path("/sys/kernel/realtime").exists()


def _visit_all() -> bool:
    allowed = os.sched_getaffinity(0)
    try:
        for cpu in _online():
            os.sched_setaffinity(0, {cpu})
        return True
    except OSError:
        return False
    finally:
        os.sched_setaffinity(0, allowed)


def _online() -> list[int]:
    """Numbers of the CPUs that run."""
    found: list[int] = []
    for part in Path("/sys/devices/system/cpu/online").read_text().strip().split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def _grace_period() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_MEMBARRIER, _MEMBARRIER_GLOBAL, 0, 0) != 0:
        raise HelperError(f"membarrier(2): {os.strerror(ctypes.get_errno())}")
