"""What calls mean: small programs say line by line what came back, and say the same on the kernel and through the library.

The kernel is the oracle: no expectation is written down here. The programs print no times, only whether they were kept, and nothing that
the kernel itself leaves open. Each scene is played in three ways of waiting: eager (dozing), asleep in the kernel, and spinning. Where its
bytes go by the kernel for the most part, by design, it is named with the reason.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from compat.fix_lab import EAGER_SHARE, PROGRAMS, Builder, Lab

pytest_plugins = ["compat.fix_paths"]

PLAYED = 0.5  # of its scenes, in one run: conftest.py

SUITES = (
    *("semantics", "ends", "waits", "signals", "pointers", "processes", "threads", "sets", "copying", "sending", "numbers", "forking"),
    *("corners", "deferred", "raw", "beside"),
)

# by design; a scene of its own tally
MOSTLY_KERNEL = {
    "connected_after_fork": "shared before it was paired",
    "passed_early": "shared before it was paired",
    "spawned": "given to a program without the library",
    "copied_early": "copied before it was paired: a call on one number is not seen from the other",
    "full": "writes until nothing more is taken: a ring never refuses what the kernel would take",
    "splice_to_a_full_socket": "as full, by splice",
    "large_and_blocking": "what a ring does not have goes by the kernel",
    "one_at_a_time": "sends as much as is taken, to threads that wait in one set",
    "fork_and_share": "two processes wait in one stream: only one may doze, so both sleep in the kernel",
    "readers": "two threads wait in one stream: only one may doze",
    "pollers": "two threads wait in one stream: only one may doze",
    "workers": "several threads wait in one epoll set: only one may doze",
    "waiting_from_the_start": "a thread that was in the kernel before the connection was counted keeps it there",
    "read_by_a_child": "lifted by a byte each way, then waited for asleep",
    "two_sets": "a member of several sets: which of them sleeps is not known",
    "asynchronous": "asynchronous I/O is the kernel's, and so is the connection from then on",
    "submitted": "as asynchronous",
    "by_io_uring": "io_uring is the kernel's, and so is every connection of a process that has one",
    "unguarded": "there is no socket",
    "taken_early": "shared before it was paired",
    "taken_from_itself": "copied: who waits for one number does not see the other's",
    "killed": "one end streams without bounds",
    "handler_sends": "sends as fast as it can: what overflows a ring takes the kernel's path",
    "jumps_out_of_sends": "as handler_sends",
    "duplex": "both ends send as fast as they can: what overflows a ring takes the kernel's path",
}

WAYS: dict[str, dict[str, str]] = {
    "eager": {},
    "asleep": {"SHAREDSTACK_DOZE": "0"},
    "spinning": {"SHAREDSTACK_SPIN_ALWAYS": "1", "SHAREDSTACK_SPIN_US": "3000"},
}
ALL = tuple(WAYS)
AWAKE = ("eager", "spinning")

# played with the default options too
DEFAULT = ("half_close", "execute", "duplex", "transfers", "woken_by_number", "datagrams_by_number", "by_io_uring", "asynchronous")

# Bugs known and not yet repaired: scene, ways, what differs. Strict: whoever repairs one removes its line.
BUGS: dict[str, tuple[tuple[str, ...], str]] = {}


def scenes() -> list[tuple[str, str]]:
    """As each program declares them: {"name", function}."""
    found = []
    for suite in SUITES:
        text = (PROGRAMS / f"{suite}.c").read_text().rpartition("static const struct scene scenes[]")[2].partition("};")[0]
        found += [(suite, part.partition('"')[0]) for part in text.split('{"')[1:]]
    return found


def cases() -> Iterator[object]:
    for suite, scene in scenes():
        for way in WAYS:
            ways, what = BUGS.get(scene, ((), ""))
            marks = [pytest.mark.xfail(strict=True, reason=what)] if way in ways else []
            yield pytest.param(suite, scene, way, marks=marks, id=f"{scene}-{way}")


@pytest.fixture(scope="module")
def oracle(lab: Lab, build: Builder) -> Callable[[str, str], str]:
    """What a scene says on the kernel."""

    @functools.cache
    def said(suite: str, scene: str) -> str:
        return lab.run([build(suite), scene], "kernel").ok().out

    return said


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("suite", "scene", "way"), list(cases()))
def test_same_as_the_kernel(lab: Lab, build: Builder, oracle: Callable[[str, str], str], suite: str, scene: str, way: str) -> None:
    apart = "asleep" if way == "asleep" else "by the kernel for the most part" if scene in MOSTLY_KERNEL else ""
    ran = lab.run([build(suite), scene], "eager", env=WAYS[way], apart=apart)
    assert (ran.out, ran.err, ran.status) == (oracle(suite, scene), "", 0)
    sent = ran.sent
    if scene not in MOSTLY_KERNEL:
        share = 0 if way == "asleep" else EAGER_SHARE
        assert sent.local > 0, f"{sent}"
        assert sent.local >= share * (sent.local + sent.kernel), f"{sent}"


@pytest.mark.parametrize(("suite", "scene"), [(suite, scene) for suite, scene in scenes() if scene in DEFAULT])
def test_same_with_the_default_options(lab: Lab, build: Builder, oracle: Callable[[str, str], str], suite: str, scene: str) -> None:
    assert lab.run([build(suite), scene], "default").ok().out == oracle(suite, scene)


@pytest.mark.parametrize("scene", ["transfers", "polls", "actions", "descriptors", "forks_by_number"])
def test_system_calls_by_number_switched_off(lab: Lab, build: Builder, oracle: Callable[[str, str], str], scene: str) -> None:
    ran = lab.run([build("raw"), scene], "eager", env={"SHAREDSTACK_ENABLE": "0"}).ok()
    assert (ran.out, ran.sent.local) == (oracle("raw", scene), 0)


def test_python_executes_itself_with_a_lifted_socket(lab: Lab) -> None:
    """os.execv with an inheritable socket; bytes that came before the exec are read after it."""
    server, client = lab.actor("eager"), lab.actor("eager")
    port = server.do("l = socket.create_server(('127.0.0.1', 0)); l.getsockname()[1]")
    client.do(f"s = socket.create_connection(('127.0.0.1', {port}))")
    server.do("c, _ = l.accept()")
    for _ in range(6):
        client.do("s.sendall(b'x' * 1000)")
        server.do("c.recv(1000, socket.MSG_WAITALL) and c.sendall(b'y' * 1000)")
        client.do("len(s.recv(1000, socket.MSG_WAITALL))")
    before = lab.sent()
    server.do("c.sendall(b'unread')")
    assert (lab.sent() - before).local == 6
    after = "import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); print(s.recv(100)); s.sendall(b'after'); print(s.recv(100))"
    assert client.execute(after) == "b'unread'\n"
    assert client.process.stdout is not None
    assert server.do("c.recv(100)") == b"after"
    server.do("c.close()")
    assert client.process.stdout.readline() == "b''\n"
    assert client.process.wait(5) == 0
    server.end()


def test_python_executes_itself_with_sockets_that_its_threads_meet_at_once(lab: Lab) -> None:
    """One of the threads attaches the new image meanwhile; none takes its socket, in whose ring there are bytes, for the kernel's."""
    server, client = lab.actor("eager"), lab.actor("eager")
    port = server.do("l = socket.create_server(('127.0.0.1', 0)); l.getsockname()[1]")
    client.do(f"many = [socket.create_connection(('127.0.0.1', {port})) for _ in range(16)]")
    server.do("ours = [l.accept()[0] for _ in range(16)]")
    for _ in range(4):
        client.do("for s in many: s.sendall(b'1')")
        server.do("for c in ours: c.recv(1); c.sendall(b'2')")
        client.do("for s in many: s.recv(1)")
    before = lab.sent()
    server.do("for c in ours: c.sendall(b'unread')")
    assert (lab.sent() - before).local == 16 * len("unread")
    after = (
        "import socket, sys, threading\n"
        "many = [socket.socket(fileno=int(n)) for n in sys.argv[1:]]; together = threading.Barrier(len(many))\n"
        "def take(s): together.wait(); got.append(s.recv(100, socket.MSG_DONTWAIT))\n"
        "got = []; threads = [threading.Thread(target=take, args=(s,)) for s in many]\n"
        "for t in threads: t.start()\n"
        "for t in threads: t.join()\n"
        "print(got.count(b'unread'))"
    )
    assert client.execute(after, "many") == "16\n"
    assert client.process.wait(5) == 0
    server.end()


