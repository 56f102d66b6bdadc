"""CPython's own tests, as Debian packages them: those of the modules that use sockets, waits, processes and signals."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from suites.results import ORDER, Result, Results, Run
from suites.worlds import Moved, Worlds

PYTHON = "/usr/bin/python3.11"
INSIDE = Path(__file__).with_name("inside.py")
MODULES = (
    "test_socket",
    "test_socketserver",
    "test_select",
    "test_poll",
    "test_epoll",
    "test_selectors",
    "test_asyncio",
    "test_ssl",
    "test_httplib",
    "test_httpservers",
    "test_ftplib",
    "test_smtplib",
    "test_imaplib",
    "test_xmlrpc",
    "test_asyncore",
    "test_multiprocessing_fork",
    "test_multiprocessing_spawn",
    "test_signal",
    "test_subprocess",
)
# nothing outside the namespace can be reached; test_socketserver asks for the resource all the same
_ARGUMENTS = ("-v", "-u", "network", "-i", "*VSOCK*")
LIMIT = 900.0


def missing() -> str:
    """What is not there, or "" if all is."""
    if not Path(PYTHON).exists():
        return f"{PYTHON} is not there (package python3.11)"
    done = subprocess.run([PYTHON, "-c", "import test.test_socket"], capture_output=True, text=True)
    return "" if done.returncode == 0 else "the tests of Debian's Python are not there (package libpython3.11-testsuite)"


def run(worlds: Worlds, world: str, module: str, logs: Path, *, match: Sequence[str] = (), limit: float = LIMIT) -> Run:
    """One module in one world. `match`: patterns of tests, as regrtest's -m has them. Logs: what it wrote, and each test's line."""
    logs.mkdir(parents=True, exist_ok=True)
    events, output = logs / f"{module}.{world}.json", logs / f"{module}.{world}.log"
    events.unlink(missing_ok=True)
    output.unlink(missing_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="shs-suite-"))
    chosen = [word for pattern in match for word in ("-m", pattern)]
    argv = [PYTHON, str(INSIDE), str(events), worlds.counters(world), *_ARGUMENTS, *chosen, "--timeout", str(int(limit) - 5), module]
    try:
        ended = worlds.run(world, argv, output, limit, folder, {"TMPDIR": str(folder)})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    note = f"killed after {limit:.0f} s" if ended.late else f"ended with status {ended.status}" if ended.status not in (0, 2) else ""
    return Run(read(events), ended.moved, ended.seconds, ended.why, note)


def read(events: Path) -> Results:
    """The tests that inside.py wrote down."""
    results: Results = {}
    for line in events.read_text().splitlines() if events.exists() else ():
        event = json.loads(line)
        if "begin" in event:
            results[event["begin"]] = Result("lost", "the process ended in this test")
            continue
        worst = min(event["found"] or [["ok", ""]], key=lambda found: ORDER.index(found[0]))
        moved = _moved(event["after"]) - _moved(event["before"]) if event["after"] else Moved()
        results[event["end"]] = Result(worst[0], worst[1], event["seconds"], moved)
    return results


def _moved(counts: list[list[int]]) -> Moved:
    local, counted = counts[0] or (0, 0)
    return Moved(local, counted, *counts[1])
