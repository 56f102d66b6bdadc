"""A lifted socket goes to a holder outside the library: what was in its ring reaches it, in order, and so does what comes later.

Each case is played on the kernel first. Server and client are processes of their own; the outside holder is a static program. Positions are
bytes of a stream of 32-bit counters, so that each byte says where it belongs.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from compat.fix_lab import Actor, Builder, Lab

pytest_plugins = ["compat.fix_paths"]

MODES = ("kernel", "eager", "default")

CLIENT = """
import array
def stream(begin, end):
    first = begin // 4
    return array.array('I', range(first, end // 4 + 1)).tobytes()[begin - first * 4 : end - first * 4]
sent = 0
def send(n):
    global sent
    s.sendall(stream(sent, sent + n)); sent += n
def send_some():
    # as much as is taken at once
    global sent
    s.setblocking(False)
    try:
        while True: sent += s.send(stream(sent, sent + 40000))
    except BlockingIOError: pass
    s.setblocking(True)
    return sent
"""

SERVER = """
import array, subprocess, ctypes
got = 0
def take(n):
    global got
    data = c.recv(n, socket.MSG_WAITALL); first = got // 4
    want = array.array('I', range(first, (got + len(data)) // 4 + 1)).tobytes()[got - first * 4 :][:len(data)]
    assert data == want, got
    got += len(data)
    return len(data)
def begin(way, to):
    argv = [outside, str(c.fileno()), str(got), str(to)]
    global child
    if way == 'subprocess':
        child = subprocess.Popen(argv, pass_fds=[c.fileno()], stdout=subprocess.PIPE)
    elif way == 'stdin':
        argv[1] = '0'
        child = subprocess.Popen(argv, stdin=c, stdout=subprocess.PIPE)
    elif way == 'shell':
        os.set_inheritable(c.fileno(), True)
        child = subprocess.Popen(' '.join(argv), shell=True, close_fds=False, stdout=subprocess.PIPE)
    elif way == 'fork':
        r, w = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.dup2(w, 1); os.set_inheritable(c.fileno(), True); os.execv(outside, argv)
        os.close(w)
        child = type('Child', (), {'stdout': open(r, 'rb')})
    elif way == 'spawn':
        r, w = os.pipe()
        os.set_inheritable(c.fileno(), True)
        os.posix_spawn(outside, argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, w, 1)])
        os.close(w)
        child = type('Child', (), {'stdout': open(r, 'rb')})
def end():
    return child.stdout.read().decode()
"""


class Pair:
    """Server and client of one connection, lifted where it may be."""

    def __init__(self, lab: Lab, mode: str, outside: str, **env: str) -> None:
        self.lab, self.mode = lab, mode
        self.server, self.client = self.actor(SERVER, env), self.actor(CLIENT, env)
        port = self.server.do("l = socket.create_server(('127.0.0.1', 0)); l.getsockname()[1]")
        self.client.do(f"s = socket.create_connection(('127.0.0.1', {port}))")
        self.server.do(f"c, _ = l.accept(); outside = {outside!r}")
        for _ in range(40):
            self.client.do("send(500)")
            self.server.do("take(500); c.sendall(b'.')")
            self.client.do("s.recv(1)")

    def actor(self, code: str, env: dict[str, str]) -> Actor:
        made = self.lab.actor(self.mode, **env)
        made.do(code)
        return made

    def residue(self) -> int:
        """Bytes that were sent again."""
        return 0 if self.mode == "kernel" else self.lab.state().counters["residue"]

    def send(self, n: int) -> None:
        self.client.do(f"send({n})")

    def end(self) -> None:
        self.server.end()
        self.client.end()


@pytest.fixture(scope="module")
def outside(build: Builder) -> str:
    return build("outside", "-static")


WAYS = ("subprocess", "stdin", "shell", "fork", "spawn")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", WAYS)
def test_what_is_in_the_ring_reaches_a_static_program(lab: Lab, outside: str, mode: str, way: str) -> None:
    pair = Pair(lab, mode, outside)
    before = pair.residue()
    # three records, one of them read in part; the writer then waits for its answer, in the kernel or dozing
    for n in (700, 5, 9000):
        pair.send(n)
    pair.server.do("take(3)")
    unread = 9702
    pair.client.tell("s.recv(4)")
    total = pair.server.do("got") + unread
    pair.server.do(f"begin({way!r}, {total})")
    assert pair.server.do("end()") == "all\n"
    assert pair.client.hear() == b"done"
    if mode == "eager":
        assert pair.residue() - before == unread
    pair.end()


@pytest.mark.parametrize("mode", MODES)
def test_kernel_bytes_behind_ring_bytes(lab: Lab, outside: str, mode: str) -> None:
    """The writer filled ring and kernel, went on when the reader had made room in the ring, and goes on behind the residue."""
    pair = Pair(lab, mode, outside)
    before = pair.residue()
    pair.client.do("send_some()")
    pair.server.do("take(3000)")
    pair.client.do("send_some()")
    pair.server.do("take(20001)")
    sent = pair.client.do("send_some()")
    pair.server.do(f"begin('subprocess', {sent + 300000})")
    pair.client.do("send(300000)")
    assert pair.server.do("end()", 20) == "all\n"
    assert pair.client.do("s.recv(4)") == b"done"
    if mode == "eager":
        assert pair.residue() - before > 100000
    pair.end()


@pytest.mark.parametrize("mode", MODES)
def test_inherited_before_it_was_used(lab: Lab, outside: str, mode: str) -> None:
    """A child of vfork has the socket when it is not lifted yet, and reads at its leisure: it stays with the kernel."""
    server, client = lab.actor(mode), lab.actor(mode)
    server.do(SERVER)
    client.do(CLIENT)
    port = server.do("l = socket.create_server(('127.0.0.1', 0)); l.getsockname()[1]")
    client.do(f"s = socket.create_connection(('127.0.0.1', {port}))")
    server.do(f"c, _ = l.accept(); outside = {outside!r}; begin('subprocess', 40000)")
    for _ in range(40):
        client.do("send(1000)")
        server.do("c.sendall(b'.')")
    assert server.do("end()") == "all\n"
    # the last point and the answer come from two processes at the same time
    assert client.do("s.recv(44, socket.MSG_WAITALL)").replace(b".", b"") == b"done"


@pytest.mark.parametrize("mode", MODES)
def test_stdio_of_a_writer_that_is_gone(lab: Lab, outside: str, mode: str) -> None:
    """fdopen when nothing can be sent again: the bytes go to the stream all the same."""
    pair = Pair(lab, mode, outside)
    pair.server.do("libc = ctypes.CDLL(None); libc.fdopen.restype = ctypes.c_void_p; None")
    pair.send(700)
    pair.client.do("s.shutdown(socket.SHUT_WR)")
    pair.server.do("f = libc.fdopen(c.fileno(), b'r')")
    pair.server.do("buf = ctypes.create_string_buffer(1000); n = libc.fread(buf, 1, 1000, ctypes.c_void_p(f))")
    assert pair.server.do("n") == 700
    begin = pair.server.do("got")
    assert pair.server.do("buf.raw[:700]") == pair.client.do(f"stream({begin}, {begin} + 700)")
    pair.end()


@pytest.mark.parametrize("mode", MODES)
def test_passed_to_a_plain_process(lab: Lab, outside: str, tmp_path: Path, mode: str) -> None:
    pair, plain = Pair(lab, mode, outside), lab.actor("kernel")
    before = pair.residue()
    plain.do(f"u = socket.socket(socket.AF_UNIX); u.bind({str(tmp_path / 'over')!r}); u.listen()")
    pair.server.do(f"over = socket.socket(socket.AF_UNIX); over.connect({str(tmp_path / 'over')!r})")
    pair.send(700)
    pair.send(8000)
    pair.server.do("take(10); socket.send_fds(over, [b'x'], [c.fileno()]); c.close()")
    plain.do("v, _ = u.accept(); _, (fd,), _, _ = socket.recv_fds(v, 1, 1); c = socket.socket(fileno=fd)")
    pair.send(300)
    begin = pair.server.do("got")
    assert plain.do("c.recv(8990, socket.MSG_WAITALL)") == pair.client.do(f"stream({begin}, {begin} + 8990)")
    plain.do("c.sendall(b'done')")
    assert pair.client.do("s.recv(4)") == b"done"
    if mode == "eager":
        assert pair.residue() - before == 8690
    pair.end()
    plain.end()


@pytest.mark.parametrize("total", [6_000, 14_000], ids=["by ring", "by ring, then by the kernel"])
@pytest.mark.parametrize("mode", MODES)
def test_a_writer_that_is_killed_before_all_is_sent_again(lab: Lab, outside: str, tmp_path: Path, mode: str, total: int) -> None:
    """The kernel takes little at once; what is left is read from where it is, by whoever reads through the library."""
    pair, plain = Pair(lab, mode, outside), lab.actor("kernel")
    before = pair.residue()
    plain.do(f"u = socket.socket(socket.AF_UNIX); u.bind({str(tmp_path / 'over')!r}); u.listen()")
    pair.server.do(f"over = socket.socket(socket.AF_UNIX); over.connect({str(tmp_path / 'over')!r})")
    if mode == "eager":
        pair.client.do("s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)")
        pair.server.do("c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)")
    pair.send(total)
    pair.server.do("take(10); socket.send_fds(over, [b'x'], [c.fileno()])")
    plain.do("v, _ = u.accept(); _, (fd,), _, _ = socket.recv_fds(v, 1, 1)")
    sent_again = pair.residue() - before
    pair.client.process.kill()
    pair.client.process.wait()
    lab.actors.remove(pair.client)
    pair.server.do(f"left = {total} - 10\nwhile left and (n := take(min(5001, left))): left -= n")
    assert pair.server.do("left") == 0
    assert pair.server.do("c.recv(1)") == b""
    if mode == "eager":
        assert sent_again < total - 1000
    plain.end()
    pair.server.end()


def test_nothing_is_left(lab: Lab) -> None:
    for actor in lab.actors:
        actor.end()
    lab.assert_clean()
