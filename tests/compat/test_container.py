"""Where little is allowed: an unprivileged user namespace, 64 MiB of /dev/shm or next to none, no helper, a helper that was killed.

A program always runs, and its bytes are right; by rings where there is memory for them.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from compat.fix_lab import EAGER_SHARE, Builder

from sharedstack import paths
from sharedstack.demo.children import program

pytest_plugins = ["compat.fix_paths"]

STACK = "little"
CONNECTIONS, BYTES = 4, 400_000
RUN = [program("sharedstack"), "run", "--stack", STACK, "--"]
INSPECT = [program("sharedstack"), "inspect", "--stack", STACK]
HELPER = f"$({shlex.join([*INSPECT, '--format', 'json'])} | grep -o '\"helper\": [0-9]*' | head -1 | cut -d' ' -f2)"


def inside(script: str, size: str = "64m", **env: str) -> subprocess.CompletedProcess[str]:
    """A shell script in namespaces of its own with only loopback and a small /dev/shm; helpers end with it."""
    setup = f"mount -t tmpfs -o size={size} tmpfs /dev/shm && ip link set lo up || exit 99"
    command = ["unshare", "--user", "--map-root-user", "--mount", "--net", "--ipc", "--pid", "--fork", "--mount-proc", "--kill-child"]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SHAREDSTACK_") and k != "LD_PRELOAD"}
    return subprocess.run(
        [*command, "sh", "-c", f"{setup}\n{script}"],
        env=clean | {"SHAREDSTACK_EAGER": "2"} | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
    )


@pytest.fixture(scope="module", autouse=True)
def namespaces() -> None:
    probe = inside("true")
    if probe.returncode != 0:
        pytest.skip(f"allowed: unprivileged user namespaces are not to be had here: {probe.stderr.strip()}")


@pytest.fixture(scope="module")
def streams(build: Builder) -> str:
    """The command, for a shell: blocking and in turns, so that nearly all can go by rings."""
    return shlex.join([build("streams"), "4", str(CONNECTIONS), str(BYTES)])


def ran(done: subprocess.CompletedProcess[str]) -> str:
    """What it printed, which begins with streams' ok."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("ok\n"), done.stdout + done.stderr
    return done.stdout.removeprefix("ok\n")


def state(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


def test_little_shared_memory(streams: str) -> None:
    script = (
        f"{shlex.join(RUN)} {streams} && sleep 0.3 && {shlex.join([*INSPECT, '--format', 'json'])} && {shlex.join([*INSPECT, '--check'])}"
    )
    after = state(ran(inside(script)))
    counters, memory = after["counters"], after["memory"]
    assert counters["tx_local_bytes"] >= EAGER_SHARE * 2 * CONNECTIONS * BYTES
    assert (memory["units_used"], memory["endpoints_used"], after["stack"]["helper"] is not None) == (0, 0, True)


def test_hardly_any(streams: str) -> None:
    """There is room for the headers only: a stack is made or not, the program runs on the kernel for the most part."""
    done = inside(f"{shlex.join(RUN)} {streams}", size="256k")
    ran(done)
    assert len(done.stderr.splitlines()) <= 2, done.stderr


@pytest.mark.parametrize("left", [0, 24, 200])
def test_filled_after_the_start(streams: str, left: int) -> None:
    """The helper is there, then somebody else takes all but so many KiB: nobody dies of SIGBUS."""
    fill = f"dd if=/dev/zero of=/dev/shm/full bs=4k 2>/dev/null; truncate -s -{left}k /dev/shm/full"
    done = inside(f"{shlex.join(RUN)} true && ({fill}); {shlex.join(RUN)} {streams} && kill -0 {HELPER} && echo helped")
    assert ran(done) == "helped\n"


def test_filled_and_emptied(streams: str) -> None:
    """What could not be lifted for want of memory is, when there is some again."""
    fill = "dd if=/dev/zero of=/dev/shm/full bs=4k 2>/dev/null"
    script = (
        f"{shlex.join(RUN)} true && ({fill}); {shlex.join(RUN)} {streams} >/dev/null && rm /dev/shm/full && {shlex.join(RUN)} {streams}"
    )
    after = state(ran(inside(f"{script} && {shlex.join([*INSPECT, '--format', 'json'])}")))
    assert after["counters"]["tx_local_bytes"] > EAGER_SHARE * 2 * CONNECTIONS * BYTES


def test_no_helper(streams: str) -> None:
    """Preloaded, and there was never one."""
    done = inside(f"LD_PRELOAD={paths.library()} {streams}", SHAREDSTACK_STACK=STACK)
    assert ran(done) == ""
    assert done.stderr == ""


def test_helper_cannot_start(streams: str) -> None:
    """`run` says so in one line, and runs the program."""
    done = inside(f"umount /dev/shm; mount -t tmpfs -o size=4k,ro tmpfs /dev/shm; {shlex.join(RUN)} {streams}")
    ran(done)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "runs on the kernel's path" in done.stderr


def test_helper_cannot_start_and_is_required(streams: str) -> None:
    run = [*RUN[:-1], "--require", "--"]
    done = inside(f"umount /dev/shm; mount -t tmpfs -o size=4k,ro tmpfs /dev/shm; {shlex.join(run)} {streams}")
    assert (done.returncode, done.stdout) == (125, ""), done.stderr


def test_helper_killed(streams: str) -> None:
    """Before the program, which attaches by name; and the next `run` starts another one, which adopts what it finds."""
    preloaded = f"LD_PRELOAD={paths.library()} SHAREDSTACK_STACK={STACK} {streams}"
    script = f"{shlex.join(RUN)} true && kill -9 {HELPER} && {preloaded} >/dev/null && {shlex.join(RUN)} {streams} && sleep 0.3"
    after = state(ran(inside(f"{script} && {shlex.join([*INSPECT, '--format', 'json'])}")))
    assert after["counters"]["tx_local_bytes"] >= 2 * EAGER_SHARE * 2 * CONNECTIONS * BYTES
    assert (after["memory"]["units_used"], after["memory"]["endpoints_used"]) == (0, 0)


def test_python_is_the_one_under_test() -> None:
    """The commands are found beside it, wherever the tests are started."""
    assert Path(program("sharedstack")).parent == Path(sys.executable).parent
