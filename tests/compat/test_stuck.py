"""While a live process stands still (SIGSTOP) with a lock in its hands: nothing waits for it, and no record is taken for missing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.fix_lab import Actor, Lab, state_of
from unit.fix_helper_daemon import wait_until

from sharedstack.declare import layout
from sharedstack.inspection.words import LockWord

pytest_plugins = ["compat.fix_paths"]

DIRECTION = layout.ARENA_PAIRS + layout.PAIR.place("dir").offset
# name as inspect shows it, segment, byte offset of the word
LOCKS = [
    ("ctl", "stack", layout.STACK.place("ctl").offset),
    ("arena", "arena", layout.ARENA.place("lock").offset),
    ("pair[0].dir[0].wlock", "arena", DIRECTION + layout.DIRECTION.place("wlock").offset),
    ("pair[0].dir[1].rlock", "arena", DIRECTION + layout.DIRECTION.size + layout.DIRECTION.place("rlock").offset),
]
WITHIN = 5.0


@pytest.fixture
def pair(own_lab: Lab) -> Iterator[tuple[Actor, Actor]]:
    """A connection by ring between two processes, the first of the stack."""
    server, client = own_lab.connected("eager")
    yield server, client
    for actor in (server, client):
        with contextlib.suppress(ProcessLookupError):
            os.kill(actor.pid, signal.SIGCONT)


def take_and_stop(lab: Lab, actor: Actor, segment: str, offset: int) -> None:
    """The process writes its own word into the lock, as taking it does where nobody has it, and stops itself."""
    slot = next(p.slot for p in lab.state().participants if p.own_pid == actor.pid)
    word = LockWord(slot, 1, False).encode()
    actor.do(
        f"import mmap, signal; memory = mmap.mmap(os.open({str(lab.daemon.path(segment))!r}, os.O_RDWR), 0)\n"
        f"def hold(): memory[{offset}:{offset + 4}] = ({word}).to_bytes(4, 'little'); os.kill(os.getpid(), signal.SIGSTOP)\n"
        f"def leave(): memory[{offset}:{offset + 4}] = bytes(4)"
    )
    actor.tell("hold()")
    wait_until(lambda: state_of(actor.pid) == "T")


@pytest.mark.parametrize(("name", "segment", "offset"), LOCKS, ids=[name for name, _, _ in LOCKS])
def test_inspect_while_a_lock_is_stuck(own_lab: Lab, pair: tuple[Actor, Actor], name: str, segment: str, offset: int) -> None:
    server, client = pair
    take_and_stop(own_lab, server, segment, offset)
    owner = Path(f"/proc/{server.pid}/comm").read_text().strip()
    for options in ([], ["--why"], ["--check"], ["--locks"], ["--all"], ["--format", "json"]):
        began = time.monotonic()
        done = own_lab.inspect(*options)
        assert time.monotonic() - began < WITHIN
        assert done.returncode == 0, f"{options}: {done.stdout}{done.stderr}"
        if "--locks" in options or "--all" in options:
            line = next(line for line in done.stdout.splitlines() if line.startswith(f"{name} "))
            assert f"{owner} ({server.pid})" in line
        if "json" in options:
            held = {lock["lock"]: lock for lock in json.loads(done.stdout)["locks"]}
            assert held.keys() == {name}
            assert held[name]["pid"] == server.pid
    assert [line["fds"] for line in own_lab.why(client.pid)], "the other end is shown too"
    os.kill(server.pid, signal.SIGCONT)
    server.hear()
    server.do("leave()")
    client.do("s.sendall(b'3')")
    assert server.do("c.recv(1)") == b"3"
    assert own_lab.inspect("--check").returncode == 0


@pytest.mark.parametrize(("name", "segment", "offset"), LOCKS[:2], ids=[name for name, _, _ in LOCKS[:2]])
def test_an_executed_image_knows_what_it_inherited(own_lab: Lab, pair: tuple[Actor, Actor], name: str, segment: str, offset: int) -> None:
    """What is unread in the ring is reported and received though the tables are locked when the image meets the descriptor."""
    server, client = pair
    before = own_lab.sent()
    server.do("c.sendall(b'unread')")
    assert (own_lab.sent() - before).local == len("unread")
    take_and_stop(own_lab, server, segment, offset)
    after = (
        "import select, socket, sys; s = socket.socket(fileno=int(sys.argv[1])); p = select.poll(); p.register(s, select.POLLIN)\n"
        "print(p.poll(0) == [(s.fileno(), select.POLLIN)], s.recv(100))"
    )
    assert client.execute(after) == "True b'unread'\n"
    assert client.process.wait(5) == 0
    os.kill(server.pid, signal.SIGCONT)
    server.hear()
    server.do("leave()")
