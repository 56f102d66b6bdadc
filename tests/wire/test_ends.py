"""What is done to a connection that is on the wire path, and how it ends: as on the kernel, which is asked first."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from wire.ends import DEEDS
from wire.fix_world import SEED, WHOLE, Side, wait_for

ENDS = str(Path(__file__).with_name("ends.py"))
PYTHON = sys.base_prefix + "/bin/python3"
PORT = 7100
BOTH = {"both": (True, True), "client": (True, False), "server": (False, True)}


def play(sides: tuple[Side, Side], what: str, here: bool, there: bool) -> tuple[str, str]:
    """What server and client print."""
    server, client = sides
    program = server.start(PYTHON, ENDS, "serve", server.address, str(PORT), what, ours=there)
    assert program.stdout
    assert program.stdout.readline() == "ready\n"
    asking = client.start(PYTHON, ENDS, "ask", server.address, str(PORT), what, ours=here)
    asked = asking.communicate(timeout=30)[0]
    return program.communicate(timeout=30)[0], asked


# Each deed once in a run, on ends that the run's seed chooses; all of them where the run is WHOLE.
CASES = [
    pytest.param(what, *ends, id=f"{what}-{name}")
    for number, what in enumerate(DEEDS)
    for place, (name, ends) in enumerate(BOTH.items())
    if WHOLE or place == (SEED + number) % len(BOTH)
]


@pytest.mark.parametrize(("what", "here", "there"), CASES)
def test_as_the_kernel(sides: tuple[Side, Side], what: str, here: bool, there: bool) -> None:
    print(f"WIRE_SEED={SEED}")
    expected = play(sides, what, here=False, there=False)
    lifts = [side.inspect()["counters"]["wire_lifts"] for side in sides]
    assert play(sides, what, here, there) == expected
    for side, ours in ((0, there), (1, here)):
        wait_for(lambda side=side: all(one["connections"] == 0 for one in sides[side].inspect()["links"]))
        assert sides[side].inspect()["counters"]["wire_lifts"] - lifts[side] == ours
