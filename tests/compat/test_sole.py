"""Connections that were shared, and have one holder left, are lifted like any other, by default too; those that have more are not.

The helper finds it by looking (helper/sharedstack_helper/sole.py). Each test says which way the bytes go before, and after.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from compat.fix_lab import Actor, Bytes, Lab
from unit.fix_helper_daemon import wait_until

pytest_plugins = ["compat.fix_paths"]

SIZE, ROUNDS = 64, 60
ASK = f"[(s.sendall(b'x' * {SIZE}), s.recv({SIZE}, socket.MSG_WAITALL)) for _ in range({ROUNDS})] and None"
# an accepted connection is served by a child, as PostgreSQL, sshd and socat do it; the parent has closed its copy
FORKING = """
import os, socket, sys
listener = socket.create_server(('127.0.0.1', 0))
print(listener.getsockname()[1], flush=True)
for _ in range(int(sys.argv[1])):
    conn, _ = listener.accept()
    if os.fork() == 0:
        listener.close()
        while data := conn.recv(65536):
            conn.sendall(data)
        os._exit(0)
    conn.close()
for _ in range(int(sys.argv[1])):
    assert os.wait()[1] == 0
"""
CLIENT = """
import array, os, socket, sys, time
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
until = time.monotonic() + float(sys.argv[2])
i = 0
while time.monotonic() < until:
    data = array.array('I', range(16 * i, 16 * i + 16)).tobytes()
    s.sendall(data)
    assert s.recv(64, socket.MSG_WAITALL) == data, i
    i += 1
print(i)
"""


def sent_by(lab: Lab, act: Callable[[], object]) -> Bytes:
    before = lab.sent()
    act()
    return lab.sent() - before


def soon(lab: Lab, talking: Callable[[], object]) -> bool:
    """Does what is said come to go by ring, nearly all of it? Some milliseconds are usual."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if sent_by(lab, talking).local >= 0.95 * ROUNDS * 2 * SIZE:
            return True
    return False


def talk(server: Actor, client: Actor, name: str = "c") -> None:
    server.tell(f"[{name}.sendall({name}.recv({SIZE}, socket.MSG_WAITALL)) for _ in range({ROUNDS})] and None")
    client.do(ASK)
    server.hear()


def lifted_soon(lab: Lab, server: Actor, client: Actor, name: str = "c") -> bool:
    return soon(lab, lambda: talk(server, client, name))


def by_kernel(lab: Lab, server: Actor, client: Actor, name: str = "c", seconds: float = 0.6) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if sent_by(lab, lambda: talk(server, client, name)).local:
            return False
    return True


@pytest.mark.parametrize("mode", ["kernel", "default", "eager"])
def test_a_server_that_forks_for_each(lab: Lab, mode: str) -> None:
    server = lab.start([sys.executable, "-c", FORKING, "3"], mode, stderr=None)
    assert server.stdout
    port = server.stdout.readline().strip()
    clients = [lab.actor(mode) for _ in range(3)]
    for client in clients:
        client.do(f"s = socket.create_connection(('127.0.0.1', {port})); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)")
    if mode == "kernel":
        assert [sent_by(lab, lambda c=client: c.do(ASK)) for client in clients] == [Bytes()] * 3
    else:
        assert all(soon(lab, lambda c=client: c.do(ASK)) for client in clients)
    for client in clients:
        client.end()
    assert server.wait(30) == 0


@contextmanager
def accepted(lab: Lab, mode: str) -> Iterator[tuple[Actor, Actor]]:
    """A connection on which nothing was sent yet: `c` at the server, `s` at the client."""
    server, client = lab.actor(mode), lab.actor(mode)
    port = server.do("l = socket.create_server(('127.0.0.1', 0)); l.getsockname()[1]")
    client.do(f"s = socket.create_connection(('127.0.0.1', {port})); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)")
    server.do("c, _ = l.accept(); c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)")
    yield server, client
    server.end()
    client.end()


def test_copies_in_one_process(own_lab: Lab) -> None:
    """dup(2), before the connection was lifted: two numbers are two holders, until one is closed."""
    with accepted(own_lab, "default") as (server, client):
        server.do("d = c.dup()")
        assert by_kernel(own_lab, server, client)
        server.do("c.close()")
        assert lifted_soon(own_lab, server, client, "d")


