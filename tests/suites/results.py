"""What the tests of a suite said, in each world, and what differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from suites.worlds import Moved

# the worst of a test's outcomes is the test's: it may have several, of subtests and of what cleans up
ORDER = ("lost", "error", "fail", "xpass", "ok", "xfail", "skip")


@dataclass
class Result:
    """One test in one run. `outcome` is "lost" if the process ended in the middle of it; `detail` is why, in the suite's own words."""

    outcome: str
    detail: str = ""
    seconds: float = 0
    moved: Moved = field(default_factory=Moved)


Results = dict[str, Result]


@dataclass
class Run:
    """A part of a suite (a module) in one world: its tests, and all bytes, those between the tests too."""

    results: Results
    moved: Moved = field(default_factory=Moved)
    seconds: float = 0
    why: dict[str, int] = field(default_factory=dict)
    note: str = ""

    def summary(self) -> str:
        """Numbers of tests by outcome."""
        counted = Counter(r.outcome for r in self.results.values())
        return ", ".join(f"{counted[o]} {o}" for o in ORDER if counted[o])


@dataclass(frozen=True)
class Difference:
    """A test that said something else than on the kernel; an empty outcome: it did not run there."""

    test: str
    kernel: str
    here: str
    detail: str

    def __str__(self) -> str:
        return f"{self.test}: {self.kernel or 'not run'} on the kernel, {self.here or 'not run'} here {self.detail}"


def together(runs: Iterable[Run]) -> Run:
    """Several parts as one; names of tests are of one suite, and so differ."""
    whole = Run({})
    for run in runs:
        whole.results |= run.results
        whole.moved += run.moved
        whole.seconds += run.seconds
        whole.why = {name: whole.why.get(name, 0) + run.why.get(name, 0) for name in {*whole.why, *run.why}}
    return whole


def differences(kernel: Results, here: Results) -> list[Difference]:
    """By name, in both directions: a test that did not run is a difference too."""
    found = []
    for test in sorted({*kernel, *here}):
        k, h = kernel.get(test), here.get(test)
        if (k.outcome if k else "") != (h.outcome if h else ""):
            found.append(Difference(test, k.outcome if k else "", h.outcome if h else "", (h or k or Result("")).detail))
    return found
