"""Two engines talk over AF_XDP, each over its end of a veth pair, and nothing else on that cable notices."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sim.fix_engine import C
from wire.fix_end import End
from wire.fix_veth import INTERFACE, Host, hosts, need_root
from wire.fix_world import some

from sharedstack.declare.nic import CONSTANTS as NIC
from sharedstack_helper.environment import kernel_at_least

ECHO = """
import socket, sys
listener = socket.create_server((sys.argv[1], 22), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
print("ready", flush=True)
while True:
    s = listener.accept()[0]
    while b := s.recv(65536):
        s.sendall(b)
    s.close()
"""


@pytest.fixture
def pair() -> Iterator[tuple[Host, Host]]:
    need_root()
    with hosts() as both:
        yield both


@contextmanager
def opened(pair: tuple[Host, Host], busy_us: int = 0) -> Iterator[tuple[End, End]]:
    """An end on each host, its interface lent."""
    both = End(pair[0]), End(pair[1])
    try:
        for end in both:
            assert end.do("open", busy_us) in ("native", "generic")
        yield both
    finally:
        for end in both:
            end.end()


@pytest.fixture
def ends(pair: tuple[Host, Host]) -> Iterator[tuple[End, End]]:
    with opened(pair) as both:
        yield both


def joined(ends: tuple[End, End], family: int = 4, flags: int = 0, index: int = 0, mss: int = 1400) -> None:
    """One connection between them, its next hops known."""
    for one, other in (ends, ends[::-1]):
        if not one.do("connect", other.host, family, flags, index, mss):
            deadline = time.monotonic() + 5
            while not one.do("call", _hop_known, other.host.address(family)):
                assert time.monotonic() < deadline, "the neighbour is not found"
                time.sleep(0.02)


def _hop_known(station: object, remote: str) -> bool:
    import ipaddress

    return bool(station.interface.hops.want(ipaddress.ip_address(remote)))  # type: ignore[attr-defined]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("flags", [0, C["TF_SACK"] | C["TF_TS"]], ids=["plain", "sack, timestamps"])
def test_every_byte_arrives(ends: tuple[End, End], family: int, flags: int) -> None:
    joined(ends, family, flags)
    data = [random.Random(n).randbytes(2_000_000) for n in range(2)]
    for n in range(2):
        ends[n].begin("talk", 0, data[n], len(data[1 - n]))
    for n in range(2):
        assert hashlib.sha256(ends[n].finish()).digest() == hashlib.sha256(data[1 - n]).digest()
    for end in ends:
        counted = end.do("counters")
        assert counted["rx"] > 1000 and counted["tx"] > 1000
        assert counted["rx_bad"] == counted["tx_lost"] == 0
        assert end.do("engine_counter", "in_bad_sum") == 0


@pytest.mark.parametrize("family", some([4, 6]))
def test_jumbo_frames(family: int) -> None:
    """Packets of several frames, both ways; each has one of 8,900 bytes."""
    need_root()
    with hosts(mtu=9000) as pair, opened(pair) as ends:
        joined(ends, family, C["TF_SACK"] | C["TF_TS"], mss=8900)
        data = [random.Random(n).randbytes(3_000_000) for n in range(2)]
        for n in range(2):
            ends[n].begin("talk", 0, data[n], len(data[1 - n]))
        for n in range(2):
            assert hashlib.sha256(ends[n].finish()).digest() == hashlib.sha256(data[1 - n]).digest()
        for end in ends:
            counted = end.do("counters")
            assert counted["rx_bad"] == counted["tx_lost"] == 0
            assert end.do("engine_counter", "in_bad_sum") == 0
            assert counted["tx"] < 2500  # bytes of two directions by packets of 8,900, and acknowledgments


def test_larger_packets_than_it_was_opened_for(ends: tuple[End, End]) -> None:
    """The kernel would lose them: nothing is lifted, and what is goes back."""
    joined(ends)
    for end in ends:
        end.host.run("ip", "link", "set", INTERFACE, "mtu", "4000")
    assert ends[0].do("call", _look) == [ends[1].host.address(4)]
    with pytest.raises(AssertionError, match="an MTU of 4000 is more than the 1778 that the helper was started for"):
        ends[0].do("call", _hop_known, ends[1].host.address(4))


@pytest.mark.parametrize("queue", [0, 1])
def test_every_queue(queue: int) -> None:
    """Of an interface that has two; what comes by one is answered by it."""
    need_root()
    with hosts(queues=2) as pair, opened(pair) as ends:
        joined(ends)
        for end in ends:
            end.do("call", _send_by, queue)
        data = [random.Random(n).randbytes(500_000) for n in range(2)]
        ends[1].begin("talk", 0, data[1], len(data[0]))
        ends[0].begin("talk", 0, data[0], len(data[1]))
        assert ends[0].finish() == data[1] and ends[1].finish() == data[0]
        for end in ends:
            used, other = (end.do("call", _queue, q) for q in (queue, 1 - queue))
            assert used["rx"] > 300 and used["tx"] > 300 and other["rx"] == other["tx"] == 0


def _send_by(station: object, queue: int) -> None:
    station.lib.shs_test_nic_send_by(station.port, queue)  # type: ignore[attr-defined]


def _queue(station: object, number: int) -> dict[str, int]:
    return dict(station.interface.segment.queue(number))  # type: ignore[attr-defined]


def test_busy_polling(pair: tuple[Host, Host]) -> None:
    """Who waits has the driver look for packets: asked for; veth, since Linux 6.14, does not say what polls a queue, and is left alone."""
    with opened(pair, 50) as ends:
        joined(ends)
        for end in ends:
            assert end.do("call", _prefers_busy_polling) == [1, 50]
            known, busy = end.do("call", _polled)
            assert busy == (known or not kernel_at_least((6, 14)))
        for turn in range(2):  # then as where the driver says it: harmless
            ends[1].begin("pingpong", 0, False, 2000)
            ends[0].begin("pingpong", 0, True, 2000)
            times = ends[0].finish()
            ends[1].finish()
            print(f"64 B there and back{', looking by system calls' * turn}: p50 {statistics.median(times) / 1000:.2f} µs")
            assert ends[0].do("engine_counter", "rto") == 0
            for end in ends:
                end.do("call", _look_busily)


def _prefers_busy_polling(station: object) -> list[int]:
    with socket.socket(44, socket.SOCK_RAW, 0, os.dup(station.interface.fds[0])) as s:  # type: ignore[attr-defined]
        return [s.getsockopt(socket.SOL_SOCKET, option) for option in (69, 46)]  # SO_PREFER_BUSY_POLL, SO_BUSY_POLL


def _polled(station: object) -> tuple[bool, bool]:
    segment = station.interface.segment  # type: ignore[attr-defined]
    return bool(segment.queue(0)["flags"] & NIC["QUEUE_NAPI"]), bool(segment.get("flags") & NIC["NIC_BUSY_POLL"])


def _look_busily(station: object) -> None:
    station.interface.segment.set("flags", station.interface.segment.get("flags") | NIC["NIC_BUSY_POLL"])  # type: ignore[attr-defined]
    station.attach()  # type: ignore[attr-defined]


def test_lossy_cable(ends: tuple[End, End]) -> None:
    """One packet of twenty is lost, each way."""
    for end in ends:
        end.do("lose", 20)
    joined(ends, flags=C["TF_SACK"] | C["TF_TS"])
    data = [random.Random(n).randbytes(400_000) for n in range(2)]
    for n in range(2):
        ends[n].begin("talk", 0, data[n], len(data[1 - n]))
    for n in range(2):
        assert ends[n].finish() == data[1 - n]
    assert sum(end.do("engine_counter", "retransmits") for end in ends) > 10


def plain_talk(client: Host, server: Host, family: int) -> None:
    """A program of each host, on the kernel, over the same cable."""
    code = (
        "import socket,sys; s = socket.create_connection((sys.argv[1], 22), 10); s.sendall(b'x' * 300000);"
        " n = 0\nwhile n < 300000: n += len(s.recv(65536))\nprint('whole')"
    )
    listening = subprocess.Popen(
        ["ip", "netns", "exec", server.namespace, sys.executable, "-c", ECHO, server.address(family)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert listening.stdout and listening.stdout.readline() == "ready\n"
        assert client.run(sys.executable, "-c", code, server.address(family)) == "whole\n"
    finally:
        listening.kill()
        listening.wait()
        assert listening.stdout
        listening.stdout.close()


@pytest.mark.parametrize("family", [4, 6])
def test_others_go_by_the_kernel(ends: tuple[End, End], family: int) -> None:
    joined(ends, family)
    before = [end.do("counters")["rx"] for end in ends]
    plain_talk(ends[0].host, ends[1].host, family)
    assert [end.do("counters")["rx"] for end in ends] == before


def test_whoever_opened_it_is_killed(ends: tuple[End, End]) -> None:
    """Lifted flows are lost with their last holder; all else goes on, and the interface can be taken anew."""
    joined(ends)
    pid = ends[1].process.pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    ends[1].process.join()
    plain_talk(ends[0].host, ends[1].host, 4)
    plain_talk(ends[1].host, ends[0].host, 6)
    again = End(ends[1].host)
    try:
        again.do("open")
        assert again.host.run("tc", "filter", "show", "dev", INTERFACE, "egress").count("direct-action") == 1
        joined((again, ends[0]), index=1)
        again.begin("talk", 1, b"n" * 5000, 5000)
        ends[0].begin("talk", 1, b"m" * 5000, 5000)
        assert again.finish() == b"m" * 5000 and ends[0].finish() == b"n" * 5000
    finally:
        again.end()


def test_lent_by_one_that_is_killed(ends: tuple[End, End], tmp_path: Path) -> None:
    """A process without any capability of its own drives the sockets, and goes on when the lender is gone."""
    lender, there = ends
    borrower = End(lender.host)
    path = str(tmp_path / "lent")
    try:
        borrower.begin("borrow", path)
        deadline = time.monotonic() + 5
        while not Path(path).exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        lender.do("lend", path)
        borrower.finish()
        joined((lender, there))
        borrower.do("connect", there.host)
        for turn in range(2):
            data = [random.Random(n).randbytes(200_000) for n in range(2)]
            borrower.begin("talk", 0, data[0], len(data[1]))
            there.begin("talk", 0, data[1], len(data[0]))
            assert borrower.finish() == data[1] and there.finish() == data[0]
            if turn == 0:
                assert lender.process.pid
                os.kill(lender.process.pid, signal.SIGKILL)
                lender.process.join()
    finally:
        borrower.end()


def test_given_back(ends: tuple[End, End]) -> None:
    for end in ends:
        assert "xdp" in end.host.run("ip", "link", "show", INTERFACE)
        end.do("close")
        assert "xdp" not in end.host.run("ip", "link", "show", INTERFACE)
        assert "steer" not in end.host.run("tc", "filter", "show", "dev", INTERFACE, "egress")
    plain_talk(ends[0].host, ends[1].host, 4)


def test_another_program_is_left_alone(pair: tuple[Host, Host]) -> None:
    one, two = End(pair[0]), End(pair[0])
    try:
        one.do("open")
        with pytest.raises(AssertionError, match=r"another XDP program is on the interface already|another program has the queue"):
            two.do("open")
        one.do("close")
    finally:
        one.end()
        two.end()


def test_the_kernel_is_silent_for_lifted_flows(ends: tuple[End, End]) -> None:
    """Segments for ports that the kernel does not know would be answered by RST."""
    joined(ends)
    out = [int(line.split()[1]) for end in ends for line in end.host.run("nstat", "-az", "TcpOutRsts").splitlines()[1:]]
    data = [b"a" * 100_000, b"b" * 100_000]
    for n in range(2):
        ends[n].begin("talk", 0, data[n], 100_000)
    for n in range(2):
        assert ends[n].finish() == data[1 - n]
    assert out == [int(line.split()[1]) for end in ends for line in end.host.run("nstat", "-az", "TcpOutRsts").splitlines()[1:]]


def test_neighbours_and_links_are_followed(ends: tuple[End, End]) -> None:
    joined(ends)
    here, there = ends
    moved = "02:00:00:00:77:77"
    there.host.run("ip", "link", "set", INTERFACE, "address", moved)
    here.host.run("ip", "neighbour", "replace", there.host.address(4), "lladdr", moved, "dev", INTERFACE, "nud", "permanent")
    here.do("call", _look)
    there.do("call", _look)
    data = [b"m" * 10_000] * 2
    for n in range(2):
        ends[n].begin("talk", 0, data[n], 10_000)
    for n in range(2):
        assert ends[n].finish() == data[1 - n]
    here.host.run("ip", "link", "set", INTERFACE, "mtu", "1400")
    here.do("call", _look)
    assert here.do("call", _mtu) == 1400
    here.host.run("ip", "address", "del", f"{here.host.address(4)}/24", "dev", INTERFACE)
    # no route at all: nothing is sent, and it is not given up, since the kernel would not give it up either
    assert here.do("call", _look) == []
    assert here.do("call", _hops) == [None]
    here.host.run("ip", "route", "add", f"{there.host.address(4)}/32", "dev", "lo")
    assert here.do("call", _look) == [there.host.address(4)]
    assert not here.do("counters")["tx_lost"]


def _look(station: object) -> list[str]:
    return [str(address) for address in station.interface.hops.look()]  # type: ignore[attr-defined]


def _hops(station: object) -> list[bytes | None]:
    interface = station.interface  # type: ignore[attr-defined]
    return [interface.segment.hop(remote) for remote in interface.hops.wanted]


def _mtu(station: object) -> int:
    return int(station.interface.segment.get("mtu"))  # type: ignore[attr-defined]


def test_there_and_back(ends: tuple[End, End], record_property: pytest.FixtureRequest) -> None:
    """A figure, not a bound: what a message of 64 bytes takes there and back, each end on a CPU of its own."""
    joined(ends)
    ends[1].begin("pingpong", 0, False, 5000)
    ends[0].begin("pingpong", 0, True, 5000)
    times = ends[0].finish()
    ends[1].finish()
    print(f"engine over AF_XDP, 64 B there and back: p50 {statistics.median(times) / 1000:.2f} µs")
    assert ends[0].do("engine_counter", "rto") == 0
