"""The event loop: descriptors, deadlines, and leaving on a signal. With no deadline set it sleeps without end.

Signals only wake the loop (signal.set_wakeup_fd): nothing runs inside a handler.
"""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import signal
import time
from collections.abc import Callable

Callback = Callable[[], None]


class Timer:
    """A call that is due later; `cancel` makes it void."""

    __slots__ = ("callback", "due")

    def __init__(self, due: float, callback: Callback) -> None:
        self.due = due
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """The call is not wanted any more."""
        self.callback = None


class Look:
    """A call that is due from time to time: soon where there is a reason, and ever more seldom where it is to be repeated."""

    def __init__(self, loop: Loop, callback: Callback, first: float, last: float) -> None:
        """`first`, `last`: seconds to the first repetition, and to the most seldom one."""
        self._loop, self._callback, self._first, self._last = loop, callback, first, last
        self._timer: Timer | None = None
        self._next = first

    def within(self, seconds: float) -> None:
        """There is a reason: in so many seconds, or earlier if it is due then."""
        self._next = self._first
        self._plan(seconds)

    def again(self, least: float) -> None:
        """It is to be repeated, but not before so many seconds."""
        self._plan(max(self._next, least))
        self._next = min(self._last, self._next * 2)

    def _plan(self, seconds: float) -> None:
        if self._timer is not None:
            if self._timer.due <= time.monotonic() + seconds:
                return
            self._timer.cancel()
        self._timer = self._loop.later(seconds, self._run)

    def _run(self) -> None:
        self._timer = None
        self._callback()


class Loop:
    """Calls back when descriptors are readable and when timers are due, until it is told to stop."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()
        self._leaving = False

    def watch(self, fd: int, callback: Callback) -> None:
        """Call `callback` whenever `fd` is readable."""
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def forget(self, fd: int) -> None:
        """Watch `fd` no more; to be called before it is closed."""
        self._selector.unregister(fd)

    def later(self, seconds: float, callback: Callback) -> Timer:
        """Call `callback` once, in so many seconds."""
        timer = Timer(time.monotonic() + seconds, callback)
        heapq.heappush(self._timers, (timer.due, next(self._count), timer))
        return timer

    def leave_on_signals(self) -> None:
        """SIGTERM, SIGINT and SIGHUP stop the loop; one that was ignored when we started (nohup) stays ignored."""
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda *_: self.stop())
        self.watch(reader, lambda: _drain(reader))

    def stop(self) -> None:
        """Return from `run` once the callbacks under way have ended."""
        self._leaving = True

    def run(self) -> None:
        """Serve until `stop`; at once if that was called before."""
        while not self._leaving:
            for key, _ in self._selector.select(self._timeout()):
                if not self._leaving and key.fd in self._selector.get_map():
                    key.data()
            self._call_due()

    def _timeout(self) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _call_due(self) -> None:
        now = time.monotonic()
        while not self._leaving and self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if timer.callback is not None:
                timer.callback()


def _drain(reader: int) -> None:
    os.read(reader, 64)
