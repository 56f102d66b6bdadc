"""Stored sockets: by the Python interface, the command and sd_notify; within limits; beyond the death of the helper, or of the keeper."""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.fix_helper_daemon import Daemon, wait_until

from sharedstack import fdstore
from sharedstack.declare.names import notify_socket
from sharedstack_helper.store.kept import MOST, MOST_OF_A_NAME

pytest_plugins = ["unit.fix_helper"]

COMMAND = [str(Path(sys.executable).with_name("sharedstack")), "fdstore"]
# What systemd's activation gives to a program, told by one: names, and what each descriptor is bound to.
ACTIVATED = """
import os, socket, sys
assert os.environ["LISTEN_PID"] == str(os.getpid()), os.environ
names = os.environ["LISTEN_FDNAMES"].split(":")
assert len(names) == int(os.environ["LISTEN_FDS"])
print(*(f"{name}={socket.socket(fileno=3 + i).getsockname()[1]}" for i, name in enumerate(names)), *sys.argv[1:])
"""


def keepers(stack: str) -> list[int]:
    """Keepers of that stack: processes that have its keeper's socket."""
    inodes = [
        line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines() if line.endswith(f"/{os.getuid()}/{stack}/keeper")
    ]
    found = set()
    for path in Path("/proc").glob("[0-9]*/fd/*"):
        pid = path.parts[2]
        try:
            held = os.readlink(path) in {f"socket:[{inode}]" for inode in inodes}
            if held and b"store.keeper" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(int(pid))
        except OSError:
            continue
    return sorted(found)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    made = Daemon().start()
    yield made
    if made.process and made.process.poll() is None:
        with fdstore.connected(made.stack) as client:
            for name in {one.name for one in client.list()}:
                client.remove(name)
    made.clean()
    for pid in keepers(made.stack):
        os.kill(pid, signal.SIGKILL)


def run(daemon: Daemon, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SHAREDSTACK_STACK": daemon.stack}
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=30, env=environment, **options)  # type: ignore[call-overload,no-any-return]


def works(listener: socket.socket) -> bool:
    """Does it take connections?"""
    with socket.create_connection(listener.getsockname()) as client:
        server = listener.accept()[0]
        server.sendall(b"hello")
        server.close()
        return client.recv(5) == b"hello"


