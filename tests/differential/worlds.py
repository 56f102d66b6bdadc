"""The same processes several times over: on the plain kernel, and through sharedstack in each mode.

A `World` has a network namespace and (but for the kernel's) a helper of its own, and a first process (tests/programs/executor.c) that forks
the processes of a play: up to `SLOTS`, each told what to do by a pipe of its own.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

from compat.fix_lab import Builder, Bytes, Lab, Namespace

SLOTS = 4  # of processes in a play; the first process of the world has one more
FIRST = SLOTS
PATIENCE = 12.0  # seconds for any one command: far above all time-outs within


class NoAnswerError(Exception):
    """A process hangs in a call, or is gone."""


class Answer(NamedTuple):
    """What came back of one call: its result, its errno (0 if none), how many SIGPIPE came, and what else there is to tell."""

    result: int
    errno: int
    pipes: int
    more: tuple[str, ...]


@dataclass(frozen=True)
class Sent:
    """What a world sent so far: stream bytes by path; datagrams by path; and what its kernel says it carried."""

    bytes: Bytes
    ring_datagrams: int = 0
    kernel_datagrams: int = 0
    segments: int = 0
    datagrams: int = 0

    @property
    def share(self) -> float:
        """Of the stream bytes, those that went by ring."""
        return self.bytes.local / ((self.bytes.local + self.bytes.kernel) or 1)

    def __sub__(self, other: Sent) -> Sent:
        return Sent(
            self.bytes - other.bytes,
            self.ring_datagrams - other.ring_datagrams,
            self.kernel_datagrams - other.kernel_datagrams,
            self.segments - other.segments,
            self.datagrams - other.datagrams,
        )


class World:
    """One of them; `tell` begins a command of the process in that slot, `hear` is its answer."""

    def __init__(self, mode: str, build: Builder, suite: str = "differential", **environment: str) -> None:
        self.mode, self.build, self.environment = mode, build, environment
        self.namespace = Namespace()
        self.lab = Lab(self.namespace, suite)
        self.lab.look_every = 0.2
        self.pids: dict[int, int] = {}
        self.commands: list[int] = []
        self.answers: list[int] = []

    def __enter__(self) -> Self:
        if self.mode != "kernel":
            self.lab.__enter__()
        theirs: list[int] = []
        for _ in range(SLOTS + 1):
            (read_command, command), (answer, write_answer) = os.pipe(), os.pipe()
            theirs += [read_command, write_answer]
            self.commands.append(command)
            self.answers.append(answer)
        argv = [self.build("executor"), *map(str, theirs)]
        self.process = self.lab.start(argv, self.mode, pass_fds=theirs, stdout=None, stderr=None, env=self.environment)
        for fd in theirs:
            os.close(fd)
        self.hear(FIRST)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for fd in self.commands:
            os.close(fd)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.process.kill()
        self.process.wait()
        for fd in self.answers:
            os.close(fd)
        if self.mode != "kernel":
            self.lab.__exit__(kind, error, trace)
        self.namespace.close()

    def tell(self, slot: int, command: str) -> None:
        os.write(self.commands[slot], command.encode())

    def hear(self, slot: int, patience: float = PATIENCE) -> Answer:
        fd = self.answers[slot]
        if not select.select([fd], [], [], patience)[0]:
            raise NoAnswerError(f"{self.mode}: process {slot} ({self.pids.get(slot)}) does not answer")
        line = os.read(fd, 8192).decode()
        if not line.endswith("\n"):
            raise NoAnswerError(f"{self.mode}: process {slot} is gone, or in the middle of a line: {line!r}")
        result, errno, pipes, *more = line.split()
        return Answer(int(result), int(errno), int(pipes), tuple(more))

    def fork(self, parent: int, slot: int, way: str = "fork {}") -> Answer:
        """Another process in that slot; `way`: by which command."""
        self.tell(parent, way.format(slot))
        answer = self.hear(parent)
        self.pids[slot] = answer.result
        self.hear(slot)
        return answer

    def exit(self, slot: int) -> None:
        """End a process; what hangs is killed."""
        self.tell(slot, "exit")
        del self.pids[slot]

    def reap(self, hung: bool) -> tuple[str, ...]:
        """End all processes of the play, and wait for them: statuses that are not 0."""
        for slot, pid in list(self.pids.items()):
            if hung:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            else:
                self.tell(slot, "exit")
        self.pids.clear()
        self.tell(FIRST, "reap")
        statuses = self.hear(FIRST).more
        if hung:
            for fd in self.answers:
                while select.select([fd], [], [], 0)[0]:
                    os.read(fd, 8192)
        return statuses

    def sent(self) -> Sent:
        counters = {} if self.mode == "kernel" else self.lab.state().counters
        return Sent(
            Bytes(counters.get("tx_local_bytes", 0), counters.get("tx_kernel_bytes", 0)),
            counters.get("tx_datagrams", 0),
            counters.get("tx_kernel_datagrams", 0),
            self.namespace.segments(),
            self.namespace.datagrams(),
        )
