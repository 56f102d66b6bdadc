"""The helper's life: ready, only one of a stack, asleep while idle, gone on a signal without a trace."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from unit.fix_helper_daemon import COMMAND, Daemon

import sharedstack
from sharedstack.declare import names
from sharedstack.declare.layout import CONSTANTS

pytest_plugins = ["unit.fix_helper"]


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=20, **options)  # type: ignore[call-overload,no-any-return]


def test_ready_line_names_stack_and_pid(stopped: Daemon) -> None:
    stopped.process = subprocess.Popen([*COMMAND, "--stack", stopped.stack], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert stopped.process.stdout is not None
    assert stopped.process.stdout.readline() == f"sharedstack-helper: ready, stack {stopped.stack}, pid {stopped.pid}\n"
    assert stopped.ask("ping")["pid"] == stopped.pid


def test_ready_fd_is_written_and_closed(stopped: Daemon) -> None:
    reader, writer = os.pipe()
    stopped.start("--ready-fd", str(writer), pass_fds=(writer,))
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert pipe.read() == "READY\n"  # to its end: nobody holds the other one


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(stopped: Daemon, tmp_path: Path, abstract: bool) -> None:
    name = f"@{tmp_path}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        manager.settimeout(5)
        stopped.start(env={**os.environ, "NOTIFY_SOCKET": name})
        assert manager.recv(100) == b"READY=1"
        stopped.end()
        assert manager.recv(100) == b"STOPPING=1"


def test_ready_within_half_a_second(stopped: Daemon) -> None:
    times = []
    for _ in range(5):  # the machine may be busy: the best counts
        began = time.monotonic()
        stopped.start()
        times.append(time.monotonic() - began)
        stopped.end()
        if times[-1] < 0.5:
            return
    pytest.fail(f"ready after {min(times):.3f} s at best")


def test_second_helper_names_the_first(daemon: Daemon) -> None:
    second = run("--stack", daemon.stack)
    assert (second.returncode, second.stdout, second.stderr) == (0, f"sharedstack-helper: already running as pid {daemon.pid}\n", "")
    assert daemon.ask("ping")["pid"] == daemon.pid


def test_one_of_many_started_at_once(stopped: Daemon) -> None:
    command = [*COMMAND, "--stack", stopped.stack]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(5)]
    try:
        lines = {process: process.stdout.readline() for process in started if process.stdout}
        first = next(process for process, line in lines.items() if line.startswith("sharedstack-helper: ready"))
        others = [process for process in started if process is not first]
        assert [lines[process] for process in others] == [f"sharedstack-helper: already running as pid {first.pid}\n"] * 4
        assert [process.wait(10) for process in others] == [0] * 4
    finally:
        for process in started:
            process.terminate()
            process.communicate(timeout=10)


def test_name_held_by_a_stranger(stopped: Daemon) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.bind(names.control_socket(os.getuid(), stopped.stack))
        failed = run("--stack", stopped.stack)
    assert failed.returncode == 1
    assert "held by a process that does not answer" in failed.stderr and len(failed.stderr.splitlines()) == 1
    assert not stopped.path("stack").exists()


@pytest.mark.parametrize("redirect", [">&-", "<&- >&- 2>&-", ">/dev/full"])
def test_standard_output_may_lead_nowhere(stopped: Daemon, redirect: str) -> None:
    reader, writer = os.pipe()
    shell = f'exec "$@" {redirect}'
    command = ["sh", "-c", shell, "sh", *COMMAND, "--stack", stopped.stack, "--ready-fd", str(writer)]
    stopped.process = subprocess.Popen(command, pass_fds=(writer,), text=True)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert pipe.readline() == "READY\n"
    assert stopped.ask("ping")["t"] == "pong"
    assert stopped.end()[0] == 0


@pytest.mark.parametrize(
    "arguments", [("--stack", "a/b"), ("--stack", ""), ("--stack", "x" * 17), ("--ready-fd", "77"), ("--cool-every", "0"), ("--no",)]
)
def test_usage_errors(arguments: tuple[str, ...]) -> None:
    failed = run(*arguments)
    assert failed.returncode == 2 and "usage:" in failed.stderr


def test_version() -> None:
    assert run("--version").stdout == f"sharedstack-helper {sharedstack.__version__}\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_leaves_cleanly(stopped: Daemon, number: int) -> None:
    ours = signal.signal(number, signal.SIG_DFL)  # under nohup the helper would go on ignoring it
    daemon = stopped.start()
    signal.signal(number, ours)
    header = daemon.header()
    assert daemon.end(number) == (0, "")
    assert (header["state"], header["pair_ok"], header["helper"]) == (CONSTANTS["STACK_RETIRED"], 0, 0)
    assert not any(daemon.path(part).exists() for part in ("stack", "arena", "bulk"))
    daemon.start()  # the name is free again


def test_nohup(stopped: Daemon) -> None:
    stopped.start(prefix=("nohup",))
    os.kill(stopped.pid, signal.SIGHUP)
    time.sleep(0.05)
    assert stopped.ask("ping")["pid"] == stopped.pid


def test_idle_helper_sleeps(daemon: Daemon) -> None:
    daemon.ask("ping")
    time.sleep(0.2)

    def switches() -> int:
        lines = Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("voluntary"))

    before = switches()
    time.sleep(3)
    assert switches() - before <= 2
