"""Cooling: rings that carried nothing for a second or two give their memory back, and after some more looks the pair goes too.

There is a look every second while any pair may still cool, and none at all while none does: whoever takes ring memory, or
makes a pair, then nudges us (arena.cooling says which of the two it is).
"""

from __future__ import annotations

from .loop import Loop
from .native import Native

EVERY = 1.0
# Looks at a cold pair before it is given back: being brought under count again costs its connection some system calls.
PATIENCE = 4


class Cooler:
    """Looks at the pairs every so many seconds, as long as there are any to cool."""

    def __init__(self, loop: Loop, native: Native, every: float = EVERY) -> None:
        self._loop, self._native, self._every = loop, native, every
        self._due = False

    def request(self) -> None:
        """There may be ring memory in use, or a new pair."""
        if not self._due:
            self._due = True
            self._loop.later(self._every, self._look)

    def _look(self) -> None:
        self._due = False
        if self._native.cool(PATIENCE) > 0:
            self.request()
