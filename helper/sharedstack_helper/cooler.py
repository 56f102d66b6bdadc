"""Cooling: rings that carried nothing for a second or two give their memory back.

There is a look every second while any ring holds memory, and none at all while none does: whoever takes ring memory then
nudges us (arena.cooling says which of the two it is).
"""

from __future__ import annotations

from .loop import Loop
from .native import Native

_EVERY = 1.0


class Cooler:
    """Looks at the rings now and then, as long as there are any."""

    def __init__(self, loop: Loop, native: Native) -> None:
        self._loop, self._native = loop, native
        self._due = False

    def request(self) -> None:
        """There may be ring memory in use."""
        if not self._due:
            self._due = True
            self._loop.later(_EVERY, self._look)

    def _look(self) -> None:
        self._due = False
        if self._native.cool() > 0:
            self.request()
