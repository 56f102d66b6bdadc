"""A connection moves from one epoll set to another, as in servers with a set for each thread: what comes is reported by the new one."""

from __future__ import annotations

import time

import pytest
from compat.fix_lab import MODES, Actor, Lab

pytest_plugins = ["compat.fix_paths"]

SETS = """
a, b = select.epoll(), select.epoll()
a.register(c, select.EPOLLIN)
def turn(sets):
    assert sets.poll(5) == [(c.fileno(), select.EPOLLIN)]
    assert c.recv(10) == b'ask'
    c.sendall(b'reply')
"""


def turns(server: Actor, client: Actor, sets: str, before: str = "", count: int = 2) -> None:
    """Requests that the server receives when that set reports them."""
    server.tell(f"{before}\nfor _ in range({count}): turn({sets})")
    for _ in range(count):
        assert client.do("s.sendall(b'ask'); s.recv(10)") == b"reply"
    server.hear()


def busy(lab: Lab, mode: str) -> tuple[Actor, Actor]:
    """Server, with two sets of which `a` has the connection, and client; its rings are open, but on the kernel."""
    server, client = lab.connected(mode)
    server.do(SETS)
    turns(server, client, "a", count=20)
    return server, client


@pytest.mark.parametrize("mode", MODES)
def test_taken_out_of_one_and_put_into_another(lab: Lab, mode: str) -> None:
    server, client = busy(lab, mode)
    for here, there in [("a", "b"), ("b", "a")] * 5:
        turns(server, client, there, f"{here}.unregister(c); {there}.register(c, select.EPOLLIN)")


@pytest.mark.parametrize("mode", MODES)
def test_in_both_for_a_while(lab: Lab, mode: str) -> None:
    server, client = busy(lab, mode)
    for here, there in [("a", "b"), ("b", "a")] * 5:
        turns(server, client, there, f"{there}.register(c, select.EPOLLIN); {here}.unregister(c)")


@pytest.mark.parametrize("mode", MODES)
def test_the_old_set_is_waited_in_afterwards(lab: Lab, mode: str) -> None:
    """It does not take for its own what was noted of the member in the new one, whose kernel set would then go on reporting it."""
    server, client = busy(lab, mode)
    turns(server, client, "b", "a.unregister(c); b.register(c, select.EPOLLIN)", count=20)
    server.do("b.modify(c, 0); a.poll(0)")
    server.tell("b.poll(1)")
    time.sleep(0.3)  # the reader sleeps for so long that the kernel's set is asked
    client.do("s.sendall(b'ask')")
    assert server.hear() == []
    server.do("b.modify(c, select.EPOLLIN); turn(b)")
    assert client.do("s.recv(10)") == b"reply"
