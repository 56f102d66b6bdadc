"""Records of sockets that are gone are freed: also where a table was locked, or their holder died and another has its slot."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from compat.fix_lab import Actor, Lab
from unit.fix_helper_daemon import wait_until

from sharedstack.declare import binary
from sharedstack.declare.layout import CONSTANTS as C

pytest_plugins = ["compat.fix_paths"]

FILL = """
s.setblocking(False)
try:
    while True: s.send(bytes(100000))
except BlockingIOError: pass
"""
UDP = """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('127.0.0.1', 0))
for _ in range(20):
    s.sendto(b'x', s.getsockname())
    s.recv(10)
"""


def stream(lab: Lab) -> Actor:
    return lab.connected("eager")[1]


def datagrams(lab: Lab) -> Actor:
    actor = lab.actor("eager")
    actor.do(UDP)
    return actor


@pytest.mark.parametrize("table", ["ctl", "arena"])
@pytest.mark.parametrize("make", [stream, datagrams])
def test_closed_while_a_table_is_locked(own_lab: Lab, make: Callable[[Lab], Actor], table: str) -> None:
    actor = make(own_lab)
    name = actor.do("s.getsockname()")
    local = f"{name[0]}:{name[1]}"
    assert [e.local for e in own_lab.state().endpoints].count(local) == 1
    holder = datagrams(own_lab)
    slot = next(p.slot for p in own_lab.state().participants if p.own_pid == holder.pid)
    header = own_lab.daemon.header() if table == "ctl" else binary.arena(own_lab.daemon.map("arena"))
    lock = "ctl" if table == "ctl" else "lock"
    header[lock] = (slot + 1) << C["LOCK_SLOT_SHIFT"] | 2
    actor.do("s.close()")
    header[lock] = 0
    wait_until(lambda: local not in [e.local for e in own_lab.state().endpoints], 3)
    assert actor.do("1 + 1") == 2


def test_of_the_dead_whose_slot_is_taken(own_lab: Lab) -> None:
    """The socket outlives its process, since somebody outside holds it, and the slot is somebody else's by then."""
    server, client = own_lab.actor("kernel"), own_lab.actor("eager")
    port = server.do("l = socket.create_server(('127.0.0.1', 0)); l.getsockname()[1]")
    client.do(f"s = socket.create_connection(('127.0.0.1', {port}))\n{FILL}")
    name = f"\\0records-{client.pid}"
    server.do(f"c, _ = l.accept(); u = socket.socket(socket.AF_UNIX); u.bind('{name}'); u.listen()")
    client.do(f"w = socket.socket(socket.AF_UNIX); w.connect('{name}'); socket.send_fds(w, [b'x'], [s.fileno()])")
    server.do("v, _ = u.accept(); (held,) = socket.recv_fds(v, 1, 1)[1]")
    (record,) = own_lab.state().endpoints
    client.process.kill()
    client.process.wait()
    wait_until(lambda: [p.helper for p in own_lab.state().participants] == [True])
    assert [e.slot for e in own_lab.state().endpoints] == [-1]  # it is still there, and nobody's
    successor = datagrams(own_lab)
    assert [p.slot for p in own_lab.state().participants if p.own_pid == successor.pid] == [record.slot]
    server.do("c.close(); os.close(held)")
    wait_until(lambda: record.local not in [e.local for e in own_lab.state().endpoints], 3)
