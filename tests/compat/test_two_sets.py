"""A connection moves from one epoll set to another, as in servers with a set for each thread: what comes is reported by the new one."""

from __future__ import annotations

import pytest
from compat.fix_lab import Lab

pytest_plugins = ["compat.fix_paths"]

SETS = """
a, b = select.epoll(), select.epoll()
a.register({end}, select.EPOLLIN)
def turn(sets):
    assert sets.poll(5) == [({end}.fileno(), select.EPOLLIN)]
    assert {end}.recv(10) == b'ask'
    {end}.sendall(b'reply')
"""
ASK = "s.sendall(b'ask'); s.recv(10)"


@pytest.mark.parametrize("mode", ["kernel", "default", "eager"])
def test_moved_to_another_set(lab: Lab, mode: str) -> None:
    server, client = lab.connected(mode)
    server.do(SETS.format(end="c"))
    for _ in range(20):
        server.tell("turn(a)")
        assert client.do(ASK) == b"reply"
        server.hear()
    for here, there in [("a", "b"), ("b", "a")] * 5:
        server.tell(f"{here}.unregister(c); {there}.register(c, select.EPOLLIN); turn({there}); turn({there})")
        for _ in range(2):
            assert client.do(ASK) == b"reply"
        server.hear()
