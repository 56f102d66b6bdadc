"""A helper is killed, or replaced by another one, while connections are on the wire path: its links, and what was on its way, go on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from wire.fix_veth import INTERFACE
from wire.fix_world import SEED, WHOLE, Side, wait_for
from wire.test_helpers import PYTHON, TALK, busy, ended_well, lifted, serve

SHAKE = str(Path(__file__).with_name("shake.py"))
TESTS = str(Path(__file__).parent.parent)
FAST = {"SHAREDSTACK_WIRE_AFTER": "4", "SHAREDSTACK_WIRE_MOST": "8", "SHAREDSTACK_WIRE_BULK": str(1 << 30)}
KILLED = 40 if WHOLE else 4
MOST_MS = 5000  # a lost packet, or a helper's start, where all CPUs are busy
WAYS = {"killed": ((), True), "replaced": ((), False), "killed, told of its link": (("--link", INTERFACE), True)}
CASES = list(WAYS) if WHOLE else [list(WAYS)[SEED % 3]]


def succeed(side: Side, *options: str, kill: bool = True) -> None:
    """Another helper in the place of the one that runs, which is killed before."""
    last = side.helper
    assert last
    if kill:
        last.kill()
        last.wait()
    side.start_helper("--stack", side.stack, "--takeover", *options)  # of the keeper's, perhaps
    assert last.wait(10) == (-signal.SIGKILL if kill else 0)


def wire_lifts(side: Side) -> int:
    return int(side.inspect()["counters"]["wire_lifts"])


def program(side: Side) -> int:
    """Number of the XDP program on the cable."""
    return int(json.loads(side.host.run("ip", "-j", "-d", "link", "show", INTERFACE))[0]["xdp"]["prog"]["id"])


def carried(side: Side) -> int:
    """Bytes that the cable took from a host, on any path: those of a connection that is the kernel's are not in the counters."""
    return int(json.loads(side.host.run("ip", "-j", "-s", "link", "show", INTERFACE))[0]["stats64"]["tx"]["bytes"])


@pytest.mark.parametrize("how", CASES)
def test_links_go_on(fresh_sides: tuple[Side, Side], how: str) -> None:
    """On the same engine, by the same program; connections are not even lowered, and new ones are lifted by the next helper."""
    server, client = fresh_sides
    asking = busy(server, client, 300)
    programs, lifts = [program(side) for side in fresh_sides], [wire_lifts(side) for side in fresh_sides]
    for side in fresh_sides:
        succeed(side, *WAYS[how][0], kill=WAYS[how][1])
    before = [side.bytes_by_path()["wire"] for side in fresh_sides]
    wait_for(lambda: all(side.bytes_by_path()["wire"] > was + 100_000 for side, was in zip(fresh_sides, before, strict=True)))
    assert [program(side) for side in fresh_sides] == programs
    assert [wire_lifts(side) for side in fresh_sides] == lifts
    out = asking.communicate(timeout=60)[0]
    assert asking.returncode == 0, out
    assert json.loads(out)["longest_ms"] < MOST_MS
    other = client.start(PYTHON, TALK, "keep", server.address, "7200", "blocking", "1", "200", "400")
    wait_for(lambda: lifted(client) and lifted(server))
    ended_well(other)
    for side in fresh_sides:
        side.end_programs()
        wait_for(lambda side=side: not any(side.left().values()))
        side.stop_helper()
        wait_for(lambda side=side: not side.keepers())
        assert "xdp" not in side.host.run("ip", "-d", "link", "show", INTERFACE)


