"""A few quick modules of CPython's tests, and a seeded sample of test_socket's, in the three worlds; `make suites` runs all.

Each test says what it says on the kernel. In the eager world nearly all bytes of the modules that send many go by ring: the participants
say so, and the kernel's own count of what it carried agrees.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from differential.test_differential import first_seed
from suites import cpython
from suites.known import KNOWN
from suites.main import EAGER_SHARE
from suites.results import Run, differences
from suites.worlds import Worlds

# tests at least, in each: what runs must be the module, not its ruins
QUICK = {"test_httplib": 115, "test_socketserver": 27, "test_asyncore": 90, "test_epoll": 10, "test_socket": 40}
# of test_socket, beside those that move the most
SAMPLE, BULK = 40, ("testRegularFile", "testOffset")
# seconds for a module in one world; ten times what one takes on a quiet machine
LIMIT = 60.0


def sample(seed: int) -> list[str]:
    """Tests of test_socket, by its own names."""
    done = subprocess.run([cpython.PYTHON, "-m", "test", "--list-cases", "test_socket"], capture_output=True, text=True, check=True)
    names = [line for line in done.stdout.split() if line.startswith("test.test_socket.") and "VSOCK" not in line]
    return random.Random(seed).sample(names, SAMPLE)


class Played:
    """Modules in worlds, each run when it is first asked for."""

    def __init__(self, worlds: Worlds, logs: Path, seed: int) -> None:
        self.worlds, self.logs, self.seed = worlds, logs, seed
        self.runs: dict[tuple[str, str], Run] = {}

    def __call__(self, world: str, module: str) -> Run:
        if (world, module) not in self.runs:
            match = [*sample(self.seed), *BULK] if module == "test_socket" else []
            self.runs[world, module] = cpython.run(self.worlds, world, module, self.logs, match=match, limit=LIMIT)
        return self.runs[world, module]


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    if os.getuid():
        pytest.skip("allowed: without root there is no network namespace of our own")
    if why := cpython.missing():
        pytest.skip(why)
    seed = (request.config.getoption("--seed", []) or [first_seed()])[0]
    with Worlds("cpython") as worlds:
        yield Played(worlds, tmp_path_factory.mktemp("suites"), seed)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("module", QUICK)
@pytest.mark.parametrize("world", ["default", "eager"])
def test_same_as_the_kernel(played: Played, world: str, module: str) -> None:
    kernel, here = played("kernel", module), played(world, module)
    assert len(kernel.results) >= QUICK[module], kernel.results
    assert not kernel.note and not here.note, (kernel.note, here.note)
    assert [str(d) for d in differences(kernel.results, here.results) if d.test not in KNOWN] == [], f"seed {played.seed}"


@pytest.mark.timeout(200)
@pytest.mark.parametrize("module", ["test_httplib", "test_socket"])
def test_eager_goes_by_ring(played: Played, module: str) -> None:
    kernel, eager = played("kernel", module).moved, played("eager", module).moved
    assert eager.share >= EAGER_SHARE, (f"seed {played.seed}", eager, played("eager", module).why)
    # the kernel's own count, in which the participants have no say: what went by ring is not there
    assert abs(eager.local + eager.kernel - kernel.kernel) < 0.1 * kernel.kernel, (f"seed {played.seed}", eager, kernel)
