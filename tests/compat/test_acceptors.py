"""Many acceptors: prefork servers in every way of waiting, SO_REUSEPORT with processes that come and go, restarts that lose nothing.

Who answers which connection is the kernel's to choose; what must hold is the same on the kernel, and asked of it too: each connection is
accepted once, all its answers are of that process and right to the byte, and only that ends early which was a killed process's, or waited
in the queue of a listener that was closed. `acceptors/` has the programs.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from compat.fix_lab import EAGER_SHARE, MODES, Lab, program
from unit.fix_helper_daemon import wait_until

pytest_plugins = ["compat.fix_paths"]

PLAYED = 0.35  # of its cases, in one run: conftest.py

FOLDER = Path(__file__).parent / "acceptors"
HOWS = ("block", "poll", "level", "edge", "exclusive")
CHILDREN = 4
REQUESTS = 24  # by turns on each connection: the first few go by the kernel
KILLS = 2
RESTARTS = 2
PAUSE = 0.12  # seconds between events
PATIENCE = 10.0
GONE = 1.0  # seconds until datagrams of an old source find another receiver than a dead one (docs/differences.md)


def by_path(lab: Lab) -> tuple[int, int]:
    """Datagrams sent by ring and by the kernel since the stack began."""
    counters = lab.state().counters
    return counters["tx_datagrams"], counters["tx_kernel_datagrams"]


def lower_command(lab: Lab) -> list[str]:
    return [*lab.namespace.prefix, program("sharedstack"), "lower", "--stack", lab.stack]


def stat_state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


class Program:
    """One of `acceptors/`, that is told lines and answers by lines."""

    def __init__(self, play: Play, name: str, *arguments: object) -> None:
        argv = [sys.executable, str(FOLDER / name), *map(str, arguments)]
        self.process = play.lab.start(argv, play.mode, stdin=subprocess.PIPE, stderr=None, env=play.env, start_new_session=True)
        play.programs.append(self)

    def tell(self, *words: object) -> None:
        assert self.process.stdin
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout
        line: str = self.process.stdout.readline()
        assert line, f"{self.process.args} ended with status {self.process.wait(PATIENCE)}"
        return line.strip()

    def numbers(self) -> list[int]:
        """Of a line "ready PORT PID…"."""
        return [int(word) for word in self.hear().split() if word != "ready"]

    def end(self) -> None:
        """It has to end by itself, and well."""
        assert self.process.wait(PATIENCE) == 0

    def drop(self, patience: float = PATIENCE) -> None:
        """Its commands end, and so does it; else it is ended, with its children."""
        assert self.process.stdin and self.process.stdout
        if self.process.stdout.closed:
            return
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()


@dataclass
class Served:
    """What became of one connection, as its client tells it."""

    number: int
    pid: int
    answered: int
    end: str
    bytes: int


@dataclass
class Play:
    """One test's servers and clients, and what they noted."""

    lab: Lab
    mode: str
    folder: Path
    programs: list[Program] = field(default_factory=list)
    clients: list[Program] = field(default_factory=list)
    killed: set[int] = field(default_factory=set)
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.before, self.segments = self.lab.sent(), self.lab.namespace.segments()
        self.until = self.folder / "until"

    @property
    def notes(self) -> Path:
        return self.folder / "notes"

    def accepted(self) -> dict[int, list[int]]:
        """For each connection who accepted it."""
        found: dict[int, list[int]] = {}
        for line in self.notes.read_text().splitlines() if self.notes.exists() else []:
            _, pid, number = line.split()
            found.setdefault(int(number), []).append(int(pid))
        return found

    def server(self, kind: str, how: str, more: object) -> Program:
        return Program(self, "server.py", kind, how, self.notes, more)

    def client(self) -> Program:
        self.clients.append(Program(self, "client.py", len(self.clients) << 12 | 1))
        return self.clients[-1]

    def load(self, port: int, width: int, clients: int) -> None:
        """Begin it, and let it get on."""
        self.until.unlink(missing_ok=True)
        for client in [self.client() for _ in range(clients)]:
            client.tell(port, 1, width, REQUESTS, self.until)
        wait_until(lambda: len(self.accepted()) >= clients * width, PATIENCE)

    def ended(self) -> list[Served]:
        """The load's end, and what became of its connections."""
        self.until.touch()
        return [Served(*line) for client in self.clients for line in json.loads(client.hear())]

    def judge(self, served: Sequence[Served], closings: int = 0, requests: int = REQUESTS) -> None:
        """Each accepted once, whole, by ring; but for those of the killed, and `closings` in the queue of a listener that was closed."""
        accepted, lost = self.accepted(), [c for c in served if c.end]
        unnoted = [c for c in lost if c.number not in accepted]
        assert all(len(by) == 1 for by in accepted.values()), "accepted twice"
        for c in served:
            assert c.end or c.answered == requests, c
            assert not c.pid or accepted[c.number] == [c.pid], f"{c}, accepted by {accepted[c.number]}"
            assert not c.end or c.number not in accepted or accepted[c.number][0] in self.killed, f"lost by a living process: {c}"
        assert all(not c.answered for c in unnoted), "answered, and never accepted"
        # what a process was killed with between its accept and its note is one for each
        assert len(unnoted) <= closings + len(self.killed), unnoted
        for one in self.programs:
            one.drop()
        self.by_path(sum(c.bytes for c in served))
        by = dict(Counter(c.pid for c in served))
        print(f"{self.mode}: {len(served)} connections by {by}, lost {len(lost)} ({len(unnoted)} from queues)")

    def by_path(self, carried: int) -> None:
        if self.mode == "kernel":
            return
        self.lab.settle()
        sent = self.lab.sent() - self.before
        self.lab.tally(self.mode).add(sent, self.lab.namespace.segments() - self.segments, carried)
        if self.mode == "eager":
            assert sent.local >= EAGER_SHARE * carried, f"by ring {sent.local} of {carried} bytes, counted by the kernel {sent.kernel}"

    def close(self) -> None:
        for one in self.programs:
            one.drop(patience=0.2)


