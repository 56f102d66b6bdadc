"""Programs on a cable whose packets are larger than a frame: lifted, lowered, and back."""

from __future__ import annotations

import json
import random
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import scapy.all as scapy
from wire.fix_datagrams import ask as ask_datagrams
from wire.fix_datagrams import moved
from wire.fix_datagrams import serve as serve_datagrams
from wire.fix_veth import need_root
from wire.fix_world import Side, some, world

from sharedstack_helper.wire.segment_of_peer import in_pieces

TALK = str(Path(__file__).with_name("talk.py"))
SHAKE = str(Path(__file__).with_name("shake.py"))
TESTS = str(Path(__file__).parent.parent)
PYTHON = sys.base_prefix + "/bin/python3"
PORT = 7700
SECONDS = 3
STALL_MS = 190  # a lost packet of the kernel's costs 200


@pytest.fixture(scope="module")
def jumbo() -> Iterator[tuple[Side, Side]]:
    need_root()
    with world(mtu=9000) as both:
        yield both


@pytest.mark.parametrize("family", some([4, 6]))
def test_lifted_and_lowered_all_the_time(jumbo: tuple[Side, Side], family: int) -> None:
    server, client = jumbo
    fast = {"SHAREDSTACK_WIRE_AFTER": "1", "SHAREDSTACK_WIRE_MOST": "3", "SHAREDSTACK_WIRE_BULK": str(1 << 30)}
    before, resets = client.bytes_by_path(), [side.tcp_counts()["OutRsts"] for side in jumbo]
    address = server.host.address(family)
    program = server.start(PYTHON, TALK, "serve", address, str(PORT + family), "blocking", **fast)
    assert program.stdout
    assert program.stdout.readline() == "ready\n"
    shakers = [side.start(sys.executable, SHAKE, side.stack, str(SECONDS), "10", ours=False, PYTHONPATH=TESTS) for side in jumbo]
    told = json.loads(client.run(PYTHON, TALK, "ask", address, str(PORT + family), "blocking", "1", "3000", "20000", **fast))
    for shaker in shakers:
        assert int(shaker.communicate(timeout=SECONDS + 20)[0]) > 20
    after = client.bytes_by_path()
    assert after["wire"] - before["wire"] > told["bytes"] / 4
    assert [side.tcp_counts()["OutRsts"] for side in jumbo] == resets
    assert told["longest_ms"] < STALL_MS
    packets = sum(queue["tx"] for queue in client.links()[0]["queues"])
    assert (after["wire"] - before["wire"]) / 2 / packets > 2048  # bytes in each


def test_datagrams_of_several_frames(jumbo: tuple[Side, Side]) -> None:
    server, client = jumbo
    before = client.bytes_by_path()
    _, port = serve_datagrams(server, "blocking", SHAREDSTACK_WIRE_AFTER="4")
    assert ask_datagrams(client, server.address, port, how="connected")["lost"] == 0
    went = moved(client, before)
    assert went["wire"] > 5 * went["kernel"]  # with packets of 1500 bytes the kernel has more than half


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("size", [100, 2928, 2929, 3001, 8948])
def test_a_segment_in_pieces(family: int, size: int) -> None:
    """Each is whole by itself, and together they are the segment."""
    text = random.Random(size).randbytes(size)
    ip = scapy.IP(src="10.0.0.1", dst="10.0.0.2") if family == 4 else scapy.IPv6(src="fd00::1", dst="fd00::2")
    options = [("NOP", None), ("NOP", None), ("Timestamp", (7, 9))]
    segment = scapy.TCP(sport=1, dport=2, seq=0xFFFFFF00, ack=5, flags="FPA", window=77, options=options)
    whole = bytes(scapy.Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / ip / segment / text)
    got = b""
    pieces = in_pieces(whole, 3000)
    assert len(pieces) == (len(whole) - 1) // 3000 + 1 if len(whole) <= 3000 else len(pieces) > 1
    for i, piece in enumerate(pieces):
        assert len(piece) <= 3000
        seen = scapy.Ether(piece)
        tcp, last = seen[scapy.TCP], i + 1 == len(pieces)
        assert tcp.seq == (0xFFFFFF00 + len(got)) & 0xFFFFFFFF and tcp.ack == 5 and tcp.window == 77 and tcp.options == options
        assert str(tcp.flags) == ("FPA" if last else "A")
        sums = (tcp.chksum, seen[scapy.IP].chksum if family == 4 else None)
        del tcp.chksum
        if family == 4:
            del seen[scapy.IP].chksum
        anew = scapy.Ether(bytes(seen))
        assert sums == (anew[scapy.TCP].chksum, anew[scapy.IP].chksum if family == 4 else None)
        got += bytes(tcp.payload)[:size] if last else bytes(tcp.payload)
    assert got == text


def test_what_cannot_be_divided_is_lost() -> None:
    whole = bytes(scapy.Ether() / scapy.IP(src="10.0.0.1", dst="10.0.0.2") / scapy.UDP() / bytes(5000))
    assert in_pieces(whole, 3000) == []
    assert in_pieces(whole, 6000) == [whole]
    assert struct.unpack_from("!H", whole, 12) == (0x0800,)