TWO = """
import socket, sys, time
address, port = sys.argv[1], int(sys.argv[2])
def exchanges(s, n):
    longest = 0
    for _ in range(n):
        began = time.monotonic()
        s.sendall(b"x" * 100)
        assert len(s.recv(100, socket.MSG_WAITALL)) == 100
        longest = max(longest, time.monotonic() - began)
    return longest
first, second = (socket.create_connection((address, port)) for _ in range(2))
for s in first, second:
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
exchanges(first, 100)
for s in second, second:
    print("ready", flush=True)
    sys.stdin.readline()
    print(exchanges(s, 100), flush=True)
sys.stdin.readline()
"""
ECHO = """
import socket, sys, threading
def echo(s):
    while data := s.recv(100, socket.MSG_WAITALL):
        s.sendall(data)
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as listener:
    print("ready", flush=True)
    for s in (listener.accept()[0] for _ in range(2)):
        threading.Thread(target=echo, args=(s,)).start()
"""


def test_a_stopped_helper_stops_nobody(fresh_sides: tuple[Side, Side]) -> None:
    """A connection that is to be lifted while the helper does not answer goes on by the kernel, and is lifted later."""
    server, client = fresh_sides
    echo = server.start(PYTHON, "-c", ECHO, server.address, "7300", ours=False)
    assert echo.stdout and echo.stdout.readline() == "ready\n"
    asking = client.start(PYTHON, "-c", TWO, server.address, "7300", **FAST)
    assert asking.stdout and asking.stdin and asking.stdout.readline() == "ready\n"
    wait_for(lambda: lifted(client))
    lifts = wire_lifts(client)
    for is_stopped in (True, False):
        assert client.helper
        if is_stopped:
            client.helper.send_signal(signal.SIGSTOP)
        asking.stdin.write("go\n")
        asking.stdin.flush()
        longest = float(asking.stdout.readline())
        client.helper.send_signal(signal.SIGCONT)
        assert longest < 1.0, f"an answer took {longest} s"
        assert wire_lifts(client) == lifts + (not is_stopped)
        if is_stopped:
            assert asking.stdout.readline() == "ready\n"


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


def helper_of(side: Side) -> int:
    """The pid of the helper that serves there; 0: none does."""
    ping = "from sharedstack import ask; import sys\nwith ask.connected(sys.argv[1]) as helper: print(helper.ask('ping')['pid'])"
    asking = side.start(sys.executable, "-c", ping, side.stack, ours=False, stderr=subprocess.DEVNULL)
    return int(asking.communicate(timeout=20)[0] or 0)


def starts(side: Side) -> bool:
    """Is there a helper that serves it, or is about to?"""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            lines.append(file.read_bytes().split(b"\0"))
    return any(b"sharedstack_helper" in line and side.stack.encode() in line for line in lines)


def test_nobody_waits_for_a_connection_on_its_way(fresh_sides: tuple[Side, Side]) -> None:
    """Killed while one is between the kernel and an engine, and nobody starts another helper: the keeper does, at once."""
    server, client = fresh_sides
    dice = random.Random(SEED)
    serve(server, "threads")
    asking = client.start(PYTHON, TALK, "keep", server.address, "7200", "blocking", "1", "200", "3000", **FAST)
    client.start(sys.executable, SHAKE, client.stack, "600", "1", ours=False, PYTHONPATH=TESTS)
    by_itself = 0
    for deaths in range(1, 61):  # noqa: B007
        seen = wire_lifts(client)
        wait_for(lambda seen=seen: wire_lifts(client) > seen + 3)
        time.sleep(dice.uniform(0, 0.05))
        os.kill(helper_of(client), signal.SIGKILL)
        sent = carried(client)
        wait_for(lambda sent=sent: carried(client) > sent + 20_000, 20)
        if starts(client):
            wait_for(lambda: bool(helper_of(client)), 10)
            by_itself += 1
        else:  # nothing was on its way
            client.start_helper("--link", INTERFACE, "--takeover")
        if by_itself == (5 if WHOLE else 1):
            break
    print(f"{deaths} helpers killed, {by_itself} replaced by the keeper")
    assert by_itself
    ended_well(asking)
    os.kill(helper_of(client), signal.SIGTERM)
    wait_for(lambda: not client.keepers())
