"""What a case is played on: one mode's helper and namespace, a folder, ports, and the programs that the case starts.

A case starts its programs by `start` and `run`, looks at them under load by `look`, and returns what was said. What is still running
when it returns is ended in the reverse order by `end`, each program by the signal that it is ended with in practice; whatever then
remains in the namespace was left behind by them, and is a finding.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from compat.fix_lab import Actor, Lab

from sharedstack.inspection import processes

SCRIPTS = Path(__file__).resolve().parent
PYTHON = sys.executable
FIRST_PORT = 20000  # below those that the kernel gives to whoever connects, and nobody else's in a namespace of our own
LISTENING = 10  # TCP_LISTEN, include/net/tcp_states.h
# seconds that anything may take which takes a fraction of one on a quiet machine
PATIENCE = 20.0
_PLACES = (
    "/usr/sbin",
    "/sbin",
    *(str(p) for p in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)),
    str(Path(PYTHON).parent),
)
# /run is the programs' own: some have to write there
_OWN_RUN = 'mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec "$@"'

T = TypeVar("T")


@dataclass
class Said:
    """What a case said. `output` has to be as on the kernel; of `done` requests none may have failed; `note` is for the reader."""

    output: dict[str, object]
    done: int = 0
    failed: int = 0
    note: str = ""


@dataclass(frozen=True)
class Case:
    """A family of programs under load, and what happens to it.

    `exempt`: why less than nine bytes of ten need to go by ring when eager. `other_user`: the programs refuse to be root.
    """

    name: str
    needs: tuple[str, ...]
    play: Callable[[Stage], Said]
    exempt: str = ""
    other_user: bool = False


def where(name: str) -> str | None:
    """Path of a program, also of one that is not in PATH."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *_PLACES)))


def until(what: Callable[[], T], text: str, seconds: float = PATIENCE) -> T:
    """Look every 10 ms until it is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {text}"
        time.sleep(0.01)
    return found


def _command(pid: int) -> str:
    """Its command line, empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


class Program:
    """A program in the background, leader of a session of its own; `stop` is the signal that ends it."""

    def __init__(self, process: subprocess.Popen[str], log: Path, stop: signal.Signals) -> None:
        self.process, self.log, self.stop = process, log, stop

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it, not to its children."""
        self.process.send_signal(number)

    def said(self) -> str:
        """What it has written, on both streams."""
        return self.log.read_text(errors="replace")

    def result(self, limit: float = PATIENCE) -> str:
        """Wait for its end, which has to be a good one; what it wrote."""
        status = self.process.wait(limit)
        assert status == 0, f"{self.process.args}: exit status {status}\n{self.said()}"
        return self.said()

    def end(self) -> None:
        """Ask it to end, and wait."""
        if self.process.poll() is None:
            self.process.send_signal(self.stop)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)


@dataclass
class Stage:
    """`seconds`: how long a load lasts; `folder`: empty, the case's own; `shared`: of all stages of one run."""

    lab: Lab
    mode: str
    seconds: float
    folder: Path
    shared: Path
    environment: dict[str, str]
    seen: Counter[str] = field(default_factory=Counter)
    programs: list[Program] = field(default_factory=list)
    _ports: int = FIRST_PORT
    _client: Actor | None = None

    def port(self) -> int:
        """A port of 127.0.0.1 that nobody has."""
        self._ports += 1
        return self._ports

    def start(self, *argv: str, plain: bool = False, own_run: bool = False, stop: signal.Signals = signal.SIGTERM) -> Program:
        """A program in the background; `plain`: without the library; `own_run`: /run is empty for it, and its own."""
        found = where(argv[0])
        assert found, f"{argv[0]} is not installed"
        log = self.folder / f"log-{len(self.programs)}-{Path(argv[0]).name}"
        command = [found, *argv[1:]]
        if own_run:
            command = ["unshare", "--mount", "sh", "-c", _OWN_RUN, "sh", *command]
        with log.open("w") as out:
            process = self.lab.start(
                command,
                "kernel" if plain else self.mode,
                env=self.environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
                cwd=self.folder,
            )
        self.programs.append(Program(process, log, stop))
        return self.programs[-1]

    def run(self, *argv: str, plain: bool = False, limit: float = 60) -> str:
        """Run a program to its good end; what it wrote."""
        return self.start(*argv, plain=plain).result(limit)

    def python(self, script: str, *arguments: object, plain: bool = False) -> Program:
        """A script that stands beside this file, in the background."""
        return self.start(PYTHON, "-u", str(SCRIPTS / script), *map(str, arguments), plain=plain)

    def listens(self, port: int) -> None:
        """Wait until somebody does."""

        def listening() -> bool:
            table = processes.inet_sockets(self.lab.namespace.pid).values()
            return any(s.lport == port and s.state == LISTENING for s in table)

        last = self.programs[-1]
        try:
            until(listening, f"somebody listens on {port}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{last.said()}") from None

    def fetch(self, port: int) -> str:
        """The body that an HTTP server of that port answers with."""
        if self._client is None:
            self._client = self.lab.actor(self.mode, **self.environment)
            self._client.do(
                "def fetch(port):\n"
                "    with socket.create_connection(('127.0.0.1', port)) as s:\n"
                "        s.settimeout(10)\n"
                "        s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')\n"
                "        return b''.join(iter(lambda: s.recv(65536), b'')).partition(b'\\r\\n\\r\\n')[2].decode()"
            )
        return str(self._client.do(f"fetch({port})", PATIENCE))

    def look(self) -> None:
        """Note of each connection why it is on the kernel's path; the load has to be running. Not worth its time in a short one."""
        if self.mode == "kernel" or self.seconds < 1:
            return
        done = self.lab.inspect("--why", "--format", "json")
        assert done.returncode == 0, done.stderr
        members = self.members()
        sockets: list[dict[str, Any]] = [s for s in json.loads(done.stdout)["sockets"] if s["pid"] in members]
        self.seen.update(reason for s in sockets for reason in {s["tx"], s["rx"]} - {"not_established"})

    def members(self) -> dict[int, str]:
        """Processes of the namespace, with their names: all but its holder and the helpers."""
        holder, inode = self.lab.namespace.pid, processes.namespace(self.lab.namespace.pid, "net")
        inside = [p for p in processes.pids() if p != holder and processes.namespace(p, "net") == inode and processes.alive(p)]
        return {pid: line for pid in inside if "sharedstack_helper" not in (line := _command(pid))}

    def end(self) -> list[str]:
        """End all; what was left behind, if anything, which is killed."""
        if self._client:
            self.lab.actors.remove(self._client)
            self._client.end()
        for program in reversed(self.programs):
            program.end()
        with contextlib.suppress(AssertionError):
            until(lambda: not self.members(), "all have ended", 5)
        left = self.members()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for program in self.programs:
            program.process.wait()
        return [f"still running: {line}" for line in left.values()]
