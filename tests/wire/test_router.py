"""A peer behind a router whose other link becomes narrow (MTU 1500 to 576) while a lifted connection is in use."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from wire.fix_veth import Host, run
from wire.fix_world import Side, some, wait_for

TALK = str(Path(__file__).with_name("talk.py"))
PYTHON = sys.base_prefix + "/bin/python3"
PORT = 7600
FAR = {4: ("10.78.0.1", "10.78.0.2", "24"), 6: ("fd78::1", "fd78::2", "64")}
KEPT = {"SHAREDSTACK_WIRE_BULK": str(1 << 30), "TALK_HASH": "1"}


@pytest.fixture
def routed(fresh_sides: tuple[Side, Side]) -> Iterator[tuple[Side, Host, Side]]:
    """A host, the router that it is joined with, and a host behind that, without a helper."""
    near, router = fresh_sides[0], fresh_sides[1].host
    far = Side(Host(f"{router.namespace}-far", 2), "none")
    run("ip", "netns", "add", far.host.namespace)
    try:
        run("ip", "link", "add", "far", "netns", router.namespace, "type", "veth", "peer", "name", "far", "netns", far.host.namespace)
        for family, (here, there, length) in FAR.items():
            dad = ["nodad"] if family == 6 else []
            router.run("ip", "address", "add", f"{here}/{length}", "dev", "far", *dad)
            far.host.run("ip", "address", "add", f"{there}/{length}", "dev", "far", *dad)
        for host in (router, far.host):
            host.run("ip", "link", "set", "far", "up")
        for name in ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0"):
            router.run("sysctl", "-qw", name)
        for family, (here, there, length) in FAR.items():
            far.host.run("ip", f"-{family}", "route", "add", "default", "via", here)
            near.host.run("ip", f"-{family}", "route", "add", f"{there}/{length}".replace("2/", "0/", 1), "via", router.address(family))
        yield near, router, far
    finally:
        far.end_programs()
        run("ip", "netns", "del", far.host.namespace)


def lowered(side: Side) -> int:
    """How often the engine lowered a path MTU because of an ICMP error."""
    return int(side.links()[0]["counters"].get("pmtu_lowered", 0))


@pytest.mark.parametrize(("family", "mtu"), some([(4, 576), (6, 1280)]))
def test_a_path_that_becomes_narrow(routed: tuple[Side, Host, Side], family: int, mtu: int) -> None:
    near, router, far = routed
    address = FAR[family][1]
    sink = far.start(PYTHON, TALK, "sink", address, str(PORT), ours=False, **KEPT)
    assert sink.stdout
    assert sink.stdout.readline() == "ready\n"
    pour = near.start(PYTHON, TALK, "pour", address, str(PORT), "6", **KEPT)
    wait_for(lambda: near.bytes_by_path()["wire"] > 1 << 20)
    assert ("wire", "none") in near.paths()
    assert lowered(near) == 0
    before = near.bytes_by_path()["wire"]
    router.run("ip", "link", "set", "far", "mtu", str(mtu))
    wait_for(lambda: lowered(near) == 1)
    assert ("wire", "none") in near.paths()
    assert near.bytes_by_path()["wire"] - before > 1 << 20
    assert pour.communicate(timeout=30)[0] == sink.communicate(timeout=30)[0]


ANSWER = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
while True:
    b, peer = s.recvfrom(2000)
    s.sendto(b[:8], peer)
"""
# Large and small in turn, until its input is closed; then how many of 100 more of each are answered.
ASK = """
import select, socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.connect((sys.argv[1], int(sys.argv[2])))
s.settimeout(0.3)
n = 0
def answered(size):
    global n
    n += 1
    number = n.to_bytes(8, "big")
    try:
        s.send(number + bytes(size - 8))
        while s.recv(100) != number:
            pass
        return True
    except OSError:
        return False
while not select.select([0], [], [], 0)[0]:
    answered(1400), answered(64)
print(sum(answered(1400) for _ in range(100)), sum(answered(64) for _ in range(100)))
"""


@pytest.mark.parametrize("ours", [False, True], ids=["kernel", "wire"])
@pytest.mark.parametrize(("family", "mtu"), some([(4, 576), (6, 1280)]))
def test_datagrams_on_a_path_that_becomes_narrow(routed: tuple[Side, Host, Side], family: int, mtu: int, ours: bool) -> None:
    """Some are lost, as by the kernel; then the kernel sends the large ones in fragments, and the small ones go by the wire still."""
    near, router, far = routed
    where = FAR[family][1], str(PORT)
    there = far.start(PYTHON, "-c", ANSWER, *where, ours=False)
    assert there.stdout and there.stdout.readline() == "ready\n"
    here = near.start(PYTHON, "-c", ASK, *where, ours=ours)
    if ours:
        wait_for(lambda: ("wire", "none") in near.paths())
    router.run("ip", "link", "set", "far", "mtu", str(mtu))
    time.sleep(3)
    before = near.bytes_by_path()
    assert here.communicate(timeout=30)[0].split() == ["100", "100"]
    if ours:
        after = near.bytes_by_path()
        assert after["wire"] - before["wire"] >= 100 * (64 + 8)
        assert after["kernel"] - before["kernel"] >= 100 * 1400
