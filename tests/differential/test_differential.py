"""A sample of the differential machine: seeds from the commit on, which are printed, played in the kernel's world and in both of ours.

`make soak` plays many more, `--seed N` just those. What went by ring is asserted, and agrees with what each world's kernel counted.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from compat.fix_lab import MODES, Builder
from differential.replay import fails
from differential.soak import Soak, reports
from differential.worlds import World

KEPT = sorted((Path(__file__).parent / "kept").glob("*.jsonl"))
STEPS, SECONDS = 20_000, 20.0
LOCAL_SHARE = 0.25  # of the bytes in eager: much of what the machine does is done by the kernel alone, by design


def first_seed() -> int:
    """A number of the commit, or of the day where there is no git."""
    done = subprocess.run(["git", "rev-parse", "--short=6", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    return int(done.stdout, 16) if done.returncode == 0 else int(time.time()) // 86400


@pytest.fixture(scope="module")
def soak(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Soak]:
    given: list[int] = request.config.getoption("--seed", [])
    folder = tmp_path_factory.mktemp("differential")
    with ExitStack() as stack:
        worlds = [stack.enter_context(World(mode, Builder(folder))) for mode in MODES]
        made = Soak(worlds, folder)
        made.play(given or first_seed(), STEPS, SECONDS)
        reports.append(made.report())
        yield made


@pytest.mark.timeout(110)
def test_no_difference(soak: Soak) -> None:
    assert not soak.failures, "\n".join(f"seed {seed}: {what}\n{script.read_text()}" for seed, what, script in soak.failures)
    assert soak.steps > 0


@pytest.mark.parametrize("script", KEPT, ids=lambda p: p.stem)
def test_what_was_wrong_once(soak: Soak, script: Path) -> None:
    """Scripts of plays that failed, each for a bug of its own that was mended."""
    steps = [json.loads(line) for line in script.read_text().splitlines()]
    assert not fails(soak.worlds, steps, 5)


def test_the_path(soak: Soak) -> None:
    """What the participants say they sent by ring, the kernel of their world did not carry."""
    kernel, default, eager = soak.sent()
    assert eager.share >= LOCAL_SHARE, soak.report()
    assert default.bytes.local > 0, soak.report()
    assert eager.ring_datagrams > 0, soak.report()
    if not soak.worlds[0].namespace.own:
        pytest.skip("allowed: without root there is no network namespace of our own, and others' segments are counted too")
    assert eager.segments < default.segments < kernel.segments, soak.report()
    # every step is the same in all worlds, and so are their datagrams: those that the kernel did not send went by ring
    assert kernel.datagrams - eager.datagrams == eager.ring_datagrams, soak.report()
    assert kernel.datagrams - default.datagrams == default.ring_datagrams, soak.report()


def test_nothing_is_left(soak: Soak) -> None:
    for world in soak.worlds[1:]:
        world.lab.assert_clean()
