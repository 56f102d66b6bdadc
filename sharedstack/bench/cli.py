"""The command line. Exit status: 0; 1 a case failed, or one that must be accelerated was not; 2 usage; 130 interrupted."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from ..declare.options import PROFILES
from . import machine, report, stack
from .cases import CASES
from .results import Results
from .runner import Plan, Runner

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
DESCRIPTION = "Compare the kernel's sockets with shared memory on this machine, by one ordinary program, in interleaved rounds."


class _UsageError(Exception):
    """The command line makes no sense; the message says why."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sharedstack bench", description=DESCRIPTION, epilog=f"Cases: {', '.join(c.name for c in CASES)}."
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--pin", action="store_true", help="server on the first CPU allowed, client on the second")
    where.add_argument("--one-cpu", action="store_true", help="server and client both on the first CPU allowed")
    parser.add_argument("--only", metavar="A,B", help="these cases only")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds to take medians of (3; 1 with --quick)")
    parser.add_argument("--seconds", type=float, metavar="S", help="length of a case (1; 0.2 with --quick)")
    parser.add_argument("--quick", action="store_true", help="short and small: for tests, the figures mean little")
    parser.add_argument("-p", "--profile", default="", metavar="NAME", help=f"profile of the shared side: {', '.join(PROFILES)}")
    parser.add_argument(
        "--json", metavar="FILE", help="write everything there as JSON, too (-: standard output, the table to standard error)"
    )
    return parser


def _plan(arguments: argparse.Namespace) -> Plan:
    known = {case.name: case for case in CASES}
    names = list(known) if arguments.only is None else [name.strip() for name in arguments.only.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise _UsageError(f"--only: no case {', '.join(unknown) or 'given'}; there are {', '.join(known)}")
    rounds = (1 if arguments.quick else 3) if arguments.rounds is None else arguments.rounds
    seconds = (0.2 if arguments.quick else 1.0) if arguments.seconds is None else arguments.seconds
    if not 1 <= rounds <= 1000:
        raise _UsageError("--rounds: 1 to 1000")
    if not 0.01 <= seconds <= 600:  # false for nan, too
        raise _UsageError("--seconds: 0.01 to 600")
    if arguments.profile and arguments.profile not in PROFILES:
        raise _UsageError(f"no profile {arguments.profile!r}: there are {', '.join(PROFILES)}")
    allowed = machine.cpus()
    if arguments.pin and len(allowed) < 2:
        raise _UsageError(f"--pin needs two CPUs, and this process may use {len(allowed)}")
    server = allowed[0] if arguments.pin or arguments.one_cpu else None
    return Plan(
        cases=tuple(known[name] for name in dict.fromkeys(names)),
        rounds=rounds,
        seconds=seconds,
        idle_seconds=1.0 if arguments.quick else 10.0,
        quick=arguments.quick,
        profile=arguments.profile,
        server_cpu=server,
        client_cpu=allowed[1] if arguments.pin else server,
    )


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _cleaning_up() -> Iterator[None]:
    """SIGTERM and SIGHUP end the bench as Ctrl-C does: what it started is ended."""
    before = {number: signal.signal(number, _interrupted) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _open(name: str | None) -> Any:
    """Where JSON goes; opened before anything is measured, so that a wrong name costs no time."""
    if name is None:
        return None
    if name == "-":
        return sys.stdout
    try:
        return Path(name).open("w")
    except OSError as error:
        raise _UsageError(f"--json {name}: {error.strerror}") from error


def _bench(plan: Plan, target: Any) -> int:
    out = report.console(sys.stderr if target is sys.stdout else sys.stdout)
    facts = machine.facts()
    with tempfile.TemporaryDirectory(prefix="sharedstack-bench-") as folder, stack.private(Path(folder)) as private:
        report.head(out, plan, facts, private.name)
        progress = report.console(sys.stderr)
        with progress.status("") as status:
            measured = Runner(plan, private, Path(folder), status.update).run()
    results = Results(plan, measured)
    report.show(out, results)
    report.notes(out, results)
    report.verdict(out, results)
    if target is not None:
        json.dump(results.as_dict(facts), target, ensure_ascii=False, indent=1)
        target.write("\n")
        target.flush()
    return OK if results.good() else FAILED


def main(argv: Sequence[str]) -> int:
    """Run the command line `argv` (without the program's name); returns the exit status."""
    try:
        arguments = _parser().parse_args(list(argv))
        plan = _plan(arguments)
        target = _open(arguments.json)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else USAGE
    except _UsageError as error:
        print(f"sharedstack bench: {error}", file=sys.stderr)
        return USAGE
    try:
        with _cleaning_up():
            return _bench(plan, target)
    except (stack.BenchError, FileNotFoundError) as error:
        print(f"sharedstack bench: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("sharedstack bench: interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        if target is not None and target is not sys.stdout:
            target.close()
