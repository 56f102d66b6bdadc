"""What sharing costs stays in bounds that a busy machine keeps, and a regression does not: `make cost` has the figures."""

from __future__ import annotations

import pytest
from compat import cost
from compat.fix_lab import Builder, Lab

pytest_plugins = ["compat.fix_paths"]

FORK_RATIO = 2.0  # 1.36 on a quiet machine
FIRST_USE = 15_000  # nanoseconds that the library may add to a median call
PER_CONNECTION = 40e-6  # seconds of CPU, of the command and the helper: 7e-6; 33e-6 with a message for each, 800e-6 when all were decoded


def test_a_fork_with_many_lifted_sockets(lab: Lab, build: Builder) -> None:
    took = cost.fork(lab, build("sharing"), connections=500, rounds=8, each=15)
    print(took)
    assert took.lifted == 1000
    assert took.ratio <= FORK_RATIO


def test_the_first_use_of_a_descriptor(lab: Lab, build: Builder) -> None:
    uses = cost.first_uses(lab, build("sharing"), connections=120, rounds=1)
    by = {(u.way, u.call, u.side): u.first[0] for u in uses}
    print(by)
    for way, call, side in by:
        if side == "default":
            assert by[way, call, side] - by[way, call, "kernel"] <= FIRST_USE, f"{call} of a descriptor that was {way}"


@pytest.mark.timeout(60)
def test_lowering(own_lab: Lab, build: Builder) -> None:
    took = cost.lowering(own_lab, build("sharing"), connections=1000, few=300)
    print(took)
    assert took.asked >= 0.8 * 300  # a reader that slept meanwhile has shut its ring itself
    assert took.cpu / took.asked <= PER_CONNECTION
