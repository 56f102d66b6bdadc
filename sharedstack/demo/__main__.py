"""The demo's command line. Exit status 0: the shared side was accelerated; 1: it was not, or something failed; 2: usage."""

from __future__ import annotations

import argparse
import os
import secrets
import select
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import sysv_ipc
from rich.console import Console

from ..declare import binary, layout, names
from . import report
from .children import Child, DemoError, program, tail
from .rounds import Demo
from .workload import CASES, REDIS, choose

LIMIT = 280  # seconds for everything, so that 5 minutes are never exceeded
HELPER_LIMIT = 15.0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sharedstack.demo", description=sys.modules[__package__ or ""].__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: for tests, the figures mean little")
    parser.add_argument("--own", action="store_true", help="use the package's own server and client even where redis is installed")
    parser.add_argument("--rounds", type=int, default=0, metavar="N", help="rounds to take the median of (3; 1 with --quick)")
    return parser.parse_args()


def _interrupted(number: int, _frame: FrameType | None) -> None:
    """SIGTERM, SIGHUP and the time limit end the demo as Ctrl-C does: everything that runs is cleaned up."""
    if number == signal.SIGALRM:
        raise DemoError(f"not done after {LIMIT} s; is the machine very busy?")
    raise KeyboardInterrupt


@contextmanager
def _helper(stack: str, folder: Path) -> Iterator[Child]:
    """A helper on a stack of our own, which is removed when it has ended."""
    ready, writer = os.pipe()
    log = folder / "helper.log"
    try:
        command = [program("sharedstack-helper"), "--stack", stack, "--ready-fd", str(writer)]
        began = time.monotonic()
        with Child(command, log, pass_fds=[writer]) as helper:
            os.close(writer)
            readable, _, _ = select.select([ready], [], [], HELPER_LIMIT)
            if not readable or not os.read(ready, 256):
                raise DemoError(f"{command[0]} is not ready after {time.monotonic() - began:.1f} s:\n{tail(log)}")
            yield helper
    finally:
        os.close(ready)
        _remove_segments(stack)


def _remove_segments(stack: str) -> None:
    """Segments outlive their helper, for the programs that use them; nobody uses ours any more."""
    for path in Path("/dev/shm").glob(f"{names.SHM_PREFIX}.{os.getuid()}.*.{stack}.*"):
        if path.suffix == ".arena":
            with path.open("rb") as arena:
                header = binary.arena(memoryview(arena.read(layout.ARENA.size).ljust(layout.ARENA.size, b"\0")))
            if header["bulk_kind"] == layout.CONSTANTS["BULK_SYSV_HUGE"]:
                with suppress(sysv_ipc.ExistentialError):
                    sysv_ipc.remove_shared_memory(header["bulk_id"])
        path.unlink(missing_ok=True)


def _run(out: Console, arguments: argparse.Namespace, folder: Path) -> int:
    workload = choose(arguments.own)
    stack = f"demo{secrets.token_hex(4)}"
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    seconds = 0.4 if arguments.quick else 2.0
    out.print(
        f"{workload.title}, unmodified, {rounds} round{'s' if rounds > 1 else ''}, nothing pinned, on {os.cpu_count()} CPUs, stack {stack}."
    )
    if workload is not REDIS and not arguments.own:
        out.print("redis-server and redis-benchmark are not installed here (Debian: redis-server, redis-tools).")
    out.print(f"Loads: {'; '.join(case.name for case in CASES)} (-c connections, -P requests in a pipeline).")
    with _helper(stack, folder) as helper:
        results = Demo(workload, stack, folder, seconds, rounds, lambda text: out.print(f"... {text}")).run()
        helper.require()
        helper_cpu = helper.cpu()
    report.show(out, workload, results)
    out.print(f"The helper used {helper_cpu:.2f} s of CPU in all.")
    return report.verdict(out, results)


def main() -> int:
    """Run the demo."""
    arguments = _arguments()
    out = report.console()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, _interrupted)
    signal.alarm(LIMIT)
    try:
        with tempfile.TemporaryDirectory(prefix="sharedstack-demo-") as folder:
            return _run(out, arguments, Path(folder))
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
