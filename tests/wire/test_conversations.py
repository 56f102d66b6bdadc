"""Random conversations of programs on two hosts give the same results, errors, readiness and bytes on the wire path as on the kernel's.

CONVERSATION_SEED=N for another seed; SECONDS of plays, or CONVERSATION_SECONDS.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from differential.replay import fails
from differential.soak import reports
from wire.conversations import Conversations, WirePlay, talking
from wire.fix_world import SEED, Side

KEPT = sorted((Path(__file__).parent / "kept").glob("*.jsonl"))
WIRED = 0.3  # of the bytes: much of what the machine does the kernel has to do, or it does it too early
SECONDS = float(os.environ.get("CONVERSATION_SECONDS", 10))
FIRST = int(os.environ.get("CONVERSATION_SEED", SEED))


@pytest.fixture(scope="module")
def talked(_world: tuple[Side, Side], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Conversations]:
    with talking(_world, tmp_path_factory.mktemp("conversations")) as made:
        made.play(FIRST, 1 << 30, SECONDS)
        reports.append(made.report())
        yield made


@pytest.mark.timeout(int(SECONDS) + 100)
def test_no_difference(talked: Conversations) -> None:
    assert not talked.failures, "\n".join(f"seed {seed}: {what}\n{script.read_text()}" for seed, what, script in talked.failures)
    assert talked.steps > 0


@pytest.mark.parametrize("script", KEPT, ids=lambda p: p.stem)
def test_what_was_wrong_once(talked: Conversations, script: Path) -> None:
    """Scripts of plays that failed, each for a bug of its own that was mended."""
    steps = [json.loads(line) for line in script.read_text().splitlines()]
    assert not fails(talked.worlds, steps, 10, WirePlay)


def test_the_path(talked: Conversations) -> None:
    """Enough of it was lifted that it was not the kernel that was tested."""
    assert talked.wired() > WIRED, talked.report()


def test_nothing_is_left(talked: Conversations, _world: tuple[Side, Side]) -> None:
    for side in _world:
        side.end_programs()
        assert not side.inspect()["endpoints"]
