"""The helper's part while connections are on the wire path: stopped programs, clean ends, and what else is on the interface."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from wire.fix_veth import INTERFACE
from wire.fix_world import BIN, WHOLE, Side, some, wait_for

TALK = str(Path(__file__).with_name("talk.py"))
PYTHON = sys.base_prefix + "/bin/python3"
PORT = 7200


def serve(side: Side, how: str, port: int = PORT, ours: bool = True) -> subprocess.Popen[str]:
    program = side.start(PYTHON, TALK, "serve", side.address, str(port), how, ours=ours)
    assert program.stdout
    assert program.stdout.readline() == "ready\n"
    return program


class Plain:
    """A plain connection from a host, made by this process."""

    def __init__(self, side: Side, address: str, port: int) -> None:
        made: list[socket.socket] = []

        def connect() -> None:
            side.host.enter()
            made.append(socket.create_connection((address, port), 10))

        thread = threading.Thread(target=connect)
        thread.start()
        thread.join()
        self.socket = made[0]
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def exchange(self, data: bytes) -> None:
        self.socket.sendall(data)
        assert self.socket.recv(len(data), socket.MSG_WAITALL) == data

    def unacknowledged(self) -> int:
        """Bytes that the peer has not acknowledged (SIOCOUTQ)."""
        import fcntl
        import struct

        return int(struct.unpack("i", fcntl.ioctl(self.socket, 0x5411, b"\0" * 4))[0])


def lifted(side: Side) -> bool:
    return ("wire", "none") in side.paths()


ECHO = """
import socket, sys
s = socket.socket(type=socket.SOCK_DGRAM)
s.bind((sys.argv[1], 7300))
print("ready", flush=True)
s.sendto(*s.recvfrom(9000))
"""
ASK = """
import socket, sys
s = socket.socket(type=socket.SOCK_DGRAM)
s.settimeout(5)
s.sendto(bytes(int(sys.argv[2])), (sys.argv[1], 7300))
print(len(s.recv(9000)))
"""


def test_lowered_by_command(fresh_sides: tuple[Side, Side]) -> None:
    server, client = fresh_sides
    serve(server, "epoll", PORT + 90)
    plain = Plain(client, server.address, PORT + 90)
    for _ in range(200):
        plain.exchange(b"x" * 50)
    assert lifted(server)
    command = (str(BIN / "sharedstack"), "lower", "--stack", server.stack)
    assert "taken back from the wire path\n1 of 1 lowered\n" in server.run(*command, ours=False)
    assert not lifted(server)
    for _ in range(20):
        plain.exchange(b"y" * 50)
    plain.socket.close()


def datagrams(server: Side, client: Side, size: int) -> None:
    """One there and back between plain programs."""
    echo = server.start(PYTHON, "-c", ECHO, server.address, ours=False)
    assert echo.stdout
    assert echo.stdout.readline() == "ready\n"
    assert client.run(PYTHON, "-c", ASK, server.address, str(size), ours=False) == f"{size}\n"


@pytest.mark.parametrize("how", some(["blocking", "epoll"]))
def test_a_stopped_program_is_answered_for(fresh_sides: tuple[Side, Side], how: str) -> None:
    server, client = fresh_sides
    program = serve(server, how)
    plain = Plain(client, server.address, PORT)
    for _ in range(200):
        plain.exchange(b"x" * 50)
    assert lifted(server)
    pid = int(server.host.run("pgrep", "-f", f"talk.py serve {server.address}").split()[0])
    subprocess.run(["kill", "-STOP", str(pid)], check=True)
    try:
        sent = 0
        start = time.monotonic()
        plain.socket.setblocking(False)
        while time.monotonic() - start < 1:
            try:
                sent += plain.socket.send(b"y" * 1000)
            except BlockingIOError:
                time.sleep(0.01)
        assert sent > 50_000
        first = plain.unacknowledged()
        time.sleep(10 if WHOLE else 2)  # the peer's window is closed: probes must be answered, or the kernel gives up sooner or later
        assert plain.unacknowledged() <= first
        assert sent - plain.unacknowledged() > 50_000, "nobody acknowledged"
    finally:
        subprocess.run(["kill", "-CONT", str(pid)], check=True)
    plain.socket.settimeout(10)
    got = 0
    while got < sent:
        got += len(plain.socket.recv(65536))
    plain.exchange(b"still there")
    plain.socket.close()
    program.kill()


def test_a_clean_end_lowers_everything(fresh_sides: tuple[Side, Side]) -> None:
    server, client = fresh_sides
    serve(server, "epoll")
    asking = client.start(PYTHON, TALK, "keep", server.address, str(PORT), "blocking", "1", "60000", "200")
    wait_for(lambda: lifted(server) and lifted(client))
    server.stop_helper()
    links = server.host.run("ip", "-d", "link", "show", INTERFACE) + server.host.run("tc", "filter", "show", "dev", INTERFACE, "egress")
    assert "xdp" not in links
    assert "bpf" not in links
    before = client.tcp_counts()["RetransSegs"]
    out = asking.communicate(timeout=60)[0]
    assert asking.returncode == 0, out
    assert json.loads(out)["longest_ms"] < 190
    assert client.tcp_counts()["RetransSegs"] == before


def test_killed_with_connections_that_go_on(fresh_sides: tuple[Side, Side]) -> None:
    """Participants drive the engine without it, and end their connections."""
    server, client = fresh_sides
    serve(server, "blocking")
    asking = client.start(PYTHON, TALK, "keep", server.address, str(PORT), "blocking", "1", "30000", "200")
    wait_for(lambda: lifted(server) and lifted(client))
    assert client.helper
    client.helper.kill()
    client.helper.wait()
    out = asking.communicate(timeout=60)[0]
    assert asking.returncode == 0, out
    client.helper = None


@pytest.mark.parametrize("killed", ["server", "client"])
def test_a_program_that_is_killed_leaves_no_record(fresh_sides: tuple[Side, Side], killed: str) -> None:
    """Its connection is the kernel's to close first, which comes some time after the death is noticed."""
    server, client = fresh_sides
    programs = {"server": serve(server, "blocking")}
    programs["client"] = client.start(PYTHON, TALK, "keep", server.address, str(PORT), "blocking", "1", "30000", "200")
    wait_for(lambda: lifted(server) and lifted(client))
    programs[killed].kill()
    for program in programs.values():
        program.communicate(timeout=60)
    wait_for(lambda: not any(n for side in fresh_sides for n in side.left().values()), 10)


