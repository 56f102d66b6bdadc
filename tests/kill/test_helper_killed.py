"""The helper is killed, again and again, and started again, or not: what it lent and stored goes on, and what it missed is found."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time

import pytest
from compat.conftest import seed_of
from compat.fix_lab import Lab
from compat.fix_load import end_load, under_load
from compat.test_moving import moved
from unit.fix_helper_daemon import wait_until

from sharedstack import ask, fdstore
from sharedstack.demo.children import program

pytest_plugins = ["compat.fix_paths"]

WHOLE = bool(os.environ.get("KILL_ALL"))
KILLS = 100 if WHOLE else 4
# Requests and replies of one byte; the longest that one took since the last look.
PING = """
def pong(s):
    while b := s.recv(1): s.sendall(b)
def ping(s):
    global longest, count
    longest = count = 0
    while not stop.is_set():
        began = time.perf_counter()
        s.sendall(b'p')
        assert s.recv(1) == b'p'
        longest = max(longest, time.perf_counter() - began)
        count += 1
    s.shutdown(socket.SHUT_WR)
def look():
    global longest
    worst, longest = longest, 0
    return worst, count
"""
# Connections that come, are lifted, and go: each carries its seed's bytes there and back, compared by hash.
COME_AND_GO = """
import hashlib, random
wrong = []
made = 0
def echo(s):
    try:
        while b := s.recv(65536): s.sendall(b)
    except Exception as e: wrong.append(repr(e))
    s.close()
def serve(l):
    while True:
        threading.Thread(target=echo, args=(l.accept()[0],), daemon=True).start()
def come(port, seed):
    global made
    dice = random.Random(seed)
    try:
        while not stop.is_set():
            s = socket.create_connection(('127.0.0.1', port))
            there, back = hashlib.sha256(), hashlib.sha256()
            for _ in range(dice.randrange(5, 200)):
                piece = dice.randbytes(dice.randrange(1, 3000))
                s.sendall(piece)
                there.update(piece)
                back.update(s.recv(len(piece), socket.MSG_WAITALL))
            s.close()
            made += 1
            if there.digest() != back.digest(): wrong.append(seed)
    except Exception as e: wrong.append(repr(e))
"""


def killed(lab: Lab) -> None:
    lab.daemon.end(signal.SIGKILL)


def test_local_pairs_do_not_notice(own_lab: Lab) -> None:
    """A stream and requests, by their rings all the while: over the deaths, without a helper, and over the starts."""
    server, client = under_load(own_lab, "poll")
    for actor in (server, client):
        actor.do(PING)
    port = server.do("l2 = socket.create_server(('127.0.0.1', 0)); l2.getsockname()[1]")
    client.do(f"s2 = socket.create_connection(('127.0.0.1', {port})); pinging = threading.Thread(target=ping, args=(s2,), daemon=True)")
    server.do("threading.Thread(target=pong, args=(l2.accept()[0],), daemon=True).start()")
    client.do("pinging.start()")
    wait_until(lambda: moved(own_lab, server, client), 20)
    slots = {p.own_pid: p.slot for p in own_lab.state().participants if not p.helper}
    longest = []
    for _ in range(KILLS):
        client.do("look()")
        killed(own_lab)
        local = own_lab.sent().local
        wait_until(lambda local=local: own_lab.sent().local > local + 500_000, 20)
        own_lab.start_helper()
        local = own_lab.sent().local
        wait_until(lambda local=local: own_lab.sent().local > local + 500_000, 20)
        longest.append(client.do("look()")[0] * 1000)
    assert {p.own_pid: p.slot for p in own_lab.state().participants if not p.helper} == slots
    end_load(server, client)
    print(f"{KILLS} helpers killed; longest answers {', '.join(f'{ms:.1f}' for ms in sorted(longest))} ms")
    assert sorted(longest)[len(longest) // 4] < 100  # the machine may be busy: the better ones count
    for actor in (server, client):
        actor.end()
    own_lab.settle()
    own_lab.assert_clean()


def test_while_connections_come_and_go(own_lab: Lab, request: pytest.FixtureRequest) -> None:
    """Lifts half done, pairs half made or given back, `lower` asked for: none is lost, and nothing of it is left."""
    dice = random.Random(seed_of(request.config))
    server, client = own_lab.actor("eager"), own_lab.actor("eager")
    for actor in (server, client):
        actor.do("stop = threading.Event()")
        actor.do(COME_AND_GO)
    port = server.do(
        "l = socket.create_server(('127.0.0.1', 0)); threading.Thread(target=serve, args=(l,), daemon=True).start(); l.getsockname()[1]"
    )
    client.do(f"running = [threading.Thread(target=come, args=({port}, i), daemon=True) for i in range(4)]")
    client.do("[t.start() for t in running] and None")
    lower = [*own_lab.namespace.prefix, program("sharedstack"), "lower", "--stack", own_lab.stack]
    for i in range(KILLS):
        time.sleep(dice.uniform(0.02, 0.3))
        if i % 2:
            subprocess.run(lower, capture_output=True, timeout=20)
        killed(own_lab)
        if i % 3 == 2:
            made = client.do("made")
            wait_until(lambda made=made: client.do("made") > made + 3, 20)
        own_lab.start_helper()
    client.do("stop.set()")
    assert client.do("[t.join(20) for t in running]; [t.is_alive() for t in running], wrong", 60) == ([False] * 4, [])
    assert server.do("wrong") == []
    print(f"{client.do('made')} connections over {KILLS} deaths, {own_lab.sent()}")
    assert own_lab.sent().local > own_lab.sent().kernel
    for actor in (server, client):
        actor.end()
    own_lab.settle()
    own_lab.assert_clean()


def test_the_dead_that_it_missed(own_lab: Lab) -> None:
    """Participants that die with connections, full rings and waiting, while no helper lives: all they had is back."""
    base = own_lab.state().memory
    pairs = [own_lab.connected("eager") for _ in range(3)]
    for server, client in pairs:
        client.do("s.setblocking(False); s.send(b'1' * 30000)")
        server.tell("c.recv(30000, socket.MSG_WAITALL); c.recv(1)")
    wait_until(lambda: own_lab.left().get("pairs_used", 0) >= 3)
    killed(own_lab)
    for actor in own_lab.actors:
        actor.process.kill()
        actor.process.wait()
    assert own_lab.left()["endpoints_used"] == 6
    own_lab.start_helper()
    own_lab.settle()
    own_lab.assert_clean()
    assert {k: v for k, v in own_lab.state().memory.items() if k.endswith("_used")} == {
        k: v for k, v in base.items() if k.endswith("_used")
    }
    assert [p.helper for p in own_lab.state().participants] == [True]


@pytest.mark.parametrize("how", ["killed", "ended"])
def test_programs_that_start_meanwhile(own_lab: Lab, how: str) -> None:
    """They run. Where it was killed they take part by its segments; where it was ended, when another one is there."""
    own_lab.daemon.end(signal.SIGKILL if how == "killed" else signal.SIGTERM)
    run = [*own_lab.namespace.prefix, "env", f"LD_PRELOAD={own_lab.library}", f"SHAREDSTACK_STACK={own_lab.stack}"]
    actors = []
    for _ in range(2):
        actors.append(own_lab.actor("kernel"))
        actors[-1].end()
        argv = [*run, sys.executable, "-u", "-c", type(actors[-1]).SOURCE]
        process = subprocess.Popen(argv, env=own_lab.environ("eager"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        actors[-1] = type(actors[-1])(process)
    own_lab.actors += actors
    server, client = actors
    port = server.do("l = socket.create_server(('127.0.0.1', 0)); l.getsockname()[1]")
    client.do(f"s = socket.create_connection(('127.0.0.1', {port}))")
    server.do("c, _ = l.accept()")

    def exchange() -> None:
        client.do("s.sendall(b'x' * 1000)")
        server.do("assert c.recv(1000, socket.MSG_WAITALL) == b'x' * 1000; c.sendall(b'y' * 1000)")
        client.do("assert s.recv(1000, socket.MSG_WAITALL) == b'y' * 1000")

    for _ in range(10):
        exchange()
    if how == "killed":
        assert own_lab.sent().local > 5000
    own_lab.start_helper()

    def by_ring() -> bool:
        before = own_lab.sent().local
        exchange()
        return own_lab.sent().local - before == 2000

    wait_until(by_ring)
    watched = own_lab.daemon.ask("status") if not own_lab.namespace.own else None
    assert watched is None or watched["participants"] == 2
    for actor in actors:
        actor.process.kill()
        actor.process.wait()
    own_lab.settle()
    own_lab.assert_clean()


HOLDER = """
import socket, sys
s = socket.socket(fileno=int(sys.argv[1]))
print('up', flush=True)
while b := s.recv(65536):
    s.sendall(b)
