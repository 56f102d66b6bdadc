"""Where the processes of a run are: one host by itself, or one of two that are joined by a cable; each with a helper that may be killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from chaos.serving import Serving
from chaos.whereabouts import commands, where
from compat.fix_lab import LIBRARY_SEAM, Namespace, program
from wire.fix_veth import INTERFACE, hosts

from sharedstack import paths
from sharedstack.declare import names
from sharedstack.inspection import snapshot
from sharedstack.inspection.state import State, decode

NETNS = "from sharedstack_helper.environment import netns_cookie; print(netns_cookie())"
MODES: Mapping[str, Mapping[str, str]] = {
    "default": {},
    "eager": {
        "SHAREDSTACK_EAGER": "1",
        "SHAREDSTACK_RING_MAX": "32768",
        "SHAREDSTACK_LIFT_AFTER": "1",
        "SHAREDSTACK_WIRE_AFTER": "2",
        "SHAREDSTACK_WIRE_MOST": "16",
        "SHAREDSTACK_WIRE_GAIN": "0",
    },
}


@dataclass
class Place:
    """A host, the stack on it, and its helper."""

    name: str
    group: int
    targets: int
    """The group to whose actors its own ones connect."""
    address: str
    prefix: Sequence[str]
    stack: str
    log: Path
    link: str = ""
    most: int = 40_000
    """Largest message, in bytes."""
    serving: Serving | None = None
    killed_at: float = 0.0
    killed: int = 0
    refused: int = 0
    numbers: list[int] = field(default_factory=list)
    """Its actors."""
    segments: str = ""
    remains: list[str] = field(default_factory=list)
    """Files in /dev/shm that were there when the last helper had gone."""

    def command(self, *argv: str) -> list[str]:
        """In its network namespace."""
        return [*self.prefix, *argv]

    def environ(self, mode: str) -> dict[str, str]:
        """Ours without anything of sharedstack, and what makes a program there an accelerated one."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("SHAREDSTACK_") and k != "LD_PRELOAD"}
        return {**clean, "SHAREDSTACK_STACK": self.stack, **MODES[mode]}

    def find(self) -> None:
        """The name of its segments."""
        said = subprocess.run(self.command(sys.executable, "-c", NETNS), capture_output=True, text=True, check=True)
        self.segments = names.segment(os.getuid(), int(said.stdout), self.stack, "stack").lstrip("/").removesuffix(".stack")

    def launch(self) -> None:
        """Begin a helper; `came` says when one is there."""
        link = ["--link", self.link] if self.link else []
        # a hundred programs that all of them have something to do leave it a hundredth of a CPU otherwise
        command = self.command("nice", "-n", "-10", program("sharedstack-helper"), "--stack", self.stack, *link)
        self.serving = Serving(command, self.log)

    def came(self) -> bool:
        """Is there a helper? One that could not start is begun again by `storm`."""
        if self.serving and self.serving.ended():
            self.serving = None
            self.refused += 1
        return bool(self.serving and self.serving.pid)

    def wait_for_helper(self, seconds: float = 20) -> None:
        """Until there is one."""
        until = time.monotonic() + seconds
        while not self.came():
            if self.serving is None:
                self.launch()
            assert time.monotonic() < until, f"no helper of {self.name}: {self.log.read_text()[-2000:]}\n{self.helpers()}"
            time.sleep(0.05)

    def helpers(self) -> str:
        """Where the processes are that could serve it."""
        found = [pid for pid, command in commands() if "sharedstack" in command and self.stack in command]
        return "\n".join(line for pid in found for line in where(pid))

    def sockets(self) -> str:
        """What the kernel and the stack say of all sockets there."""
        why = program("sharedstack"), "inspect", "--stack", self.stack, "--why"
        commands = [["ss", "-tanoip"], list(why)]
        return "".join(
            subprocess.run(self.command(*one), capture_output=True, text=True, check=False, env=self.environ("default")).stdout
            for one in commands
        )

    def kill_helper(self) -> None:
        """By SIGKILL, and begin the next one."""
        assert self.serving
        self.serving.end(signal.SIGKILL)
        self.killed += 1
        self.killed_at = time.monotonic()
        self.launch()

    def end_helper(self) -> None:
        """By SIGTERM."""
        if self.serving:
            self.serving.end(signal.SIGTERM)
            self.serving = None

    def state(self, live: bool = False) -> State:
        """Its stack, decoded."""
        return decode(snapshot.take(self.segments), live=live)

    def left(self) -> dict[str, int]:
        """What is in use: nothing, once all have gone but the helper."""
        state = self.state(live=True)
        found = {name: state.memory[name] for name in ("units_used", "pairs_used", "endpoints_used", "links_used")}
        found["locks"] = len(state.locks)
        found["slots"] = sum(not p.helper for p in state.participants) + max(0, sum(p.helper for p in state.participants) - 1)
        # as with the kernel, who closes first keeps a record of it for a minute
        for link in state.links:
            found |= {f"connections of an engine, {name}": n for name, n in link.states.items() if name != "time_wait"}
            found["uncounted connections"] = link.connections - sum(link.states.values())
        return {name: n for name, n in found.items() if n}

    def check(self) -> str:
        """What `inspect --check` finds; empty: nothing."""
        argv = self.command(program("sharedstack"), "inspect", "--stack", self.stack, "--check")
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=self.environ("default"))
        return "" if done.returncode == 0 else f"status {done.returncode}: {done.stdout}{done.stderr}"

    def complaints(self) -> list[str]:
        """What its helpers wrote that no helper should write."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return [f"{self.name}: {part}" for part in re.findall(r"Traceback[\s\S]*?^\S*Error.*$", text, re.M)]


def library() -> str:
    """What is preloaded: the library under test, or what another test puts in its place."""
    return os.environ.get(LIBRARY_SEAM) or paths.for_all_architectures(str(paths.library()))


@contextmanager
def one_host(log: Path) -> Iterator[list[Place]]:
    """A host by itself; its group is 0."""
    namespace = Namespace()
    assert namespace.own, "a network namespace needs root"
    place = Place("local", 0, 0, "127.0.0.1", namespace.prefix, f"chaos{os.getpid()}", log / "helper-local.log")
    try:
        with _served([place]):
            yield [place]
    finally:
        namespace.close()


@contextmanager
def two_hosts(log: Path) -> Iterator[list[Place]]:
    """Two that are joined by a cable, which their helpers lend; groups 1 and 2."""
    with hosts() as pair:
        made = [
            Place(
                f"wire-{host.number}",
                1 + host.number,
                2 - host.number,
                host.address(4),
                ["ip", "netns", "exec", host.namespace],
                f"chaos{os.getpid()}-{host.number}",
                log / f"helper-wire-{host.number}.log",
                INTERFACE,
                4000,
            )
            for host in pair
        ]
        with _served(made):
            yield made


@contextmanager
def _served(places: list[Place]) -> Iterator[None]:
    try:
        for place in places:
            place.find()
            place.launch()
        for place in places:
            place.wait_for_helper()
        yield
    finally:
        for place in places:
            place.end_helper()
            for left in Path("/dev/shm").glob(f"sharedstack.*.{place.stack}.*"):  # its last helper has left cleanly: there should be none
                place.remains.append(left.name)
                left.unlink()


@contextmanager
def places(log: Path, wire: bool) -> Iterator[list[Place]]:
    """All of them, with helpers."""
    with ExitStack() as stack:
        yield [*stack.enter_context(one_host(log)), *(stack.enter_context(two_hosts(log)) if wire else [])]
