"""Unmodified programs on two hosts, each accelerated or not: every byte is right, and what is said to go by the wire does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from wire.fix_world import SEED, WHOLE, Side, some, wait_for

TALK = str(Path(__file__).with_name("talk.py"))
SHAKE = str(Path(__file__).with_name("shake.py"))
TESTS = str(Path(__file__).parent.parent)
SECONDS = 4
MESSAGES = 6000
STALL_MS = 190  # a lost packet of the kernel's costs 200
PYTHON = sys.base_prefix + "/bin/python3"
PORT = 7000
ALL = {"SHAREDSTACK_WIRE_BULK": str(1 << 30)}
HOW = ["blocking", "threads", "epoll", "edge", "select", "poll", "asyncio"]
ENDS = {"both": (True, True), "client": (True, False), "server": (False, True)}
# Of each way to wait one, which the run's seed chooses; all where the run is WHOLE.
CASES = [
    pytest.param(how, *accelerated, id=f"{how}-{name}")
    for i, how in enumerate(HOW)
    for j, (name, accelerated) in enumerate(ENDS.items())
    if WHOLE or j == (SEED + i) % len(ENDS)
]


def serve(side: Side, how: str, ours: bool = True, family: int = 4, **environment: str) -> subprocess.Popen[str]:
    program = side.start(PYTHON, TALK, "serve", side.host.address(family), str(PORT), how, ours=ours, **environment)
    assert program.stdout
    assert program.stdout.readline() == "ready\n"
    return program


def ask(
    side: Side, other: Side, how: str, messages: int, most: int, ours: bool = True, family: int = 4, **environment: str
) -> dict[str, Any]:
    arguments = [other.host.address(family), str(PORT), how, "1", str(messages), str(most)]
    return dict(json.loads(side.run(PYTHON, TALK, "ask", *arguments, ours=ours, **environment)))


@pytest.mark.parametrize(("how", "here", "there"), CASES)
def test_every_way_to_wait(sides: tuple[Side, Side], how: str, here: bool, there: bool) -> None:
    server, client = sides
    before = [side.bytes_by_path() for side in sides]
    serve(server, how, there)
    told = ask(client, server, how if how in ("blocking", "epoll", "poll") else "select", 2000, 1000, here)
    after = [side.bytes_by_path() for side in sides]
    for side, ours in ((0, there), (1, here)):
        by_wire = after[side]["wire"] - before[side]["wire"]
        if ours:
            assert by_wire > 1.5 * told["bytes"], f"side {side}: {by_wire} of {2 * told['bytes']} bytes by the wire"
        else:
            assert by_wire == 0


def test_a_set_that_becomes_a_member_of_another(sides: tuple[Side, Side]) -> None:
    """Who waits on the outer set is told by the kernel alone."""
    server, client = sides
    before = server.bytes_by_path()["wire"]
    serve(server, "nested")
    told = ask(client, server, "blocking", 2000, 1000)
    assert 0.2 * told["bytes"] < server.bytes_by_path()["wire"] - before < 1.8 * told["bytes"]


def test_ipv6(sides: tuple[Side, Side]) -> None:
    server, client = sides
    before = client.bytes_by_path()["wire"]
    serve(server, "blocking", family=6)
    told = ask(client, server, "blocking", 2000, 3000, family=6)
    assert client.bytes_by_path()["wire"] - before > 1.5 * told["bytes"]


def test_large_messages(sides: tuple[Side, Side]) -> None:
    server, client = sides
    before = client.bytes_by_path()["wire"]
    serve(server, "epoll", **ALL)
    told = ask(client, server, "blocking", 300, 300_000, **ALL)
    assert client.bytes_by_path()["wire"] - before > told["bytes"]


def test_what_is_idle_is_lowered_and_lifted_again(sides: tuple[Side, Side]) -> None:
    server, client = sides
    lifts = client.inspect()["counters"]["wire_lifts"]
    serve(server, "epoll")
    program = client.start(PYTHON, TALK, "ask", server.address, str(PORT), "blocking", "1", "3000", "100", "9")
    wait_for(lambda: ("wire", "none") in client.paths())
    wait_for(lambda: ("kernel", "wire_idle") in client.paths(), 20)
    out = program.communicate(timeout=60)[0]
    assert program.returncode == 0, out
    assert client.inspect()["counters"]["wire_lifts"] - lifts == 2


# Three of them in a run, which its seed chooses; all where the run is WHOLE.
SHAKEN = ["blocking", "epoll", "edge", "poll", "asyncio"]


@pytest.mark.parametrize("how", some(SHAKEN, 2))
def test_lowered_at_any_time(sides: tuple[Side, Side], how: str) -> None:
    server, client = sides
    before = client.inspect()["counters"]["wire_lifts"]
    resets = [side.tcp_counts()["OutRsts"] for side in sides]
    fast = {"SHAREDSTACK_WIRE_AFTER": "1", "SHAREDSTACK_WIRE_MOST": "3"}
    program = server.start(PYTHON, TALK, "serve", server.address, str(PORT), how, **fast)
    assert program.stdout
    assert program.stdout.readline() == "ready\n"
    shakers = [side.start(sys.executable, SHAKE, side.stack, str(SECONDS), "3", ours=False, PYTHONPATH=TESTS) for side in sides]
    arguments = [server.address, str(PORT), how if how in ("blocking", "epoll", "poll") else "select", "1", str(MESSAGES), "3000"]
    told = json.loads(client.run(PYTHON, TALK, "ask", *arguments, **fast))
    asked = [int(shaker.communicate(timeout=SECONDS + 20)[0]) for shaker in shakers]
    lifts = client.inspect()["counters"]["wire_lifts"] - before
    print(f"{how}: {told['bytes']} bytes, {lifts} lifts, {asked} lowerings, longest answer {told['longest_ms']:.0f} ms")
    assert min(*asked, lifts) > 50
    assert [side.tcp_counts()["OutRsts"] for side in sides] == resets
    assert told["longest_ms"] < STALL_MS


def test_a_stream_is_lowered_with_full_queues(sides: tuple[Side, Side]) -> None:
    server, client = sides
    environment = {**ALL, "TALK_HASH": "1", "SHAREDSTACK_WIRE_AFTER": "10", "SHAREDSTACK_WIRE_MOST": "20"}
    before = client.bytes_by_path()["wire"]
    sink = server.start(PYTHON, TALK, "sink", server.address, str(PORT), **environment)
    assert sink.stdout
    assert sink.stdout.readline() == "ready\n"
    shakers = [side.start(sys.executable, SHAKE, side.stack, "4", "50", ours=False, PYTHONPATH=TESTS) for side in sides]
    sent = client.run(PYTHON, TALK, "pour", server.address, str(PORT), "3", **environment)
    assert sink.communicate(timeout=60)[0] == sent
    for shaker in shakers:
        assert shaker.communicate(timeout=20)[0]
    assert client.bytes_by_path()["wire"] - before > 1 << 20


def test_doctor(sides: tuple[Side, Side]) -> None:
    doctor = str(Path(sys.executable).parent / "sharedstack")
    found = {one["what"]: one for one in json.loads(sides[0].run(doctor, "doctor", "--format", "json", "cable", ours=False))}
    assert {one["state"] for one in found.values()} <= {"ok", "warn"}
    assert found["cable: XDP program"]["state"] == "warn"  # the helper's
    program = sides[0].start(doctor, "doctor", "--format", "json", "lo", "absent", ours=False)
    found = {one["what"]: one for one in json.loads(program.communicate()[0])}
    assert program.returncode == 1
    assert found["absent"]["state"] == found["lo: kind"]["state"] == "fail"
    program = sides[0].start(
        "setpriv", "--reuid=65534", "--clear-groups", "--bounding-set=-all", doctor, "doctor", "--format", "json", ours=False
    )
    found = {one["what"]: one for one in json.loads(program.communicate()[0])}
    assert program.returncode == 1
    for what in ("CAP_NET_ADMIN", "AF_XDP", "TCP_REPAIR", "bpf"):
        assert found[what]["state"] == "fail", what
        assert found[what]["advice"], what
