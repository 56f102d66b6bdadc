"""Each of the things that a stack has only so many of is used up: connections stay with the kernel, or stay lifted.

The bytes are right, no error is ours, `inspect` says why, and when there is room again new connections are lifted.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from compat.fix_lab import Actor, Builder, Lab, Namespace
from kill import fix_exhausted
from unit.fix_helper_daemon import COMMAND, wait_until

from sharedstack.declare import names

pytest_plugins = ["compat.fix_paths"]
HELPER = ("--cool-every", "60")

Filling = Callable[[Lab], contextlib.AbstractContextManager[None]]
TALK = (
    "def talk(s, first, n=12, size=3000):\n"
    "    import hashlib\n"
    "    sent, got = hashlib.sha256(), hashlib.sha256()\n"
    "    for i in range(2 * n):\n"
    "        if (i % 2 == 0) == first:\n"
    "            m = os.urandom(size); sent.update(m); s.sendall(m)\n"
    "        else:\n"
    "            m = s.recv(size, socket.MSG_WAITALL); assert len(m) == size; got.update(m)\n"
    "    return sent.hexdigest(), got.hexdigest()\n"
)


def talk(server: Actor, client: Actor, c: str = "c", s: str = "s", more: str = "") -> None:
    """Messages there and back whose bytes are compared."""
    server.tell(f"talk({c}, False{more})")
    there = client.do(f"talk({s}, True{more})", 30)
    back = server.hear(30)
    assert (there[0], there[1]) == (back[1], back[0])


def two(lab: Lab, **env: str) -> tuple[Actor, Actor]:
    server, client = lab.actor("eager", **env), lab.actor("eager", **env)
    for actor in (server, client):
        actor.do(TALK)
    port = server.do("l = socket.create_server(('127.0.0.1', 0)); l.getsockname()[1]")
    client.do(f"address = ('127.0.0.1', {port})")
    return server, client


def connect(server: Actor, client: Actor, c: str = "c", s: str = "s") -> None:
    client.do(f"{s} = socket.create_connection(address)")
    server.do(f"{c}, _ = l.accept()")


def why(lab: Lab, actor: Actor, name: str) -> set[str]:
    fd = actor.do(f"{name}.fileno()")
    line = next(line for line in lab.why(actor.pid) if fd in line["fds"])
    return {line["tx"], line["rx"]}


def is_lifted(lab: Lab, server: Actor, client: Actor) -> None:
    """A new connection is."""
    connect(server, client, "c3", "s3")
    before = lab.sent()
    talk(server, client, "c3", "s3")
    after = lab.sent() - before
    assert after.local > 0.8 * 2 * 12 * 3000, after
    server.do("c3.close()")
    client.do("s3.close()")


@pytest.mark.parametrize("filled", ["endpoints", "pairs", "units", "slots"])
def test_a_table_is_full(own_lab: Lab, filled: str) -> None:
    server, client = two(own_lab)
    early = filled != "slots"
    if early:  # they have slots, and a connection that was lifted before
        connect(server, client)
        talk(server, client)
    filling: Filling = getattr(fix_exhausted, filled)
    with filling(own_lab):
        connect(server, client, "c2", "s2")
        before = own_lab.sent()
        talk(server, client, "c2", "s2")
        assert (own_lab.sent() - before).local == 0
        assert "exhausted" in why(own_lab, client, "s2") | why(own_lab, server, "c2")
        if early:
            before = own_lab.sent()
            talk(server, client)
            assert (own_lab.sent() - before).local > 0, "what is lifted stays so"
            talk(server, client, more=", 2, 300_000")  # for which its rings would grow
        server.do("c2.shutdown(socket.SHUT_WR)")
        assert client.do("s2.recv(1)") == b""
        client.do("s2.close()")
        assert server.do("c2.recv(1)") == b""
    if filled == "slots":  # a process that got none asks again, once in a second
        time.sleep(1.1)
    is_lifted(own_lab, server, client)
    for actor in own_lab.actors:
        actor.end()
    own_lab.assert_clean()


def test_links_of_datagrams_are_used_up(own_lab: Lab) -> None:
    server, client = two(own_lab)
    server.do("u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('127.0.0.1', 0))")
    port = server.do("u.getsockname()[1]")
    client.do(f"to = ('127.0.0.1', {port}); d = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)")

    def rounds(name: str) -> int:
        before = own_lab.state().counters["tx_local_bytes"]
        server.tell("for _ in range(60):\n    m, a = u.recvfrom(2000); u.sendto(m, a)")
        client.do(f"for i in range(60):\n    m = os.urandom(100); {name}.sendto(m, to); assert {name}.recv(2000) == m")
        server.hear()
        return own_lab.state().counters["tx_local_bytes"] - before

    with fix_exhausted.links(own_lab):
        assert rounds("d") == 0
        assert "exhausted" in why(own_lab, client, "d")
    client.do("e = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)")
    assert rounds("e") > 30 * 100


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_the_helper_has_no_descriptor_left(own_lab: Lab) -> None:
    """Who comes meanwhile maps the segments by name; who dies meanwhile is found."""
    helper = own_lab.daemon.pid
    limits = resource.prlimit(helper, resource.RLIMIT_NOFILE)
    highest = max(int(fd) for fd in os.listdir(f"/proc/{helper}/fd"))
    resource.prlimit(helper, resource.RLIMIT_NOFILE, (min(highest + 1, descriptors(helper)), limits[1]))
    server, client = two(own_lab)
    connect(server, client)
    talk(server, client)
    is_lifted(own_lab, server, client)
    client.process.kill()
    client.process.wait(5)
    assert server.do("c.recv(1)") == b""
    wait_until(lambda: len(own_lab.state().participants) == 2)
    resource.prlimit(helper, resource.RLIMIT_NOFILE, limits)
    server, client = two(own_lab)
    is_lifted(own_lab, server, client)
    for actor in own_lab.actors:
        actor.end()
    own_lab.assert_clean()
    status, errors = own_lab.daemon.end()
    assert status == 0
    assert all("cannot ask the kernel for its sockets" in line for line in errors.splitlines()), errors


SHORT = (
    "import resource\nsize = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
    "resource.setrlimit(resource.RLIMIT_AS, (size + (%d), -1))\n"
)


def test_a_program_without_address_space(own_lab: Lab) -> None:
    """Before it has mapped anything: it stays with the kernel, and is lifted when it may have more."""
    server, client = two(own_lab)
    client.do(SHORT % (4 << 20))
    connect(server, client, "c2", "s2")
    before = own_lab.sent()
    talk(server, client, "c2", "s2")
    assert (own_lab.sent() - before).local == 0
    assert "exhausted" in why(own_lab, client, "s2")
    client.do("resource.setrlimit(resource.RLIMIT_AS, (-1, -1))")
    time.sleep(1.1)
    is_lifted(own_lab, server, client)


@pytest.mark.parametrize("who", ["reader", "writer"])
def test_no_address_space_for_rings(own_lab: Lab, who: str) -> None:
    """The segments are mapped, ring memory cannot be."""
    server, client = two(own_lab)
    connect(server, client)
    short = client if who == "writer" else server
    for actor in (server, client):  # its slot, and nothing of a ring
        actor.do(
            "x = socket.create_server(('127.0.0.1', 0)); y = socket.create_connection(x.getsockname()); y.send(b'1' * 9)\nz, _ = x.accept()"
        )
        actor.do("for _ in range(1): z.recv(3)")
    short.do(SHORT % (1 << 20))
    talk(server, client)
    talk(server, client, more=", 2, 300_000")
    short.do("resource.setrlimit(resource.RLIMIT_AS, (-1, -1))")
    is_lifted(own_lab, server, client)


def test_no_address_space_for_a_larger_ring(own_lab: Lab) -> None:
    """A ring grows into a window of ring memory that its reader has never seen, and cannot map now: its bytes are not lost."""
    server, client = two(own_lab)
    connect(server, client)
    talk(server, client)
    with fix_exhausted.units(own_lab, left=1024):
        server.do(SHORT % (1 << 20))
        client.do("m = os.urandom(100_000); s.setblocking(False); n = s.send(m)")
        digest = client.do("import hashlib\n(n, hashlib.sha256(m[:n]).hexdigest())")
        got = server.do(f"import hashlib\nhashlib.sha256(c.recv({digest[0]}, socket.MSG_WAITALL)).hexdigest()")
        assert got == digest[1]
        client.do("s.setblocking(True)")
        talk(server, client)
        server.do("resource.setrlimit(resource.RLIMIT_AS, (-1, -1))")
    is_lifted(own_lab, server, client)


@pytest.mark.parametrize("scene", ["from_the_start", "later", "accepting"])
def test_a_program_with_few_descriptors(lab: Lab, build: Builder, scene: str) -> None:
    """It has all that it may have, as on the kernel."""
    few = build("few")
    said = lab.run([few, scene], "kernel").ok().out
    for mode in ("default", "eager"):
        ran = lab.run([few, scene], mode, timeout=60).ok()
        assert ran.out == said
        if scene == "later":
            assert ran.sent.local > 0, "what was lifted before goes on by ring"


def test_why_a_program_with_few_descriptors_stays_with_the_kernel(own_lab: Lab) -> None:
    server, client = two(own_lab)
    client.do("import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (32, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))")
    connect(server, client, "c2", "s2")
    talk(server, client, "c2", "s2")
    assert why(own_lab, client, "s2") == {"exhausted"}
    client.do("resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)")
    time.sleep(1.1)
    is_lifted(own_lab, server, client)


@pytest.mark.parametrize("limit", [8, 13, 14, 63, 64])
def test_a_helper_that_may_have_few_descriptors(namespace: Namespace, limit: int) -> None:
    """It says so, in a line, and leaves nothing behind; with 64 it serves."""
    stack = f"few{os.getpid()}-{limit}"
    command = [*namespace.prefix, "prlimit", f"--nofile={limit}:{limit}", *COMMAND, "--stack", stack]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as helper:
        assert helper.stdout is not None and helper.stderr is not None
        ready = helper.stdout.readline()
        if ready:
            helper.terminate()
        errors = helper.stderr.read()
        status = helper.wait(10)
    assert (status, bool(ready)) == ((0, True) if limit == 64 else (1, False)), errors
    assert ("ulimit -Hn" in errors, len(errors.splitlines())) == ((False, 0) if ready else (True, 1)), errors
    for part in ("stack", "arena", "bulk"):
        assert not Path(f"/dev/shm{names.segment(namespace.uid, namespace.netns, stack, part)}").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="allowed: a mount namespace needs root")
@pytest.mark.parametrize("left", [0, 4096, 40_000])
def test_shared_memory_becomes_full(left: int) -> None:
    """SIGBUS never reaches a program, nor the helper."""
    setup = 'mount -t tmpfs -o size=16m tmpfs /dev/shm && exec "$0" "$@"'
    command = ["unshare", "--mount", "sh", "-c", setup, sys.executable, str(Path(__file__).with_name("full.py")), str(left)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stdout + done.stderr
