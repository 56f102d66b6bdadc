"""The library follows over exec: whatever its environment, a program has it, and is of the same stack, unless the user says otherwise.

tests/programs/follow.c executes itself in the middle of a conversation, by every way there is and with every kind of environment. Each is
played on the kernel first.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from compat.fix_lab import EAGER_SHARE, Actor, Builder, Lab, Namespace
from unit.fix_helper_daemon import wait_until

from sharedstack import paths
from sharedstack.demo.children import program

pytest_plugins = ["compat.fix_paths"]

PLAYED = 0.35  # of its cases, in one run: conftest.py

# tests/programs/follow.c
TURNS, SIZE, UNREAD = 40, 500, 3000
# the program's own environment decides in these
BY_ENVIRON = ("execv", "execvp", "execl", "execlp", "system", "popen")
BY_ARGUMENT = ("execve", "null", "execvpe", "fexecve", "o_path", "execveat", "execle", "number", "number_at", "posix_spawn", "posix_spawnp")
CHILDREN = ("fork", "vfork", "handler")
WAYS = (*BY_ENVIRON, *BY_ARGUMENT, *CHILDREN)
FOLLOWED = ("kept", "cleared", "replaced", "other", "many")
REFUSED = ("empty", "refused", "disabled")

CLIENT = f"""
place = 0
def stream(n):
    global place
    begin, place = place, place + n
    return bytes(((i * 2654435761 & 0xffffffffffffffff) >> 13) & 255 for i in range(begin, place))
def turns():
    for _ in range({TURNS}):
        s.sendall(stream({SIZE}))
        if s.recv(1) != b'.': raise EOFError('no answer')
