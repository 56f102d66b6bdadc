"""Datagrams on the wire path: between programs that were not changed, in every way to wait, and with plain peers."""

from __future__ import annotations

import json

import pytest
from wire.fix_datagrams import PROGRAM, PYTHON, ask, moved, ready, reasons, serve
from wire.fix_world import SEED, WHOLE, Side

ENDS = ("both", "server", "client")
HOWS = ("blocking", "threads", "poll", "select", "epoll", "edge", "nested", "asyncio")
# Of each way to wait one, which the run's seed chooses; all where the run is WHOLE.
CASES = [(how, ends) for i, how in enumerate(HOWS) for j, ends in enumerate(ENDS) if WHOLE or j == (SEED + i) % len(ENDS)]


@pytest.mark.parametrize(("how", "ends"), CASES)
def test_each_datagram_comes_back_whole_and_once(sides: tuple[Side, Side], how: str, ends: str) -> None:
    here, there = sides
    before = [side.bytes_by_path() for side in sides]
    _, port = serve(there, how, ours=ends != "client")
    asked = ask(here, there.address, port, how="connected" if how in ("poll", "edge") else "sendto", ours=ends != "server")
    assert asked["lost"] == 0
    for side, ours in ((here, ends != "server"), (there, ends != "client")):
        by_path = moved(side, before[sides.index(side)])
        if ours and not (how == "threads" and side is there):  # those that do not fit into a frame are the kernel's
            assert by_path["wire"] > (0.1 if how == "nested" else 0.2) * by_path["kernel"], by_path
            assert by_path["local"] == 0
    if how == "threads" and ends != "client":  # some of them are asleep in the kernel at any time
        assert "native_reader" in reasons(there)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "v6"])
def test_any_address_and_ipv6(sides: tuple[Side, Side], address: str) -> None:
    here, there = sides
    before = there.bytes_by_path()
    own = there.host.address(6) if address == "v6" else address
    _, port = serve(there, "blocking", address=own)
    asked = ask(here, there.host.address(4 if address != "v6" else 6), port)
    assert asked["lost"] == 0
    assert moved(there, before)["wire"] > 10_000


@pytest.mark.parametrize("ends", ["both", "sink", "flood"])
def test_a_flood_is_in_order(sides: tuple[Side, Side], ends: str) -> None:
    here, there = sides
    before = there.bytes_by_path()
    sink = there.start(PYTHON, PROGRAM, "sink", there.address, "0", ours=ends != "flood")
    port = ready(sink)
    n = 20_000
    said = json.loads(here.run(PYTHON, PROGRAM, "flood", there.address, str(port), str(SEED), str(n), ours=ends != "sink"))
    assert said["swapped"] == 0
    assert said["seen"] > n / 20  # a reader that is slower than its sender loses some, as on the kernel
    if ends != "flood":
        assert moved(there, before)["wire"] > 100_000
