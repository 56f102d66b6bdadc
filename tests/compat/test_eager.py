"""What eager is for: a program that moves bytes in bulk has them moved by ring, however late its reader begins, and however it waits."""

from __future__ import annotations

import sys

import pytest
from compat.fix_lab import Lab

pytest_plugins = ["compat.fix_paths"]

PATIENT = {"SHAREDSTACK_EAGER": "1"}


def env_of(mode: str) -> dict[str, str]:
    return PATIENT if mode == "eager" else {}


SIZE = 40 << 20
COMMON = f"""
import hashlib, os, select, socket, tempfile, threading, time
data = os.urandom({SIZE})
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())

def receive(late, poll):
    conn, _ = listener.accept()
    conn.settimeout(10 if poll else None)  # with one, Python polls before it receives
    time.sleep(late)
    digest = hashlib.sha256()
    while chunk := conn.recv(8192):
        digest.update(chunk)
    assert digest.digest() == hashlib.sha256(data).digest()
    print("same")

def with_reader(late, poll, send):
    reader = threading.Thread(target=receive, args=(late, poll))
    reader.start()
    send()
    client.close()
    reader.join()
"""
SENDS = {
    "sendall": "client.sendall(data)",
    "pieces": "[client.sendall(data[i:i + 8192]) for i in range(0, len(data), 8192)]",
    "nonblocking": "client.settimeout(10), client.sendall(data)",
    "sendfile": "file.write(data), file.seek(0), client.sendfile(file)",
}


def program(send: str, late: float, poll: bool) -> list[str]:
    """A Python that sends SIZE bytes in that way to a thread of its own."""
    run = f"with tempfile.TemporaryFile() as file:\n    with_reader({late}, {poll}, lambda: ({SENDS[send]}))\n"
    return [sys.executable, "-c", COMMON + run]


@pytest.mark.parametrize("poll", [False, True], ids=["blocking", "polling"])
@pytest.mark.parametrize("send", SENDS)
def test_bulk_goes_by_ring(lab: Lab, send: str, poll: bool) -> None:
    ran = lab.run(program(send, 0, poll), "eager", carries=SIZE, env=PATIENT).ok()
    assert ran.out == "same\n"
    # once a reader may stand still for longer than is waited for, on a busy machine: that costs what the kernel's buffers take, 4 MB
    assert ran.sent.local >= 0.88 * SIZE, ran.sent


@pytest.mark.parametrize("mode", ["default", "eager"])
def test_a_late_reader(lab: Lab, mode: str) -> None:
    """Longer than any sender waits for it: the kernel takes what it can, and the rest waits, in order."""
    assert lab.run(program("sendall", 0.6, True), mode, carries=SIZE, env=env_of(mode)).ok().out == "same\n"


FILL = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
conn, _ = listener.accept()
client.setblocking(False)
sent = 0
try:
    while True:
        sent += client.send(bytes(65536))
except BlockingIOError:
    pass
got = 0
while got < sent:
    got += len(conn.recv(1 << 20))
print(sent >= 1 << 20, got == sent)
"""


@pytest.mark.parametrize("mode", ["kernel", "default", "eager"])
def test_nobody_waits_for_itself(lab: Lab, mode: str) -> None:
    """One thread that fills a connection and reads it then: EAGAIN comes as on the kernel, and with it no time-out."""
    ran = lab.run([sys.executable, "-c", FILL], mode, timeout=10, env=env_of(mode)).ok()
    assert ran.out == "True True\n"


FILL_SLOW_READER = """
import select, socket, threading, time
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
conn, _ = listener.accept()
full, total = threading.Event(), []

def read():
    got = len(conn.recv(512))
    full.wait()
    while chunk := conn.recv(1 << 20):
        got += len(chunk)
    total.append(got)

reader = threading.Thread(target=read)
reader.start()
client.setblocking(False)
sent, began = 0, time.monotonic()
try:
    while True:
        sent += client.send(bytes(512))
except BlockingIOError:
    took = time.monotonic() - began
full.set()
client.close()
reader.join()
print(total == [sent], took)
"""


@pytest.mark.parametrize("mode", ["kernel", "default", "eager"])
def test_small_sends_fill_a_connection(lab: Lab, mode: str) -> None:
    """EAGAIN comes soon, though each send would like to wait a little for a reader that stands still in another thread."""
    same, took = lab.run([sys.executable, "-c", FILL_SLOW_READER], mode, timeout=60, env=env_of(mode)).ok().out.split()
    assert same == "True"
    assert float(took) < 2, took