def test_there_and_back(daemon: Daemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        address = listener.getsockname()
        datagrams.bind(("127.0.0.1", 0))
        assert fdstore.put("web", listener, stack=daemon.stack) == 1
        assert fdstore.put("web", datagrams, stack=daemon.stack) == 2
    with pytest.raises(OSError, match="in use"):
        socket.create_server(address)
    told = fdstore.stored(stack=daemon.stack)
    assert [one.what for one in told] == [f"tcp 127.0.0.1:{address[1]} listening", told[1].what]
    assert told[1].what.startswith("udp 127.0.0.1:") and told[0].pid == os.getpid() and told[0].left == 0
    kept = fdstore.get("web", keep=True, stack=daemon.stack)
    assert [s.type for s in kept] == [socket.SOCK_STREAM, socket.SOCK_DGRAM]
    for s in kept:
        s.close()
    first, second = fdstore.get("web", stack=daemon.stack)
    with first, second:
        assert first.getsockname() == address and works(first)
    assert fdstore.get("web", stack=daemon.stack) == []
    assert fdstore.stored(stack=daemon.stack) == []  # answered by a helper that has closed what it gave away
    socket.create_server(address).close()


def test_an_established_connection(daemon: Daemon) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(b"before")
        fdstore.put("talk", theirs, stack=daemon.stack)
        theirs.close()
        ours.sendall(b" and after")
        (again,) = fdstore.get("talk", stack=daemon.stack)
        with again:
            assert again.recv(100) == b"before and after"
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        server = listener.accept()[0]
        fdstore.put("talk", server, seconds=60, stack=daemon.stack)
        server.close()
        (told,) = fdstore.stored(stack=daemon.stack)
        assert told.what == "tcp {}:{} - {}:{}".format(*client.getpeername(), *client.getsockname())
        assert 55 < told.left <= 60


def test_time_is_over(daemon: Daemon) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fdstore.put("short", theirs, seconds=1, stack=daemon.stack)
        theirs.close()
        ours.settimeout(10)
        began = time.monotonic()
        assert ours.recv(1) == b""  # helper and keeper have closed it
        assert 0.5 < time.monotonic() - began < 5
    assert fdstore.stored(stack=daemon.stack) == []
    wait_until(lambda: not keepers(daemon.stack))


@pytest.mark.parametrize("name", ["", "a:b", "x" * 256, "new\nline", "ü"])
def test_names_that_none_can_have(daemon: Daemon, name: str) -> None:
    with socket.socket() as some, pytest.raises(fdstore.FdStoreError, match="1 to 255 printable characters"):
        fdstore.put(name, some, stack=daemon.stack)


def test_limits(daemon: Daemon) -> None:
    with socket.socket() as some, fdstore.connected(daemon.stack) as client:
        for i in range(MOST):
            assert client.put(f"name {i // MOST_OF_A_NAME}", some.fileno()) == i % MOST_OF_A_NAME + 1
        for name in ("name 0", "another"):
            with pytest.raises(fdstore.FdStoreError, match=f"{MOST} descriptors can be stored, {MOST_OF_A_NAME} of one name"):
                fdstore.put(name, some, stack=daemon.stack)
    for i in range(MOST // MOST_OF_A_NAME):
        assert fdstore.remove(f"name {i}", stack=daemon.stack) == MOST_OF_A_NAME
    with pytest.raises(fdstore.FdStoreError, match="nothing is stored under 'name 0'"), fdstore.connected(daemon.stack) as client:
        client.take("name 0")


def test_a_stopped_keeper(daemon: Daemon) -> None:
    """The helper does not wait for it, drop by drop: it answers in time."""
    with socket.socket() as some, fdstore.connected(daemon.stack) as client:
        for _ in range(MOST_OF_A_NAME):
            client.put("many", some.fileno())
        (keeper,) = keepers(daemon.stack)
        os.kill(keeper, signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert client.remove("many") == MOST_OF_A_NAME
            assert time.monotonic() - began < 3
        finally:
            os.kill(keeper, signal.SIGCONT)
        wait_until(lambda: keepers(daemon.stack) == [])


def test_without_a_helper() -> None:
    with pytest.raises(fdstore.FdStoreError, match="stack nobody has no helper"):
        fdstore.stored(stack="nobody")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_helper_dies(daemon: Daemon, how: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        fdstore.put("web", listener, seconds=100, stack=daemon.stack)
        fdstore.put("mail", listener, stack=daemon.stack)
        before = fdstore.stored(stack=daemon.stack)
    (keeper,) = keepers(daemon.stack)
    daemon.end(how)
    with socket.create_connection(address):
        pass  # it listens still
    daemon.start()
    after = fdstore.stored(stack=daemon.stack)
    assert [(one.name, one.what, one.pid) for one in after] == [(one.name, one.what, one.pid) for one in before]
    assert 0 < after[0].left <= before[0].left
    assert keepers(daemon.stack) == [keeper]
    (again,) = fdstore.get("web", stack=daemon.stack)
    with again:
        again.accept()[0].close()
        assert works(again)
    fdstore.remove("mail", stack=daemon.stack)
    wait_until(lambda: not keepers(daemon.stack))


def test_the_keeper_dies(daemon: Daemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fdstore.put("web", listener, stack=daemon.stack)
    (first,) = keepers(daemon.stack)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: keepers(daemon.stack) not in ([], [first]))
    daemon.end(signal.SIGKILL)
    daemon.start()
    (again,) = fdstore.get("web", stack=daemon.stack)
    with again:
        assert works(again)


def test_a_program_made_for_activation(daemon: Daemon) -> None:
    """By the command alone; the program gets both listeners at 3 and 4, and they are stored no more."""
    for name in ("web", "mail"):
        assert run(daemon, "put", name, "--listen", "127.0.0.1:0").returncode == 0
    listed = json.loads(run(daemon, "list", "--format", "json").stdout)
    ports = {one["name"]: int(one["what"].split()[1].rpartition(":")[2]) for one in listed}
    done = run(daemon, "get", "--keep", "mail", "--", sys.executable, "-c", ACTIVATED)
    assert done.stdout.split() == [f"mail={ports['mail']}"], done.stderr
    done = run(daemon, "get", "web", "mail", "--", sys.executable, "-c", ACTIVATED, "--", "-x")
    assert done.stdout.split() == [f"web={ports['web']}", f"mail={ports['mail']}", "--", "-x"], done.stderr
    assert run(daemon, "list").stdout == ""


def test_a_program_that_is_not_there(daemon: Daemon) -> None:
    run(daemon, "put", "web", "--listen", "[::1]:0")
    done = run(daemon, "get", "web", "--", "/no/such/program")
    assert (done.returncode, done.stderr) == (1, "sharedstack: cannot run /no/such/program: No such file or directory\n")
    assert run(daemon, "list").stdout.startswith("web: tcp [::1]:")


def test_of_another_process(daemon: Daemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = run(daemon, "put", "web", "--pid", str(os.getpid()), "--fd", str(listener.fileno()), "--seconds", "50")
        assert done.returncode == 0, done.stderr
        assert run(daemon, "put", "web", "--pid", str(os.getpid()), "--fd", "9999").stderr.startswith("sharedstack: cannot take descriptor")
        assert run(daemon, "put", "web", "--fd", str(listener.fileno()), pass_fds=[listener.fileno()]).returncode == 0
        port = listener.getsockname()[1]
    lines = run(daemon, "list").stdout.splitlines()
    assert lines[0].startswith(f"web: tcp 127.0.0.1:{port} listening, stored by process ") and " s more" in lines[0]
    assert len(lines) == 2 and " more" not in lines[1]


def test_transfer(daemon: Daemon) -> None:
    other = Daemon().start()
    try:
        run(daemon, "put", "web", "--listen", "127.0.0.1:0")
        assert run(daemon, "transfer", "web", "--to", "old").returncode == 0
        assert [one.name for one in fdstore.stored(stack=daemon.stack)] == ["old"]
        assert run(daemon, "transfer", "old", "--to-stack", other.stack).returncode == 0
        assert fdstore.stored(stack=daemon.stack) == []
        (there,) = fdstore.get("old", stack=other.stack)
        with there:
            assert works(there)
        assert run(daemon, "transfer", "old", "--to", "new").stderr == "sharedstack: nothing is stored under 'old'\n"
    finally:
        other.clean()


def test_removing(daemon: Daemon) -> None:
    run(daemon, "put", "web", "--listen", "127.0.0.1:0")
    done = run(daemon, "rm", "web", "mail")
    assert (done.returncode, done.stderr) == (1, "sharedstack: nothing is stored under 'mail'\n")
    assert run(daemon, "put", "web").returncode == 2
    assert run(daemon, "get", "web").returncode == 2
    wait_until(lambda: not keepers(daemon.stack))


def notify(daemon: Daemon, text: str, *fds: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.connect(notify_socket(os.getuid(), daemon.stack))
        s.sendmsg([text.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])


def test_sd_notify(daemon: Daemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as a, socket.create_server(("127.0.0.1", 0)) as b:
        notify(daemon, "FDSTORE=1\nFDNAME=web", a.fileno(), b.fileno())
        notify(daemon, "READY=1\nSTATUS=all is well")
        notify(daemon, "FDSTORE=1", a.fileno())
        notify(daemon, "FDSTORE=1\nFDNAME=a:b", a.fileno())
        wait_until(lambda: len(fdstore.stored(stack=daemon.stack)) == 3)
        assert [one.name for one in fdstore.stored(stack=daemon.stack)] == ["web", "web", "stored"]
        notify(daemon, "FDSTOREREMOVE=1\nFDNAME=web")
        wait_until(lambda: [one.name for one in fdstore.stored(stack=daemon.stack)] == ["stored"])
        reader, writer = os.pipe()
        notify(daemon, "BARRIER=1", writer)
        os.close(writer)
        assert os.read(reader, 1) == b""  # it was closed there
        os.close(reader)
