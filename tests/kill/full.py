"""A small /dev/shm that becomes full, and is emptied again, while two programs talk: to be run in a mount namespace of its own.

Prints "ok" if every byte was right, nobody died, and what needed memory got it when there was some.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pytest
from compat.fix_lab import Actor, Lab, Namespace
from kill.test_exhausted import connect, is_lifted, talk, two

FILLER = Path("/dev/shm/filler")


@contextlib.contextmanager
def full(left: int) -> Iterator[None]:
    """All but so many bytes are taken."""
    with FILLER.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        file.truncate(max(0, file.tell() - left))
        yield
    FILLER.unlink()


def grows(server: Actor, client: Actor, c: str, s: str) -> None:
    """What is sent before it is read asks for a larger ring, and then for a larger one."""
    for size in (40_000, 150_000, 500_000):
        client.do(f"m = os.urandom({size}); {s}.setblocking(False); n = {s}.send(m); {s}.setblocking(True); {s}.sendall(b'.')")
        got = server.do(f"n = {client.do('n')}; got = {c}.recv(n + 1, socket.MSG_WAITALL); got[-1:] == b'.' and hash_of(got[:-1])", 30)
        assert got == client.do("hash_of(m[:n])")


def starts(lab: Lab) -> bool:
    """Another helper, after the last one's death: it adopts what is there, or says in a line that it lacks memory. Nobody needs it now."""
    try:
        lab.start_helper()
        return True
    except pytest.fail.Exception as failed:
        assert "not ready: sharedstack-helper: cannot" in str(failed) and "/dev/shm" in str(failed), failed
        return False


def moved(lab: Lab, server: Actor, client: Actor) -> None:
    """A helper that could not adopt the segments has made others: programs move there by their data calls, once in a second."""
    deadline = time.monotonic() + 10
    while len([p for p in lab.state().participants if p.own_pid in (server.pid, client.pid)]) < 2:
        assert time.monotonic() < deadline
        connect(server, client, "c5", "s5")
        talk(server, client, "c5", "s5")
        time.sleep(0.3)


def play(lab: Lab, left: int) -> None:
    server, client = two(lab)
    for actor in (server, client):
        actor.do("import hashlib\ndef hash_of(b): return hashlib.sha256(b).hexdigest()")
    connect(server, client)
    with full(left):  # before a ring was opened
        talk(server, client)
        grows(server, client, "c", "s")
    connect(server, client, "c2", "s2")
    talk(server, client, "c2", "s2")
    assert lab.state().counters["grown"] == 0 or left
    with full(left):  # rings are there, and would grow
        grows(server, client, "c2", "s2")
        talk(server, client, "c2", "s2", ", 4, 200_000")
        connect(server, client, "c4", "s4")  # and one connection more
        talk(server, client, "c4", "s4")
        lab.daemon.end(9)
        serves = starts(lab)
        late = lab.actor("eager")
        late.do("p = socket.create_server(('127.0.0.1', 0)); q = socket.create_connection(p.getsockname()); r, _ = p.accept()")
        assert late.do("for i in range(50):\n    q.send(b'12345678'); got = r.recv(8, socket.MSG_WAITALL)\ngot") == b"12345678"
        late.end()
    if not serves:
        lab.start_helper()
    moved(lab, server, client)
    before = lab.state().counters["grown"]
    is_lifted(lab, server, client)
    server.do("c, c2, c4 = None, None, None")
    client.do("s, s2, s4 = None, None, None")
    connect(server, client)
    talk(server, client)
    grows(server, client, "c", "s")
    assert lab.state().counters["grown"] > before, "there is room again"


def main() -> None:
    """Play with so many bytes left, the first argument."""
    with Lab(Namespace(), "full") as lab:
        play(lab, int(sys.argv[1]))
        for actor in lab.actors:
            actor.end()
        lab.assert_clean()
    print("ok")


if __name__ == "__main__":
    main()
