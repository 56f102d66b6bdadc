"""A play: steps performed one after the other in every world, compared, and written down so that they can be performed again.

A step is a dictionary {"op": name, …}; its words are process slots and descriptor numbers, which are the same in every world. What must
hold before a step makes sense is checked by the step itself (`require`), so that a script from which steps were taken away can still be
played: what makes no sense any more is left out.

What is compared is all that a call gives back, but for what the kernel itself leaves open. Each such exception is made in one place, with
its reason.
"""

from __future__ import annotations

import errno
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from differential.model import Model, Socket, Thing
from differential.worlds import FIRST, SLOTS, Answer, NoAnswerError, World

Step = dict[str, Any]


class Difference(AssertionError):
    """The worlds differ."""


class OracleError(AssertionError):
    """The kernel did not do what the machine takes for sure: the machine is wrong, or the kernel is late."""


class NoSenseError(Exception):
    """This step cannot be taken now."""


def require(condition: object) -> None:
    if not condition:
        raise NoSenseError


class Core:
    """Performing and comparing; the steps are in the classes made of it."""

    def __init__(self, worlds: Sequence[World]) -> None:
        self.worlds = list(worlds)
        self.model = Model(len(self.worlds))
        self.script: list[Step] = []
        self.counts: Counter[str] = Counter()
        self.short_receives = 0
        self.extra_edges = 0

    @property
    def every(self) -> range:
        """Numbers of the worlds; 0 is the kernel."""
        return range(len(self.worlds))

    def begin(self, processes: int = 2) -> None:
        self.hung = False
        for slot in range(processes):
            for world in self.worlds:
                world.fork(FIRST, slot)
            self.model.processes[slot] = {}

    def end(self) -> None:
        """No process is left in any world; exit statuses that are not 0 make it fail."""
        wrong = {world.mode: statuses for world in self.worlds if (statuses := world.reap(self.hung))}
        if wrong and not self.hung:
            raise Difference(f"processes ended otherwise than by exit: {wrong}")

    def do(self, step: Step) -> bool:
        """Perform one step; False if it makes no sense now."""
        arguments = {k: v for k, v in step.items() if k != "op"}
        self.script.append(step)
        try:
            getattr(self, f"op_{step['op']}")(**arguments)
        except NoSenseError:
            self.script.pop()
            return False
        except NoAnswerError as error:
            self.hung = True
            raise (OracleError if "kernel:" in str(error) else Difference)(f"{step}: {error}") from None
        except (Difference, OracleError) as error:
            self.hung = True
            raise type(error)(f"{step}: {error}") from None
        self.counts[step["op"]] += 1
        return True

    def save(self, path: Path) -> None:
        path.write_text("".join(json.dumps(step) + "\n" for step in self.script))

    # asking and comparing

    def ask(self, p: int, *commands: str) -> list[Answer]:
        """The same command to process p of every world, or one for each; the answers by world."""
        self.tell(p, *commands)
        return self.hear(p)

    def tell(self, p: int, *commands: str) -> None:
        for i, world in enumerate(self.worlds):
            world.tell(p, commands[i % len(commands)])

    def hear(self, p: int) -> list[Answer]:
        return [world.hear(p) for world in self.worlds]

    def same(self, values: Sequence[object], what: str = "", raw: object = "") -> None:
        """They are equal, or the play is over."""
        if any(v != values[0] for v in values[1:]):
            told = ", ".join(f"{w.mode} {v!r}" for w, v in zip(self.worlds, values, strict=True))
            raise Difference(f"{what or 'result'}: {told}{f' of {raw}' if raw else ''}")

    def both(self, p: int, *commands: str) -> Answer:
        """Ask, and all of the answer is the same; what the kernel said."""
        answers = self.ask(p, *commands)
        self.same(answers, commands[0])
        return answers[0]

    def addressed(self, answers: Sequence[Answer], ports: Sequence[int] = ()) -> list[Answer]:
        """Answers that end in an address and a port. Which port is free is the kernel's choice: is it the one that is known, or any?"""
        known = ports or [-1] * len(answers)
        return [
            a._replace(more=(*a.more[:-1], "known" if int(a.more[-1]) == port else "any" if int(a.more[-1]) else "0"))
            for a, port in zip(answers, known, strict=True)
        ]

    # finding

    def thing(self, p: int, fd: int) -> Thing:
        require(p in self.model.processes and fd in self.model.processes[p])
        return self.model.processes[p][fd]

    def socket(self, p: int, fd: int, kind: str = "", *states: str) -> Socket:
        found = self.thing(p, fd)
        require(isinstance(found, Socket) and (not kind or found.kind == kind) and (not states or found.state in states))
        assert isinstance(found, Socket)
        return found

    def learn_port(self, p: int, fd: int, s: Socket) -> None:
        """Ask for the address, after something bound it."""
        answers = self.ask(p, f"name {fd} 0")
        self.same(self.addressed(answers), "getsockname")
        s.ports = [int(a.more[-1]) for a in answers]


