"""The matrix: every way in which a socket comes to another process, times its state, times what is done next, times the path it was on.

python -m matrix.main [--all] [--seed N] [--way W] [--socket S] [--step S] [--path P] [--again N]

A case is played on the plain kernel, in the default and in the eager mode at the same time, and every answer of every call is compared
with the kernel's. Without --all: cases that cover every pair of two factors, chosen by the seed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from matrix.cover import Row, all_pairs, pairwise, product
from matrix.play import FACTORS, Played, play
from matrix.worlds import AnyWorld, Programs, one_host, two_hosts
from rich.console import Console
from rich.table import Table


def rows_of(seed: int, whole: bool, only: dict[str, list[str]]) -> list[Row]:
    """The cases: of the chosen values."""
    factors = {name: [v for v in values if v in only.get(name, values)] for name, values in FACTORS.items()}
    return product(factors, seed) if whole else pairwise(factors, seed)


class Stages:
    """The worlds for each path, made when they are needed."""

    def __init__(self, folder: Path) -> None:
        self.programs = Programs(folder)
        self.stack = ExitStack()
        self._host: Sequence[AnyWorld] = ()
        self._hosts: Sequence[AnyWorld] = ()

    def __enter__(self) -> Stages:
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def __getitem__(self, path: str) -> Sequence[AnyWorld]:
        if path == "wire":
            self._hosts = self._hosts or self.stack.enter_context(two_hosts(self.programs))
            return self._hosts
        self._host = self._host or self.stack.enter_context(one_host(self.programs))
        return self._host

    def unclean(self) -> list[str]:
        """What is left in worlds of which all processes of cases have ended."""
        return [f"{world.mode}: {wrong}" for world in (*self._host, *self._hosts) if world.mode != "kernel" and (wrong := world.unclean())]


def summary(played: Played, seed: int) -> str:
    """In a line."""
    return f"seed {seed}: {played.cases.total()} cases run, skipped 0, {len(played.pairs)} of {len(all_pairs(FACTORS))} pairs"


def table(played: Played) -> Table:
    """Cases by way and path, and failures."""
    made = Table("way", *FACTORS["path"], "failures")
    failed = Counter(row["way"] for row, _ in played.failures)
    for way in FACTORS["way"]:
        made.add_row(way, *(str(played.cases[way, path]) for path in FACTORS["path"]), str(failed[way]))
    return made


def told(played: Played) -> Iterator[str]:
    """What else there is to say: paths, and known differences."""
    paths = ", ".join(f"{named} then {on}: {n}" for (named, on), n in sorted(played.paths.items()) if on != "none")
    yield f"path of the case, then of the subject when its step was taken: {paths}"
    for name, n in played.known.items():
        yield f"known difference, in {n} cases: {name}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m matrix.main", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=int(time.time()) // 86400)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--again", type=int, default=1, metavar="N", help="play each case so often")
    parser.add_argument("--cases", type=int, default=1 << 30)
    for name in FACTORS:
        parser.add_argument(f"--{name}", action="append", choices=FACTORS[name])
    asked = parser.parse_args()
    only = {name: getattr(asked, name) for name in FACTORS if getattr(asked, name)}
    played, began = Played(), time.monotonic()
    with Stages(Path(tempfile.mkdtemp(prefix="matrix-"))) as stages:
        for row in rows_of(asked.seed, asked.all, only)[: asked.cases]:
            for _ in range(asked.again):
                if wrong := play(stages[row["path"]], row, played):
                    print(" | ".join(row.values()), "\n   ", wrong, flush=True)
        left = stages.unclean()
    Console().print(table(played))
    print(f"{summary(played, asked.seed)}, {time.monotonic() - began:.0f} s")
    for line in told(played):
        print(line)
    print(*left, sep="\n")
    return int(bool(played.failures or left))


if __name__ == "__main__":
    sys.exit(main())
