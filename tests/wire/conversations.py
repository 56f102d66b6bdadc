"""The differential machine (tests/differential) on two hosts: the same conversations on plain kernels, and with one or both ends lifted.

A process of a play is alone on its host: process 0 on the first, 1 on the second. Steps that take more of them on one host are left out.

python -m wire.conversations [--times N] FILE    plays a script again, as a failed play prints it
python -m wire.conversations --seconds N [--seed N] [--raw]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from compat.fix_lab import Builder, Bytes
from differential.datagrams import Play
from differential.machine import GETS, Machine, index
from differential.model import Socket, Stream
from differential.play import require
from differential.replay import fails
from differential.soak import Soak
from differential.streams import PEEK, TRUNC
from differential.worlds import FIRST, SLOTS, Answer, Sent, World
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from wire.fix_world import Side, world

AT_ONCE = 8000  # bytes that a connection's first window surely takes, so that they arrive without the receiver's doing anything
LATENCY = 0.004
PLAYS = 10  # of one seed
THERE = 3  # code of executor.c: the other host's address
EAGER = {"SHAREDSTACK_LIFT_AFTER": "1", "SHAREDSTACK_WIRE_AFTER": "2", "SHAREDSTACK_WIRE_MOST": "4"}


@dataclass
class _Ends:
    """Pipes of the processes on one host."""

    commands: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)


class TwoHosts(World):
    """A world of two hosts; `ours` says on which of them programs are accelerated."""

    def __init__(self, mode: str, sides: Sequence[Side], ours: Sequence[bool], executor: str, **environment: str) -> None:
        self.mode, self.sides, self.ours, self.environment = mode, sides, ours, environment
        self.pids: dict[int, int] = {}
        self._ends = [self._start(number, executor) for number in range(len(sides))]
        for number in range(len(sides)):
            self._use(number)
            self.hear(FIRST)

    def _start(self, number: int, executor: str) -> _Ends:
        ends, theirs = _Ends(), []
        for _ in range(SLOTS + 1):
            (read_command, command), (answer, write_answer) = os.pipe(), os.pipe()
            theirs += [read_command, write_answer]
            ends.commands.append(command)
            ends.answers.append(answer)
        there = self.sides[1 - number].host
        addresses = {f"EXECUTOR_THERE{family}": there.address(family) for family in (4, 6)}
        self.sides[number].start(executor, *map(str, theirs), ours=self.ours[number], fds=theirs, **self.environment, **addresses)
        for fd in theirs:
            os.close(fd)
        return ends

    def _use(self, number: int) -> None:
        """What follows is about the processes of that host."""
        self.commands, self.answers = self._ends[number].commands, self._ends[number].answers

    def host_of(self, slot: int) -> int:
        """On which host the process of that slot is."""
        return slot

    def tell(self, slot: int, command: str) -> None:
        if slot != FIRST:
            self._use(self.host_of(slot))
        super().tell(slot, command)

    def hear(self, slot: int, patience: float = 12.0) -> Answer:
        if slot != FIRST:
            self._use(self.host_of(slot))
        return super().hear(slot, patience)

    def fork(self, parent: int, slot: int, way: str = "fork {}") -> Answer:
        self._use(self.host_of(slot))
        return super().fork(parent, slot, way)

    def reap(self, hung: bool) -> tuple[str, ...]:
        living, statuses = dict(self.pids), ()
        for number in range(len(self._ends)):
            self._use(number)
            self.pids = {slot: pid for slot, pid in living.items() if self.host_of(slot) == number}
            statuses += super().reap(hung)
        return statuses

    def sent(self) -> Sent:
        """Not known of one world: several use the same stacks."""
        return Sent(Bytes(0, 0))


class WirePlay(Play):
    """Steps whose processes are on different hosts.

    A network takes its time: what one process did has reached the other one when that is asked, LATENCY later. (On a cable without any the
    kernel's has come before the call returns; what waits on the wire path may be in the hands of the helper then.)
    """

    asked = -1
    bytes = 0  # that accelerated ends sent and received

    def tell(self, p: int, *commands: str) -> None:
        if p != self.asked:
            time.sleep(LATENCY)
        self.asked = p
        super().tell(p, *commands)

    def sent(self, s: Socket, out: Stream, answers: list[Answer], holding: bool) -> None:
        self.count(s, answers)
        super().sent(s, out, answers, holding)

    def received(self, s: Socket, into: Stream, n: int, flags: int, answers: list[Answer]) -> None:
        if not flags & (PEEK | TRUNC):
            self.count(s, answers)
        super().received(s, into, n, flags, answers)

    def count(self, s: Socket, answers: list[Answer]) -> None:
        for one, answer in zip(self.worlds, answers, strict=True):
            assert isinstance(one, TwoHosts)
            if answer.result > 0 and one.ours[self._host(s)]:
                self.bytes += answer.result

    def code_towards(self, s: Socket, to: Socket) -> int:
        require(s.family == to.family and self._host(s) != self._host(to))
        return THERE

    def _host(self, s: Socket) -> int:
        return next(p for p, _ in self.model.holders(s))

    def op_socket(self, p: int, kind: str, family: int, nonblock: bool = False, nodelay: bool = True) -> None:
        super().op_socket(p, kind, family, nonblock, nodelay)
        for _, _, s in self.model.sockets(kind=kind):
            s.limit = min(s.limit, AT_ONCE)

    def op_bind(self, p: int, fd: int, code: int, q: int = -1, fd2: int = -1) -> None:
        require(code == 0)
        super().op_bind(p, fd, code, q, fd2)

    def op_fork(self, p: int, slot: int) -> None:
        require(False)

    op_exit = op_fork
    op_pass = op_fork


class WireMachine(Machine):
    """Connections between the hosts, and what is done with them."""

    playing = WirePlay
    gets = tuple(name for name in GETS if name != (41, 26))  # IPV6_V6ONLY: docs/differences.md
    listen = accept = share = None

    @initialize(data=st.data())
    def start(self, data: st.DataObject) -> None:
        for _ in range(data.draw(index(3)) + 1):
            self.connection(data)
        for p in range(2 * data.draw(index(2))):
            self.do("socket", p=p, kind="udp", family=2, nonblock=False)
            self.do("bind", p=p, fd=self.sockets(kind="udp")[-1][1], code=0)

    @rule(data=st.data())
    def copy(self, data: st.DataObject) -> None:
        """Dup, which lowers."""
        p = self.one(data, (0, 1))
        fds = sorted(self.play.model.processes[p])
        if fds and data.draw(index(4)) == 3:
            self.do("dup", p=p, fd=self.one(data, fds), new=self.one(data, (-1, -1, *fds, 20)))


@dataclass
class Conversations(Soak):
    """Plays of that machine in worlds on these hosts."""

    sides: Sequence[Side] = ()
    bytes: int = 0

    def note(self, play: Play) -> None:
        super().note(play)
        assert isinstance(play, WirePlay)
        self.bytes += play.bytes

    def wired(self) -> float:
        """Of the bytes that accelerated ends sent and received, those that went by the wire path."""
        return sum(side.bytes_by_path()["wire"] for side in self.sides) / (self.bytes or 1)

    def of_worlds(self) -> Iterator[str]:
        yield f"accelerated ends: {self.bytes >> 10} KiB sent and received, {self.wired():.1%} by the wire path"


@contextmanager
def talking(sides: tuple[Side, Side], folder: Path) -> Iterator[Conversations]:
    """Worlds of every combination of accelerated and plain ends, on these hosts."""
    executor = Builder(folder)("executor")
    for side in sides:  # with few, what was closed is forgotten at once, and its peer reset
        side.host.run("sysctl", "-qw", "net.ipv4.tcp_max_tw_buckets=262144")
    ends = {"kernel": (False, False), "wire": (True, True), "wire to kernel": (True, False), "kernel to wire": (False, True)}
    try:
        worlds = [TwoHosts(name, sides, ours, executor, **EAGER) for name, ours in ends.items()]
        yield Conversations(worlds, folder, WireMachine, examples=PLAYS, sides=sides)
    finally:
        for side in sides:
            side.end_programs()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--seed", type=int, default=int(time.time()) // 86400)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--raw", action="store_true", help="do not make a failing play small")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="conversations-"))
    with world() as sides, talking(sides, folder) as talked:
        if asked.file:
            steps = [json.loads(line) for line in asked.file.read_text().splitlines() if line.startswith("{")]
            wrong = fails(talked.worlds, steps, asked.times, WirePlay)
            print(wrong or f"no difference in {asked.times} times")
            return int(bool(wrong))
        talked.play(asked.seed, 1 << 30, asked.seconds, small=not asked.raw)
        print(talked.report())
        return int(bool(talked.failures))


if __name__ == "__main__":
    sys.exit(main())
