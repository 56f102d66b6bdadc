"""`sharedstack-helper --takeover`: one helper in the place of another, and never two; a helper that is killed while it starts."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from compat.conftest import seed_of
from compat.fix_lab import Lab
from compat.fix_load import end_load, under_load
from compat.test_moving import moved
from unit.fix_helper_daemon import COMMAND, Client, Daemon, Participant, wait_until

from sharedstack import fdstore
from sharedstack.declare import layout, names
from sharedstack.declare.layout import CONSTANTS

pytest_plugins = ["unit.fix_helper", "compat.fix_paths"]

WHOLE = bool(os.environ.get("KILL_ALL"))
POINTS = str(Path(__file__).with_name("fix_helper_points.py"))
# A helper of another release: its layout is another one. (The compiled library's is not: programs cannot attach to its segments.)
OTHER = [
    "-c",
    "from sharedstack.declare import layout; layout.HASH ^= 1; from sharedstack_helper.main import main; raise SystemExit(main())",
]


def take_over(daemon: Daemon, *options: str, status: int = 0) -> str:
    """Another helper in its place; what the old one said at its end."""
    last = daemon.process
    assert last
    daemon.start("--takeover", *options)
    out, err = last.communicate(timeout=10)
    assert (last.returncode, err) == (status, "")
    return str(out)


def test_another_one_takes_over(daemon: Daemon, participants: Callable[..., Participant]) -> None:
    """The same segments, and it watches who was there before."""
    inode, before = daemon.path("stack").stat().st_ino, participants()
    header = daemon.header()
    said = take_over(daemon)
    assert said == f"sharedstack-helper: replaced by pid {daemon.pid}\n"
    assert daemon.path("stack").stat().st_ino == inode
    assert (header["state"], header["pair_ok"]) == (CONSTANTS["STACK_READY"], 1)
    assert not before.gone() and daemon.ask("status")["participants"] == 1
    before.kill()
    wait_until(before.gone)
    assert daemon.end() == (0, "")
    assert not daemon.path("stack").exists()


def test_without_a_helper_it_starts(stopped: Daemon) -> None:
    stopped.start("--takeover")
    assert stopped.ask("ping")["pid"] == stopped.pid


def test_clients_that_wait_are_served_by_the_next_one(daemon: Daemon) -> None:
    with daemon.client() as silent, daemon.client() as other:
        take_over(daemon)
        assert [client.ask("ping")["pid"] for client in (silent, other)] == [daemon.pid] * 2
    with daemon.client() as later:
        pid = int.from_bytes(later.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)
        assert pid == daemon.pid


def test_stored_sockets_go_on(daemon: Daemon) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    fdstore.put("web", listener, stack=daemon.stack)
    for _ in range(2):
        take_over(daemon)
    (there,) = fdstore.get("web", stack=daemon.stack)
    assert there.getsockname() == listener.getsockname()


def test_programs_do_not_notice(own_lab: Lab) -> None:
    """Streams and requests go on by their rings, in the same slots."""
    server, client = under_load(own_lab, "poll")
    wait_until(lambda: moved(own_lab, server, client), 20)
    slots = {p.own_pid: p.slot for p in own_lab.state().participants if not p.helper}
    closed = own_lab.state().counters["shuts"]
    for _ in range(4):
        last = own_lab.daemon.process
        assert last
        local = own_lab.sent().local
        own_lab.daemon.start("--takeover", prefix=tuple(own_lab.namespace.prefix), stdin=subprocess.DEVNULL, cwd="/")
        assert last.wait(10) == 0
        wait_until(lambda local=local: own_lab.sent().local > local + 1_000_000)
    assert {p.own_pid: p.slot for p in own_lab.state().participants if not p.helper} == slots
    print(f"rings shut in 4 takeovers: {own_lab.state().counters['shuts'] - closed}")
    end_load(server, client)
    for actor in (server, client):
        actor.end()
    own_lab.settle()
    own_lab.assert_clean()


def test_another_layout(own_lab: Lab) -> None:
    """Everything is lowered, and goes on by the kernel; when a helper of the programs' own layout is back they are lifted again."""
    server, client = under_load(own_lab, "poll")
    wait_until(lambda: moved(own_lab, server, client), 20)
    first = own_lab.daemon.process
    assert first
    command = [*own_lab.namespace.prefix, sys.executable, *OTHER, "--stack", own_lab.stack, "--takeover"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and "ready" in other.stdout.readline()
        assert first.wait(10) == 0
        assert own_lab.daemon.header()["layout_hash"] == layout.HASH ^ 1
        asked = client.do("totals['asked'], totals['taken']")
        wait_until(lambda: all(now > was + 20 for now, was in zip(client.do("totals['asked'], totals['taken']"), asked, strict=True)))
        own_lab.daemon.start("--takeover", prefix=tuple(own_lab.namespace.prefix), stdin=subprocess.DEVNULL, cwd="/")
        assert other.wait(10) == 0
    wait_until(lambda: moved(own_lab, server, client), 20)
    end_load(server, client)


def test_one_that_is_stopped(daemon: Daemon) -> None:
    """It is said which, and what to do; it goes on when it is let."""
    os.kill(daemon.pid, signal.SIGSTOP)
    began = time.monotonic()
    failed = subprocess.run([*COMMAND, "--stack", daemon.stack, "--takeover"], capture_output=True, text=True, timeout=20)
    assert failed.returncode == 1
    assert f"pid {daemon.pid}, is stopped" in failed.stderr and f"kill -KILL {daemon.pid}" in failed.stderr
    assert time.monotonic() - began < 10
    os.kill(daemon.pid, signal.SIGCONT)
    assert daemon.ask("ping")["pid"] == daemon.pid
    os.kill(daemon.pid, signal.SIGSTOP)  # and the other way that is said
    inode = daemon.path("stack").stat().st_ino
    daemon.end(signal.SIGKILL)
    daemon.start()
    assert daemon.path("stack").stat().st_ino == inode


@pytest.mark.parametrize("how", ["it dies", "it is silent"])
def test_a_successor_that_fails(daemon: Daemon, how: str) -> None:
    """The old one goes on, and the name stays its own."""
    with daemon.client() as other:
        other.send("takeover", hash=layout.HASH)
        reply, fds = other.reply_and_fds()
        assert (reply["t"], reply["adopt"], reply["clients"], len(fds)) == ("handover", True, 0, 3)
        for fd in fds:
            os.close(fd)
        if how == "it is silent":
            assert other.reply()["t"] == "error"
    assert daemon.ask("ping")["pid"] == daemon.pid
    take_over(daemon)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
def test_not_by_another_user(stopped: Daemon) -> None:
    """Not even by root, who may ask all else: it would be a helper of its own stack."""
    may = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    stopped.uid = 65534
    stopped.start(prefix=("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *may, "--"), cwd="/")
    with Client(stopped.stack, 65534) as client:
        reply = client.ask("takeover", hash=layout.HASH)
        assert (reply["t"], reply["code"]) == ("error", "uid")


def serving(stack: str) -> list[int]:
    """Processes that have the control socket of that stack."""
    address = f"@sharedstack/{os.getuid()}/{stack}"
    inodes = {line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines() if line.endswith(address)}
    found = set()
    for path in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(path).removeprefix("socket:[").removesuffix("]") in inodes:
                found.add(int(path.parts[2]))
        except OSError:
            continue
    return sorted(found)


def test_never_two(stopped: Daemon) -> None:
    """Twenty at once, some of which take over: when all is calm one of them serves, and all others have ended."""
    command = [*COMMAND, "--stack", stopped.stack]
    for round_ in range(4 if WHOLE else 1):
        started = [
            subprocess.Popen(
                [*command, *(["--takeover"] if i % 3 == round_ % 3 else [])], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for i in range(20)
        ]
        try:
            wait_until(lambda started=started: sum(one.poll() is None for one in started) == 1, 60)
            time.sleep(0.2)
            (left,) = [one for one in started if one.poll() is None] or pytest.fail(str([one.communicate() for one in started]))
            assert serving(stopped.stack) == [left.pid]
            assert stopped.ask("ping")["pid"] == left.pid
            said = {one.pid: one.communicate()[0] for one in started if one is not left}
            assert [one.returncode for one in started if one is not left] == [0] * 19
            ready = {pid for pid, lines in said.items() if "helper: ready" in lines}
            assert all("replaced by" in said[pid] for pid in ready)
            assert all("already running" in said[pid] for pid in set(said) - ready)
            print(f"{len(ready)} of 19 had served before")
        finally:
            for one in started:
                one.terminate()
                one.communicate(timeout=10)


def points(daemon: Daemon, *options: str) -> int:
    """How many there are in a start that adopts."""
    command = [sys.executable, POINTS, "0", "--stack", daemon.stack, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as counting:
        assert counting.stdout and "ready" in counting.stdout.readline()
        found = int(counting.stdout.readline())
        counting.kill()
    return found


def test_killed_while_it_starts(stopped: Daemon, request: pytest.FixtureRequest) -> None:
    """At many points, over and over, first with nothing there and then with segments to adopt: the next one starts, and only one."""
    dice = random.Random(seed_of(request.config))
    most = points(stopped)
    assert most > 200
    every = 20 if WHOLE else most // 6
    killed = list(range(1 + dice.randrange(every), most, every))
    listener = socket.create_server(("127.0.0.1", 0))
    for i, point in enumerate(killed):
        if i % 2 == 0:  # else it adopts, or replaces, what the one before had come to
            stopped.start()
            if i == 0:
                fdstore.put("kept", listener, stack=stopped.stack)
            stopped.end(signal.SIGTERM if i % 4 == 0 else signal.SIGKILL)
        command = [sys.executable, POINTS, str(point), "--stack", stopped.stack]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert done.returncode == -signal.SIGKILL, (point, done)
        assert serving(stopped.stack) == []
    stopped.start()
    assert serving(stopped.stack) == [stopped.pid]
    assert stopped.attach()[0]["t"] == "lend"
    assert len(fdstore.get("kept", stack=stopped.stack)) == 1
    status, said = stopped.end()
    assert (status, said.count("\n")) in ((0, 0), (0, 1))  # that it made new segments, perhaps
    assert not list(Path("/dev/shm").glob(f"*.{stopped.stack}.*"))
    print(f"killed at {len(killed)} of {most} points")


def test_killed_while_it_takes_over(daemon: Daemon, request: pytest.FixtureRequest) -> None:
    """The one whose place is taken goes on, or has ended: then nobody serves, and the next one starts."""
    dice = random.Random(seed_of(request.config))
    inode, most = daemon.path("stack").stat().st_ino, points(daemon, "--takeover")
    daemon.start()
    every = 20 if WHOLE else most // 6
    went_on = 0
    for point in range(1 + dice.randrange(every), most, every):
        command = [sys.executable, POINTS, str(point), "--stack", daemon.stack, "--takeover"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert done.returncode == -signal.SIGKILL, (point, done)
        time.sleep(0.1)
        found = serving(daemon.stack)
        assert found in ([daemon.pid], [])
        if found:
            assert daemon.ask("ping")["pid"] == daemon.pid
            went_on += 1
        else:
            assert daemon.end(0) == (0, "")
            daemon.start()
    assert daemon.path("stack").stat().st_ino == inode
    print(f"of {most} points, {went_on} left the old one serving")


def test_names_of_the_sockets_are_never_free(daemon: Daemon) -> None:
    """Whoever tries to bind the control socket meanwhile finds it taken."""
    address = names.control_socket(os.getuid(), daemon.stack)
    source = (
        "import socket, sys\nwhile True:\n s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        " try: s.bind(bytes.fromhex(sys.argv[1])); print('free', flush=True); break\n except OSError: s.close()"
    )
    with subprocess.Popen([sys.executable, "-c", source, address.hex()], stdout=subprocess.PIPE, text=True) as trying:
        try:
            for _ in range(3):
                take_over(daemon)
        finally:
            trying.kill()
        assert trying.stdout and trying.stdout.read() == ""
