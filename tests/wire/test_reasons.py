"""Why a connection with another host is not on the wire path: each reason as it comes to be, told by `inspect`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from wire.fix_veth import INTERFACE
from wire.fix_world import Side, wait_for

TALK = str(Path(__file__).with_name("talk.py"))
PYTHON = sys.base_prefix + "/bin/python3"
PORT = 7400
FEW = ["1", "20", "100", "3"]
MANY = ["1", "3000", "100", "9"]
BULK = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
for i in range(int(sys.argv[3])):
    s.sendall(b"x" * 100)
    s.recv(100, socket.MSG_WAITALL)
block = b"y" * 60000
while True:
    s.sendall(block)
    got = 0
    while got < len(block):
        got += len(s.recv(65536))
"""
STREAM = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
block = b"y" * 200000
while True:
    s.send(block)
"""
FROM = """
import socket, sys
s = socket.create_connection((sys.argv[2], int(sys.argv[3])), source_address=(sys.argv[1], 0))
while True:
    s.sendall(b"x" * 100)
    s.recv(100, socket.MSG_WAITALL)
"""
SINK = """
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
s = listener.accept()[0]
while s.recv(65536):
    pass
"""


def serve(side: Side, address: str = "", ours: bool = True, code: list[str] | None = None) -> None:
    address = address or side.address
    command = [PYTHON, "-c", *code, address, str(PORT)] if code else [PYTHON, TALK, "serve", address, str(PORT), "blocking"]
    program = side.start(*command, ours=ours)
    assert program.stdout
    assert program.stdout.readline() == "ready\n"


def ask(side: Side, address: str, how: list[str]) -> subprocess.Popen[str]:
    return side.start(PYTHON, TALK, "ask", address, str(PORT), "blocking", *how)


def shows(side: Side, path: str, why: str, seconds: float = 20) -> None:
    wait_for(lambda: (path, why) in side.paths(), seconds)


def test_wire_young(sides: tuple[Side, Side]) -> None:
    server, client = sides
    serve(server)
    ask(client, server.address, FEW)
    shows(client, "kernel", "wire_young")


def test_wire_busy(sides: tuple[Side, Side]) -> None:
    """A stream that never pauses."""
    server, client = sides
    serve(server, code=[SINK], ours=False)
    client.start(PYTHON, "-c", STREAM, server.address, str(PORT))
    shows(client, "kernel", "wire_busy")
    assert client.inspect()["links"][0]["connections"] == 0


def test_wire_bulk(sides: tuple[Side, Side]) -> None:
    """Requests and replies first, and then much at once."""
    server, client = sides
    serve(server, ours=False)
    client.start(PYTHON, "-c", BULK, server.address, str(PORT), "200")
    shows(client, "kernel", "wire_bulk")


def test_wire_idle(sides: tuple[Side, Side]) -> None:
    server, client = sides
    serve(server)
    ask(client, server.address, MANY)
    shows(client, "wire", "none")
    shows(client, "kernel", "wire_idle")


@pytest.mark.parametrize(("gain", "path", "why"), [(100_000, "kernel", "wire_slower"), (0, "wire", "none")])
def test_wire_slower(sides: tuple[Side, Side], gain: int, path: str, why: str) -> None:
    """A pace of a thousand times the kernel's is asked for, or none."""
    server, client = sides
    serve(server, ours=False)
    lifts = client.inspect()["counters"]["wire_lifts"]
    asking = client.start(PYTHON, TALK, "keep", server.address, str(PORT), "blocking", "1", "1000", "50", SHAREDSTACK_WIRE_GAIN=str(gain))
    wait_for(lambda: client.inspect()["counters"]["wire_lifts"] > lifts)
    time.sleep(0.5)  # some thousands of messages
    shows(client, path, why)
    assert asking.communicate(timeout=60)[0]


def test_no_route(sides: tuple[Side, Side]) -> None:
    """The peer's address is another one of this host."""
    server, _ = sides
    server.host.run("ip", "address", "add", "10.77.0.99/32", "dev", INTERFACE)
    try:
        serve(server, "10.77.0.99", ours=False)
        server.start(PYTHON, "-c", FROM, server.address, "10.77.0.99", str(PORT))
        shows(server, "kernel", "no_route")
    finally:
        server.host.run("ip", "address", "del", "10.77.0.99/32", "dev", INTERFACE)