def test_python_subprocess_closes_what_its_parent_reads(lab: Lab) -> None:
    """subprocess forks by vfork, and its child closes all descriptors: the parent's lifted socket does not notice."""
    one = lab.actor("eager")
    one.do(
        "import subprocess\n"
        "l = socket.create_server(('127.0.0.1', 0)); a = socket.create_connection(l.getsockname()); b, _ = l.accept()\n"
        "def turns():\n"
        "    for _ in range(20):\n"
        "        for x, y in ((a, b), (b, a)):\n"
        "            x.sendall(b'z' * 500); assert y.recv(500, socket.MSG_WAITALL) == b'z' * 500\n"
        "turns()"
    )
    before = lab.sent()
    one.do("b.sendall(b'before'); subprocess.run(['true'], check=True, close_fds=True); subprocess.run('true', shell=True, check=True)")
    assert one.do("a.recv(100)") == b"before"
    one.do("turns()")
    sent = lab.sent() - before
    assert (sent.local, sent.kernel) == (20 * 2 * 500 + 6, 0)
    one.end()


def test_death_of_the_helper_under_traffic(own_lab: Lab, build: Builder) -> None:
    """kill -9 in the middle of streams, and again of the next helper: no byte is lost, and all is cleaned up after a third one came."""
    argv = [build("streams"), "4", "4", "40000000"]
    with own_lab.start(argv, "eager") as process:
        for _ in range(2):
            for _ in range(100):
                if own_lab.sent().local > 1 << 20 or process.poll() is not None:
                    break
                own_lab._stop.wait(0.01)
            assert process.poll() is None, "it was over too soon"
            own_lab.daemon.end(9)
            own_lab._stop.wait(0.05)
            own_lab.start_helper()
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "ok\n"), err
    own_lab.assert_clean()


def test_no_helper_any_more(own_lab: Lab, build: Builder) -> None:
    """The helper is dead: what is paired goes on, and what starts now attaches by name and is lifted."""
    own_lab.daemon.end(9)
    before = own_lab.sent()
    env = own_lab.environ("eager", SHAREDSTACK_STACK=own_lab.stack, LD_PRELOAD=own_lab.library)
    done = own_lab.direct([build("streams"), "8", "2", "200000"], env)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
    assert (own_lab.sent() - before).local > 0
    own_lab.start_helper()
    own_lab.assert_clean()


def test_eager_goes_by_rings(lab: Lab) -> None:
    eager = lab.tally("eager")
    if eager.runs < 10:
        pytest.skip("allowed: few runs were chosen")
    assert eager.share >= EAGER_SHARE, f"{eager}"


def test_nothing_is_left(lab: Lab) -> None:
    for actor in lab.actors:
        actor.end()
    lab.assert_clean()


def test_every_scene_that_is_named_is_there() -> None:
    assert {*MOSTLY_KERNEL, *BUGS} <= {scene for _, scene in scenes()}
    assert all(Path(PROGRAMS / f"{suite}.c").is_file() for suite in SUITES)
