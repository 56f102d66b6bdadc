"""`python -m kill.main`, from tests/: kills a participant at every instruction that changed shared memory, and at a sample of the others."""

from __future__ import annotations

import argparse
import dataclasses
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from compat.fix_lab import Builder, Lab, Namespace
from kill.operations import OPERATIONS, Operation
from kill.world import World

LEAST = 200  # kill points of an operation, where there are as many instructions


@dataclass
class Tally:
    """One operation: instructions and stores of a run, kills by store and by instruction, and what was wrong, by point."""

    operation: Operation
    steps: int = 0
    stores: int = 0
    by_store: int = 0
    by_step: int = 0
    seconds: float = 0
    wrong: dict[str, list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        kills = f"{self.by_store:5} at stores, {self.by_step:5} at others"
        return f"{self.operation.name:16} {self.steps:7} instructions, {self.stores:4} stores: killed {kills}, {self.seconds:5.1f} s, {len(self.wrong)} wrong"


def points(dice: random.Random, steps: int, stores: int, at: Sequence[int], least: int, share: float) -> Iterator[str]:
    """Where to kill: every store (a share of them), and as many other instructions as are wanting to `least`."""
    chosen = [n for n in range(1, stores + 1) if dice.random() < share]
    yield from (f"store:{n}" for n in chosen)
    others = sorted(set(range(1, steps + 1)) - set(at))
    wanted = min(max(int(least * share) - len(chosen), 0), len(others))
    yield from (f"step:{n}" for n in sorted(dice.sample(others, wanted)))


def play(world: World, operation: Operation, seed: int, least: int = LEAST, share: float = 1.0) -> Tally:
    """All kill points of one operation, or a share of them."""
    tally, began = Tally(operation), time.monotonic()
    whole = world.kill(operation, "all")
    if whole.wrong:
        tally.wrong["all"] = whole.wrong
    tally.steps, tally.stores = whole.run.steps, whole.run.stores
    for point in points(random.Random(f"{seed}-{operation.name}"), tally.steps, tally.stores, whole.run.at, least, share):
        judged = world.kill(operation, point)
        if point.startswith("store"):
            tally.by_store += 1
        else:
            tally.by_step += 1
        if judged.wrong:
            tally.wrong[f"{point} ({where(world, judged.run.offset)}, {judged.run.end})"] = judged.wrong
            break  # what is left behind by one is found again behind each that follows
    tally.seconds = time.monotonic() - began
    return tally


def where(world: World, offset: int) -> str:
    """Function and line of an offset in the library."""
    if not offset:
        return "outside the library"
    done = subprocess.run(["addr2line", "-fspe", world.lab.library, hex(offset)], capture_output=True, text=True)
    return done.stdout.strip().replace(str(Path(__file__).parents[2]), "")


def main(arguments: Sequence[str] | None = None) -> int:
    """The table; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="kill.main", description=__doc__)
    parser.add_argument("--only", action="append", choices=[o.name for o in OPERATIONS], metavar="NAME")
    parser.add_argument("--seed", type=int, default=int(time.time() / 86400))
    parser.add_argument("--least", type=int, default=LEAST, help=f"kill points of an operation, where it has so many instructions: {LEAST}")
    parser.add_argument("--share", type=float, default=1.0, help="of the kill points: 1.0")
    parser.add_argument("--point", help="one point: all, store:N or step:N")
    parser.add_argument("--times", type=int, default=1, help="how often to kill at --point: 1")
    parser.add_argument("--library", default="", help="another library for the victims")
    given = parser.parse_args(arguments)
    print(f"seed {given.seed}", flush=True)
    tallies = []
    namespace = Namespace()
    with tempfile.TemporaryDirectory() as folder, Lab(namespace, "killpoints") as lab:
        build = Builder(Path(folder))
        for operation in OPERATIONS:
            if given.only and operation.name not in given.only:
                continue
            with World(lab, build, given.library) as world:
                if given.point:
                    for _ in range(given.times):
                        judged = world.kill(operation, given.point)
                        run = dataclasses.replace(judged.run, at=())
                        print(operation.name, run, where(world, judged.run.offset), *judged.wrong, sep="\n  ")
                    continue
                tallies.append(play(world, operation, given.seed, given.least, given.share))
                print(tallies[-1], flush=True)
                for point, wrong in tallies[-1].wrong.items():
                    print(f"    {point}", *wrong, sep="\n        ", flush=True)
    namespace.close()
    kills = sum(t.by_store + t.by_step for t in tallies)
    bad = sum(len(t.wrong) for t in tallies)
    print(f"{kills} kills of {len(tallies)} operations, {sum(t.by_store for t in tallies)} behind a store: {bad} wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
