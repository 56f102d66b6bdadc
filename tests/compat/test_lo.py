"""Rules of the kernel's on lo hold for established connections as on the plain kernel: what they count or change goes by it again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.fix_lab import Actor, Lab, Namespace
from compat.fix_policy import Policed
from compat.test_lower import BUSY
from compat.test_policy import DATAGRAMS, connected, moved, shares, talk
from unit.fix_helper_daemon import wait_until

pytest_plugins = ["compat.fix_paths"]

PORT = 23998
LIMIT = f"tcp sport {PORT} limit rate over 40/second drop"
MARK = "meta l4proto tcp meta mark set 7 counter name seen"
NOTICED = 1.0  # seconds; a tenth of that where the machine has time


@pytest.fixture
def ruled(tmp_path: Path) -> Iterator[Policed]:
    """A lab in a namespace of its own, whose rules are changed."""
    if os.getuid() != 0 or shutil.which("nft") is None:
        pytest.skip("it needs root and nft")
    namespace = Namespace()
    try:
        with Policed(namespace, "lo", tmp_path / "policy.toml") as made:
            yield made
    finally:
        namespace.close()


def nft(lab: Lab, *rules: str, family: str = "inet", hook: str = "output") -> None:
    """These are the rules from now on."""
    text = (
        f"flush ruleset\ntable {family} t {{ counter seen {{ packets 0 bytes 0; }}; chain c {{ type filter hook {hook} priority 0; }}; }}\n"
    )
    text = "flush ruleset\n" if not rules else text + "".join(f"add rule {family} t c {rule}\n" for rule in rules)
    subprocess.run([*lab.namespace.prefix, "nft", "-f", "-"], input=text, text=True, check=True)


def counted(lab: Lab) -> int:
    done = subprocess.run([*lab.namespace.prefix, "nft", "-j", "list", "counters"], capture_output=True, text=True, check=True)
    return int(next(one["counter"]["packets"] for one in json.loads(done.stdout)["nftables"] if "counter" in one))


def kept(lab: Lab) -> int:
    return int(lab.daemon.header()["kept"])


def noticed(lab: Lab, families: int) -> None:
    began = time.monotonic()
    wait_until(lambda: kept(lab) == families)
    assert time.monotonic() - began < NOTICED


def rounds(server: Actor, client: Actor, seconds: float) -> int:
    """Messages there and back in so many seconds, on a connection of which the server answers whatever comes."""
    code = (
        f"n, end = 0, time.monotonic() + {seconds}\n"
        "while time.monotonic() < end: s.sendall(b'x' * 64); n += len(s.recv(64, socket.MSG_WAITALL)) // 64\n"
        "n"
    )
    return int(client.do(code, timeout=seconds + 20))


def answering(lab: Lab, mode: str) -> tuple[Actor, Actor]:
    server, client = connected(lab, mode, PORT)
    for one, name in ((server, "c"), (client, "s")):
        one.do(f"{name}.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)")
    server.tell("while data := c.recv(64, socket.MSG_WAITALL): c.sendall(data)")
    return server, client


def test_lo_rules(ruled: Policed) -> None:
    """A limit that is added under load holds as on the plain kernel, and when it has gone all is as before."""
    limited = {}
    for mode in ("kernel", "eager"):
        nft(ruled)
        talkers = answering(ruled, mode)
        assert rounds(*talkers, 0.5) > 200
        if mode == "eager":
            wait_until(lambda: kept(ruled) == 0)
            before = ruled.sent()
            rounds(*talkers, 0.2)
            assert (ruled.sent() - before).local > (ruled.sent() - before).kernel
        nft(ruled, LIMIT)
        if mode == "eager":
            noticed(ruled, 3)
            assert "limits the rate of packets" in ruled.says(talkers[1], "s")[2]
            assert "lo_rules" in ruled.says(talkers[1], "s")[:2]
        limited[mode] = rounds(*talkers, 1.5)
        nft(ruled)
        if mode == "eager":
            noticed(ruled, 0)
            before = ruled.sent()
            wait_until(lambda talkers=talkers: rounds(*talkers, 0.3) > 200)  # type: ignore[misc]
            assert (ruled.sent() - before).local > (ruled.sent() - before).kernel
        for one in talkers:
            one.process.kill()
    assert limited["kernel"] < 100 and limited["eager"] < 100


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_what_is_marked_is_counted(ruled: Policed, address: str) -> None:
    counts = {}
    for mode in ("kernel", "eager"):
        nft(ruled)
        wait_until(lambda: kept(ruled) == 0)
        server, client = connected(ruled, mode, 0, address)
        talk(server, client)
        nft(ruled, MARK)
        if mode == "eager":
            noticed(ruled, 3)
        before = counted(ruled)
        talk(server, client, 100)
        counts[mode] = counted(ruled) - before
        server.end()
        client.end()
    assert counts["kernel"] >= 200 and counts["eager"] >= 200


def test_a_family_that_has_no_such_rule_is_lifted(ruled: Policed) -> None:
    four, six = connected(ruled, "eager"), connected(ruled, "eager", 0, "::1")
    for one in (four, six):
        talk(*one)
    assert shares(ruled, *four) > 0.9 and shares(ruled, *six) > 0.9
    nft(ruled, "limit rate 9999/second", family="ip")
    noticed(ruled, 1)
    assert shares(ruled, *four) == 0 and shares(ruled, *six) > 0.9
    nft(ruled, "limit rate 9999/second", family="ip6")
    noticed(ruled, 2)
    talk(*four)
    wait_until(lambda: shares(ruled, *four) > 0.9)
    assert shares(ruled, *six) == 0
    done = ruled.inspect("--check")
    assert done.returncode == 0, done.stdout


def test_connections_that_are_made_under_a_rule(ruled: Policed) -> None:
    nft(ruled, "limit rate 9999/second")
    noticed(ruled, 3)
    talkers = connected(ruled, "eager")
    talk(*talkers)
    assert shares(ruled, *talkers) == 0
    assert ruled.says(talkers[1], "s")[:2] == ("lo_rules", "lo_rules")
    ruled.daemon.end(signal.SIGKILL)
    assert shares(ruled, *talkers) == 0
    nft(ruled)
    ruled.start_helper()
    wait_until(lambda: shares(ruled, *talkers) > 0.9)


def test_no_byte_is_lost_when_rules_come_and_go(ruled: Policed) -> None:
    for mode in ("kernel", "eager"):
        busy = ruled.start([sys.executable, "-c", BUSY], mode, stdin=subprocess.PIPE)
        for _ in range(4):
            nft(ruled)
            if mode == "eager":
                noticed(ruled, 0)
                wait_until(lambda: moved(ruled)[0] > 1000)
            nft(ruled, MARK)
            if mode == "eager":
                noticed(ruled, 3)
                wait_until(lambda: moved(ruled) == (0, True))
        out, err = busy.communicate("end", timeout=30)
        assert (out, busy.returncode) == ("whole\n", 0), err


def test_they_may_be_ignored(ruled: Policed) -> None:
    nft(ruled, MARK)
    noticed(ruled, 3)
    talkers = connected(ruled, "eager")
    talk(*talkers)
    ruled.rules('[lo]\nrules = "ignore"\n')
    assert kept(ruled) == 0
    talk(*talkers)
    wait_until(lambda: shares(ruled, *talkers) > 0.9)
    ruled.rules('[lo]\nrules = "respect"\n')
    wait_until(lambda: kept(ruled) == 3)
    assert shares(ruled, *talkers) == 0


def test_a_queue_on_lo_holds_for_what_is_lifted(ruled: Policed) -> None:
    talkers = connected(ruled, "eager")
    talk(*talkers)
    assert shares(ruled, *talkers) > 0.9
    tc = [*ruled.namespace.prefix, "tc", "qdisc"]
    subprocess.run([*tc, "add", "dev", "lo", "root", "tbf", "rate", "10mbit", "burst", "32k", "latency", "50ms"], check=True)
    noticed(ruled, 3)
    assert shares(ruled, *talkers) == 0 and "tc qdisc tbf" in ruled.says(talkers[1], "s")[2]
    subprocess.run([*tc, "del", "dev", "lo", "root"], check=True)
    noticed(ruled, 0)
    wait_until(lambda: shares(ruled, *talkers) > 0.9)


def test_datagrams(ruled: Policed) -> None:
    counts = {}
    for mode in ("kernel", "eager"):
        nft(ruled)
        wait_until(lambda: kept(ruled) == 0)
        server, client = ruled.actor(mode), ruled.actor(mode)
        for one in (server, client):
            one.do(DATAGRAMS)
            one.do("u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('127.0.0.1', 0))")
        port = server.do("u.getsockname()[1]")

        def talked(server: Actor = server, client: Actor = client, port: int = port) -> int:
            before = ruled.state().counters["tx_datagrams"]
            server.tell("answers()")
            client.do(f"sends(('127.0.0.1', {port}))")
            server.hear()
            return ruled.state().counters["tx_datagrams"] - before

        if mode == "eager":
            wait_until(lambda: talked() > 60)
        nft(ruled, "meta l4proto udp meta mark set 7 counter name seen")
        if mode == "eager":
            noticed(ruled, 3)
        before = counted(ruled)
        assert talked() == 0
        counts[mode] = counted(ruled) - before
    assert counts == {"kernel": 80, "eager": 80}
    assert ruled.says(client, "u")[0] in ("lo_rules", "not_linked", "none")
    nft(ruled)
    wait_until(lambda: talked() > 60)


def test_an_ordinary_firewall_stops_nothing(ruled: Policed) -> None:
    nft(
        ruled,
        "ct state established,related accept",
        "iifname lo accept",
        "ct state invalid drop",
        "tcp dport 22 accept",
        "drop",
        hook="input",
    )
    time.sleep(0.3)
    talkers = connected(ruled, "eager")
    talk(*talkers)
    assert kept(ruled) == 0 and shares(ruled, *talkers) > 0.9
