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


RECEIVER = """
import os, socket, sys
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 0))
s.set_inheritable(True)
print('ready', s.getsockname()[1], flush=True)
for _ in range(300):
    data, where = s.recvfrom(2000)
    s.sendto(data, where)
sys.stdin.readline()
READS = (
    "import json, select, socket, sys; s = socket.socket(fileno=int(sys.argv[1])); got = []\\n"
    "while select.select([s], [], [], 0.5)[0]: d, w = s.recvfrom(2000); got.append((len(d), d[:1].decode(), *w[:2]))\\n"
    "print(json.dumps(got))"
)
os.execv(sys.executable, [sys.executable, '-c', READS, str(s.fileno())])
"""
SENDER = """
import socket, sys
t = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
t.connect((sys.argv[1], int(sys.argv[2])))
for _ in range(300): t.send(b'w'); t.recv(9)
for i, n in enumerate((700, 0, 1, 1400, 30)): t.send(bytes([97 + i]) * n)
print(*t.getsockname()[:2])
"""


@pytest.mark.parametrize("family", [4, 6])
def test_what_is_unread_goes_along(sides: tuple[Side, Side], family: int) -> None:
    """A receiver executes another program: what an engine brought is there for it, from the other host."""
    here, there = sides
    before = there.inspect()["counters"]
    receiver = there.start(PYTHON, "-c", RECEIVER, there.host.address(family))
    port = ready(receiver)
    address, own = here.run(PYTHON, "-c", SENDER, there.host.address(family), str(port)).split()
    out = receiver.communicate("go\n", timeout=20)[0]
    sizes = zip((700, 0, 1, 1400, 30), "a cde", strict=True)
    assert json.loads(out) == [[n, first.strip(), address, int(own)] for n, first in sizes]
    now = there.inspect()["counters"]
    assert now["recalled"] - before["recalled"] == 5
    assert now["recall_lost"] == before["recall_lost"]