def test_a_child_that_has_it_too(own_lab: Lab) -> None:
    """As long as a child holds the connection, which it never uses, it is shared; when the child has gone it is not."""
    with accepted(own_lab, "default") as (server, client):
        child = server.do("import os; p = os.fork(); (p == 0 and time.sleep(100)); p")
        assert by_kernel(own_lab, server, client)
        server.do(f"os.kill({child}, 9); os.waitpid({child}, 0)[0]")
        assert lifted_soon(own_lab, server, client)


def test_idle_when_it_was_shared(own_lab: Lab) -> None:
    """An idle connection has given its pair back when a child comes to have it too; it gets another one when the child has gone."""
    own_lab.daemon.end()
    own_lab.daemon.start("--cool-every", "0.01", prefix=tuple(own_lab.namespace.prefix), stdin=subprocess.DEVNULL, cwd="/")
    with accepted(own_lab, "default") as (server, client):
        assert lifted_soon(own_lab, server, client)
        wait_until(lambda: not own_lab.state().memory["pairs_used"])
        child = server.do("import os; p = os.fork(); (p == 0 and time.sleep(100)); p")
        assert by_kernel(own_lab, server, client)
        server.do(f"os.kill({child}, 9); os.waitpid({child}, 0)[0]")
        assert lifted_soon(own_lab, server, client)


def test_shared_while_it_is_lifted(own_lab: Lab) -> None:
    """It goes on by ring, and is nobody else's again when the child has gone, of which nobody hears."""
    with accepted(own_lab, "default") as (server, client):
        assert lifted_soon(own_lab, server, client)
        found = own_lab.state().counters["sole_again"]
        server.do("import os; os.fork() or os._exit(0); os.wait()[1]")
        talk(server, client)
        wait_until(lambda: own_lab.state().counters["sole_again"] == found + 1)


def test_under_way_in_a_unix_socket(own_lab: Lab) -> None:
    """A copy that nobody has received is held by nobody's table, and is not forgotten."""
    with accepted(own_lab, "default") as (server, client):
        server.do("a, b = socket.socketpair(); socket.send_fds(a, [b'.'], [c.fileno()])")
        assert by_kernel(own_lab, server, client)
        server.do("_, (n, *_), _, _ = socket.recv_fds(b, 1, 1); os.close(n)")
        assert lifted_soon(own_lab, server, client)


def test_stored_and_taken(own_lab: Lab) -> None:
    """A lifted connection that was stored with the helper is the kernel's meanwhile, and is lifted again by whoever has taken it."""
    server, client = own_lab.connected("eager")
    assert sent_by(own_lab, lambda: talk(server, client)).local
    server.do(f"from sharedstack import fdstore; fdstore.put('one', c, stack={own_lab.stack!r})")
    assert by_kernel(own_lab, server, client)
    taker = own_lab.actor("eager")
    server.end()
    taker.do(f"from sharedstack import fdstore; (c,) = fdstore.get('one', stack={own_lab.stack!r})")
    assert lifted_soon(own_lab, taker, client)
    client.do("s.sendall(b'last'); s.close()")
    assert taker.do("c.recv(100), c.recv(100)") == (b"last", b"")


def test_what_went_to_a_plain_process_stays_lowered(own_lab: Lab) -> None:
    with tempfile.TemporaryDirectory() as folder:
        name = f"{folder}/s"
        plain = own_lab.actor("kernel")
        plain.do(f"l = socket.socket(socket.AF_UNIX); l.bind({name!r}); l.listen()")
        server, client = own_lab.connected("eager")
        server.do(f"u = socket.socket(socket.AF_UNIX); u.connect({name!r})")
        plain.do("u, _ = l.accept()")
        server.do("socket.send_fds(u, [b'.'], [c.fileno()]) and None")
        plain.do("_, (n, *_), _, _ = socket.recv_fds(u, 1, 1); os.close(n)")
        assert by_kernel(own_lab, server, client)


