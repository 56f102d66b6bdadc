"""The tracer (tracer.c), and what it says of a run."""

from __future__ import annotations

import select
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from compat.fix_lab import Lab

HANGS_AFTER = 20.0


@dataclass(frozen=True)
class Run:
    """One run: how it ended (done, killed, ended), steps, stores, the offset in the library at which it was killed, the step of each store."""

    end: str
    steps: int
    stores: int
    offset: int
    at: tuple[int, ...] = ()


class Tracer:
    """Runs victims one after the other, in the lab's namespace, with its library."""

    def __init__(self, lab: Lab, program: str, library: str) -> None:
        segments = [str(lab.daemon.path(part)) for part in ("stack", "arena", "bulk")]
        command = [*lab.namespace.prefix, program, library, *segments]
        env = lab.environ("kernel", SHAREDSTACK_STACK=lab.stack)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def run(self, point: str, argv: list[str], ready: Callable[[], None], asleep: Callable[[], None]) -> Run:
        """Kill `argv` at `point`; `ready` is called when it stands before the operation, `asleep` when it sleeps inside."""
        self._tell(" ".join((point, *argv)))
        while (line := self._hear()) in ("ready", "asleep"):
            if line == "asleep":
                asleep()
            else:
                ready()
                self._tell("go")
        end, steps, stores, offset, *at = line.split()
        return Run(end, int(steps), int(stores), int(offset, 16), tuple(map(int, at)))

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()

    def _tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def _hear(self) -> str:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], HANGS_AFTER)
        assert ready, "the victim hangs"
        line = self.process.stdout.readline()
        assert line, "the tracer has ended"
        return line.strip()
