"""Live connections go from the kernel to the engine and back, and the peer, a plain kernel, notices nothing."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator

import pytest
from wire.fix_end import End
from wire.fix_lift import Told, echo, resets, travel
from wire.fix_veth import Host, hosts, need_root
from wire.fix_world import some

STALL_MS = 190  # whatever is lost costs a time-out, which is 200 at least; a busy machine makes pauses too
TURNS = int(os.environ.get("LIFTS", "60"))  # of each case


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Host, Host]]:
    need_root()
    with hosts() as both:
        yield both


def run(pair: tuple[Host, Host], family: int, seed: int, ahead: int) -> Told:
    lifting, plain = End(pair[0]), End(pair[1])
    try:
        lifting.do("open")
        plain.do("call", echo, family)
        told = lifting.do("call", travel, pair[1], family, seed, TURNS, ahead)
        assert isinstance(told, Told)
        return told
    finally:
        lifting.end()
        plain.end()


@pytest.mark.parametrize("family", some([4, 6]))
@pytest.mark.parametrize("ahead", [200, 30_000], ids=["little", "much"])
@pytest.mark.parametrize("options", ["all", "no timestamps", "no sack", "no scaling"])
def test_there_and_back(pair: tuple[Host, Host], family: int, ahead: int, options: str) -> None:
    name = {"no timestamps": "tcp_timestamps", "no sack": "tcp_sack", "no scaling": "tcp_window_scaling"}.get(options)
    before = [resets(host) for host in pair]
    try:
        if name:
            pair[0].run("sysctl", "-qw", f"net.ipv4.{name}=0")
        told = run(pair, family, hash((family, ahead)) % 1000, ahead)
    finally:
        if name:
            pair[0].run("sysctl", "-qw", f"net.ipv4.{name}=1")
    assert told.good
    assert told.lifts == TURNS
    assert told.by_engine > 1000
    assert [resets(host) for host in pair] == before
    assert told.unread and told.unsent and told.strays  # not only when nothing was under way
    assert told.stall_ms < STALL_MS
    print(
        f"lift {statistics.median(told.lift_us)} µs, lower {statistics.median(told.lower_us)} µs, with unread {told.unread}, unsent "
        f"{told.unsent}, put off {told.put_off}, strays {told.strays}; longest stall {told.stall_ms:.0f} ms"
    )