@pytest.fixture
def play(lab: Lab, mode: str, tmp_path: Path) -> Iterator[Play]:
    made = Play(lab, mode, tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", HOWS)
def test_prefork(play: Play, how: str) -> None:
    """Children are killed under load, and others take their place."""
    server = play.server("prefork", how, CHILDREN)
    port, *children = server.numbers()
    # one at a time for who serves one by one: more clients than children wait in the queue
    play.load(port, *((1, CHILDREN + 1) if how == "block" else (4, 3)))
    for n in range(KILLS):
        time.sleep(PAUSE)
        server.tell("kill", n)
        play.killed.add(children[n])
        children[n] = server.numbers()[0]
    time.sleep(PAUSE)
    served = play.ended()
    assert {by for (by,) in play.accepted().values()} <= play.killed | set(children)
    server.tell("stop")
    server.end()
    play.judge(served)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", HOWS)
def test_nobody_starves(play: Play, how: str) -> None:
    """Each child in turn is the only one that can: others are busy with a connection, or stopped."""
    server = play.server("prefork", how, CHILDREN)
    port, *children = server.numbers()
    client = play.client()
    if how == "block":
        client.tell(port, CHILDREN, CHILDREN, REQUESTS, "-")
        served = [Served(*line) for line in json.loads(client.hear())]
        assert {c.pid for c in served} == set(children)
        play.judge(served)
        return
    served = []
    for able in children:
        others = [pid for pid in children if pid != able]
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        wait_until(lambda others=others: all(stat_state(pid) == "T" for pid in others), PATIENCE)
        client.tell(port, 2, 2, REQUESTS, "-")
        some = [Served(*line) for line in json.loads(client.hear())]
        assert {c.pid for c in some} == {able}
        served += some
        for pid in others:
            os.kill(pid, signal.SIGCONT)
    play.judge(served)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", ["level", "edge"])
def test_reuseport(play: Play, how: str) -> None:
    """Servers with a listener each on one port come, stop, and are killed under load."""
    servers = {}

    def another(port: int = 0) -> tuple[int, int]:
        server = play.server("own", how, port)
        port, pid = server.numbers()
        servers[pid] = server
        return port, pid

    def each_accepts(*pids: int) -> None:
        wait_until(lambda: {by for (by,) in play.accepted().values()} >= set(pids), PATIENCE)

    port, first = another()
    _, second = another(port)
    width, clients = 4, 3
    play.load(port, width, clients)
    _, third = another(port)
    each_accepts(first, second, third)
    servers[first].tell("stop")
    servers[first].end()
    time.sleep(PAUSE)
    servers[second].process.kill()
    play.killed.add(second)
    _, fourth = another(port)
    each_accepts(third, fourth)
    served = play.ended()
    for pid in (third, fourth):
        servers[pid].tell("stop")
        servers[pid].end()
    # each of the two that went may have had all that were under way in its queue
    play.judge(served, closings=2 * width * clients)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", ["pass", "exec"])
def test_graceful_restart(play: Play, way: str) -> None:
    """The listener goes to the next process, by SCM_RIGHTS or over fork and exec; the old one serves what it has. No request fails."""
    server = play.server("own", "level", 0)
    port, pid = server.numbers()
    chain, passed = [pid], play.folder / "passed"
    play.load(port, 4, 3)
    for _ in range(RESTARTS):
        time.sleep(PAUSE)  # who forks just after an accept shares a connection that was not paired yet: the kernel's for good
        if way == "pass":
            passed.unlink(missing_ok=True)
            heir = play.server("given", "level", passed)
            assert heir.hear() == "waiting"
            server.tell("pass", passed)
            server.end()
            server = heir
        else:
            server.tell("exec")  # the next one has its standard streams
        chain.append(server.numbers()[1])
        wait_until(lambda: chain[-1] in {by for (by,) in play.accepted().values()}, PATIENCE)
    time.sleep(PAUSE)
    served = play.ended()
    server.tell("stop")
    server.end()
    assert [c for c in served if c.end] == []
    assert {c.pid for c in served} == set(chain)
    play.judge(served)


@dataclass
class Answer:
    """To one datagram of a source; `tries` and `seconds` from the first one that nobody answered."""

    source: int
    number: int
    pid: int
    tries: int
    seconds: float


class Datagrams:
    """Receivers of one port, and a sender."""

    def __init__(self, play: Play) -> None:
        self.play, self.port = play, 0
        self.receivers: dict[int, Program] = {}
        self.answers: list[Answer] = []
        for _ in range(3):
            self.comes()
        self.sender = Program(play, "datagrams.py", "send")
        self.fresh = 1

    def comes(self) -> int:
        receiver = Program(self.play, "datagrams.py", "receive", self.play.notes, self.port)
        self.port, pid = receiver.numbers()
        self.receivers[pid] = receiver
        return pid

    def ask(self, sources: range, rounds: int = 1, seconds: float = 0) -> list[Answer]:
        """All must be answered, by those that live."""
        self.sender.tell(self.port, sources.start, sources.stop, rounds, seconds)
        found = [Answer(*line) for line in json.loads(self.sender.hear())]
        assert len(found) == rounds * len(sources), f"{rounds * len(sources) - len(found)} not answered within {seconds} s"
        assert {a.pid for a in found} <= set(self.receivers)
        self.answers += found
        return found

    def new(self, count: int) -> range:
        self.fresh += count
        return range(self.fresh - count, self.fresh)

    def judge(self) -> None:
        """Each was received once at most, and once by who answered it."""
        noted: dict[int, list[int]] = self.play.accepted()
        assert all(len(by) == 1 for by in noted.values()), "received twice"
        assert all(noted[a.source << 16 | a.number] == [a.pid] for a in self.answers)


def mapping(answers: Sequence[Answer]) -> dict[int, int]:
    """Who answers each source: one for each."""
    found = {(a.source, a.pid) for a in answers}
    assert len(found) == len(dict(found)), "a source's datagrams go to several, though nothing has changed"
    return dict(found)


@pytest.mark.parametrize("mode", MODES)
def test_datagrams(play: Play) -> None:
    """The kernel's hash chooses one of the receivers for each source, also when one comes, closes, or is killed."""
    lab = play.lab
    all_ = Datagrams(play)
    before, old = by_path(lab), all_.new(32)
    mapping(all_.ask(old, 60))
    if play.mode == "eager":
        ring, kernel = (now - then for now, then in zip(by_path(lab), before, strict=True))
        assert ring >= EAGER_SHARE * (ring + kernel), f"datagrams by ring {ring}, by the kernel {kernel}"
    # comes: new sources and old ones go where the kernel has them now, at once
    pid = all_.comes()
    at_once = mapping(all_.ask(old, 8))
    assert pid in mapping(all_.ask(all_.new(64))).values()
    if play.mode != "kernel":
        subprocess.run(lower_command(lab), check=True, capture_output=True, timeout=PATIENCE)
    assert mapping(all_.ask(old)) == at_once
    # closes
    first, second, *_ = all_.receivers
    all_.ask(old, 12)
    receiver = all_.receivers.pop(first)
    receiver.drop()
    all_.ask(all_.new(32))
    closed = max(a.seconds for a in all_.ask(old, 1, GONE))
    # is killed
    all_.ask(old, 12)
    receiver = all_.receivers.pop(second)
    receiver.process.kill()
    receiver.process.wait()
    all_.ask(all_.new(32))
    killed = max(a.seconds for a in all_.ask(old, 1, GONE))
    all_.ask(old, 12)
    print(f"{play.mode}: old sources are answered {closed * 1e3:.1f} ms after a close, {killed * 1e3:.1f} ms after a kill")
    all_.judge()


@pytest.mark.parametrize("mode", MODES[1:])
@pytest.mark.parametrize("part", ["ctl", "processes", "threads"])
def test_exclusive(lab: Lab, mode: str, part: str) -> None:
    """What epoll_ctl(2) refuses; and of several that watch one connection at least one is woken for what comes, and all at its end."""
    argv = [sys.executable, str(FOLDER / "exclusive.py"), part]
    kernel, here = lab.run(argv, "kernel").ok(), lab.run(argv, mode).ok()
    assert here.out == kernel.out and here.out
    print(f"{mode}: {here.sent}")
