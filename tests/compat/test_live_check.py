"""`inspect --check` on a live stack: connections in use, everybody stopped; sound as it is, and each flipped field is seen.

The records are flipped in copies of what was read from the stopped stack, so that what the checker judges is the library's own doing and
not a stack built for the test (tests/unit/test_check.py).
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from compat.fix_lab import Actor, Lab, state_of
from unit.fix_helper_daemon import wait_until
from unit.fix_mutations import EXCEPTIONS, FIELDS, mutations

from sharedstack.inspection import snapshot
from sharedstack.inspection.check import check

pytest_plugins = ["compat.fix_paths"]

CONNECT = """
for family, host in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1'), (socket.AF_INET, '127.0.0.1')):
    l = socket.socket(family); l.bind((host, 0)); l.listen(); ports.append(l.getsockname()[:2]); ls.append(l)
"""


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """These processes stand still."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        for pid in pids:
            wait_until(lambda pid=pid: state_of(pid) == "T")  # type: ignore[misc]
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def busy(lab: Lab) -> list[Actor]:
    """Three connections that have been used a lot: one with unread records in an outgrown ring, one whose reader sleeps, one over IPv6."""
    server, client = lab.actor("eager", SHAREDSTACK_DOZE="0"), lab.actor("eager", SHAREDSTACK_DOZE="0")
    server.do(f"ports, ls, cs = [], [], []{CONNECT}")
    client.do(f"ss = [socket.create_connection(at) for at in {server.do('ports')!r}]")
    server.do("cs = [l.accept()[0] for l in ls]")
    for _ in range(20):
        client.do("for s in ss: s.sendall(b'x' * 500)")
        server.do("for c in cs: c.recv(500, socket.MSG_WAITALL); c.sendall(b'y' * 300)")
        client.do("for s in ss: s.recv(300, socket.MSG_WAITALL)")
    for size in (4000, 12000, 100):
        client.do(f"for s in ss[:2]: s.sendall(b'z' * {size})")
    server.do("cs[0].recv(1000), None")
    server.do("t = threading.Thread(target=lambda: cs[2].recv(1), daemon=True); t.start()")
    wait_until(lambda: any(e.rx.why == "reader_asleep" for e in lab.state().endpoints))
    return [server, client]


def test_flipping_any_field_of_a_live_stack_is_seen(lab: Lab) -> None:
    actors = busy(lab)
    with stopped([*(actor.pid for actor in actors), lab.daemon.pid]):
        shot = snapshot.take(lab.name, bulk=True)
    assert [str(f) for f in check(shot)] == []
    made: Counter[str] = Counter()
    missed: dict[str, list[str]] = {}
    for field, where, mutant in mutations(shot, -1):
        made[field] += 1
        if not check(mutant):
            missed.setdefault(field, []).append(where)
    # links belong to datagram sockets, of which there are none here: test_check has them
    assert made.keys() >= {f for f in FIELDS if not f.startswith("link.")}
    caught = made.total() - sum(map(len, missed.values()))
    print(f"flips seen: {caught} of {made.total()} ({caught / made.total():.1%}); fields {len(made) - len(missed)} of {len(made)}")
    print(f"not seen: {missed}")
    assert {f: w for f, w in missed.items() if f not in EXCEPTIONS} == {}
    assert caught >= 0.95 * made.total()
    assert len(missed) <= 0.05 * len(made)
