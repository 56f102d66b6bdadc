"""A helper is killed, or replaced by another one, while connections are on the wire path: its links, and what was on its way, go on."""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from pathlib import Path

import pytest
from wire.fix_veth import INTERFACE
from wire.fix_world import SEED, WHOLE, Side, wait_for
from wire.test_helpers import PYTHON, TALK, busy, ended_well, lifted, serve

SHAKE = str(Path(__file__).with_name("shake.py"))
TESTS = str(Path(__file__).parent.parent)
FAST = {"SHAREDSTACK_WIRE_AFTER": "4", "SHAREDSTACK_WIRE_MOST": "8", "SHAREDSTACK_WIRE_BULK": str(1 << 30)}
KILLED = 40 if WHOLE else 8
WAYS = {"killed": (), "replaced": ("--takeover",), "killed, told of its link": ("--link", INTERFACE)}


def succeed(side: Side, *options: str) -> None:
    """Another helper in the place of the one that runs."""
    last = side.helper
    assert last
    if "--takeover" not in options:
        last.kill()
        last.wait()
    side.start_helper("--stack", side.stack, *options)
    assert last.wait(10) == (0 if "--takeover" in options else -signal.SIGKILL)


def wire_lifts(side: Side) -> int:
    return int(side.inspect()["counters"]["wire_lifts"])


def program(side: Side) -> int:
    """Number of the XDP program on the cable."""
    return int(json.loads(side.host.run("ip", "-j", "-d", "link", "show", INTERFACE))[0]["xdp"]["prog"]["id"])


@pytest.mark.parametrize("how", WAYS)
def test_links_go_on(fresh_sides: tuple[Side, Side], how: str) -> None:
    """On the same engine, by the same program; connections are not even lowered, and new ones are lifted by the next helper."""
    server, client = fresh_sides
    asking = busy(server, client, 20000)
    programs, lifts = [program(side) for side in fresh_sides], [wire_lifts(side) for side in fresh_sides]
    for side in fresh_sides:
        succeed(side, *WAYS[how])
    before = [side.bytes_by_path()["wire"] for side in fresh_sides]
    wait_for(lambda: all(side.bytes_by_path()["wire"] > was + 100_000 for side, was in zip(fresh_sides, before, strict=True)))
    assert [program(side) for side in fresh_sides] == programs
    assert [wire_lifts(side) for side in fresh_sides] == lifts
    out = asking.communicate(timeout=60)[0]
    assert asking.returncode == 0, out
    assert json.loads(out)["longest_ms"] < 190
    other = client.start(PYTHON, TALK, "keep", server.address, "7200", "blocking", "1", "3000", "400")
    wait_for(lambda: lifted(client) and lifted(server))
    ended_well(other)
    for side in fresh_sides:
        side.end_programs()
        wait_for(lambda side=side: not any(side.left().values()))
        side.stop_helper()
        wait_for(lambda side=side: not side.keepers())
        assert "xdp" not in side.host.run("ip", "-d", "link", "show", INTERFACE)


def test_killed_while_connections_come_and_go(fresh_sides: tuple[Side, Side]) -> None:
    """At random moments of lifting and lowering, again and again, and not always replaced: every byte arrives, and nobody is reset."""
    server, client = fresh_sides
    dice = random.Random(SEED)
    serving = server.start(PYTHON, TALK, "serve", server.address, "7200", "threads", **FAST)
    assert serving.stdout
    assert serving.stdout.readline() == "ready\n"
    resets = [side.tcp_counts()["OutRsts"] for side in fresh_sides]
    asking = [
        client.start(PYTHON, TALK, "keep", server.address, "7200", how, str(seed), "500", "3000", **FAST)
        for seed, how in enumerate(["blocking", "poll", "epoll"])
    ]
    for side in fresh_sides:
        side.start(sys.executable, SHAKE, side.stack, "600", "1", ours=False, PYTHONPATH=TESTS)
    for i in range(KILLED):
        time.sleep(dice.uniform(0.1, 0.6))
        succeed(fresh_sides[i % 2])
    outs = [one.communicate(timeout=90)[0] for one in asking]
    assert [one.returncode for one in asking] == [0] * 3, outs
    lifts = [wire_lifts(side) for side in fresh_sides]
    print(f"{KILLED} helpers killed, {lifts} lifts, longest answers {[round(json.loads(out)['longest_ms']) for out in outs]} ms")
    assert min(lifts) > 5 * KILLED
    assert [side.tcp_counts()["OutRsts"] for side in fresh_sides] == resets
    for side in fresh_sides:
        side.end_programs()
        wait_for(lambda side=side: not any(side.left().values()))