def test_who_has_it_last_is_no_participant(own_lab: Lab) -> None:
    """Its record goes with the socket, though nobody hears of that: the library's processes had ended before."""
    with tempfile.TemporaryDirectory() as folder, accepted(own_lab, "eager") as (server, client):
        plain = own_lab.actor("kernel")
        plain.do(f"l = socket.socket(socket.AF_UNIX); l.bind({folder + '/s'!r}); l.listen()")
        talk(server, client)
        server.do(f"u = socket.socket(socket.AF_UNIX); u.connect({folder + '/s'!r}); socket.send_fds(u, [b'.'], [c.fileno()]) and None")
        plain.do("u, _ = l.accept(); _, (n, *_), _, _ = socket.recv_fds(u, 1, 1)")
        server.end()
        client.end()
        time.sleep(0.2)
        assert own_lab.left()["endpoints_used"]
        plain.end()
        wait_until(lambda: not own_lab.left())


# A few processes hand one another connections at random, by fork and by SCM_RIGHTS; each checks what it reads and says who goes on.
ROVING = """
import array, os, random, socket, sys
seed, rounds = int(sys.argv[1]), int(sys.argv[2])
dice = random.Random(seed)
listener = socket.create_server(('127.0.0.1', 0))
print(listener.getsockname()[1], flush=True)
conn, _ = listener.accept()
listener.close()

def serve(n):
    for _ in range(n):
        data = conn.recv(64, socket.MSG_WAITALL)
        if len(data) < 64:
            return False
        conn.sendall(data)
    return True

for turn in range(rounds):
    way = dice.choice(['fork and leave', 'fork and wait', 'pass', 'dup'])
    if not serve(dice.randrange(1, 400)):
        break
    if way == 'fork and leave':
        if os.fork():
            os._exit(0)
    elif way == 'fork and wait':
        child = os.fork()
        if child == 0:
            os._exit(0 if serve(dice.randrange(1, 60)) else 1)
        dice.randrange(1, 60)
        if os.waitpid(child, 0)[1]:
            break
    elif way == 'pass':
        here, there = socket.socketpair()
        if os.fork() == 0:
            here.close(), conn.close()
            conn = socket.socket(fileno=socket.recv_fds(there, 1, 1)[1][0])
            there.close()
        else:
            socket.send_fds(here, [b'.'], [conn.fileno()])
            os._exit(0)
    else:
        other = conn.dup()
        conn.close()
        conn = other
while serve(1):
    pass
"""


@pytest.mark.parametrize("mode", ["kernel", "default", "eager"])
def test_handed_on_under_load(lab: Lab, mode: str, request: pytest.FixtureRequest) -> None:
    """Whoever the helper takes for the only holder at which moment: every byte comes, in order."""
    seed = (request.config.getoption("--seed", []) or [random.randrange(1 << 20)])[0]
    print(f"seed {seed}")
    before = lab.sent()
    rounds = 0
    for n in range(2):
        server = lab.start([sys.executable, "-c", ROVING, str(seed + n), "40"], mode, stderr=None)
        assert server.stdout
        port = server.stdout.readline().strip()
        client = lab.start([sys.executable, "-c", CLIENT, port, "1"], mode, stderr=None)
        said = client.communicate(timeout=30)[0]
        assert client.returncode == 0, f"seed {seed + n}"
        rounds += int(said)
        server.communicate(timeout=30)
    assert rounds > 400, f"seed {seed}"
    if mode != "kernel":
        assert (lab.sent() - before).local > 0.1 * rounds * 2 * SIZE, (lab.sent() - before, rounds, f"seed {seed}")


def test_a_helper_that_is_idle_does_not_look(own_lab: Lab) -> None:
    """With a shared connection that stays so, the looks become seldom."""
    with accepted(own_lab, "default") as (server, client):
        server.do("d = c.dup()")
        assert by_kernel(own_lab, server, client)
        assert own_lab.daemon.process
        stat = f"/proc/{own_lab.daemon.process.pid}/stat"

        def ticks() -> int:
            with open(stat, encoding="ascii") as file:
                return sum(map(int, file.read().rsplit(")", 1)[1].split()[11:13]))

        time.sleep(2)
        began = ticks()
        time.sleep(3)
        assert ticks() - began <= 6, "more than 2 % of a CPU"
