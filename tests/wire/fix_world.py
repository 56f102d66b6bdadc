"""Two hosts, a helper on each with its end of the cable as a link, and programs that run there accelerated or plain."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from wire.fix_veth import INTERFACE, Host, hosts

from sharedstack.declare import names

BIN = Path(sys.executable).parent
T = TypeVar("T")


@dataclass
class Side:
    """One host: its helper, and whether programs there are accelerated."""

    host: Host
    stack: str
    helper: subprocess.Popen[str] | None = None
    programs: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Its IPv4 address."""
        return self.host.address(4)

    def start_helper(self, *options: str) -> None:
        """With the cable as its link, unless options are given; returns when it is ready."""
        reader, writer = os.pipe()
        command = [*self._inside(), str(BIN / "sharedstack-helper"), "--stack", self.stack, *(options or ("--link", INTERFACE))]
        self.helper = subprocess.Popen([*command, "--ready-fd", str(writer)], pass_fds=[writer], stdout=subprocess.DEVNULL, text=True)
        os.close(writer)
        with os.fdopen(reader) as ready:
            assert ready.read() == "READY\n", f"the helper of {self.host.namespace} did not start"

    def stop_helper(self) -> None:
        """By SIGTERM: it leaves cleanly."""
        if self.helper and self.helper.poll() is None:
            self.helper.terminate()
            assert self.helper.wait(20) == 0
        self.helper = None

    def keepers(self) -> list[int]:
        """Processes that keep what its helper holds."""
        inode, found = Path(f"/run/netns/{self.host.namespace}").stat().st_ino, []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if b"store.keeper" in (folder / "cmdline").read_bytes() and (folder / "ns/net").stat().st_ino == inode:
                    found.append(int(folder.name))
        return found

    def start(
        self,
        *command: str,
        ours: bool = True,
        cpu: int | None = None,
        fds: Sequence[int] = (),
        stderr: int | None = None,
        **environment: str,
    ) -> subprocess.Popen[str]:
        """A program there, whose output is piped; it has those descriptors too."""
        pinned = ["taskset", "-c", str(cpu)] if cpu is not None else []
        run = [str(BIN / "sharedstack"), "run", "--stack", self.stack, "--"] if ours else []
        program = subprocess.Popen(
            [*self._inside(), *pinned, *run, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            pass_fds=fds,
            env={**os.environ, **environment},
        )
        self.programs.append(program)
        return program

    def run(self, *command: str, ours: bool = True, seconds: float = 60, **environment: str) -> str:
        """A program there to its end: what it printed."""
        program = self.start(*command, ours=ours, **environment)
        out = program.communicate(timeout=seconds)[0]
        assert program.returncode == 0, f"{command}: status {program.returncode}\n{out}"
        return out

    @property
    def segments(self) -> str:
        """Name of its stack's segments, without `.stack`."""
        netns = int(self.run(sys.executable, "-c", "from sharedstack_helper.environment import *; print(netns_cookie())", ours=False))
        return names.segment(os.getuid(), netns, self.stack, "stack").removeprefix("/").removesuffix(".stack")

    def links(self) -> list[dict[str, Any]]:
        """What the stack says of its interfaces and their engines."""
        return list(self.inspect("--links")["links"])

    def inspect(self, *options: str) -> dict[str, Any]:
        """What the stack says of itself."""
        done = subprocess.run(
            [*self._inside(), str(BIN / "sharedstack"), "inspect", "--stack", self.stack, *options, "--format", "json"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def left(self) -> dict[str, int]:
        """What its stack and its engines have: nothing, once all have exited."""
        return {"endpoints": len(self.inspect()["endpoints"]), "of engines": sum(int(link["connections"]) for link in self.links())}

    def bytes_by_path(self) -> dict[str, int]:
        """What participants sent and received since the stack was made, by path."""
        counters = self.inspect()["counters"]
        return {path: counters[f"tx_{path}_bytes"] + counters[f"rx_{path}_bytes"] for path in ("local", "wire", "kernel")}

    def paths(self) -> list[tuple[str, str]]:
        """Path and reason of the sending direction of each connection."""
        return [(e["tx"]["path"], e["tx"]["why"]) for e in self.inspect()["endpoints"]]

    def end_programs(self) -> None:
        """By SIGKILL, whatever they do."""
        for program in self.programs:
            if program.poll() is None:
                program.send_signal(signal.SIGCONT)
                program.kill()
            program.communicate()
        self.programs.clear()

    def tcp_counts(self) -> dict[str, int]:
        """The host's own TCP counters (/proc/net/snmp)."""
        text = self.host.run("cat", "/proc/net/snmp")
        head, values = (line.split()[1:] for line in text.splitlines() if line.startswith("Tcp:"))
        return dict(zip(head, map(int, values), strict=True))

    def _inside(self) -> list[str]:
        return ["ip", "netns", "exec", self.host.namespace]


# Samples of a run: its seed chooses them; nothing is left out with WIRE_ALL=1 (make soak).
SEED = int(os.environ.get("WIRE_SEED", time.time_ns() % 1_000_000))
WHOLE = bool(os.environ.get("WIRE_ALL"))


def some(values: Sequence[T], n: int = 1) -> list[T]:
    """So many of them, which the seed chooses; all where the run is WHOLE."""
    return list(values) if WHOLE else [values[(SEED + i) % len(values)] for i in range(n)]


@contextmanager
def world(queues: int = 1, mtu: int = 1500) -> Iterator[tuple[Side, Side]]:
    """Both sides, with helpers; all of it is gone afterwards."""
    with hosts(queues, mtu) as pair:
        sides = tuple(Side(host, f"wire{os.getpid() % 100000}-{host.number}") for host in pair)
        try:
            for side in sides:
                side.start_helper()
            yield sides[0], sides[1]
        finally:
            for side in sides:
                side.end_programs()
            for side in sides:
                side.stop_helper()
                for keeper in side.keepers():  # of a helper that was killed
                    os.kill(keeper, signal.SIGKILL)
                for left in Path("/dev/shm").glob(f"sharedstack.*.{side.stack}.*"):  # of a helper that was killed
                    left.unlink()


def wait_for(what: Any, seconds: float = 10) -> None:
    """Look every 20 ms until it is so."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it did not come to be"
        time.sleep(0.02)
