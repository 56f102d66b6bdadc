"""Lowers lifted connections of a stack, again and again, by asking the helper as a participant would.

shake.py STACK SECONDS EVERY_MS: prints how many lowerings were asked for. It goes on where the helper ends, with the next one.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress

from sharedstack import ask
from sharedstack.declare import binary, layout
from sharedstack.declare.layout import CONSTANTS as C
from sharedstack_helper import environment
from sharedstack_helper.environment import Place
from sharedstack_helper.segments import name
from sharedstack_helper.shm import find


def lifted(memory: memoryview) -> list[tuple[int, int]]:
    top = binary.stack(memory)["endpoints_top"]
    found = []
    for i in range(top):
        ep = binary.endpoint(memory, i)
        if ep["wire"] & C["WIRE_STATE_MASK"] == C["WIRE_ON"]:
            found.append((i, ep["cookie"]))
    return found


def main(stack: str, seconds: float, every_ms: float) -> None:
    shared = find(name(Place(os.getuid(), environment.netns_cookie(), stack), "stack"))
    assert shared
    memory = memoryview(shared.map(layout.STACK_BYTES))
    asked, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        with suppress(RuntimeError, OSError), ask.connected(stack) as helper:
            while time.monotonic() < until:
                for endpoint, cookie in lifted(memory):
                    assert helper.ask("lower", endpoint=endpoint, cookie=cookie)["t"] == "done"
                    asked += 1
                time.sleep(every_ms / 1000)
                if not asked % 100:  # the helper hangs up on who is silent
                    helper.ask("ping")
    print(asked)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))
