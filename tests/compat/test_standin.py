"""A connection whose peer is gone goes outside with bytes unread in its ring: who has it then receives them, and the end, or the reset.

Nobody can send them again, so another socket takes its place (preload/standin.h). Each case is played on the kernel first.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from compat.fix_lab import Builder, Lab
from compat.test_residue import CLIENT, Pair

pytest_plugins = ["compat.fix_paths"]

MODES = ("kernel", "eager", "default")
UNREAD = 9702

# How its peer goes, and what the kernel says after the last byte.
ENDS = {
    "killed": ("import signal; os.kill(os.getpid(), signal.SIGKILL)", "the end"),
    "closed": ("s.close()", "the end"),
    "shut down, closed": ("s.shutdown(socket.SHUT_WR); s.close()", "the end"),
    "reset": ("import struct; s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); s.close()", "a reset"),
}
WAYS = ("subprocess", "stdin", "shell", "fork", "fork, setuid", "spawn")

BEGIN = """
def begin_over(way, to):
    argv = [outside, str(c.fileno()), str(got), str(to), 'over']
    global child
    if way == 'subprocess':
        child = subprocess.Popen(argv, pass_fds=[c.fileno()], stdout=subprocess.PIPE)
    elif way == 'stdin':
        argv[1] = '0'
        child = subprocess.Popen(argv, stdin=c, pass_fds=[c.fileno()], stdout=subprocess.PIPE)
    elif way == 'shell':
        os.set_inheritable(c.fileno(), True)
        child = subprocess.Popen(' '.join(argv), shell=True, close_fds=False, stdout=subprocess.PIPE)
    else:
        r, w = os.pipe()
        os.set_inheritable(c.fileno(), True)
        if way == 'spawn':
            os.posix_spawn(outside, argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, w, 1)])
        elif os.fork() == 0:
            os.dup2(w, 1)
            program = os.open(outside, os.O_RDONLY)
            if way == 'fork, setuid': ctypes.CDLL(None).setuid(65534)
            os.execve(program, argv, os.environ)
        os.close(w)
        child = type('Child', (), {'stdout': open(r, 'rb')})
"""


@pytest.fixture(scope="module")
def outside(build: Builder) -> str:
    return build("outside", "-static")


def ended(lab: Lab, mode: str, outside: str, how: str, sizes: tuple[int, ...] = (700, 5, 9000)) -> Pair:
    """A server whose client sent something and is gone, which has begun to receive it."""
    pair = Pair(lab, mode, outside)
    pair.server.do(BEGIN)
    pair.client.do("s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)")
    before = lab.sent()
    for n in sizes:
        pair.send(n)
    if mode == "eager":
        assert lab.sent().local - before.local == sum(sizes)
    pair.server.do("take(3)")
    if how == "killed":
        pair.client.process.kill()
        pair.client.process.wait()
    else:
        pair.client.do(ENDS[how][0])
    pair.server.do("p = select.poll(); p.register(c.fileno(), select.POLLRDHUP); p.poll(2000)")
    return pair


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("way", WAYS)
def test_all_and_the_end(lab: Lab, outside: str, way: str, how: str, mode: str) -> None:
    pair = ended(lab, mode, outside, how)
    total = pair.server.do("got") + UNREAD
    pair.server.do(f"begin_over({way!r}, {total})")
    assert pair.server.do("end()") == f"all, {ENDS[how][1]}\n"
    pair.server.end()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", ENDS)
def test_passed_to_a_plain_process(lab: Lab, outside: str, tmp_path: Path, how: str, mode: str) -> None:
    """Its sender goes on with it too: each byte is received by one of the two."""
    pair, plain = ended(lab, mode, outside, how), lab.actor("kernel")
    plain.do(f"u = socket.socket(socket.AF_UNIX); u.bind({str(tmp_path / 'over')!r}); u.listen()")
    pair.server.do(f"over = socket.socket(socket.AF_UNIX); over.connect({str(tmp_path / 'over')!r})")
    pair.server.do("d = c.dup(); socket.send_fds(over, [b'x'], [c.fileno()])")
    plain.do("v, _ = u.accept(); _, (fd,), _, _ = socket.recv_fds(v, 1, 1); c = socket.socket(fileno=fd)")
    begin = pair.server.do("got")
    data = plain.do("c.recv(5000, socket.MSG_WAITALL)")
    data += pair.server.do("d.recv(2000, socket.MSG_WAITALL)") + pair.server.do("c.recv(9000)")
    pair.client = lab.actor("kernel")
    pair.client.do(CLIENT)
    assert data == pair.client.do(f"stream({begin}, {begin + UNREAD})")
    error = "ConnectionResetError" if how == "reset" else ""
    said = "try: x = c.recv(1)\nexcept OSError as e: x = type(e).__name__"
    plain.do(said)
    assert plain.do("x") == (error or b"")
    pair.end()
    plain.end()


@pytest.mark.parametrize("mode", MODES)
def test_members_stay_members(lab: Lab, outside: str, mode: str) -> None:
    """What is passed on is still watched, with the data and the options that it had, and its address is the peer's."""
    pair = ended(lab, mode, outside, "closed")
    pair.server.do(
        "e = select.epoll(); e.register(c.fileno(), select.EPOLLIN | select.EPOLLRDHUP)\n"
        "c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1); c.setblocking(False); os.set_inheritable(c.fileno(), False)\n"
        "host = c.getpeername()[0], c.getsockname()[0]\n"
    )
    seen = (
        "[e.poll(1) == [(c.fileno(), select.EPOLLIN | select.EPOLLRDHUP)], c.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), "
        "os.get_blocking(c.fileno()), os.get_inheritable(c.fileno()), host == (c.getpeername()[0], c.getsockname()[0])]"
    )
    assert pair.server.do(seen) == [True, 1, False, False, True]
    pair.server.do(
        "os.set_inheritable(c.fileno(), True); r, w = os.pipe(); argv = [outside, str(c.fileno()), str(got), str(got + 4000), 'part']"
    )
    pair.server.do("os.posix_spawn(outside, argv, {}, file_actions=[(os.POSIX_SPAWN_DUP2, w, 1)]); os.close(w)")
    assert pair.server.do("os.read(r, 100)") == b"all\n"
    pair.server.do("os.set_blocking(c.fileno(), False); os.set_inheritable(c.fileno(), False)")
    assert pair.server.do(seen) == [True, 1, False, False, True]
    pair.server.do("got += 4000")
    assert pair.server.do(f"take({UNREAD - 4000})") == UNREAD - 4000
    assert pair.server.do("c.recv(1)") == b""
    pair.server.end()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("then", ("executes", "goes on"))
