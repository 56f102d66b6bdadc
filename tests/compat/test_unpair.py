"""Idle connections give their pair back, and get another one when data comes: real programs, with threads blocked in each kind of wait.

The helper looks every 10 ms instead of every second. That a pair was given back, and made again, is read from the counters.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from compat.fix_lab import Actor, Lab, Namespace
from unit.fix_helper_daemon import wait_until

pytest_plugins = ["compat.fix_paths"]

ROUNDS = 12
HELPERS = (
    "import hashlib\n"
    "def data(seed, n): return (hashlib.sha256(str(seed).encode()).digest() * (n // 32 + 1))[:n]\n"
    "def give(s, seed, n=5000): s.sendall(data(seed, n))\n"
    "def take(s, seed, n=5000):\n"
    "    got = s.recv(n, socket.MSG_WAITALL)\n"
    "    return got == data(seed, n)\n"
    "def by_poll(s):\n"
    "    p = select.poll(); p.register(s, select.POLLIN)\n"
    "    return len(p.poll(20000))\n"
    "def by_select(s): return len(select.select([s], [], [], 20)[0])\n"
    "def by_epoll(s):\n"
    "    with select.epoll() as p:\n"
    "        p.register(s, select.EPOLLIN)\n"
    "        return len(p.poll(20))\n"
    "def by_edge(s):\n"
    "    with select.epoll() as p:\n"
    "        p.register(s, select.EPOLLIN | select.EPOLLET)\n"
    "        return len(p.poll(20))\n"
)
WAITS = {
    "recv": "take(c, {seed})",
    "poll": "by_poll(c) == 1 and take(c, {seed})",
    "select": "by_select(c) == 1 and take(c, {seed})",
    "epoll": "by_epoll(c) == 1 and take(c, {seed})",
    "edge": "by_edge(c) == 1 and take(c, {seed})",
}


class QuickLab(Lab):
    """Its helper gives pairs back after a twentieth of a second."""

    def start_helper(self) -> None:
        self.daemon.start("--cool-every", "0.01", prefix=tuple(self.namespace.prefix), stdin=subprocess.DEVNULL, cwd="/")

    def count(self, counter: str) -> int:
        return self.state().counters[counter]

    def all_cold(self) -> bool:
        memory = self.state().memory
        return not memory["pairs_used"] and not memory["units_used"]


@pytest.fixture(scope="module")
def quick(namespace: Namespace) -> Iterator[QuickLab]:
    with QuickLab(namespace, "unpair") as made:
        yield made


@pytest.fixture(autouse=True)
def ended(quick: QuickLab) -> Iterator[None]:
    """No actor outlives its test."""
    yield
    for actor in quick.actors:
        actor.end()
    quick.actors.clear()


def connect(lab: QuickLab, mode: str) -> tuple[Actor, Actor]:
    """A server with connection `c`, a client with `s`."""
    server, client = lab.actor(mode), lab.actor(mode)
    for one in (server, client):
        one.do(HELPERS)
    port = server.do("l = socket.create_server(('127.0.0.1', 0)); l.getsockname()[1]")
    client.do(f"s = socket.create_connection(('127.0.0.1', {port}))")
    server.do("c, _ = l.accept()")
    return server, client


def turns(server: Actor, client: Actor, first: int, count: int) -> None:
    """Messages there and back, each checked."""
    for seed in range(first, first + count):
        client.do(f"give(s, {seed})")
        assert server.do(f"take(c, {seed})") is True
        server.do(f"give(c, {-seed})")
        assert client.do(f"take(s, {-seed})") is True


@pytest.mark.timeout(60)
@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("mode", ["default", "eager"])
def test_a_wait_goes_on_across_it(quick: QuickLab, mode: str, wait: str) -> None:
    server, client = connect(quick, mode)
    unpaired, again, sent = quick.count("unpaired"), quick.count("paired_again"), quick.sent()
    for n in range(ROUNDS):
        turns(server, client, 1000 * n, 8)
        server.tell(WAITS[wait].format(seed=77 + n))
        wait_until(quick.all_cold)
        client.do(f"give(s, {77 + n})")
        assert server.hear() is True
    assert quick.count("unpaired") - unpaired >= ROUNDS
    assert quick.count("paired_again") - again >= ROUNDS - 1
    assert (quick.sent() - sent).local > 0


def test_an_idle_connection_costs_a_record_an_end(quick: QuickLab) -> None:
    server, client = connect(quick, "eager")
    turns(server, client, 0, 8)
    wait_until(quick.all_cold)
    assert quick.left() == {"endpoints_used": 2}
    lines = json.loads(quick.inspect("--why", "--format", "json").stdout)["sockets"]
    assert {(line["tx"], line["rx"]) for line in lines if line["pid"] == client.pid} == {("idle", "idle")}
    assert quick.inspect("--check").returncode == 0
    turns(server, client, 100, 8)
    assert quick.inspect("--check").returncode == 0


def test_what_is_shared_or_copied_keeps_its_pair(quick: QuickLab) -> None:
    """It could not be brought under count again."""
    server, client = connect(quick, "eager")
    turns(server, client, 0, 8)
    client.do("d = s.dup()")
    wait_until(lambda: not quick.state().memory["units_used"])
    before = quick.count("unpaired")
    other = connect(quick, "eager")
    turns(*other, 0, 8)
    wait_until(lambda: quick.count("unpaired") > before)
    assert quick.state().memory["pairs_used"] == 1
    turns(server, client, 100, 4)


def test_two_threads_at_an_end(quick: QuickLab) -> None:
    """One is blocked in recv all the time while the other sends: its sends go by a ring again, once the other end reads."""
    server, client = connect(quick, "eager")
    turns(server, client, 0, 8)
    client.do("box = []\nthread = threading.Thread(target=lambda: box.append(take(s, 5)))\nthread.start()")
    wait_until(quick.all_cold)
    sent = quick.sent()
    for n in range(20):
        client.do(f"give(s, {n})")
        assert server.do(f"take(c, {n})") is True
    assert (quick.sent() - sent).local > 0
    server.do("give(c, 5)")
    assert client.do("thread.join(10); box") == [True]
    turns(server, client, 100, 4)


def test_a_socket_timeout_is_not_begun_anew(quick: QuickLab) -> None:
    """Its pair goes while the receiver dozes; what is left of SO_RCVTIMEO is waited for natively."""
    server, client = connect(quick, "eager")
    turns(server, client, 0, 8)
    server.do("import struct; c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack('ll', 1, 0))")
    body = "start = time.monotonic()\n    try: c.recv(1)\n    except BlockingIOError: return time.monotonic() - start"
    server.do(f"def late():\n    {body}")
    before = quick.count("unpaired")
    assert 0.95 <= server.do("late()") < 1.9
    assert quick.count("unpaired") > before
    turns(server, client, 100, 4)


def test_nothing_is_left(quick: QuickLab) -> None:
    quick.assert_clean()
