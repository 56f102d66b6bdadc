"""The tests of the path can fail: with a library that does nothing in the real one's place, they do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from compat.fix_lab import LIBRARY_SEAM, Builder
from compat.processes.main import CASES
from compat.test_processes import MODES

pytest_plugins = ["compat.fix_paths"]

HERE = Path(__file__).resolve().parent
OUTCOME = re.compile(r"^(PASSED|FAILED|ERROR|SKIPPED)\s+\S*?::(\S+)", re.M)


@pytest.fixture(scope="module")
def nothing(build: Builder) -> str:
    return build("null_preload", "-shared", "-fPIC")


def play(library: str, *arguments: str) -> dict[str, str]:
    """Outcomes by test of a session with that library in the real one's place."""
    command = [sys.executable, "-B", "-P", "-m", "pytest", "-p", "no:cacheprovider", "-rA", "-q", *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "CI"} | {LIBRARY_SEAM: library}
    done = subprocess.run(command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, timeout=100)
    outcomes = {name: outcome for outcome, name in OUTCOME.findall(done.stdout)}
    assert outcomes, done.stdout + done.stderr
    return outcomes


@pytest.mark.timeout(110)
def test_streams_notice(nothing: str) -> None:
    outcomes = play(nothing, str(HERE / "test_streams.py"), "--seed", "4", "--seed", "9")
    failed = {name for name, outcome in outcomes.items() if outcome == "FAILED"}
    assert failed >= {
        "test_every_byte[4-v4-eager]",
        "test_every_byte[9-v6-eager]",
        "test_many_connections_at_once",
        "test_eager_goes_by_rings[-0.9]",
        "test_the_kernel_saw_little_of_it",
    } - ({"test_the_kernel_saw_little_of_it"} if os.getuid() else set())
    assert outcomes["test_every_byte[4-v4-kernel]"] == outcomes["test_every_byte[9-v6-default]"] == "PASSED"


@pytest.mark.timeout(110)
def test_datagrams_notice(nothing: str) -> None:
    chosen = "boundaries or event_loop or test_order_under_fire or kernel_saw_little"
    outcomes = play(nothing, str(HERE / "test_datagrams.py"), "-k", chosen)
    failed = {name for name, outcome in outcomes.items() if outcome == "FAILED"}
    assert failed >= {
        "test_same_as_the_kernel[boundaries-eager]",
        "test_same_as_the_kernel[event_loop-spinning]",
        "test_order_under_fire[1-eager]",
        "test_order_under_fire[2-default]",
        "test_the_kernel_saw_little_of_it",
    } - ({"test_the_kernel_saw_little_of_it"} if os.getuid() else set())
    assert outcomes["test_order_under_fire[1-kernel]"] == "PASSED"


@pytest.mark.timeout(110)
def test_the_differential_machine_notices(nothing: str) -> None:
    outcomes = play(nothing, str(HERE.parent / "differential"))
    replayed = {name: said for name, said in outcomes.items() if name.startswith("test_what_was_wrong_once[")}
    assert replayed and set(replayed.values()) == {"PASSED"}  # they compare with the kernel, and all is the kernel's
    rest = {name: said for name, said in outcomes.items() if name not in replayed}
    assert rest == {"test_no_difference": "PASSED", "test_the_path": "FAILED", "test_nothing_is_left": "PASSED"}


@pytest.mark.timeout(110)
@pytest.mark.skipif(os.getuid() != 0, reason="allowed: without root there is no network namespace of our own")
def test_the_suites_notice(nothing: str) -> None:
    outcomes = play(nothing, str(HERE.parent / "suites"), "-k", "test_httplib")
    assert outcomes == {
        "test_same_as_the_kernel[default-test_httplib]": "PASSED",
        "test_same_as_the_kernel[eager-test_httplib]": "PASSED",
        "test_eager_goes_by_ring[test_httplib]": "FAILED",
    }


@pytest.mark.timeout(110)
@pytest.mark.skipif(os.getuid() != 0, reason="allowed: without root there is no network namespace of our own")
@pytest.mark.parametrize(("mode", "outcome"), [("default", "PASSED"), ("eager", "FAILED")])
def test_the_processes_notice(nothing: str, mode: str, outcome: str) -> None:
    """By default no share is asked for, and all is the kernel's."""
    case = "socat-exec"
    seed = [c.name for c in CASES].index(case) + MODES.index(mode)
    outcomes = play(nothing, str(HERE / "test_processes.py"), "-k", case, "--seed", str(seed))
    assert outcomes == {f"test_same_as_on_the_kernel[{case}]": outcome}


@pytest.mark.timeout(110)
def test_semantics_notice(nothing: str) -> None:
    chosen = "half_close or flags or unread_count or switching or messages or vfork_child or execute"
    outcomes = play(nothing, str(HERE / "test_semantics.py"), "-k", f"test_same_as_the_kernel and ({chosen})")
    assert len(outcomes) >= 21
    assert set(outcomes.values()) == {"FAILED"}, outcomes


@pytest.mark.timeout(110)
@pytest.mark.skipif(os.getuid() != 0, reason="allowed: without root there is no second host, and nobody to become")
def test_the_matrix_notices(nothing: str) -> None:
    assert play(nothing, str(HERE.parent / "matrix")) == {"test_every_pair": "FAILED"}
