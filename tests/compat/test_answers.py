"""Requests by the kernel and answers by a ring, or the other way round: no answer acknowledges a request then, and Nagle's algorithm must
not wait for that.

The kernel acknowledges late (after 40 ms) where requests have been answered at once a few times; such connections are lifted here.
"""

from __future__ import annotations

import pytest
from compat.fix_lab import Lab

pytest_plugins = ["compat.fix_paths"]

CONNECTIONS, TURNS = 8, 100
DELAYED_ACK = 0.04  # s, TCP_DELACK_MIN, include/net/tcp.h
SERVE = """
d = None
for _ in range({connections}):
    c, _ = l.accept()
    for i in range({turns}):
        d = c.dup() if {copied} and i == 50 else d
        for _ in range({ahead}):
            c.sendall(c.recv(64, socket.MSG_WAITALL))
    c.recv(1)
    c.close()
    d and d.close()
"""
ASK = """
slowest, d = [], None
for _ in range({connections}):
    s = socket.create_connection(('127.0.0.1', {port}))
    taken = []
    for i in range({turns}):
        d = s.dup() if {copied} and i == 50 else d
        t = time.monotonic()
        for _ in range({ahead}):
            s.sendall(b'x' * 64)
        for _ in range({ahead}):
            s.recv(64, socket.MSG_WAITALL)
        taken.append(time.monotonic() - t)
    slowest.append(max(taken))
    assert s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
    s.close()
    d and d.close()
slowest
"""


@pytest.mark.parametrize("ahead", [1, 2])
@pytest.mark.parametrize("by_kernel", ["requests", "answers"])
def test_nagle_does_not_wait_for_an_answer_that_went_by_ring(lab: Lab, by_kernel: str, ahead: int) -> None:
    # a descriptor that was copied receives by the kernel
    server, client = (lab.actor("default", SHAREDSTACK_LIFT_AFTER="60") for _ in range(2))
    port = server.do("l = socket.create_server(('127.0.0.1', 0))\nl.getsockname()[1]")
    before = lab.sent()
    server.tell(SERVE.format(connections=CONNECTIONS, turns=TURNS, ahead=ahead, copied=by_kernel == "requests"))
    slowest = client.do(ASK.format(connections=CONNECTIONS, turns=TURNS, ahead=ahead, copied=by_kernel == "answers", port=port), 60)
    server.hear()
    sent = lab.sent() - before
    most = CONNECTIONS * TURNS * ahead * 64
    assert min(sent.local, sent.kernel) > most / 4, sent
    # a busy machine delays one or the other
    assert min(slowest) < DELAYED_ACK / 2, slowest
