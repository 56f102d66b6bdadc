"""Runs the helper, and kills it at the N-th call that it makes while it starts: `fix_helper_points.py N [HELPER'S ARGUMENT]...`.

Counted are calls and returns of the helper's own functions, and those that they make of C functions, from main on. N = 0: it is not killed,
and when it is ready it prints how many there were.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from sharedstack_helper import announce, main

OURS = os.path.dirname(main.__file__)


class Counter:
    """Counts, and kills this process at the N-th."""

    def __init__(self, most: int) -> None:
        self.most, self.count = most, 0

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if frame.f_code.co_filename.startswith(OURS):
            self.count += 1
            if self.count == self.most:
                os.kill(os.getpid(), signal.SIGKILL)


def run(most: int, arguments: list[str]) -> int:
    """The helper with these arguments."""
    counter = Counter(most)
    ready: Callable[[str, int | None], None] = announce.ready

    def told(stack: str, ready_fd: int | None) -> None:
        sys.setprofile(None)
        ready(stack, ready_fd)
        announce.say(str(counter.count))

    announce.ready = told
    sys.setprofile(counter)
    return main.main(arguments)


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), sys.argv[2:]))
