"""Each case of `make processes`, for a moment: on the kernel, and by default or eager, which the commit's number chooses.

From one commit to the next the modes change places; `--seed N` plays those of another number.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from compat.processes.main import CASES, missing
from compat.processes.play import Theatre
from compat.processes.stage import Case
from differential.test_differential import first_seed

SECONDS = 0.6  # enough for what goes by the kernel at first to be a small part
MODES = ("default", "eager")


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    if os.getuid():
        pytest.skip("allowed: without root there is no network namespace of our own, and no other user")
    with Theatre(SECONDS, tmp_path_factory.getbasetemp()) as made:
        yield made


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("number", "case"), list(enumerate(CASES)), ids=[case.name for case in CASES])
def test_same_as_on_the_kernel(theatre: Theatre, request: pytest.FixtureRequest, number: int, case: Case) -> None:
    if lacking := missing([case]):
        pytest.skip(f"not installed: {', '.join(lacking)}; `scripts/system-packages processes!` as root installs them")
    seed = (request.config.getoption("--seed", []) or [first_seed()])[0]
    kernel, here = theatre.play(case, "kernel"), theatre.play(case, MODES[(number + seed) % len(MODES)])
    assert theatre.judge(here, kernel) == [], f"{here.mode}, seed {seed}, logs in {theatre.folder}"
    theatre.judge(kernel, kernel)
