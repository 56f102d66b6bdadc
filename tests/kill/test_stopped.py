"""A process that is stopped, or looked at by a debugger, exactly while it holds a lock: it lives, so nobody takes the lock from it.

Others, who have nothing to do with it, do not notice; its peer waits without burning CPU, or goes by the kernel; `inspect` names it. When
it goes on all bytes arrive; when it is killed instead, its peer sees what the kernel shows.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from compat.fix_lab import Actor, Lab, state_of
from kill.fix_stopped import Hold, Share
from unit.fix_helper_daemon import wait_until

from sharedstack.declare import binary, layout
from sharedstack.declare.layout import CONSTANTS as C
from sharedstack.declare.locks import LOCKS
from sharedstack.inspection import snapshot
from sharedstack.inspection.check import check_live
from sharedstack.inspection.findings import Finding
from sharedstack.inspection.held import HeldLock
from sharedstack.inspection.state import decode

pytest_plugins = ["compat.fix_paths"]
pytestmark = [
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="allowed: single steps are x86-64's here"),
    pytest.mark.skipif(os.getuid() != 0, reason="allowed: ptrace of processes that are no children needs root"),
]

PLAYED = 0.4
WATCHED = 0.5  # seconds: a look at what waiting costs
SHARE = 0.05  # of a CPU
PIECE = 40_000  # bytes: more than the first ring holds, so that it grows
PATTERN = f"bytes(i * 7 & 255 for i in range({PIECE}))"
GROWING = f"s.setblocking(False)\ndone = 0\nwhile done < {PIECE * 2}:\n    done += s.send(bytes({PIECE * 2} - done))"


@dataclass(frozen=True)
class Case:
    """A lock, and what the process does that takes it."""

    lock: str
    act: str
    prepare: str = ""
    name: str = ""


def offset_of(lab: Lab, actor: Actor, lock: str) -> tuple[str, int]:
    """Segment and offset of the lock that the end `s` of this actor takes."""
    if lock == "ctl":
        return "stack", layout.STACK.place("ctl").offset
    if lock == "arena":
        return "arena", layout.ARENA.place("lock").offset
    inode = actor.do("os.fstat(s.fileno()).st_ino")
    end = next(e for e in lab.state().endpoints if e.inode == inode)
    assert end.pair is not None
    direction = end.side if lock == "wlock" else 1 - end.side
    at = layout.ARENA_PAIRS + end.pair * layout.PAIR.size + layout.PAIR.place("dir").offset + direction * layout.DIRECTION.size
    return "arena", at + layout.DIRECTION.place(lock).offset


CONNECT = "n = socket.create_connection(address)\nfor _ in range(40): n.sendall(b'n'); n.recv(1)"
CASES = [
    Case("wlock", "s.sendall(b'held')"),
    Case("rlock", "s.recv(4)", prepare="c.sendall(b'held')"),
    Case("ctl", CONNECT, prepare="serve"),
    Case("arena", CONNECT, prepare="serve"),
    Case("arena", GROWING, name="arena-growing"),
]


def test_every_lock_of_a_stack_is_among_the_cases() -> None:
    """The engine's lock is tests/wire's."""
    assert {case.lock for case in CASES} | {"wire"} == {lock.name for lock in LOCKS}


class Bystanders:
    """Two processes with a connection by ring that have nothing to do with who is stopped."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.server, self.client = lab.connected("eager")
        self.client.do("import random")

    def send_ahead(self) -> None:
        """A piece for which the ring grows: its reader goes over to the larger one when it receives, and gives the first one back."""
        grown = self.lab.state().counters["grown"]
        self.client.do("s.sendall(b'1')")
        self.server.do("c.recv(1)")  # by which its ring is open
        self.client.do(f"s.sendall({PATTERN})")
        assert self.lab.state().counters["grown"] > grown

    def receive_it(self) -> None:
        """All of it, and right, while the other one stands still."""
        got = self.server.do(f"got = b''\nwhile len(got) < {PIECE}: got += c.recv(65536)\ngot == {PATTERN}", WATCHED * 10)
        assert got

    def go_on(self) -> None:
        """Small messages there and back, and a connection more: all of it, and right, while the other one stands still."""
        before = self.lab.sent()
        self.server.tell("for _ in range(300): c.sendall(c.recv(64))")
        self.client.do("for i in range(300):\n    m = random.randbytes(64); s.sendall(m); assert s.recv(64) == m")
        self.server.hear()
        assert (self.lab.sent() - before).local >= 300 * 64, "they go by ring all along"
        port = self.server.do("l.getsockname()[1]")
        self.server.tell("d, _ = l.accept()\nfor _ in range(40): d.sendall(d.recv(8))\nd.close()")
        self.client.do(
            f"n = socket.create_connection(('127.0.0.1', {port}))\n"
            "for i in range(40):\n    n.sendall(b'%08d' % i); assert n.recv(8) == b'%08d' % i\nn.close()"
        )
        self.server.hear()


@pytest.fixture
def stage(own_lab: Lab) -> Iterator[tuple[Lab, Actor, Actor, Bystanders]]:
    """Who will be stopped (its end is `s`), its peer (`c`), and the others."""
    bystanders = Bystanders(own_lab)
    peer, victim = own_lab.connected("eager")
    peer.do("import contextlib")
    address = peer.do("l.getsockname()")
    victim.do(f"address = {address!r}")
    yield own_lab, victim, peer, bystanders


def hold(lab: Lab, victim: Actor, peer: Actor, case: Case, *, traced: bool) -> Hold:
    segment, offset = offset_of(lab, victim, case.lock)
    slot = next(p.slot for p in lab.state().participants if p.own_pid == victim.pid)
    if case.prepare == "serve":
        peer.tell("n, _ = l.accept()\nfor _ in range(40): n.sendall(n.recv(1))")
    elif case.prepare:
        peer.do(case.prepare)
    return Hold(victim.pid, slot, lab.daemon.path(segment), offset, lambda: victim.tell(case.act), traced=traced)


