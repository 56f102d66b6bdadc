"""What is under test, in the header; and the rule that CI skips nothing but what is known to be impossible there.

A test that needs what a machine may lack skips with the reason. With CI set, any such skip fails the session, unless the reason
begins with "allowed:", which marks what cannot be had in CI (another architecture's kernel, a physical device).
"""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import pytest

IN_CI = os.environ.get("CI", "") not in ("", "0", "false")
ALLOWED = "allowed:"
_skipped: list[tuple[str, str]] = []


def _proc_value(path: str, key: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.startswith(key):
            return line.split(":", 1)[1].strip()
    return "?"


def _cgroup() -> str:
    where = Path("/proc/self/cgroup").read_text().strip().splitlines()[-1].split(":", 2)[2]
    limits = []
    for name in ("cpu.max", "memory.max", "pids.max"):
        for folder in (Path("/sys/fs/cgroup") / where.lstrip("/"), Path("/sys/fs/cgroup")):
            if (folder / name).is_file():
                limits.append(f"{name} {(folder / name).read_text().strip()}")
                break
    return f"{where} ({', '.join(limits) or 'no limits to be seen'})"


def _shm() -> str:
    try:
        there = os.statvfs("/dev/shm")
    except OSError as error:
        return f"none ({error.strerror})"
    size, free = (there.f_frsize * blocks >> 20 for blocks in (there.f_blocks, there.f_bavail))
    return f"{size} MiB, {free} MiB free"


def _under_test() -> str:
    try:
        import sharedstack
        from sharedstack import paths
        from sharedstack.declare import layout
    except ImportError as error:
        return f"not importable: {error}"
    try:
        library = paths.library()
    except FileNotFoundError as error:
        return f"sharedstack {sharedstack.__version__}, no library: {error}"
    built = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(library.stat().st_mtime))
    return f"sharedstack {sharedstack.__version__}, layout {layout.HASH:#x}, {library} of {built}"


def pytest_report_header() -> list[str]:
    huge = _proc_value("/proc/meminfo", "HugePages_Total"), _proc_value("/proc/meminfo", "HugePages_Free")
    return [
        f"kernel: {platform.release()} {platform.machine()}, glibc {platform.libc_ver()[1]}, uid {os.getuid()}",
        f"CPUs: {len(os.sched_getaffinity(0))} of {os.cpu_count()}, {_proc_value('/proc/cpuinfo', 'model name')}",
        f"cgroup: {_cgroup()}",
        f"memory: {_proc_value('/proc/meminfo', 'MemAvailable')} available, huge pages {huge[0]} ({huge[1]} free), /dev/shm {_shm()}",
        f"under test: {_under_test()}",
        *(["CI: a skipped test fails the run unless its reason begins with 'allowed:'"] if IN_CI else []),
    ]


def _note_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    _skipped.append((report.nodeid, reason.removeprefix("Skipped: ")))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _note_skip(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _note_skip(report)


def _forbidden() -> list[tuple[str, str]]:
    return [(test, reason) for test, reason in _skipped if not reason.startswith(ALLOWED)] if IN_CI else []


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _forbidden() and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    forbidden = _forbidden()
    if not forbidden:
        return
    terminalreporter.section("skipped in CI, which fails the run", red=True, bold=True)
    for test, reason in forbidden:
        terminalreporter.line(f"{test}: {reason}")
