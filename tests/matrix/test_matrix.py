"""A sample of the matrix: cases that cover every pair of two factors, chosen by the commit. `make matrix` and `make soak` play more."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from differential.test_differential import first_seed
from matrix.cover import all_pairs
from matrix.main import Stages, rows_of, summary, told
from matrix.play import FACTORS, Played, play

pytest_plugins = ["compat.fix_paths"]
pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="allowed: without root there is no second host, and nobody to become")


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    with Stages(tmp_path_factory.mktemp("matrix")) as made:
        yield made


@pytest.mark.timeout(110)
def test_every_pair(stages: Stages) -> None:
    seed, played = first_seed(), Played()
    for row in rows_of(seed, False, {}):
        play(stages[row["path"]], row, played)
    print(summary(played, seed), *told(played), sep="\n")
    assert played.pairs == all_pairs(FACTORS)
    assert not played.failures, "\n".join(f"{' | '.join(row.values())}\n    {wrong}" for row, wrong in played.failures)
    assert stages.unclean() == []
