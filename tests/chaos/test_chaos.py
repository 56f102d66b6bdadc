"""A short storm on one host, and the same with a library that does nothing, which must fail.

`make chaos` has more, `make soak` ten minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from compat.fix_lab import LIBRARY_SEAM, Builder
from differential.test_differential import first_seed

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="allowed: without root there is no network namespace of our own")

TESTS = Path(__file__).resolve().parents[1]


def play(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "chaos.main", "--seed", str(first_seed()), *options]
    return subprocess.run(command, cwd=TESTS, capture_output=True, text=True, env=os.environ | environment, timeout=100)


@pytest.mark.timeout(110)
@pytest.mark.parametrize("mode", ["default", "eager"])
def test_nothing_hangs_and_nothing_is_lost(mode: str) -> None:
    done = play("--seconds", "6", "--processes", "50", "--mode", mode, "--no-wire")
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(110)
def test_it_notices_a_library_that_does_nothing(tmp_path: Path) -> None:
    nothing = Builder(tmp_path)("null_preload", "-shared", "-fPIC")
    done = play("--seconds", "2", "--processes", "20", "--no-wire", **{LIBRARY_SEAM: nothing})
    assert done.returncode == 1, done.stdout + done.stderr
    assert "only 0.0% of the bytes went by local or wire" in done.stdout.splitlines()


@pytest.mark.timeout(110)
def test_it_notices_a_byte_that_is_not_what_was_sent(tmp_path: Path) -> None:
    done = play("--seconds", "2", "--processes", "20", "--no-wire", CHAOS_SPOIL="1000000")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "corrupt: connection" in done.stdout
