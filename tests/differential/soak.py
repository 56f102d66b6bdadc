"""Many plays: `cd tests && ../.venv/bin/python -m differential.soak [--steps N] [--seed N]` (make soak).

A seed decides all of it. Each play that fails is made small, its script is printed and kept in a file for `differential.replay`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from compat.fix_lab import MODES, Builder
from differential.datagrams import Play
from differential.machine import Machine
from differential.play import Difference, OracleError
from differential.worlds import Sent, World
from hypothesis import HealthCheck, Phase, Verbosity, errors, seed, settings
from hypothesis.stateful import run_state_machine_as_test

reports: list[str] = []  # for the end of a test session

PLAYS = 40  # of one seed
RULES = 40  # of one play, at most; each is a few steps


@dataclass
class Soak:
    """Plays until so many steps were taken, and what came of it."""

    worlds: Sequence[World]
    folder: Path
    machine: type[Machine] = Machine
    examples: int = PLAYS
    steps: int = 0
    plays: int = 0
    unsteady: int = 0
    short_receives: int = 0
    extra_edges: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    seeds: list[int] = field(default_factory=list)
    failures: list[tuple[int, str, Path]] = field(default_factory=list)
    seconds: float = 0
    before: list[Sent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.before = [w.sent() for w in self.worlds]

    def note(self, play: Play) -> None:
        self.plays += 1
        self.counts += play.counts
        self.steps += play.counts.total()
        self.short_receives += play.short_receives
        self.extra_edges += play.extra_edges

    def seed(self, number: int, small: bool = True) -> None:
        """Plays of one seed, up to the first that fails; that one is then made small."""
        script = self.folder / f"seed-{number}.jsonl"
        machine = type("Drawn", (self.machine,), {"worlds": self.worlds, "failed_to": script, "after": staticmethod(self.note)})
        chosen = settings(
            max_examples=self.examples,
            stateful_step_count=RULES,
            deadline=None,
            database=None,
            phases=(Phase.generate, *((Phase.shrink,) if small else ())),
            suppress_health_check=list(HealthCheck),
            verbosity=Verbosity.quiet,
            print_blob=False,
            report_multiple_bugs=False,
        )
        began = time.monotonic()
        try:
            run_state_machine_as_test(seed(number)(machine), settings=chosen)
        except errors.FlakyStrategyDefinition:
            # how much a full socket took was not the same when Hypothesis played something again: no failure, but the end of this seed
            self.unsteady += 1
        except (Difference, OracleError, errors.Flaky, BaseExceptionGroup) as error:
            inner = getattr(error, "exceptions", ())
            self.failures.append((number, " ".join(f"{type(e).__name__}: {e}" for e in (error, *inner)), script))
        self.seconds += time.monotonic() - began

    def play(self, first: int | list[int], steps: int, seconds: float = 1e9, failures: int = 1, small: bool = True) -> None:
        """Seeds from the first on, or just those, until enough steps are taken, or time is up, or enough plays have failed."""
        for number in first if isinstance(first, list) else count(first):
            if self.steps >= steps or self.seconds >= seconds or len(self.failures) >= failures:
                return
            known = len(self.failures)
            self.seeds.append(number)
            self.seed(number, small)
            for which, what, script in self.failures[known:]:
                print(f"seed {which}: {what}\n{script}:\n{script.read_text() if script.is_file() else ''}", flush=True)

    def sent(self) -> list[Sent]:
        """What each world sent since the beginning."""
        return [w.sent() - before for w, before in zip(self.worlds, self.before, strict=True)]

    def report(self) -> str:
        rate = self.steps / (self.seconds or 1)
        lines = [
            f"seeds {self.seeds[0]} to {self.seeds[-1]}: {self.steps} steps in {self.plays} plays, {len(self.failures)} failed; "
            f"{self.seconds:.0f} s, {rate:.0f} steps/s; {self.short_receives} receives in several calls, {self.extra_edges} extra edges, "
            f"{self.unsteady} seeds cut short",
            ", ".join(f"{name} {n}" for name, n in self.counts.most_common()),
            *self.of_worlds(),
        ]
        return "\n".join(lines)

    def of_worlds(self) -> Iterator[str]:
        """How much each world sent, by path."""
        for world, sent in zip(self.worlds, self.sent(), strict=True):
            why = ", ".join(f"{name} {n >> 10} KiB" for name, n in world.lab.tally(world.mode).why.most_common(8))
            yield (
                f"{world.mode}: local {sent.bytes.local >> 10} KiB, kernel {sent.bytes.kernel >> 10} KiB ({sent.share:.1%} local); "
                f"datagrams {sent.ring_datagrams} by ring, {sent.kernel_datagrams} by the kernel; its kernel had {sent.segments} segments, "
                f"{sent.datagrams} datagrams" + (f"; by the kernel: {why}" if why else "")
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=int(time.time()) // 86400, help="the first one; the day if not given")
    parser.add_argument("--failures", type=int, default=1, help="go on until so many plays have failed")
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--raw", action="store_true", help="do not make failing plays small")
    parser.add_argument("--modes", default=",".join(MODES))
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="differential-"))
    with ExitStack() as stack:
        build = Builder(folder)
        worlds = [stack.enter_context(World(mode, build)) for mode in asked.modes.split(",")]
        soak = Soak(worlds, folder)
        print(f"seeds from {asked.seed}", flush=True)
        soak.play(asked.seed, asked.steps, asked.seconds, asked.failures, not asked.raw)
        print(soak.report())
    return int(bool(soak.failures))


if __name__ == "__main__":
    sys.exit(main())