def test_a_child_of_another_user(lab: Lab, outside: str, mode: str, then: str) -> None:
    """A forked child that changes its user has what its parent had not received; the writer lives."""
    pair = Pair(lab, mode, outside)
    pair.server.do(BEGIN)
    for n in (700, 5, 9000):
        pair.send(n)
    pair.server.do("take(3)")
    total = pair.server.do("got") + UNREAD
    if then == "executes":
        pair.server.do(f"begin_over('fork, setuid', {total}); c.close()")
        pair.client.do("s.shutdown(socket.SHUT_WR)")
        assert pair.server.do("end()") == "all, the end\n"
    else:
        pair.server.do(
            "r, w = os.pipe()\n"
            "if os.fork() == 0:\n"
            "    ctypes.CDLL(None).setuid(65534)\n"
            f"    os.write(w, b'%d' % take({UNREAD})); os._exit(0)\n"
            "os.close(w); c.close()"
        )
        assert pair.server.do("os.read(r, 100)") == b"%d" % UNREAD
    pair.server.end()
    pair.client.end()


@pytest.mark.parametrize("mode", MODES)
def test_executed_again_after_a_reset(lab: Lab, outside: str, mode: str) -> None:
    """A preloaded program finds what was in the ring of a connection that has no peer any more."""
    pair = ended(lab, mode, outside, "reset")
    code = (
        "import socket, sys, time; time.sleep(0.3)  # the helper looks whose sockets are gone\n"
        "c = socket.socket(fileno=int(sys.argv[1])); n = len(c.recv(20000, socket.MSG_WAITALL))\n"
        "try: print(n, len(c.recv(1)))\nexcept OSError as e: print(n, type(e).__name__)"
    )
    assert pair.server.execute(code, "[c]") == f"{UNREAD} ConnectionResetError\n"
    pair.server.end()


@pytest.mark.parametrize("mode", MODES)
def test_shut_down_with_unread_bytes(lab: Lab, outside: str, mode: str) -> None:
    """A writer that shuts its direction down and lives: the kernel has all that is unread, and the other direction goes on."""
    pair = Pair(lab, mode, outside)
    before = pair.residue()
    for n in (700, 9000):
        pair.send(n)
    pair.server.do("take(3)")
    pair.client.do("s.shutdown(socket.SHUT_WR)")
    if mode == "eager":
        assert pair.residue() - before == 9697
    total = pair.server.do("got") + 9697
    pair.server.do(f"begin('subprocess', {total})")
    assert pair.server.do("end()") == "all\n"
    assert pair.client.do("s.recv(4)") == b"done"
    pair.end()


def test_nothing_is_left(lab: Lab) -> None:
    for actor in lab.actors:
        actor.end()
    lab.assert_clean()
