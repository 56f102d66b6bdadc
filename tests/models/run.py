#!/usr/bin/env python3
"""Checks the Promela models of the protocol and their mutants with spin, exhaustively.

    tests/models/run.py [--only MODEL] [--jobs N] [--list]

A model must hold; a mutant (the same model with a step left out, or in another order) must fail: if it does not, the model
is too small to see what that step is for. Prints a line for each case; exit 0: as it must be, 1: not, 2: spin or gcc is missing.
What the models cover and what they leave out: docs/internals/models.md.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
TIME_LIMIT_S = 120
SEARCH_DEPTH = 20_000
MEMORY_MIB = 1500


@dataclass(frozen=True)
class Case:
    """One search: a model with -D flags, which must hold, or must fail (a mutant)."""

    model: str
    flags: tuple[str, ...] = ()
    mutant: bool = False

    @property
    def name(self) -> str:
        """The flags, as shown."""
        return "+".join(self.flags) or "-"


@dataclass(frozen=True)
class Outcome:
    """What spin found: `error` is empty if the model holds; `broken` if there was no complete search at all."""

    states: int
    error: str
    seconds: float
    broken: bool = False

    def wrong(self, case: Case) -> bool:
        """A model that fails, a mutant that holds, or no result."""
        return self.broken or bool(self.error) != case.mutant


# Per model: the variants that must hold, and the mutants that must fail. A case is a string of flags.
MODELS: dict[str, tuple[list[str], list[str]]] = {
    "one-reader": (
        ["", "NAP"],
        [
            "LOOK_BEFORE_ARM",
            "DRAIN_AFTER_ARM",
            "NO_BELL",
            "TAKE_WITHOUT_TAKERS",
            "NO_LOOK_AFTER_TAKERS",
            "NO_K_CHECK",
            "K_LATE",
            "NO_ROOM_CHECK",
            "CAS_INDEX_ONLY",
            "NAP BLIND",
            "NAP KERNEL_UNRUNG",
            "NAP FIN_UNRUNG",
            "NAP RUNG_BEFORE_KSENT",
            "NAP WAKE_FIRST",
        ],
    ),
    "two-readers": (
        [""],
        [
            "WAIT_FOR_K_NATIVELY",
            "TWO_DOZERS",
            "ARM_UNLOCKED",
            "TAKEN_AFTER_TAKERS",
            "POLL_WITHOUT_TAKERS",
            "NO_LOOK_AFTER_TAKERS",
            "NO_RLOCK_BOUNDED",
        ],
    ),
    "epoll-set": (
        ["", "DEATH", "FENCE DRAIN"],
        [
            "NO_SLEEPERS",
            "DOZE_UNCOUNTED",
            "NO_SHUT",
            "NO_LOOK",
            "ARM_AFTER_CLAIM",
            "NO_CLAIM_CHECK",
            "DEATH OPEN_BEFORE_LIST",
            "FENCE",
            "FENCE DRAIN DEATH",
            "FENCE DRAIN LIST_FIRST",
            "FENCE DRAIN DOZE_UNCOUNTED",
            "FENCE DRAIN NO_SLEEPERS",
            "FENCE DRAIN REOPEN_UNCHECKED",
        ],
    ),
    "bell": ([""], ["EXCHANGE_FIRST", "CLEAR_BLINDLY", "LOOK_ONE", "DRAIN_AFTER_ARM"]),
    "activation": (
        ["", "RX"],
        [
            "NO_MEMBARRIER",
            "NO_RECHECK",
            "NO_ACTIVATING",
            "SCAN_FIRST",
            "COUNT_TORN",
            "ON_BEFORE_COUNT",
            "RX NO_MEMBARRIER",
            "RX COUNT_TORN",
            "RX POLL_WITHOUT_HAZARD",
        ],
    ),
    "rst": ([""], ["ERROR_FIRST", "GAP_IGNORED", "GAP_SKIPPED", "NO_STICKY", "STICKY_LATE"]),
    "death-taker": ([""], ["LIVE_TAKER", "DECREMENT", "NO_TAKEN", "NO_REPAIR_OF_BOUNDED"]),
    "death-writer": (["", "ONE_DIES N=3"], ["NO_KSENT", "NO_BELL", "BELL_AFTER_UNLOCK", "UNLOCK_BEFORE_KSENT"]),
    "death-opener": ([""], ["NO_OPENER_CHECK", "OPENER_AFTER_OPEN", "CLOSE_LEAVES_OPEN"]),
    "unpair": (
        ["", "POLLER N=2"],
        [
            "NO_CHECK",
            "NO_ON_CHECK",
            "NO_LOCKS",
            "CLEAR_LATE",
            "NOT_EMPTY",
            "LEAVE_BLINDLY",
            "POLLER N=2 COOKIE_ONLY",
            "POLLER N=2 INDEX_ANEW",
        ],
    ),
    "residue": (
        [""],
        ["NO_COLLECT", "SEND_EARLY", "OWN_FIRST", "RD_FIRST", "NO_RD_REPAIR", "RD_LEFT", "NO_RECOUNT", "OWN_PROGRESS", "NO_STICKY"],
    ),
    "datagram": (
        ["", "BUSY", "DEATH N=1", "TWO M=0"],
        [
            "NOT_LATER",
            "SEEN_FIRST",
            "SEEN_KEPT N=3",
            "LOOK_LATE",
            "TAKE_UNCOUNTED",
            "NO_LOOK_AFTER_COUNT",
            "SLEEP_UNCOUNTED",
            "NO_BELL",
            "ARM_LATE",
            "BUSY MARK_SHORT",
            "DEATH N=1 NO_REPAIR",
            "DEATH N=1 COOL_SILENT",
            "TWO M=0 NO_ON_CHECK",
        ],
    ),
    "permission": (
        [""],
        [
            "NOT_FRESH",
            "BEGUN_LATE",
            "WISH_LATE",
            "WISH_BACK",
            "NATIVE_LATE",
            "OLD_WORD",
            "NO_DOUBT",
            "WANTED_KEPT",
            "MEET_STORES",
        ],
    ),
    "inbox": (
        ["", "NO_GEN_CHECK", "DOUBT_LATE"],
        [
            "NO_GEN_CHECK DOUBT_LATE",
            "NO_COOKIE",
            "NO_LOCKS",
            "SWEEP_UNLOCKED",
            "CLEAR_LOCK",
            "TAKERS_BEFORE",
            "TAKERS_IGNORED",
            "MEET_LATE",
            "STATE_FIRST",
        ],
    ),
    "growth": (
        [""],
        ["RD_FIRST", "FREE_FIRST", "NO_RD_REPAIR", "PUBLISH_FIRST", "NO_REVERT", "GROW_TWICE", "NO_RESERVE"],
    ),
}


def cases() -> Iterator[Case]:
    """All searches, model by model, what must hold first."""
    for model, (holds, fails) in MODELS.items():
        for flags, mutant in [(f, False) for f in holds] + [(f, True) for f in fails]:
            yield Case(model, tuple(flags.split()), mutant)


def missing_tools() -> list[str]:
    """Names of the programs that are needed and not there."""
    return [tool for tool in ("spin", "gcc") if not shutil.which(tool)]


def search(case: Case) -> Outcome:
    """Searches all states of one case. Never raises for what spin or gcc say: that is in the outcome."""
    start = time.monotonic()

    def broken(why: str) -> Outcome:
        return Outcome(0, why.strip()[-300:], time.monotonic() - start, broken=True)

    with tempfile.TemporaryDirectory(prefix="shs-model-") as tmp:
        source = shutil.copy(HERE / f"{case.model}.pml", tmp)
        pan = [f"-m{SEARCH_DEPTH}", "-w22", "-n"]
        steps = [
            ["spin", "-a", *(f"-D{flag}" for flag in case.flags), Path(source).name],
            ["gcc", "-O0" if case.mutant else "-O2", "-w", "-DSAFETY", f"-DMEMLIM={MEMORY_MIB}", "-o", "pan", "pan.c"],
            ["./pan", *pan],
        ]
        out = ""
        for step in steps:
            try:
                done = subprocess.run(step, cwd=tmp, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False)
            except subprocess.TimeoutExpired:
                return broken(f"{step[0]}: not done within {TIME_LIMIT_S} s")
            out = done.stdout + done.stderr
            if done.returncode != 0 or (step[0] == "spin" and "rror" in out):
                return broken(f"{' '.join(step)}: status {done.returncode}: {out}")
    errors = re.search(r"errors: (\d+)", out)
    states = re.search(r"(\d+) states, stored", out)
    if not errors or not states:
        return broken(f"pan: no result: {out}")
    found = re.search(r"^pan:1: (.*?)(?: \(at depth \d+\))?$", out, re.MULTILINE)
    if errors[1] == "0" and ("Search not completed" in out or "max search depth too small" in out):
        return broken("pan: the search was not complete; raise SEARCH_DEPTH or MEMORY_MIB, or make the model smaller")
    error = "" if errors[1] == "0" else (found[1] if found else "error")
    return Outcome(int(states[1]), error, time.monotonic() - start)


def main() -> int:
    """The command: see the module's docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", metavar="MODEL", choices=sorted(MODELS), help="this model only")
    parser.add_argument("--jobs", type=int, default=2, help="searches at a time (default 2)")
    parser.add_argument("--list", action="store_true", help="print the cases and end")
    args = parser.parse_args()
    todo = [case for case in cases() if args.only in (None, case.model)]
    if args.list:
        for case in todo:
            print(f"{case.model:14} {case.name}{' (mutant)' if case.mutant else ''}")
        return 0
    if missing := missing_tools():
        print(f"models: {' and '.join(missing)} not found; apt-get install -y spin gcc", file=sys.stderr)
        return 2
    wrong = 0
    start = time.monotonic()
    print(f"{'model':14} {'variant or mutant':30} {'states':>9} {'s':>5}  result")
    with ThreadPoolExecutor(args.jobs) as pool:
        for case, got in zip(todo, pool.map(search, todo), strict=True):
            bad = got.wrong(case)
            wrong += bad
            verdict = ("fails as it must: " if case.mutant else "") + (got.error or "holds")
            if bad:
                verdict = f"WRONG: {got.error or 'the mutant holds'}"
            name = ("! " if case.mutant else "") + case.name
            print(f"{case.model:14} {name:30} {got.states:9} {got.seconds:5.1f}  {verdict}", flush=True)
    print(f"{len(todo)} cases, {wrong} wrong, {time.monotonic() - start:.0f} s  (! = mutant)")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
