"""`python -m kill.mutants.main`, from tests/: each mutant of the table must be noticed by the kill points that it names."""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from compat.fix_lab import LIBRARY_SEAM, Builder, Lab, Namespace
from kill.main import ALL, Player
from kill.mutants.table import ENGINE, MUTANTS, Mutant
from kill.mutants.workshop import Workshop
from unit import fix_helper_daemon

ENGINE_POINTS, ENGINE_SEEDS = 60, 4
TESTS = Path(__file__).resolve().parents[2]


def noticed(mutant: Mutant, namespace: Namespace, build: Builder, seed: int) -> str:
    """By what it was noticed; empty: by nothing."""
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder))
        if mutant.operations == ENGINE:
            return _by_engine(str(workshop.program(mutant, "test_kill_points")), seed)
        plain, path = list(fix_helper_daemon.COMMAND), os.environ.get("PYTHONPATH")
        os.environ |= {LIBRARY_SEAM: str(workshop.library(mutant)), "PYTHONPATH": str(TESTS)}
        fix_helper_daemon.COMMAND[:] = [sys.executable, "-m", "kill.mutants.helper", str(workshop.core(mutant))]
        try:
            return _by_operations(mutant, namespace, build, seed)
        finally:
            fix_helper_daemon.COMMAND[:] = plain
            del os.environ[LIBRARY_SEAM], os.environ["PYTHONPATH"]
            if path is not None:
                os.environ["PYTHONPATH"] = path


def _by_operations(mutant: Mutant, namespace: Namespace, build: Builder, seed: int) -> str:
    for operation in (o for o in ALL if o.name in mutant.operations):
        with Lab(namespace, "mutants") as lab:
            try:
                tally = Player(lab, build).play(operation, seed, 0, 1.0)
            except AssertionError as error:  # somebody does not answer any more
                return f"{operation.name}: {error}"
            for point, wrong in tally.wrong.items():
                return f"{operation.name}, {point}: {wrong[0]}"
    return ""


def _by_engine(program: str, seed: int) -> str:
    for n in range(ENGINE_SEEDS):
        command = [program, str(seed + n), str(ENGINE_POINTS)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode:
            return done.stderr.strip().splitlines()[-2]
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """The table; 1 if one was not noticed."""
    parser = argparse.ArgumentParser(prog="kill.mutants.main", description=__doc__)
    parser.add_argument("--only", action="append", metavar="WORDS", help="mutants whose names have these words; may be repeated")
    parser.add_argument("--some", type=int, default=0, help="so many of them, chosen by the seed")
    parser.add_argument("--seed", type=int, default=int(time.time() / 86400), help="the day's number")
    given = parser.parse_args(arguments)
    chosen = [m for m in MUTANTS if not given.only or any(words in m.name for words in given.only)]
    if given.some:
        chosen = random.Random(given.seed).sample(chosen, min(given.some, len(chosen)))
    unnoticed = 0
    namespace = Namespace()
    with tempfile.TemporaryDirectory() as folder:
        build = Builder(Path(folder))
        for mutant in chosen:
            began = time.monotonic()
            by = noticed(mutant, namespace, build, given.seed)
            unnoticed += not by
            print(f"{mutant.name}: {by[:300] or 'NOT NOTICED'} ({time.monotonic() - began:.1f} s)", flush=True)
    namespace.close()
    print(f"{len(chosen)} mutants, {unnoticed} not noticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
