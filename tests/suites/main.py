"""Runs both suites in the three worlds, prints what differs from the kernel and which way the bytes went: `make suites`.

Exit status 1: a test said something else than on the kernel, or too few bytes of the eager world went by ring. --again N runs what
differed N times more, on the kernel too: that tells a test that fails there now and then from one that fails with the library.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from compat.fix_lab import MODES
from suites import cpython, libuv
from suites.known import KNOWN
from suites.results import Difference, Run, differences, together
from suites.worlds import Worlds

EAGER_SHARE = 0.95
FOLDER = Path("build-suites")
Runs = dict[str, dict[str, Run]]  # by part of a suite, then by world


def main() -> int:
    """The command; see `--help`."""
    parser = argparse.ArgumentParser(prog="python -m suites.main", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--suite", choices=("cpython", "libuv"), action="append", help="only this one")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="modules of CPython's, tests of libuv's")
    parser.add_argument("--world", choices=MODES, action="append", help="only these worlds, and the kernel's")
    parser.add_argument("--again", type=int, default=0, metavar="N", help="run each test that differed N times more, in each world")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where sources, logs and the report go (%(default)s)")
    options = parser.parse_args()
    worlds = [m for m in MODES if m == "kernel" or not options.world or m in options.world]
    options.folder.mkdir(parents=True, exist_ok=True)
    bad = 0
    for suite, play in {"cpython": _cpython, "libuv": _libuv}.items():
        if options.suite and suite not in options.suite:
            continue
        began = time.monotonic()
        with Worlds(suite, worlds) as made:
            runs: Runs = {}
            for part, world, run in play(made, options.folder.resolve(), options.only):
                runs.setdefault(part, {})[world] = run
                if suite == "cpython":
                    _say(f"{part} {world}: {run.summary()}, {run.seconds:.0f} s {run.note}")
            found = _different(runs, made)
            for world, difference in found:
                _say(f"DIFFERENT {world}: {difference}")
            if options.again and found:
                _repeat(suite, found, made, options)
        (options.folder / f"{suite}.json").write_text(json.dumps({p: {w: asdict(r) for w, r in by.items()} for p, by in runs.items()}))
        _report(suite, runs, worlds)
        _say(f"{suite}: {len(found)} differences, {time.monotonic() - began:.0f} s")
        bad += len(found) + _too_little(suite, runs)
    return 1 if bad else 0


def _say(line: str) -> None:
    print(line, flush=True)


def _cpython(worlds: Worlds, folder: Path, only: Sequence[str]) -> Iterator[tuple[str, str, Run]]:
    if why := cpython.missing():
        sys.exit(why)
    for module in only or cpython.MODULES:
        for world in worlds.names:
            yield module, world, cpython.run(worlds, world, module, folder / "cpython")


def _libuv(worlds: Worlds, folder: Path, only: Sequence[str]) -> Iterator[tuple[str, str, Run]]:
    built = libuv.program(folder / "libuv")
    for world in worlds.names:
        for name, run in libuv.run(worlds, world, built, only or libuv.tests(built), folder / "libuv-logs"):
            yield name, world, run


def _different(runs: Runs, worlds: Worlds) -> list[tuple[str, Difference]]:
    """What differs from the kernel, but for tests that are known to vary there."""
    return [
        (world, d)
        for by in runs.values()
        for world in worlds.names
        if world != "kernel" and world in by
        for d in differences(by["kernel"].results, by[world].results)
        if d.test not in KNOWN
    ]


def _repeat(suite: str, found: Sequence[tuple[str, Difference]], worlds: Worlds, options: argparse.Namespace) -> None:
    """Outcomes of the tests that differed, of some runs more in each world."""
    for test in sorted({d.test for _, d in found}):
        for world in worlds.names:
            runs = [_once(suite, test, world, worlds, options.folder.resolve()) for _ in range(options.again)]
            outcomes = Counter(run.results[test].outcome if test in run.results else "not run" for run in runs)
            _say(f"AGAIN {test} {world}: {', '.join(f'{n} {outcome}' for outcome, n in outcomes.items())}")


def _once(suite: str, test: str, world: str, worlds: Worlds, folder: Path) -> Run:
    if suite == "cpython":
        return cpython.run(worlds, world, test.split(".")[1], folder / "again", match=[test.rsplit(".", 1)[-1]])
    return next(libuv.run(worlds, world, libuv.program(folder / "libuv"), [test], folder / "again"))[1]


def _report(suite: str, runs: Runs, worlds: Sequence[str]) -> None:
    """Tables: outcomes of the whole, and bytes of each part that sent any."""
    for world in worlds:
        whole = together(by[world] for by in runs.values() if world in by)
        _say(f"{suite} {world}: {whole.summary()}")
        if world == "kernel":
            continue
        _say(f"{'':<44} {'by ring':>12} {'by kernel':>12} {'share':>7}  of the kernel's, on connections under count")
        parts = [(part, by[world]) for part, by in runs.items() if world in by]
        for part, run in sorted(parts, key=lambda item: -item[1].moved.kernel)[:24]:
            if run.moved.local or run.moved.kernel > 1000:
                _say(_line(part, run))
        _say(_line("all", whole))


def _line(part: str, run: Run) -> str:
    why = ", ".join(f"{name.removeprefix('tx_kernel_')} {n}" for name, n in sorted(run.why.items(), key=lambda w: -w[1]) if n)
    return f"{part:<44} {run.moved.local:>12} {run.moved.kernel:>12} {run.moved.share:>7.1%}  {why}"


def _too_little(suite: str, runs: Runs) -> int:
    if not any("eager" in by for by in runs.values()):
        return 0
    share = together(by["eager"] for by in runs.values() if "eager" in by).moved.share
    if share < EAGER_SHARE:
        _say(f"{suite}: {share:.1%} of the bytes went by ring in the eager world, asked are {EAGER_SHARE:.0%}")
    return int(share < EAGER_SHARE)


if __name__ == "__main__":
    sys.exit(main())
