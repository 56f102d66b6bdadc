"""Streams with every byte checked: seeds, both families, on the kernel and through the library, which leaves nothing behind.

A seed decides sizes, calls, blocking or not, how it is waited, and pauses (tests/programs/streams.c). `pytest tests/compat --seed N`
plays one; without it a fixed sample is played.
"""

from __future__ import annotations

import random

import pytest
from compat.fix_lab import EAGER_SHARE, MODES, Builder, Lab

pytest_plugins = ["compat.fix_paths"]

CONNECTIONS, BYTES = 4, 600_000
SEEDS = 10
DRAWN_BY = 1
FREE, FREE_SHARE = "as fast as they can", 0.1


def seeds(config: pytest.Config) -> list[int]:
    """The seeds to play: those given, else the sample."""
    given: list[int] = config.getoption("--seed", [])
    drawn = random.Random(DRAWN_BY)
    return given or [drawn.randrange(1, 1 << 16) // 4 * 4 + (i % 4 if i % 2 else 0) for i in range(SEEDS)]


def in_turns(seed: int) -> bool:
    """streams.c: blocking, request and reply. In all others both sides send as fast as they can, and what overflows a ring takes the
    kernel's path by design (a full ring never blocks): less of them is local.
    """
    return seed % 4 == 0


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        cases = [(seed, "v6" if i % 2 else "v4") for i, seed in enumerate(seeds(metafunc.config))]
        metafunc.parametrize(("seed", "family"), cases)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("mode", MODES)
def test_every_byte(lab: Lab, build: Builder, seed: int, family: str, mode: str) -> None:
    argv = [build("streams"), str(seed), str(CONNECTIONS), str(BYTES), *(["v6"] if family == "v6" else [])]
    ran = lab.run(argv, mode, carries=2 * CONNECTIONS * BYTES, apart="" if in_turns(seed) else FREE).ok()
    assert ran.out == "ok\n"
    assert (ran.sent.local > 0) == (mode == "eager") or mode == "default"


def test_many_connections_at_once(lab: Lab, build: Builder) -> None:
    """A seed for each of them; more rings than one process has doorbells."""
    ran = lab.run([build("streams"), "6", "48", "20000"], "eager", carries=2 * 48 * 20000, apart=FREE).ok()
    assert ran.sent.local > 0


@pytest.mark.parametrize(("apart", "share"), [("", EAGER_SHARE), (FREE, FREE_SHARE)])
def test_eager_goes_by_rings(lab: Lab, apart: str, share: float) -> None:
    eager = lab.tally("eager", apart)
    if not eager.runs:
        pytest.skip("allowed: no such run was chosen")
    assert eager.share >= share, f"{eager}"


def test_the_kernel_saw_little_of_it(lab: Lab) -> None:
    """The same seeds on the kernel: what it counted itself agrees with what the participants say."""
    eager, kernel = lab.tally("eager"), lab.tally("kernel")
    if not lab.namespace.own:
        pytest.skip("allowed: without root there is no network namespace of our own, and others' segments are counted too")
    if not eager.runs or not kernel.runs:
        pytest.skip("allowed: not both were chosen")
    assert eager.segments / eager.runs < kernel.segments / kernel.runs / 2


def test_nothing_is_left(lab: Lab) -> None:
    lab.assert_clean()
