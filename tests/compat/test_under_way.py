"""A descriptor that is under way in a Unix socket while its connection ends: whoever takes it out reads what is left in the ring."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path

import pytest
from compat.fix_lab import Lab

pytest_plugins = ["compat.fix_paths"]

BYTES = 5000
PTRACE_DETACH = 17


@pytest.mark.parametrize("mode", ["kernel", "eager"])
def test_what_is_unread_is_kept(own_lab: Lab, tmp_path: Path, mode: str) -> None:
    path = str(tmp_path / "door")
    server, client = own_lab.connected(mode)
    taker = own_lab.actor(mode)
    taker.do(f"u = socket.socket(socket.AF_UNIX); u.bind({path!r}); u.listen(1)")
    client.do(f"s.sendall(bytes({BYTES}))")
    if mode != "kernel":
        assert sum(e.rx.waiting > BYTES for e in own_lab.state().endpoints) == 1
    server.do(f"over = socket.socket(socket.AF_UNIX); over.connect({path!r}); c.shutdown(socket.SHUT_WR)")
    assert client.do("s.recv(1)") == b""
    server.do("socket.send_fds(over, [b'x'], [c.fileno()]); c.close()")
    client.do("s.close()")
    # the kernel has forgotten the connection, and no process has a descriptor of it; somebody's death makes the helper look
    own_lab.actor(mode).end()
    time.sleep(1)
    taker.do("v, _ = u.accept(); _, (fd,), _, _ = socket.recv_fds(v, 1, 1); t = socket.socket(fileno=fd)")
    assert taker.do(f"t.recv({BYTES + 1}, socket.MSG_WAITALL) == bytes({BYTES})")
    assert taker.do("t.recv(1)") == b""
    taker.do("t.close()")
    if mode != "kernel":
        for actor in own_lab.actors:
            actor.end()
        own_lab.assert_clean()


def test_what_nobody_takes_is_given_back(own_lab: Lab, tmp_path: Path) -> None:
    server, client = own_lab.connected("eager")
    client.do(f"s.sendall(bytes({BYTES}))")
    server.do("c.shutdown(socket.SHUT_WR); a, b = socket.socketpair(); socket.send_fds(a, [b'x'], [c.fileno()]); c.close()")
    client.do("s.recv(1); s.close()")
    own_lab.actor("eager").end()
    time.sleep(0.5)
    assert own_lab.left()
    server.do("a.close(); b.close()")  # nobody tells of it
    own_lab.assert_clean()


# what the executed program does with the listener that it has: takes the descriptor, and says how many bytes come out of it
TAKE = f"""
import socket, sys
u = socket.socket(fileno=int(sys.argv[1]))
v, _ = u.accept()
_, (fd,), _, _ = socket.recv_fds(v, 1, 1)
print(len(socket.socket(fileno=fd).recv({BYTES}, socket.MSG_WAITALL)), flush=True)
sys.stdin.read()
"""


def test_passed_to_a_program_that_is_being_loaded(own_lab: Lab, tmp_path: Path) -> None:
    """It has not mapped the library yet, but will: nothing has to be taken out of the ring for it."""
    path = str(tmp_path / "door")
    server, client = own_lab.connected("eager")
    taker = own_lab.actor("eager")
    client.do(f"s.sendall(bytes({BYTES}))")
    taker.do(f"import ctypes; u = socket.socket(socket.AF_UNIX); u.bind({path!r}); u.listen(1); u.set_inheritable(True)")
    taker.tell(f"ctypes.CDLL(None).ptrace(0, 0, 0, 0); os.execv({sys.executable!r}, [{sys.executable!r}, '-c', {TAKE!r}, str(u.fileno())])")
    assert os.WIFSTOPPED(os.waitpid(taker.pid, 0)[1])  # executed, and not begun
    server.do(f"over = socket.socket(socket.AF_UNIX); over.connect({path!r})")
    server.tell("socket.send_fds(over, [b'x'], [c.fileno()]); c.close()")
    time.sleep(0.05)
    assert ctypes.CDLL(None, use_errno=True).ptrace(PTRACE_DETACH, taker.pid, 0, 0) == 0
    server.hear()
    assert taker.process.stdout
    assert int(taker.process.stdout.readline()) == BYTES
    assert own_lab.state().counters["residue"] == 0
