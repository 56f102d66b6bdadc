"""A case: a socket in some state is carried to another process in some way, and used there; the same in every world, and compared.

The processes: HOLDER makes the socket and has it first, PEER has the other end, TARGET and OTHER are those to which it travels.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from differential.play import Core, Difference
from differential.worlds import FIRST, Answer
from matrix.worlds import PEER, AnyWorld
from unit.fix_helper_daemon import wait_until
from wire.conversations import LATENCY, THERE

from sharedstack.inspection import processes

HOLDER, TARGET, OTHER = 0, 2, 3
ROUNDS, SIZE = 8, 100  # of a conversation that shows that a connection lives
SOL_SOCKET, SO_COOKIE = 1, 57


@dataclass
class Flow:
    """One direction of a connection: where its bytes begin in the table of executor.c, how many were sent, and taken; is there an end?"""

    key: int
    sent: int = 0
    taken: int = 0
    fin: bool = False

    @property
    def left(self) -> int:
        return self.sent - self.taken


@dataclass
class Place:
    """Where the subject is: a process, and the numbers that it has there."""

    slot: int
    fds: list[int]

    @property
    def fd(self) -> int:
        return self.fds[0]


@dataclass
class Subject:
    """What travels. `group` is how it is used: stream, listening, connecting, datagrams or set."""

    group: str
    peer: int = -1  # the peer's descriptor
    stream: int = 0  # which of the subject's descriptors is the connection
    into: Flow = field(default_factory=lambda: Flow(1000))
    out: Flow = field(default_factory=lambda: Flow(30000))
    gone: bool = False  # the peer
    lost: bool = False  # closed on the way
    ports: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)  # the peer's connections that nobody has accepted yet


class Case(Core):
    """One of them; `play` is in matrix.play."""

    worlds: list[AnyWorld]
    subject: Subject

    def __init__(self, worlds: Sequence[AnyWorld], path: str) -> None:
        super().__init__(worlds)
        self.path, self.places, self.asked = path, list[Place](), -1
        self.cookies: list[int] = []
        self.both_read = self.shut = self.helpless = False

    # processes

    def begin(self, processes: int = 2) -> None:
        """HOLDER and PEER. On the path of the kernel the peer is a program that is never preloaded."""
        self.hung = False
        self.process(HOLDER)
        self.process(PEER, way="spawn {} 1 0" if self.path == "kernel" else "fork {}")

    def process(self, slot: int, parent: int = FIRST, way: str = "fork {}") -> None:
        for world in self.worlds:
            world.fork(parent, slot, way)
        self.asked = -1

    def exit(self, slot: int) -> None:
        self._leave(slot, lambda world: world.exit(slot))

    def kill(self, slot: int) -> None:
        """By SIGKILL."""
        self._leave(slot, lambda world: os.kill(world.pids.pop(slot), signal.SIGKILL))

    def _leave(self, slot: int, end: Callable[[AnyWorld], None]) -> None:
        """End a process, until the kernel has closed what it had."""
        pids = [world.pids[slot] for world in self.worlds]
        for world in self.worlds:
            end(world)
        self.places = [p for p in self.places if p.slot != slot]
        wait_until(lambda: not any(processes.alive(pid) for pid in pids))

    def end(self) -> None:
        """No process is left in any world, and they ended alike; the next case has helpers."""
        try:
            self.same([world.reap(self.hung) for world in self.worlds], "exit statuses")
        finally:
            if self.helpless:
                self.helpers(True)

    # asking

    def tell(self, p: int, *commands: str) -> None:
        if self.path == "wire" and p != self.asked:
            time.sleep(LATENCY)
        self.asked = p
        super().tell(p, *commands)

    def fds(self, answer: Answer) -> list[int]:
        """Descriptors that an answer lists."""
        return [int(word) for word in answer.more]

    def unnamed(self, p: int, *commands: str) -> Answer:
        """As `both`, where the answer ends in an address whose port is the kernel's choice."""
        answers = self.addressed(self.ask(p, *commands))
        self.same(answers, commands[0])
        return answers[0]

    # the subject

    @property
    def actor(self) -> Place:
        """Who has it now, and takes the step."""
        return self.places[-1]

    def code(self) -> int:
        """Address of executor.c's by which one process reaches the other."""
        return THERE if self.path == "wire" else 1

    def ports_of(self, slot: int, fd: int) -> list[int]:
        return [int(a.more[-1]) for a in self.ask(slot, f"name {fd} 0")]

    def listener(self, slot: int, backlog: int = 8) -> tuple[int, list[int]]:
        fd = self.both(slot, "socket 2 1 0").result
        self.both(slot, f"bind {fd} 2 0 0")
        self.both(slot, f"listen {fd} {backlog}")
        return fd, self.ports_of(slot, fd)

    def connect(self, slot: int, ports: Sequence[int], type_: int = 1) -> int:
        """A connection of that process to there: its descriptor, or -1 (the answer was the same in all worlds)."""
        fd = self.both(slot, f"socket 2 {type_} 0").result
        answers = self.ask(slot, *(f"connect {fd} 2 {self.code()} {port}" for port in ports))
        self.same(answers, "connect")
        if answers[0].result < 0 and answers[0].errno != errno.EINPROGRESS:
            self.both(slot, f"close {fd}")
            return -1
        return fd

    def accept(self, slot: int, fd: int) -> int:
        self.both(slot, f"poll 3000 {fd} 1")
        return self.unnamed(slot, f"accept {fd} -1").result

    def send(self, slot: int, fd: int, flow: Flow, n: int) -> None:
        self.both(slot, f"sendall {fd} {flow.key + flow.sent} {n}")
        flow.sent += n

    def drain(self, slot: int, fd: int, flow: Flow) -> None:
        """All that was sent, and what is behind it."""
        self.both(slot, f"drain {fd} {flow.left} {int(flow.fin)}")
        flow.taken = flow.sent

    def converse(self, slot: int, fd: int, with_slot: int, with_fd: int, rounds: int = ROUNDS) -> None:
        """Each sends so often, and has it back."""
        self.tell(with_slot, f"echoes {with_fd} {rounds} {SIZE}")
        self.both(slot, f"turns {fd} {rounds} {SIZE} {rounds}")
        self.same(self.hear(with_slot), "echoes")

    def learn(self, fd: int) -> None:
        """Which connection it is, for `paths`."""
        self.cookies = [int.from_bytes(bytes.fromhex(a.more[0]), "little") for a in self.ask(HOLDER, f"get {fd} {SOL_SOCKET} {SO_COOKIE}")]

    def paths(self, mode: str) -> tuple[str, str] | None:
        """Which way the subject's bytes would go now in that world: sent, and received; None: it is not, or no more, registered."""
        for world, cookie in zip(self.worlds, self.cookies, strict=False):
            if world.mode == mode and (found := world.endpoint(cookie)):
                return found.tx.path, found.rx.path
        return None

    def helpers(self, there: bool) -> None:
        """End them, or start others."""
        for world in self.worlds:
            if world.has_helper:
                (world.start_helper if there else world.stop_helper)()
        self.helpless = not there


class WrongPathError(Difference):
    """The subject was not on the path that its case names."""