def test_others_on_the_interface_do_not_notice(fresh_sides: tuple[Side, Side]) -> None:
    server, client = fresh_sides
    serve(server, "epoll")
    serve(server, "threads", PORT + 1, ours=False)
    plain = Plain(client, server.address, PORT + 1)
    asking = client.start(PYTHON, TALK, "keep", server.address, str(PORT), "blocking", "1", "20000", "200")
    wait_for(lambda: lifted(server) and lifted(client))
    for i in range(500):
        plain.exchange(b"z" * (i % 300 + 1))
    assert asking.communicate(timeout=60)[0]
    datagrams(server, client, 5000)  # in fragments
    assert client.helper
    client.helper.send_signal(signal.SIGKILL)
    client.helper.wait()
    plain.exchange(b"after the helper's death")
    datagrams(server, client, 5000)
    client.helper = None


def busy(server: Side, client: Side, messages: int, most: int = 400) -> subprocess.Popen[str]:
    """A conversation on the wire path."""
    serve(server, "epoll")
    asking = client.start(PYTHON, TALK, "keep", server.address, str(PORT), "blocking", "1", str(messages), str(most))
    wait_for(lambda: lifted(server) and lifted(client))
    return asking


def ended_well(asking: subprocess.Popen[str]) -> None:
    out = asking.communicate(timeout=90)[0]
    assert asking.returncode == 0, out


def test_the_link_goes_down_and_comes_back(fresh_sides: tuple[Side, Side]) -> None:
    server, client = fresh_sides
    asking = busy(server, client, 40000)
    client.host.run("ip", "link", "set", INTERFACE, "down")
    time.sleep(2)
    client.host.run("ip", "link", "set", INTERFACE, "up")
    ended_well(asking)


