"""A 32-bit program and a 64-bit one on one stack: the same layout, the same bytes, by rings."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from compat.fix_lab import EAGER_SHARE, PROGRAMS, Builder, Lab
from compat.test_semantics import MOSTLY_KERNEL

from sharedstack import paths
from sharedstack.declare.intercepts import INTERCEPTS

pytest_plugins = ["compat.fix_paths"]

ROOT = Path(__file__).resolve().parents[2]
CONNECTIONS, BYTES = 3, 300_000


@pytest.fixture(scope="module")
def library32() -> str:
    """The library for 32 bits, by its own path; test_architectures has the one with $LIB."""
    probe = subprocess.run(["gcc", "-m32", "-x", "c", "-o", os.devnull, "-"], input="int main(void) { return 0; }", text=True)
    if probe.returncode != 0:
        pytest.skip("gcc -m32 does not work here (gcc-multilib)")
    word = paths.for_all_architectures(str(paths.library()))
    if "$LIB" not in word and not paths.expansion(paths.LOADERS[0]):
        pytest.skip("allowed: this loader does not say what $LIB is (glibc before 2.33), so that no library is built for 32 bits")
    assert "$LIB" in word, "there is no library for 32-bit programs: run `make build`"
    return word.replace("$LIB", paths.expansion(paths.LOADERS[1]))


@pytest.mark.timeout(90)
@pytest.mark.parametrize("server_bits", [64, 32])
@pytest.mark.parametrize("seed", [4, 8, 11])
def test_both_sizes_on_one_stack(lab: Lab, build: Builder, library32: str, seed: int, server_bits: int) -> None:
    programs = {64: build("peer"), 32: build("peer", "-m32")}
    environments = {
        bits: lab.environ("eager", LD_PRELOAD=path, SHAREDSTACK_STACK=lab.stack) for bits, path in ((64, lab.library), (32, library32))
    }
    sizes = [str(seed), str(CONNECTIONS), str(BYTES)]
    before = lab.sent()
    server = subprocess.Popen(
        [*lab.namespace.prefix, "env", *settings(environments[server_bits]), programs[server_bits], "server", *sizes],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        bits = 96 - server_bits
        client = [*lab.namespace.prefix, "env", *settings(environments[bits]), programs[bits], "client", *sizes, port]
        done = subprocess.run(client, capture_output=True, text=True, timeout=30)
        out, err = server.communicate(timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")
    assert (server.returncode, out, err) == (0, "ok\n", "")
    lab.settle()
    if seed % 4 == 0:  # in turns; else both send as fast as they can, and may have sent all before the other one reads
        assert (lab.sent() - before).local >= EAGER_SHARE * 2 * CONNECTIONS * BYTES


def settings(environment: dict[str, str]) -> list[str]:
    """For env(1): a 64-bit nsenter cannot be preloaded with a 32-bit library, and would say so."""
    return [f"{name}={value}" for name, value in environment.items() if name == "LD_PRELOAD" or name.startswith("SHAREDSTACK_")]


def test_slots_say_how_many_bits(lab: Lab, build: Builder, library32: str) -> None:
    env = settings(lab.environ("eager", LD_PRELOAD=library32, SHAREDSTACK_STACK=lab.stack))
    command = [*lab.namespace.prefix, "env", *env, build("peer", "-m32"), "server", "4", "2", "1000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        actor = lab.actor("eager")
        actor.do(f"s = socket.create_connection(('127.0.0.1', {port})); t = socket.create_connection(('127.0.0.1', {port}))")
        actor.do("s.setblocking(False)\ntry: s.recv(1)\nexcept BlockingIOError: pass")
        for _ in range(200):
            if any(p.own_pid == server.pid for p in lab.state().participants):
                break
            actor.do("time.sleep(0.01)")
        assert {p.own_pid: p.bits for p in lab.state().participants}[server.pid] == 32
        server.kill()
    actor.end()


TIME64 = ("-m32", "-D_TIME_BITS=64", "-D_FILE_OFFSET_BITS=64")


def test_all_twins_are_called(build: Builder, library32: str) -> None:
    twins = subprocess.run(["nm", "-D", "--undefined-only", build("time64", *TIME64)], capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"__\w+64\b", twins)) == {i.name for i in INTERCEPTS if i.twin} - {"__prctl_time64"}


@pytest.mark.parametrize("bits", [32, 64])
def test_64_bit_time(lab: Lab, build: Builder, library32: str, bits: int) -> None:
    """The bytes go by ring, and time-outs are what they should be, the longest too."""
    command, library = (build("time64", *TIME64), library32) if bits == 32 else (build("time64"), lab.library)
    assert lab.run([command], "kernel").ok().out == "ok\n"
    for mode in ("default", "eager"):
        before = lab.sent()
        env = settings(lab.environ(mode, LD_PRELOAD=library, SHAREDSTACK_STACK=lab.stack))
        done = subprocess.run([*lab.namespace.prefix, "env", *env, command], capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")
        lab.settle()
        assert mode == "default" or (lab.sent() - before).local >= EAGER_SHARE * 100_000


def scenes(suite: str) -> list[str]:
    return re.findall(r'\{"(\w+)", \w+\}', (PROGRAMS / f"{suite}.c").read_text().rpartition("scenes[]")[2])


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("suite", "scene"), [(suite, scene) for suite in ("raw", "raw32", "beside") for scene in scenes(suite)])
def test_system_calls_by_number(lab: Lab, build: Builder, library32: str, suite: str, scene: str) -> None:
    """The numbers and structures of 32 bits: the same lines as on the kernel, and the bytes by ring."""
    wide = ("-D_FILE_OFFSET_BITS=64",) if suite == "beside" else ()  # aio_read64 and kin
    command = [build(suite, "-m32", *wide), scene]
    said = lab.run(command, "kernel").ok().out
    before = lab.sent()
    env = settings(lab.environ("eager", LD_PRELOAD=library32, SHAREDSTACK_STACK=lab.stack))
    done = subprocess.run([*lab.namespace.prefix, "env", *env, *command], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr, done.returncode) == (said, "", 0)
    lab.settle()
    sent = lab.sent() - before
    if scene not in MOSTLY_KERNEL:
        assert sent.local >= EAGER_SHARE * (sent.local + sent.kernel) > 0


def test_nothing_is_left(lab: Lab) -> None:
    lab.assert_clean()