"""


def test_an_executed_holder_attaches_by_name(own_lab: Lab) -> None:
    """Its program is replaced by another one while no helper lives; its connection is lifted again, and the next helper watches it."""
    server, client = own_lab.connected("eager")
    killed(own_lab)
    assert server.execute(HOLDER, "[c]") == "up\n"

    def by_ring() -> bool:
        before = own_lab.sent().local
        assert client.do("s.sendall(b'z' * 1000); s.recv(1000, socket.MSG_WAITALL)") == b"z" * 1000
        return own_lab.sent().local - before == 2000

    wait_until(by_ring)
    assert server.pid in {p.own_pid for p in own_lab.state().participants}
    own_lab.start_helper()
    wait_until(by_ring)
    server.process.kill()
    assert client.do("s.recv(1)") == b""
    client.end()
    own_lab.settle()
    own_lab.assert_clean()


ECHO = """
import socket
s = socket.create_server(('127.0.0.1', 0))
print(s.getsockname()[1])
c = s.accept()[0]
while b := c.recv(9):
    c.sendall(b)
"""


def test_run_starts_one_where_it_was_killed() -> None:
    """Programs of `sharedstack run` go on without it; the next `run` starts another one, which watches them all."""
    stack = f"r{os.getpid()}"
    run = [program("sharedstack"), "run", "--stack", stack, "--", sys.executable, "-uc"]

    def helper() -> int:
        with ask.connected(stack) as client:
            return int(client.ask("ping")["pid"])

    def lives() -> bool:
        with contextlib.suppress(RuntimeError):
            return helper() > 0
        return False

    with subprocess.Popen([*run, ECHO], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout
        port = int(first.stdout.readline())
        before = helper()
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: not lives())
        try:
            with socket.create_connection(("127.0.0.1", port)) as ours:
                ours.sendall(b"without")
                assert ours.recv(9) == b"without"
                second = subprocess.run([*run, "print('ran')"], capture_output=True, text=True, timeout=20)
                assert (second.stdout, second.stderr) == ("ran\n", "")
                assert helper() != before
                fdstore.put("x", ours, stack=stack)
                assert fdstore.remove("x", stack=stack) == 1
                ours.sendall(b"with")
                assert ours.recv(9) == b"with"
        finally:
            first.kill()
            if lives():
                os.kill(helper(), signal.SIGTERM)
