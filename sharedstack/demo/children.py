"""Child processes of the demo: each in a session of its own with a log file, and none left behind."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_UNPRIVILEGED = 1024
TICKS = os.sysconf("SC_CLK_TCK")


class DemoError(Exception):
    """The demo cannot go on; the message says what failed and what to do."""


class Child:
    """A running child. Leaving its `with` block ends it and all that it started."""

    def __init__(self, command: Sequence[str], log: Path, *, pass_fds: Sequence[int] = ()) -> None:
        self.command, self.log = command, log
        with log.open("ab") as out:
            try:
                self.process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, pass_fds=pass_fds, cwd=log.parent
                )
            except OSError as error:
                raise DemoError(f"cannot run {command[0]}: {error.strerror}; was the package built (`make build`)?") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id; that of the program itself, as `sharedstack run` leaves no process between."""
        return self.process.pid

    def require(self) -> None:
        """DemoError with the end of its log if it has ended."""
        if self.process.poll() is not None:
            raise DemoError(f"{self.command[0]} ended with status {self.process.returncode}:\n{tail(self.log)}")

    def cpu(self) -> float:
        """CPU time it has used, all threads, user and system. Unit: seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def stop(self) -> None:
        """SIGTERM to its process group; SIGKILL 3 s later to what is left."""
        for sig, patience in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
            if not self._signal(sig):
                break
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _signal(self, sig: int) -> bool:
        try:
            os.killpg(self.pid, sig)
        except ProcessLookupError:
            return False
        return True


def tail(log: Path, lines: int = 8) -> str:
    """The end of a log file."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return "\n".join(text.splitlines()[-lines:]) or "(it printed nothing)"


def program(name: str) -> str:
    """Path of one of the project's own commands: beside the running Python, as in a virtual environment."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else name


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody has; below those that the kernel gives to whoever connects, which would take it meanwhile."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(_UNPRIVILEGED, max(first, _UNPRIVILEGED + 1000))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_for_port(port: int, server: Child, seconds: float = 15.0) -> None:
    """Return when the server accepts connections; DemoError if it ends or takes too long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        server.require()
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError:
            time.sleep(0.02)
    raise DemoError(f"{server.command[0]} does not accept connections on 127.0.0.1:{port} after {seconds:.0f} s:\n{tail(server.log)}")


def segments() -> int:
    """TCP segments that the kernel of this network namespace has received since it began (`InSegs` of /proc/net/snmp)."""
    names, values = (line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Tcp:"))
    return int(values[names.index("InSegs")])
