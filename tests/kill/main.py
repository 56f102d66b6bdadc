"""`python -m kill.main`, from tests/: kills a process at every instruction that changed shared memory, and at a sample of the others."""

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
from kill.helpers import HELPER_OPERATIONS, HelperOperation, HelperWorld
from kill.operations import OPERATIONS, Operation
from kill.world import Judged, World

LEAST = 200  # kill points of an operation, where there are as many instructions
AnyOperation = Operation | HelperOperation
ALL: tuple[AnyOperation, ...] = (*OPERATIONS, *HELPER_OPERATIONS)


@dataclass
class Tally:
    """One operation: instructions and stores of a run, kills behind a store and elsewhere, and what was wrong, by point."""

    operation: AnyOperation
    steps: int = 0
    stores: int = 0
    at_stores: int = 0
    elsewhere: int = 0
    seconds: float = 0
    wrong: dict[str, list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        run = f"{self.steps:7} instructions, {self.stores:4} stores"
        kills = f"{self.at_stores:5} behind a store, {self.elsewhere:5} elsewhere"
        return f"{self.operation.name:16} {run}: killed {kills}, {self.seconds:6.1f} s, {len(self.wrong)} wrong"


def points(dice: random.Random, judged: Judged, least: int, share: float, most: int) -> Iterator[str]:
    """Where to kill: behind every store (a share of them), and behind as many other instructions as are wanting to `least`."""
    run = judged.run
    chosen = [n for n in range(1, run.stores + 1) if dice.random() < share]
    chosen = sorted(dice.sample(chosen, min(most, len(chosen))))
    yield from (f"store:{n}" for n in chosen)
    others = sorted(set(range(1, run.steps + 1)) - set(run.at))
    wanted = min(max(int(least * share) - len(chosen), 0), len(others))
    yield from (f"step:{n}" for n in sorted(dice.sample(others, wanted)))


class Player:
    """Plays operations in worlds of one lab; a world in which something was wrong is not used again."""

    def __init__(self, lab: Lab, build: Builder) -> None:
        self.lab, self.build = lab, build

    def world(self, operation: AnyOperation) -> World:
        return (HelperWorld if isinstance(operation, HelperOperation) else World)(self.lab, self.build)

    @staticmethod
    def kill(world: World, operation: AnyOperation, point: str) -> Judged:
        """One kill, and what was wrong afterwards."""
        if isinstance(operation, HelperOperation):
            assert isinstance(world, HelperWorld)
            return world.kill_helper(operation, point)
        return world.kill(operation, point)

    def play(self, operation: AnyOperation, seed: int, least: int, share: float, *, most: int = 1 << 30) -> Tally:
        """The kill points of one operation, up to the first that is wrong: the next ones would meet what that left.

        `least`: behind so many instructions, where there are as many; `share`: of all that; `most`: behind so many stores.
        """
        tally, began = Tally(operation), time.monotonic()
        with self.world(operation) as world:
            for _ in range(2):  # the first one leaves its bytes in the rings, and a store of what is there already changes nothing
                whole = self.kill(world, operation, "all")
                self._note(world, tally, "all", whole)
            tally.steps, tally.stores = whole.run.steps, whole.run.stores
            for point in points(random.Random(f"{seed}-{operation.name}"), whole, least, share, most):
                if tally.wrong:
                    break
                judged = self.kill(world, operation, point)
                self._note(world, tally, point, judged)
                if judged.run.end != "killed" and point.startswith("store") and not judged.wrong:
                    # this run had fewer stores: where that store was in the one that was looked at
                    point = f"step:{whole.run.at[int(point.partition(':')[2]) - 1]}"
                    judged = self.kill(world, operation, point)
                    self._note(world, tally, point, judged)
                tally.at_stores += judged.run.end == "killed" and point.startswith("store")
                tally.elsewhere += judged.run.end == "killed" and point.startswith("step")
        tally.seconds = time.monotonic() - began
        return tally

    def _note(self, world: World, tally: Tally, point: str, judged: Judged) -> None:
        if judged.wrong:
            tally.wrong[f"{point}, {judged.run.end} at {self.where(judged.run.offset)}"] = judged.wrong

    def where(self, offset: int) -> str:
        """Function and line of an offset in the library."""
        if not offset:
            return "an address outside the library"
        done = subprocess.run(["addr2line", "-fspe", self.lab.library, hex(offset)], capture_output=True, text=True)
        return done.stdout.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """The table; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="kill.main", description=__doc__)
    parser.add_argument("--only", action="append", choices=[o.name for o in ALL], metavar="NAME", help="this operation; may be repeated")
    parser.add_argument("--seed", type=int, default=int(time.time() / 86400), help="of the sample: the day's number")
    parser.add_argument("--least", type=int, default=LEAST, help=f"kill points of an operation, where it has so many instructions: {LEAST}")
    parser.add_argument("--share", type=float, default=1.0, help="of the kill points: 1.0")
    parser.add_argument("--point", help="one point: all, store:N or step:N")
    parser.add_argument("--times", type=int, default=1, help="how often to kill at --point: 1")
    given = parser.parse_args(arguments)
    print(f"seed {given.seed}", flush=True)
    tallies = []
    namespace = Namespace()
    with tempfile.TemporaryDirectory() as folder:
        build = Builder(Path(folder))
        for operation in [o for o in ALL if not given.only or o.name in given.only]:
            with Lab(namespace, "killpoints") as lab:
                player = Player(lab, build)
                if given.point:
                    _one(player, operation, given.point, given.times)
                    continue
                tallies.append(player.play(operation, given.seed, given.least, given.share))
            print(tallies[-1], flush=True)
            for point, wrong in tallies[-1].wrong.items():
                print(f"    {point}", *wrong, sep="\n        ", flush=True)
    namespace.close()
    if given.point:
        return 0
    behind, elsewhere, bad = (sum(n) for n in zip(*((t.at_stores, t.elsewhere, len(t.wrong)) for t in tallies), strict=True))
    print(f"{behind + elsewhere} kills in {len(tallies)} operations, {behind} of them behind a store: {bad} wrong")
    return 1 if bad else 0


def _one(player: Player, operation: AnyOperation, point: str, times: int) -> None:
    with player.world(operation) as world:
        for _ in range(times):
            judged = player.kill(world, operation, point)
            print(operation.name, dataclasses.replace(judged.run, at=()), player.where(judged.run.offset), *judged.wrong, sep="\n  ")


if __name__ == "__main__":
    sys.exit(main())