def peer_waits(peer: Actor, case: Case) -> None:
    """The peer receives, polls, and fills what it may send: it burns no CPU, and no call is held up that the kernel would not hold up."""
    if case.prepare == "serve":
        share = Share(peer.pid)
        time.sleep(WATCHED)
        assert share() < SHARE
        return
    # of a process that was stopped in the middle of a send some may have come
    peer.do("c.setblocking(False)\nearly = b''\nwith contextlib.suppress(BlockingIOError):\n    while True: early += c.recv(1 << 16)")
    share = Share(peer.pid)
    assert peer.do(f"p = select.poll(); p.register(c, select.POLLIN); p.poll({WATCHED * 1000})", WATCHED * 3) == []
    assert peer.do(f"p = select.epoll(); p.register(c, select.EPOLLIN); p.poll({WATCHED})", WATCHED * 3) == []
    assert peer.do(f"c.settimeout({WATCHED})\ntry: c.recv(1)\nexcept TimeoutError: over = 1\nover", WATCHED * 3) == 1
    assert share() < SHARE
    peer.do("c.setblocking(False)")
    sent = peer.do("sent = 0\nwith contextlib.suppress(BlockingIOError):\n    while sent < 1 << 26: sent += c.send(b'0' * 4096)\nsent")
    assert 4096 < sent < 1 << 26, "the kernel says when it is full"
    share = Share(peer.pid)
    peer.do(f"p = select.poll(); p.register(c, select.POLLOUT); p.poll({WATCHED * 1000})", WATCHED * 3)
    assert share() < SHARE
    peer.do(f"sent = {sent}")


def locks(lab: Lab) -> list[HeldLock]:
    return decode(lab.snapshot(), live=True).locks


def broken(lab: Lab) -> list[Finding]:
    """What `inspect --check` would find."""
    return check_live(lambda: snapshot.take(lab.name, bulk=True))


def inspected(lab: Lab, victim: Actor, case: Case, hold: Hold) -> None:
    """The holder's name, its number, which lock, in which state it is, and for how long others have missed it."""
    name = case.lock if case.lock in ("ctl", "arena") else f".{case.lock}"
    one = next(lock for lock in locks(lab) if lock.lock.endswith(name) and lock.pid == victim.pid)
    assert one.state == hold.state
    if case.lock in ("ctl", "arena"):  # the others have tried to have it by now
        assert one.awaited_ns is not None and 0 < one.awaited_ns < 60e9
    line = next(line for line in lab.inspect("--locks").stdout.splitlines() if line.split()[0:1] == [one.lock])
    assert f"({victim.pid})" in line and f"({hold.state})" in line and "python" in line
    assert bool(re.search(r" for \d+\.\d+ s", line)) == (one.awaited_ns is not None)
    assert broken(lab) == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize("ends", ["continued", "killed"])
@pytest.mark.parametrize("case", CASES, ids=[c.name or c.lock for c in CASES])
def test_stopped_with_a_lock(stage: tuple[Lab, Actor, Actor, Bystanders], case: Case, ends: str) -> None:
    lab, victim, peer, bystanders = stage
    bystanders.send_ahead()
    with hold(lab, victim, peer, case, traced=ends == "killed") as held:
        bystanders.receive_it()
        peer_waits(peer, case)
        bystanders.go_on()
        assert state_of(victim.pid) == held.state
        inspected(lab, victim, case, held)
        if ends == "killed":
            held.kill()
            victim.process.wait(5)
            killed(lab, peer, case)
        else:
            held.go_on()
            continued(victim, peer, case)
    bystanders.go_on()
    wait_until(lambda: not locks(lab))
    for actor in lab.actors:
        actor.end()
    wait_until(lambda: not lab.left())
    assert broken(lab) == []


def continued(victim: Actor, peer: Actor, case: Case) -> None:
    """All bytes arrive, in order, in both directions."""
    if case.prepare == "serve":
        victim.hear()
        peer.hear()
        return
    assert victim.hear() == (b"held" if case.lock == "rlock" else None)
    sent = peer.do("sent")
    assert victim.do(
        f"s.settimeout(5)\ngot = bytearray()\nwhile len(got) < {sent}: got += s.recv(1 << 20)\nbytes(got[:{sent}]) == b'0' * {sent}"
    )
    if case.lock == "wlock":
        assert peer.do("c.settimeout(5)\nc.recv(4, socket.MSG_WAITALL)") == b"held"
    if case.name == "arena-growing":
        assert peer.do(f"c.settimeout(5)\nlen(early) + len(c.recv({PIECE * 2} - len(early), socket.MSG_WAITALL))") == PIECE * 2


def killed(lab: Lab, peer: Actor, case: Case) -> None:
    """What was accepted before, and then the end or a reset."""
    if case.prepare == "serve":
        with contextlib.suppress(AssertionError):
            peer.hear()
    over = peer.do(
        "c.settimeout(5)\ngot = bytearray()\nend = None\n"
        "while end is None:\n    try:\n        b = c.recv(1 << 16); got += b\n        end = None if b else 'end'\n"
        "    except OSError as e: end = type(e).__name__\n(end, len(got))"
    )
    assert over[0] in ("end", "ConnectionResetError"), over
    slots = [binary.slot(lab.snapshot().stack, i) for i in range(lab.snapshot().slots_top)]
    wait_until(lambda: all(s["pid"] != 0 or s["state"] == C["SLOT_FREE"] for s in slots))
