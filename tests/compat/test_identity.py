"""Processes that become somebody else, or confine themselves, while their connections carry data.

The same scene runs on the kernel first. Each test says which way the bytes went before and after: by ring while both ends are in one
stack, by the kernel when one has left it, and by ring again where both came back.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.fix_lab import Actor, Builder, Lab
from compat.fix_load import end_load, under_load
from unit.fix_helper_daemon import Daemon, wait_until

from sharedstack.declare import names
from sharedstack.inspection import snapshot
from sharedstack.inspection.state import State, decode

pytest_plugins = ["compat.fix_paths"]

MODES = ("kernel", "default", "eager")
NOBODY = 65534
UNREAD, AFTER = 50_000, 200_000
DROP = f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})"
LIBC = "import ctypes; libc = ctypes.CDLL(None, use_errno=True)"
FEED = "data = bytes((i * 31 + i // 251) & 255 for i in range(300_000)); at = 0"
WANTED = "wanted = bytes((i * 31 + i // 251) & 255 for i in range(300_000)); got = b''"
CALLS = {
    "recv": "",
    "poll": "p = select.poll(); p.register(c, select.POLLIN); wait = lambda: p.poll(5000)",
    "select": "wait = lambda: select.select([c], [], [], 5)[0]",
    "epoll": "e = select.epoll(); e.register(c, select.EPOLLIN); wait = lambda: e.poll(5)",
    "edges": "e = select.epoll(); e.register(c, select.EPOLLIN | select.EPOLLET); c.setblocking(False); wait = lambda: e.poll(5)",
}
TAKE = """
while len(got) < {n}:
    assert wait(), len(got)
    try:
        while len(got) < {n}:
            piece = c.recv(7000)
            assert piece
            got += piece
            if c.getblocking(): break
    except BlockingIOError:
        pass
