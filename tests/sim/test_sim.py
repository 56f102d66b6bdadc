"""The engine against itself over a network that loses, delays, overtakes, doubles and spoils: many connections from one seed."""

from __future__ import annotations

import os
import struct
import subprocess
import time
from pathlib import Path

import pytest
from sim import pcapng
from sim.fix_network import many, run, scenario_of, verdict

CONNECTIONS = 20_000
MOST_SECONDS = 60  # of CPU time


def _seed() -> int:
    """$SEED, or the commit's: CI that runs again runs the same, and the next commit other ones."""
    if given := os.environ.get("SEED"):
        return int(given, 0)
    command = ["git", "rev-parse", "HEAD"]
    head = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False).stdout.strip()
    return int(head[:8], 16) if head else 1


def test_many_connections(capsys: pytest.CaptureFixture[str]) -> None:
    seed, begun = _seed(), time.process_time()
    total, failed, connections = many(seed, CONNECTIONS)
    took = time.process_time() - begun
    with capsys.disabled():
        print(
            f"\nsim: seed {seed}: {connections} connections, {sum(total['received'])} bytes in {took:.1f} s; {total['packets']} packets: "
            f"{total['lost']} lost, {total['duplicated']} doubled, {total['corrupted']} spoiled; {total['retransmits']} segments sent "
            f"again, {total['timeouts']} time-outs, {total['resets']} ends told of a reset; {total['elapsed_ns'] / 1e9:.0f} s virtual"
        )
    assert failed == 0, f"scenario {failed - 1}: {verdict(total)}; replay: run(scenario_of({failed - 1}))"
    assert connections >= CONNECTIONS
    assert took < MOST_SECONDS
    for counted in ("lost", "duplicated", "corrupted", "retransmits", "timeouts", "resets"):
        assert total[counted] > 0, counted


@pytest.mark.parametrize("seed", [3, 77, 4711])
def test_everything_replays(seed: int) -> None:
    first, packets = run(scenario_of(seed), capture=8 << 20)
    second, again = run(scenario_of(seed), capture=8 << 20)
    assert dict(first.items()) == dict(second.items())
    assert packets == again
    other, different = run(scenario_of(seed + 1), capture=8 << 20)
    assert (dict(other.items()), different) != (dict(first.items()), packets)


def test_a_run_can_be_written_down(tmp_path: Path) -> None:
    import scapy.all as scapy

    values = dict(scenario_of(11).items()) | {"family": 4, "bytes": (30_000, 5_000), "connections": 1, "nodes": 2, "ending": 0}
    result, capture = run(values, capture=8 << 20)
    assert verdict(result) == ""
    path = tmp_path / "run.pcapng"
    count = pcapng.write(path, capture, 2)
    packets = scapy.rdpcap(str(path))
    assert len(packets) == count == result["packets"]
    segments = [p for p in packets if p.haslayer(scapy.TCP)]
    data = sum(len(bytes(p[scapy.TCP].payload)) for p in segments)
    assert data >= 35_000
    assert sum(1 for p in segments if p[scapy.TCP].flags.F) >= 2
    for p in segments[:200]:  # scapy's own idea of the checksums
        there = p[scapy.TCP].chksum
        rebuilt = scapy.IP(bytes(p[scapy.IP]))
        del rebuilt[scapy.TCP].chksum
        assert scapy.IP(bytes(rebuilt))[scapy.TCP].chksum == there


def test_the_file_is_what_the_format_says(tmp_path: Path) -> None:
    path = tmp_path / "one.pcapng"
    assert pcapng.write(path, struct.pack("<QII", 1_500_000_000, 1, 5) + b"hello", 2) == 1
    data, at, kinds = path.read_bytes(), 0, []
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        assert struct.unpack_from("<I", data, at + size - 4)[0] == size
        assert size % 4 == 0
        kinds.append(kind)
        at += size
    assert kinds == [0x0A0D0D0A, 1, 1, 6]
    assert b"hello" in data
