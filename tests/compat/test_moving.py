"""A helper leaves, and another one starts: processes that live on find the new stack, and their connections go by ring again.

A helper that is killed is another matter: its successor adopts the stack, and nobody has to move.
"""

from __future__ import annotations

import signal

import pytest
from compat.fix_lab import Actor, Lab
from compat.fix_load import end_load, under_load
from unit.fix_helper_daemon import wait_until

pytest_plugins = ["compat.fix_paths"]


def moved(lab: Lab, *actors: Actor) -> bool:
    """Are they all in the present stack, and do bytes go by ring there both ways?"""
    state = lab.state()
    return {a.pid for a in actors} <= {p.own_pid for p in state.participants} and all(
        len([e for e in state.endpoints if e.tx.local_bytes > 1000]) >= 4 for _ in actors
    )


@pytest.mark.timeout(90)
@pytest.mark.parametrize("how", ["recv", "poll", "epoll"])
def test_another_helper_under_load(own_lab: Lab, how: str) -> None:
    server, client = under_load(own_lab, how)
    for _ in range(2 if how == "epoll" else 1):
        wait_until(lambda: moved(own_lab, server, client), 20)
        assert own_lab.daemon.end(signal.SIGTERM)[0] == 0
        before = client.do("totals['asked'], totals['taken']")
        wait_until(lambda seen=before: all(a > b for a, b in zip(client.do("totals['asked'], totals['taken']"), seen, strict=True)))
        own_lab.start_helper()
    wait_until(lambda: moved(own_lab, server, client), 20)
    end_load(server, client)
    for actor in (server, client):
        actor.end()
    own_lab.settle()
    own_lab.assert_clean()


@pytest.mark.timeout(90)
def test_a_killed_helper_under_load(own_lab: Lab) -> None:
    server, client = under_load(own_lab, "poll")
    wait_until(lambda: moved(own_lab, server, client), 20)
    slots = {p.own_pid: p.slot for p in own_lab.state().participants if not p.helper}
    own_lab.daemon.end(signal.SIGKILL)
    own_lab.start_helper()
    wait_until(lambda: moved(own_lab, server, client), 20)
    end_load(server, client)
    assert {p.own_pid: p.slot for p in own_lab.state().participants if not p.helper} == slots


def test_what_is_unread_when_the_helper_leaves(own_lab: Lab) -> None:
    """It is received first, then what came by the kernel meanwhile, then what comes by the new stack's ring."""
    server, client = own_lab.connected("eager")
    before = own_lab.sent().local
    client.do("s.sendall(b'1' * 30000)")
    assert own_lab.sent().local - before == 30000
    own_lab.daemon.end(signal.SIGTERM)
    client.do("s.sendall(b'2' * 30000)")
    own_lab.start_helper()
    server.do("c.sendall(b'x')")  # the server moves here, at the latest in its next call
    server.do("c.sendall(b'x')")
    client.do("assert s.recv(2, socket.MSG_WAITALL) == b'xx'; s.sendall(b'3' * 30000)")
    assert server.do("c.recv(90000, socket.MSG_WAITALL)") == b"1" * 30000 + b"2" * 30000 + b"3" * 30000

    def by_ring() -> bool:
        client.do("s.sendall(b'4')")
        server.do("assert c.recv(1) == b'4'; c.sendall(b'5')")
        client.do("assert s.recv(1) == b'5'")
        before = own_lab.sent().local
        client.do("s.sendall(b'6' * 1000)")
        after = own_lab.sent().local
        assert server.do("c.recv(1000, socket.MSG_WAITALL)") == b"6" * 1000
        return after - before == 1000

    wait_until(by_ring)  # whoever looked for a helper when there was none looks again after a second