class Lives(Core):
    """Descriptors and processes: made, copied, passed, closed."""

    def op_socket(self, p: int, kind: str, family: int, nonblock: bool = False, nodelay: bool = True) -> None:
        require(p in self.model.processes and len(self.model.processes[p]) < 24)
        type_ = {"tcp": 1, "udp": 2}[kind] | (0o4000 if nonblock else 0)
        fd = self.both(p, f"socket {family} {type_} 0").result
        s = self.model.socket(kind, family, nonblock)
        if fd != self.model.free(p):
            raise OracleError(f"descriptor {fd}")
        self.model.processes[p][fd] = s
        if kind == "tcp" and nodelay:
            self.both(p, f"set {fd} 6 1 1")
            s.nodelay = True

    def op_bind(self, p: int, fd: int, code: int, q: int = -1, fd2: int = -1) -> None:
        """To a port of the kernel's choice, or to that of another socket."""
        s = self.socket(p, fd)
        ports = [0] * len(self.worlds)
        if q >= 0:
            # a port that was chosen for a connection may have been used before: whether it can be bound then is a matter of time
            other = self.socket(q, fd2, "tcp", "bound", "listening")
            require(s.kind == "tcp")
            ports = other.ports
        answers = self.ask(p, *(f"bind {fd} {s.family} {code} {port}" for port in ports))
        self.same(answers)
        if answers[0].result == 0:
            s.code, s.state = code, "bound" if s.state == "new" else s.state
            self.learn_port(p, fd, s)

    def op_name(self, p: int, fd: int, peer: int) -> None:
        t = self.thing(p, fd)
        s = t if isinstance(t, Socket) else None
        if s and peer:
            s = s.peer if s.kind == "tcp" else s.towards
        self.same(self.addressed(self.ask(p, f"name {fd} {peer}"), s.ports if s else ()))

    def op_listen(self, p: int, fd: int, backlog: int) -> None:
        s = self.socket(p, fd, "tcp", "new", "bound", "listening")
        require(backlog >= len(s.pending))
        if self.both(p, f"listen {fd} {backlog}").result == 0:
            if s.state == "new":
                s.code = 0
                self.learn_port(p, fd, s)
            s.state, s.backlog = "listening", backlog

    def op_connect(self, p: int, fd: int, q: int, fd2: int) -> None:
        """To that listener."""
        s, to = self.socket(p, fd, "tcp", "new", "bound"), self.socket(q, fd2, "tcp", "listening")
        require(len(to.pending) <= to.backlog and s is not to)
        code = self.code_towards(s, to)
        answers = self.ask(p, *(f"connect {fd} {s.family} {code} {port}" for port in to.ports))
        self.same(answers)
        if answers[0].errno in (0, errno.EINPROGRESS):
            self.model.join(s, to)
            self.learn_port(p, fd, s)

    def code_towards(self, s: Socket, to: Socket) -> int:
        """Which address of executor.c's leads there."""
        if s.family == to.family:
            return 1
        if s.family == 10:
            require(s.state == "new" or s.code == 0)
            return 2
        require(to.code == 0 and not to.v6only)
        return 1

    def op_connect_again(self, p: int, fd: int) -> None:
        """On a connected one: EISCONN; the first time after EINPROGRESS, 0."""
        s = self.socket(p, fd, "tcp", "connected")
        require(not s.reset and not s.shut_wr and s.peer and not s.peer.gone)
        self.both(p, f"connect {fd} {s.family} 1 9")

    def op_connect_refused(self, p: int, fd: int) -> None:
        """Nobody listens there."""
        s = self.socket(p, fd, "tcp", "new", "bound")
        self.both(p, f"connect {fd} {s.family} 1 9")
        self.both(p, f"poll 0 {fd} 8197")
        self.both(p, f"get {fd} 1 4")
        s.state = "failed"

    def op_accept(self, p: int, fd: int, flags: int) -> None:
        """accept4 with those flags; -1: accept. Not where it would wait."""
        s = self.socket(p, fd, "tcp")
        require(s.state != "listening" or s.pending or s.nonblock)
        self.accepted(p, fd, s, flags, self.ask(p, f"accept {fd} {flags}"))

    def accepted(self, p: int, fd: int, s: Socket, flags: int, answers: list[Answer]) -> None:
        client = s.pending[0].peer if s.pending else None
        self.same(self.addressed(answers, client.ports if client else ()))
        if answers[0].result >= 0:
            server = s.pending.pop(0)
            server.nonblock = flags > 0
            self.model.processes[p][answers[0].result] = server

    def op_close(self, p: int, fd: int) -> None:
        t = self.thing(p, fd)
        self.closable(t)
        self.both(p, f"close {fd}")
        self.forget(p, fd)

    def closable(self, t: Thing) -> None:
        """Is it known what the other end will see, if this was the last descriptor?"""
        if isinstance(t, Socket) and t.into and t.out and sum(1 for _ in self.model.holders(t)) == 1:
            # RST or FIN is decided by whether bytes are unread; where worlds differ in how much a full socket took, that is left alone
            require((t.into.least() > 0) == (t.into.most() > 0))
            # an RST destroys what is still in the sender's buffers, and how much that is depends on windows
            require(not t.out.deep and not t.out.held and not t.into.deep and not t.into.held)
            # no process knows that it is the last one, and that what is unread in the ring is lost: a known difference
            require(t.into.most() == 0 or min(t.into.taken) >= t.into.shared_until)

    def forget(self, p: int, fd: int) -> None:
        """A descriptor is no more."""
        t = self.model.processes[p].pop(fd)
        if not self.model.held(t):
            self.model.dropped(t)

    def op_dup(self, p: int, fd: int, new: int = -1) -> None:
        t = self.thing(p, fd)
        require(len(self.model.processes[p]) < 24 and new < 30)
        old = self.model.processes[p].get(new)
        if old is not None and old is not t:
            self.closable(old)
        got = self.both(p, f"dup {fd}" + (f" {new}" if new >= 0 else "")).result
        if old is not None and old is not t:
            self.forget(p, new)
        self.model.processes[p][got] = t

    def op_fork(self, p: int, slot: int) -> None:
        """The child has all of its parent's descriptors."""
        require(p in self.model.processes and slot not in self.model.processes and 0 <= slot < SLOTS)
        for world in self.worlds:
            world.fork(p, slot)
        self.model.processes[slot] = dict(self.model.processes[p])
        for t in self.model.processes[p].values():
            self.shared(t)

    @staticmethod
    def shared(t: Thing) -> None:
        if isinstance(t, Socket) and t.into:
            t.into.shared()

    def op_exit(self, p: int) -> None:
        """A process ends, whose descriptors others hold too: what unread bytes of a ring become with their reader is a known difference."""
        require(len(self.model.processes) > 2 and p in self.model.processes)
        mine = self.model.processes[p]
        require(all(any(q != p for q, _ in self.model.holders(t)) for t in mine.values() if isinstance(t, Socket)))
        for world in self.worlds:
            world.exit(p)
        for fd in list(mine):
            self.forget(p, fd)
        del self.model.processes[p]

    def op_exec(self, p: int) -> None:
        """Another image of the same program, with the same descriptors (but epoll sets, which a new image does not know in the library)."""
        require(p in self.model.processes)
        self.both(p, "exec")

    def op_pass(self, p: int, fd: int, q: int) -> None:
        """By SCM_RIGHTS."""
        t = self.thing(p, fd)
        require(q in self.model.processes and q != p and len(self.model.processes[q]) < 24)
        self.both(p, f"pass {q} {fd}")
        got = self.both(q, "take").result
        self.model.processes[q][got] = t
        self.shared(t)

    def op_nonblock(self, p: int, fd: int, on: bool) -> None:
        s = self.socket(p, fd)
        self.both(p, f"flags {fd} {int(on)}")
        s.nonblock = on

    def op_flags(self, p: int, fd: int) -> None:
        self.thing(p, fd)
        self.both(p, f"flags {fd} -1")

    def op_get(self, p: int, fd: int, level: int, name: int) -> None:
        s = self.socket(p, fd)
        self.both(p, f"get {fd} {level} {name}")
        if (level, name) == (1, 4):
            s.refused = False

    def op_set(self, p: int, fd: int, level: int, name: int, values: list[int]) -> None:
        s = self.socket(p, fd)
        if (level, name) in ((6, 1), (6, 3)):
            # what they hold back goes out when they change; how it is cut there, is the kernel's affair
            require(s.kind == "tcp" and (not s.out or not s.out.deep))
        if (level, name) == (1, 18):
            require(not s.into or not s.into.held)
        answer = self.both(p, f"set {fd} {level} {name} {' '.join(map(str, values))}")
        if answer.result == 0:
            self.note_option(s, level, name, values)

    def note_option(self, s: Socket, level: int, name: int, values: list[int]) -> None:
        if (level, name) == (6, 1):
            s.nodelay = bool(values[0])
        elif (level, name) == (6, 3):
            s.cork = bool(values[0])
            if s.out and not s.cork:
                s.out.held = False
                s.out.late = True
                self.settle(s)
        elif (level, name) == (1, 13):
            s.linger = values[1] if values[0] else None
        elif (level, name) == (1, 20):
            s.timed = any(values)
        elif (level, name) == (1, 18):
            s.lowat = values[0]
        elif (level, name) == (1, 7):
            s.limit = 1000
        elif (level, name) == (41, 26):
            s.v6only = bool(values[0])

    def settle(self, s: Socket) -> None:
        """Wait on the other side until all that was sent has come: what the kernel may hold back (Nagle) comes when it wants."""
        assert s.out
        if not s.peer or s.peer.gone or s.out.deep or s.reset or s.peer.reset:
            return
        for q, fd in list(self.model.holders(s.peer))[:1]:
            want = [s.out.left(w) for w in self.every]
            got = self.ask(q, *(f"settle {fd} {n}" for n in want))
            if any(a.result < n for a, n in zip(got, want, strict=True)):
                raise (OracleError if got[0].result < want[0] else Difference)(f"unread after some seconds: {got}, not {want}")
            s.out.late = False