"""


@dataclass(frozen=True)
class Heir:
    """What the program that was executed says of itself, and the bytes that the client sent to it by ring, and in all."""

    preloaded: bool
    other: bool
    variables: int
    a: str
    preload: str
    stack: str
    local: int
    sent: int


@pytest.fixture(scope="module")
def clients(lab: Lab) -> dict[str, Actor]:
    """One in each mode: a conversation is with a server of its own."""
    made = {mode: lab.actor(mode) for mode in ("kernel", "default", "eager")}
    for client in made.values():
        client.do(CLIENT)
    return made


class Play:
    """A conversation. `flags`: how the executing program is built; `heir`: another program than that."""

    def __init__(self, lab: Lab, build: Builder, clients: dict[str, Actor], *flags: str) -> None:
        self.lab, self.build, self.clients, self.flags = lab, build, clients, flags

    def __call__(self, mode: str, way: str, environment: str, *heir: str, **env: str) -> Heir:
        argv = [self.build("follow", *self.flags), way, environment, self.build("null_preload", "-shared", "-fPIC"), *heir]
        with self.lab.start(argv, mode, stdin=subprocess.PIPE, env=env) as server:
            try:
                return self._converse(mode, server)
            except (AssertionError, EOFError) as error:
                server.kill()
                raise AssertionError(f"{way}, {environment}: {error} {server.communicate()}") from None

    def _converse(self, mode: str, server: subprocess.Popen[str]) -> Heir:
        assert server.stdout and server.stdin
        client, ours = self.clients[mode], mode != "kernel"
        client.do(f"s = socket.create_connection(('127.0.0.1', {int(server.stdout.readline())})); s.settimeout(10); place = 0")
        client.do(f"turns(); s.sendall(stream({UNREAD}))", 20)
        before = self.lab.sent().local if ours else 0
        server.stdin.write("x")
        server.stdin.flush()
        client.do("turns()", 20)
        said = re.fullmatch(r"(\w+), other (\d), V (\d+), A (\w+), LD_PRELOAD (.*), SHAREDSTACK_STACK (.*)\n", server.stdout.readline())
        assert said
        out, err = server.communicate(timeout=10)
        assert (server.returncode, out, err) == (0, "", "")
        local = self.lab.sent().local - before if ours else 0
        return Heir(said[1] == "preloaded", said[2] == "1", int(said[3]), said[4], said[5], said[6], local, TURNS * (SIZE + 1))


@pytest.fixture
def play(lab: Lab, build: Builder, clients: dict[str, Actor]) -> Play:
    return Play(lab, build, clients)


def check(lab: Lab, heir: Heir, environment: str, mode: str) -> None:
    """It is what its environment says that it should be."""
    assert heir.other == (environment == "other")
    assert heir.variables == (5000 if environment == "many" else 0)
    assert heir.a == ("1" if environment == "replaced" else "none")
    if mode == "kernel":
        assert not heir.preloaded
        assert "sharedstack" not in heir.preload
        return
    assert heir.preloaded == (environment in FOLLOWED)
    if environment in FOLLOWED:
        assert heir.stack == lab.stack
        assert "libsharedstack" in heir.preload.split(":")[0]
    if environment in FOLLOWED and mode == "eager":
        assert heir.local >= EAGER_SHARE * heir.sent


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", ["kernel", "eager"])
@pytest.mark.parametrize("way", WAYS)
def test_every_way(lab: Lab, play: Play, way: str, mode: str) -> None:
    for environment in (*FOLLOWED, *REFUSED):
        check(lab, play(mode, way, environment), environment, mode)


@pytest.mark.parametrize("environment", ["kept", "replaced", "empty"])
def test_default_options(lab: Lab, play: Play, environment: str) -> None:
    check(lab, play("default", "execve", environment), environment, "default")


@pytest.mark.parametrize("mode", ["kernel", "eager"])
def test_what_is_mapped_for_a_vfork_child_goes_away(lab: Lab, play: Play, mode: str) -> None:
    check(lab, play(mode, "often", "many"), "many", mode)


def test_settings_go_along_and_do_not_win(play: Play) -> None:
    """An environment that names another stack keeps that; a program of another stack gets the unread bytes by the kernel."""
    for way in ("execve", "vfork", "system"):
        heir = play("eager", way, "another stack")
        assert heir.preloaded
        assert heir.stack == "nowhere"
        assert heir.local <= SIZE  # the first turn may be sent before it executes


def test_an_environment_that_has_it_is_passed_as_it_is(lab: Lab, play: Play) -> None:
    """LD_PRELOAD and the stack by hand, and without SHAREDSTACK_EAGER: nothing is added."""
    heir = play("eager", "execve", "wanted")
    assert heir.preloaded
    assert heir.stack == lab.stack


def test_the_option(play: Play) -> None:
    for way in ("execve", "system"):
        assert not play("eager", way, "replaced", SHAREDSTACK_FOLLOW="0").preloaded
    assert play("eager", "execve", "kept", SHAREDSTACK_FOLLOW="0").preloaded


@pytest.mark.parametrize("environment", ["kept", "cleared", "many"])
@pytest.mark.parametrize("mode", ["kernel", "eager"])
@pytest.mark.parametrize("kind", ["static", "setuid"])
def test_what_cannot_be_preloaded(play: Play, build: Builder, tmp_path: Path, kind: str, mode: str, environment: str) -> None:
    """It gets the bytes, by the kernel, and the environment as it came."""
    if kind == "setuid" and os.getuid() != 0:
        pytest.skip("allowed: only root can make a program of another user")
    heir = build("follow", "-static", "-Wno-error") if kind == "static" else str(tmp_path / "follow")
    if kind == "setuid":
        for folder in (tmp_path, *tmp_path.parents[:3]):
            folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
        shutil.copyfile(build("follow"), heir)
        os.chown(heir, 65534, 65534)
        Path(heir).chmod(0o4755)
    for way in ("execve", "vfork", "posix_spawn"):
        said = play(mode, way, environment, heir)
        assert not said.preloaded
        assert environment == "kept" or (said.preload, said.stack) == ("none", "none")


def test_a_library_that_is_gone(lab: Lab, build: Builder, tmp_path: Path) -> None:
    """Nothing is added, and so nobody complains."""
    library = tmp_path / "libsharedstack.so"
    show = f"import os, sys; sys.argv[1:] and os.unlink({str(library)!r}); os.execve('/bin/sh', ['sh', '-c', 'echo $LD_PRELOAD.'], {{}})"
    for gone, said in (([], f"{library}.\n"), (["gone"], ".\n")):
        shutil.copyfile(paths.library(), library)
        done = lab.direct([sys.executable, "-c", show, *gone], lab.environ("eager", LD_PRELOAD=str(library)))
        assert (done.stdout, done.stderr) == (said, "")


SHOW = "tr '\\0' '\\n' </proc/self/environ; grep -c libsharedstack /proc/self/maps"


def run(lab: Lab, *argv: str, **env: str) -> str:
    done = subprocess.run(lab.command(argv, "eager"), env=lab.environ("eager", **env), capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
    return done.stdout


def test_env_i(lab: Lab) -> None:
    lines = run(lab, "env", "-i", "/bin/sh", "-c", SHOW, SHAREDSTACK_SPIN_US="7").splitlines()
    assert int(lines[-1]) > 0
    assert {f"SHAREDSTACK_STACK={lab.stack}", "SHAREDSTACK_SPIN_US=7", "SHAREDSTACK_EAGER=2"} <= set(lines)
    assert run(lab, "env", "-i", "LD_PRELOAD=", "/bin/sh", "-c", SHOW).splitlines() == ["LD_PRELOAD=", "0"]
    assert run(lab, "env", "-i", "SHAREDSTACK_FOLLOW=0", "/bin/sh", "-c", SHOW).splitlines() == ["SHAREDSTACK_FOLLOW=0", "0"]


def test_run_under_run(lab: Lab, namespace: Namespace) -> None:
    """The inner one's library comes once, and the helper that it starts has none."""
    stack = f"u{os.getpid()}"[:16]
    inner = [program("sharedstack"), "run", "--stack", stack, "--", "sh", "-c", SHOW]
    lines = run(lab, *inner).splitlines()
    try:
        preload = next(line for line in lines if line.startswith("LD_PRELOAD="))
        assert preload.count("libsharedstack") == 1
        assert f"SHAREDSTACK_STACK={stack}" in lines
        helper = _helper(stack)
        assert "libsharedstack" not in Path(f"/proc/{helper}/maps").read_text()
    finally:
        os.kill(_helper(stack), 15)
        wait_until(lambda: not list(Path("/dev/shm").glob(f"*.{stack}.stack")))


def _helper(stack: str) -> int:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"sharedstack_helper" in words and stack.encode() in words:
            return int(folder.name)
    raise AssertionError("no helper")


def test_nothing_is_left(lab: Lab) -> None:
    for actor in lab.actors:
        actor.end()
    lab.assert_clean()