def test_a_narrower_interface(fresh_sides: tuple[Side, Side]) -> None:
    """Messages of several of its segments go on, and by the wire."""
    server, client = fresh_sides
    asking = busy(server, client, 10000, 2000)
    for side in fresh_sides:
        side.host.run("ip", "link", "set", INTERFACE, "mtu", "576")
    wire = client.bytes_by_path()["wire"]
    wait_for(lambda: client.bytes_by_path()["wire"] - wire > 1_000_000)
    ended_well(asking)


def test_an_address_that_goes(fresh_sides: tuple[Side, Side]) -> None:
    """And comes back: the connection survives it, and nothing is sent from it meanwhile."""
    server, client = fresh_sides
    asking = busy(server, client, 40000)
    client.host.run("ip", "address", "del", f"{client.address}/24", "dev", INTERFACE)
    time.sleep(0.3)
    wire = client.bytes_by_path()["wire"]
    time.sleep(1)
    assert client.bytes_by_path()["wire"] - wire < 1000
    client.host.run("ip", "address", "add", f"{client.address}/24", "dev", INTERFACE)
    ended_well(asking)


def test_a_route_that_goes_elsewhere(fresh_sides: tuple[Side, Side]) -> None:
    server, client = fresh_sides
    asking = busy(server, client, 60000)
    client.host.run("ip", "link", "add", "elsewhere", "type", "veth", "peer", "name", "nowhere")
    client.host.run("ip", "link", "set", "elsewhere", "up")
    client.host.run("ip", "route", "add", f"{server.address}/32", "dev", "elsewhere")
    wait_for(lambda: ("kernel", "no_route") in client.paths())
    client.host.run("ip", "route", "del", f"{server.address}/32", "dev", "elsewhere")
    ended_well(asking)


def test_a_route_that_is_no_more(fresh_sides: tuple[Side, Side]) -> None:
    server, client = fresh_sides
    asking = busy(server, client, 60000)
    client.host.run("ip", "route", "add", "blackhole", f"{server.address}/32")
    time.sleep(1)
    client.host.run("ip", "route", "del", "blackhole", f"{server.address}/32")
    ended_well(asking)


TIMED_OUT = """
import errno, select, socket, sys, time
s = socket.socket()
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1500)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
s.connect((sys.argv[1], int(sys.argv[2])))
for _ in range(200):
    s.sendall(b"x" * 50)
    assert len(s.recv(50, socket.MSG_WAITALL)) == 50
print("warm", flush=True)
sys.stdin.readline()
began = time.monotonic()
s.sendall(b"lost")
if sys.argv[3] == "recv":
    try:
        s.recv(10)
    except OSError as e:
        print(errno.errorcode[e.errno])
else:
    p = select.poll()
    p.register(s, select.POLLIN)
    print([hex(events) for _, events in p.poll(20000)], errno.errorcode[s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)])
for call in (lambda: s.recv(10), lambda: s.send(b"more")):
    try:
        print(call())
    except OSError as e:
        print(errno.errorcode[e.errno])
print(1 < time.monotonic() - began < 5)
"""


@pytest.mark.parametrize("how", some(["recv", "poll"]))
def test_a_peer_that_is_no_more(fresh_sides: tuple[Side, Side], how: str) -> None:
    """What is sent is not acknowledged any more: the program hears of it after its time-out, and what the kernel would say."""
    server, client = fresh_sides
    told = []
    for ours in (False, True):
        serve(server, "epoll", ours=False)
        asking = client.start(PYTHON, "-c", TIMED_OUT, server.address, str(PORT), how, ours=ours)
        assert asking.stdout and asking.stdin
        assert asking.stdout.readline() == "warm\n"
        if ours:
            wait_for(lambda: lifted(client))
        server.host.run(
            "nft",
            f"add table netdev lost; add chain netdev lost in {{ type filter hook ingress device {INTERFACE} priority 0; policy drop; }}",
        )
        asking.stdin.write("\n")
        asking.stdin.flush()
        told.append(asking.communicate(timeout=30)[0])
        server.host.run("nft", "delete table netdev lost")
        server.end_programs()
    assert told[0].endswith("True\n")
    assert told[1] == told[0]