assert got == wanted[:{n}], len(got)
"""

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root: it gives root away")


def send(actor: Actor, n: int) -> None:
    actor.do(f"s.sendall(data[at:at + {n}]); at += {n}")


def serving(lab: Lab, mode: str, how: str = "recv") -> tuple[Actor, Actor]:
    """Server and client of a connection that goes by ring where it can, with bytes on their way that nobody has read."""
    server, client = lab.connected(mode)
    server.do(f"{WANTED}; wait = lambda: True; {CALLS[how]}")
    client.do(FEED)
    for _ in range(20):
        server.tell("wait(); c.recv(1); c.sendall(b'2')")
        client.do("s.sendall(b'1'); s.recv(1)")
        server.hear()
    before = lab.sent().local if mode != "kernel" else 0
    send(client, UNREAD)
    if mode == "eager":
        assert lab.sent().local - before == UNREAD
    return server, client


def finish(server: Actor, client: Actor) -> None:
    """All that is unread, in its order, and as much again; then both ways until the end."""
    send(client, AFTER)
    server.do(TAKE.format(n=UNREAD + AFTER))
    server.do("c.setblocking(True); c.sendall(b'x' * 1000)")
    client.do("assert s.recv(1000, socket.MSG_WAITALL) == b'x' * 1000; s.shutdown(socket.SHUT_WR)")
    assert server.do("c.recv(10)") == b""
    server.do("c.close()")
    assert client.do("s.recv(10)") == b""


@needs_root
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", CALLS)
def test_a_server_that_drops_root(lab: Lab, mode: str, how: str) -> None:
    server, client = serving(lab, mode, how)
    server.do(f"{DROP}; assert os.getresuid() == ({NOBODY},) * 3")
    local = lab.sent().local
    finish(server, client)
    assert lab.sent().local == local, "by ring between two users"


@needs_root
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", ["recv", "poll", "epoll"])
def test_with_many_threads_inside(lab: Lab, mode: str, how: str) -> None:
    """They are under way in all kinds of calls, and in the middle of them."""
    server, client = under_load(lab, how, mode)
    if mode == "eager":
        wait_until(lambda: lab.sent().local > 10_000_000, 20)
    else:
        wait_until(lambda: client.do("totals['asked']") > 100, 20)
    server.do(DROP)
    local, asked = lab.sent().local, client.do("totals['asked']")
    wait_until(lambda: client.do("totals['asked']") > asked + 100, 20)
    assert lab.sent().local == local
    end_load(server, client)


@needs_root
@pytest.mark.parametrize("how", ["recv", "poll", "epoll"])
def test_there_and_back_under_load(lab: Lab, how: str) -> None:
    """Rings are emptied while other threads receive from them: no byte overtakes another one."""
    server, client = under_load(lab, how)
    for i in range(40):
        for actor in (server,) if i % 3 else (server, client):
            actor.do(f"os.setresuid({NOBODY}, 0, 0); os.setresuid(0, 0, 0)")
        asked = client.do("totals['asked']")
        wait_until(lambda seen=asked: client.do("totals['asked']") > seen)
    end_load(server, client)


@needs_root
@pytest.mark.parametrize("mode", MODES)
def test_a_forked_child_drops_root(lab: Lab, mode: str) -> None:
    """It serves on a connection that its parent had by ring, and one of its own."""
    server, client = lab.connected(mode)
    server.do(f"{WANTED}; wait = lambda: True; port = l.getsockname()[1]; r, w = os.pipe()")
    client.do(FEED)
    local = lab.sent().local
    server.tell(
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    try:\n"
        f"        {DROP}\n"
        "        os.write(w, b'd')\n"
        "        while len(got) < 100_000: got += c.recv(9000)\n"
        "        assert got == wanted[:100_000]\n"
        "        c.sendall(b'child')\n"
        "        d, _ = l.accept()\n"
        "        while piece := d.recv(100): d.sendall(piece)\n"
        "        os._exit(0)\n"
        "    except BaseException as e: os.write(2, repr(e).encode()); os._exit(1)\n"
        "c.close(); os.read(r, 1)"
    )
    server.hear()
    send(client, 100_000)
    assert client.do("s.recv(5, socket.MSG_WAITALL)") == b"child"
    client.do("t = socket.create_connection(s.getpeername())")
    for _ in range(5):
        assert client.do("t.sendall(b'x' * 50); t.recv(50, socket.MSG_WAITALL)") == b"x" * 50
    client.do("t.close()")
    assert server.do("os.waitpid(pid, 0)[1]") == 0
    assert lab.sent().local == local


@pytest.fixture
def nobody(lab: Lab) -> Iterator[Daemon]:
    """A helper of another user on a stack of the same name."""
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv (util-linux)")
    caps = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]  # Python may live where nobody may look
    drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *caps, "--"]
    daemon = Daemon()
    daemon.stack, daemon.netns = lab.stack, lab.namespace.netns
    daemon.start(prefix=(*lab.namespace.prefix, *drop), stdin=subprocess.DEVNULL, cwd="/")
    yield daemon
    daemon.end()
    for part in ("stack", "arena", "bulk"):
        Path(f"/dev/shm{names.segment(NOBODY, daemon.netns, daemon.stack, part)}").unlink(missing_ok=True)


@needs_root
@pytest.mark.parametrize("how", ["recv", "epoll"])
def test_lifted_again_as_somebody_else(lab: Lab, nobody: Daemon, how: str) -> None:
    server, client = serving(lab, "eager", how)

    def theirs() -> State:
        return decode(
            snapshot.take(names.segment(NOBODY, nobody.netns, nobody.stack, "stack").strip("/").removesuffix(".stack")), live=False
        )

    client.do(DROP)
    server.do(DROP)
    left = lab.sent().local

    def by_ring() -> bool:
        client.do("s.sendall(b'r' * 1000)")
        server.do("while len(got) < 50_000 + 1000: assert wait(); got += c.recv(1000)")
        server.do("assert got[50_000:] == b'r' * 1000; got = got[:50_000]; c.sendall(b'a')")
        client.do("assert s.recv(1) == b'a'")
        return theirs().counters["tx_local_bytes"] > 5000

    wait_until(by_ring)
    assert lab.sent().local == left
    assert server.do("got == wanted[:50_000]")
    assert {server.pid, client.pid} <= {p.own_pid for p in theirs().participants}
    for actor in (server, client):
        actor.end()


@needs_root
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("call", ["unshare(0x40000000)", "syscall(272, 0x40000000)"], ids=["unshare", "syscall"])
def test_another_network(lab: Lab, mode: str, call: str) -> None:
    if "syscall" in call and os.uname().machine != "x86_64":
        pytest.skip("allowed: another number")
    server, client = serving(lab, mode)
    server.do(f"{LIBC}; assert libc.{call} == 0")
    local = lab.sent().local
    finish(server, client)
    assert lab.sent().local == local, "by ring between two namespaces"
    server.do("import subprocess; subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)")
    server.do("m = socket.create_server(('127.0.0.1', 0)); a = socket.create_connection(m.getsockname()); b, _ = m.accept()")
    for _ in range(5):
        server.do("a.sendall(b'12'); assert b.recv(2) == b'12'; b.sendall(b'34'); assert a.recv(2) == b'34'")
    assert lab.sent().local == local, "a socket of another namespace"


@needs_root
@pytest.mark.parametrize("mode", MODES)
def test_another_root_and_other_groups(lab: Lab, mode: str, tmp_path: Path) -> None:
    """The same user in the same network: it stays where it is, and so does a child that is forked there."""
    server, client = serving(lab, mode)
    server.do(f"os.chroot({str(tmp_path)!r}); os.setgroups([]); os.setgid({NOBODY}); os.setegid({NOBODY})")
    local = lab.sent().local
    finish(server, client)
    if mode == "eager":
        assert lab.sent().local >= local + 1000  # what follows when all that was unread has been received
    server.do("a = socket.socket(); a.connect(l.getsockname()); b, _ = l.accept()")
    for _ in range(5):
        server.do("a.sendall(b'12'); assert b.recv(2) == b'12'; b.sendall(b'34'); assert a.recv(2) == b'34'")


@pytest.mark.parametrize("mode", MODES)
def test_a_change_that_fails(lab: Lab, mode: str) -> None:
    """The process is who it was: its connections are lifted again."""
    server, client = serving(lab, mode)
    server.do(f"{LIBC}; assert libc.prctl(22, 2, None) == -1 and ctypes.get_errno() == 14")  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER, EFAULT
    finish_before = lab.sent().local
    server.do(TAKE.format(n=UNREAD))
    for _ in range(20):
        client.do("s.sendall(b'1')")
        server.do("assert wait() and c.recv(1) == b'1'; c.sendall(b'2')")
        client.do("assert s.recv(1) == b'2'")
    if mode != "kernel":
        assert lab.sent().local > finish_before


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", ["read", "number", "poll", "select", "epoll"])
@pytest.mark.parametrize("filter_", ["filter", "seccomp", "strict"])
def test_a_confined_child(lab: Lab, build: Builder, filter_: str, how: str, mode: str) -> None:
    if filter_ == "strict" and how not in ("read", "number"):
        pytest.skip("allowed: strict mode has no call to wait by")
    ran = lab.run([build("confined"), filter_, how], mode).ok()
    assert (ran.out, ran.err) == ("done, status 0, signal 0\n", "")
    if mode == "eager":
        assert ran.sent.local >= 60_000


def test_nothing_is_left(lab: Lab) -> None:
    for actor in lab.actors:
        actor.end()
    lab.settle()
    lab.assert_clean()
