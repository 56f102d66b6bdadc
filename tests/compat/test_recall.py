"""A datagram socket goes elsewhere with datagrams unread in its ring: who has it next receives them from the kernel, all, in order, once.

Each case is played on the kernel first, and through the library then, where the counters say that they were in the ring. RECALL_ALL=1 plays
every way with every receiver and every sender.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from compat.fix_lab import Actor, Builder, Lab

pytest_plugins = ["compat.fix_paths"]

PLAYED = 0.25  # of its cases, in one run: conftest.py

SIZES = (5, 0, 60000, 1, 1400, 900)

ACTOR = """
import ctypes, subprocess
libc = ctypes.CDLL(None, use_errno=True)
def datagram(i, n):
    return bytes((i * 7 + j * 3) & 255 for j in range(n))
def take(s):
    # as unread.c
    got = []
    while select.select([s], [], [], 0.1)[0]:
        data, where = s.recvfrom(65536, socket.MSG_DONTWAIT)
        total = 0
        for byte in data: total = (total * 31 + byte) & 0xffffffff
        got.append((len(data), total, *where[:2]))
    return got
def made(kind):
    # a socket, and how its peers reach it
    six = kind.startswith('v6')
    s = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
    if six: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind((('::' if six else '') if 'any' in kind else '::1' if six else '127.0.0.1', 0))
    return s, s.getsockname()[1]
def sender(kind, port):
    four = not kind.startswith('v6') or 'mapped' in kind
    t = socket.socket(socket.AF_INET if four else socket.AF_INET6, socket.SOCK_DGRAM)
    if 'connected' in kind: t.bind(('127.0.0.1' if four else '::1', 0))
    to = ('127.0.0.1' if four else '::1', port)
    return t, to
"""

# As anybody else who is not root: without raw sockets (CAP_NET_RAW).
UNPRIVILEGED = """
head, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert libc.capget(head, sets) == 0
for i in range(3): sets[i] &= ~(1 << 13)
assert libc.capset(head, sets) == 0
"""

KINDS = ("v4", "v4 any", "v4 connected", "v6", "v6 any", "v6 any, mapped")
SENDERS = ("other", "same", "closed", "killed", "two")


@dataclass
class Case:
    lab: Lab
    build: Builder
    mode: str
    kind: str
    sender: str
    tmp_path: Path
    sizes: tuple[int, ...] = SIZES
    privileged: bool = False

    def actor(self, mode: str = "") -> Actor:
        made = self.lab.actor(mode or self.mode)
        made.do(ACTOR)
        if not self.privileged:
            made.do(UNPRIVILEGED)
        return made

    def counters(self) -> dict[str, int]:
        return dict(self.lab.state().counters) if self.mode != "kernel" else {}

    def begin(self) -> None:
        """Receiver `s`, with datagrams unread that came by its ring."""
        self.receiver = self.actor()
        port = self.receiver.do(f"s, port = made({self.kind!r}); port")
        who = {"same": [self.receiver], "two": [self.receiver, self.actor()]}.get(self.sender) or [self.actor()]
        self.senders = who
        self.ports = []
        for actor in who:
            self.ports.append(actor.do(f"t, to = sender({self.kind!r}, {port}); t.sendto(b'0', to); t.getsockname()[1]"))
            self.receiver.do("_, where = s.recvfrom(9)")
            if "connected" in self.kind:
                actor.do("t.connect(to)")
        if "connected" in self.kind and self.sender != "two":
            self.receiver.do("s.connect(where)")
        for _ in range(30):
            for actor in who:
                actor.do("t.send(b'w')" if "connected" in self.kind else "t.sendto(b'w', to)")
                self.receiver.do("s.recv(9)")
        before = self.counters()
        for i, n in enumerate(self.sizes):
            actor = who[i % len(who)]
            actor.do(f"t.send(datagram({i}, {n}))" if "connected" in self.kind else f"t.sendto(datagram({i}, {n}), to)")
        if self.mode == "eager":
            assert self.counters()["tx_datagrams"] - before["tx_datagrams"] == len(self.sizes)
        self.before = self.counters()
        if self.sender == "closed":
            who[0].do("t.close()")
        if self.sender == "killed":
            who[0].process.kill()
            who[0].process.wait()

    def named(self, got: list[Any]) -> list[Any]:
        """With a name of the sender in place of its port."""
        return [(*one[:3], self.ports.index(one[3]) if one[3] in self.ports else one[3]) for one in got]

    def recalled(self) -> int:
        now = self.counters()
        assert now["recall_lost"] == self.before["recall_lost"]
        return now["recalled"] - self.before["recalled"]


def executes(program: str, *flags: str) -> Callable[[Case], Any]:
    """This program takes its place."""

    def go(case: Case) -> Any:
        path = case.build(program, *flags)
        case.receiver.tell(f"s.set_inheritable(True); os.execv({path!r}, [{path!r}, str(s.fileno())])")
        return case.receiver.hear()

    return go


def spawned(*flags: str) -> Callable[[Case], Any]:
    def go(case: Case) -> Any:
        path = case.build("unread", *flags)
        case.receiver.do(
            "r, w = os.pipe(); s.set_inheritable(True)\n"
            f"os.posix_spawn({path!r}, [{path!r}, str(s.fileno())], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, w, 1)])\n"
            "os.close(w)"
        )
        return case.receiver.do("ast.literal_eval(open(r).read())[1]")

    return go


def subprocess_(stdin: bool, *flags: str) -> Callable[[Case], Any]:
    """By vfork."""

    def go(case: Case) -> Any:
        path = case.build("unread", *flags)
        how = f"[{path!r}, '0'], stdin=s" if stdin else f"[{path!r}, str(s.fileno())], pass_fds=[s.fileno()]"
        return case.receiver.do(f"ast.literal_eval(subprocess.run({how}, stdout=subprocess.PIPE).stdout.decode())[1]")

    return go


def forked(case: Case) -> Any:
    path = case.build("unread", "-static")
    case.receiver.do(
        "r, w = os.pipe(); s.set_inheritable(True); pid = os.fork()\n"
        f"if pid == 0: os.dup2(w, 1); os.execv({path!r}, [{path!r}, str(s.fileno())])\n"
        "os.close(w)"
    )
    return case.receiver.do("ast.literal_eval(open(r).read())[1]")


def passed(*modes: str) -> Callable[[Case], Any]:
    """By SCM_RIGHTS, from one to the next."""

    def go(case: Case) -> Any:
        giver = case.receiver
        for i, mode in enumerate(modes):
            path = str(case.tmp_path / f"{case.mode}{i}")
            taker = case.actor(mode if case.mode != "kernel" else "")
            taker.do(f"u = socket.socket(socket.AF_UNIX); u.bind({path!r}); u.listen()")
            giver.do(
                f"over = socket.socket(socket.AF_UNIX); over.connect({path!r}); socket.send_fds(over, [b'x'], [s.fileno()]); s.close()"
            )
            taker.do("v, _ = u.accept(); _, (fd,), _, _ = socket.recv_fds(v, 1, 1); s = socket.socket(fileno=fd)")
            giver = taker
        return giver.do("take(s)")

    return go


def taken(case: Case) -> Any:
    """By pidfd_getfd, by a process with the library."""
    number, taker = case.receiver.do("s.fileno()"), case.actor()
    taker.do(f"pidfd = os.pidfd_open({case.receiver.pid}); libc.syscall(438, pidfd, {number}, 0)")
    taker.do(f"s = socket.socket(fileno=libc.syscall(438, pidfd, {number}, 0))")
    return taker.do("take(s)")


def changes(code: str) -> Callable[[Case], Any]:
    """The process itself is another one then."""

    def go(case: Case) -> Any:
        case.receiver.do(code)
        return case.receiver.do("take(s)")

    return go


def forked_reads(code: str) -> Callable[[Case], Any]:
    """A child does that first."""

    def go(case: Case) -> Any:
        case.receiver.do(
            f"r, w = os.pipe(); pid = os.fork()\nif pid == 0: {code}; os.write(w, repr(take(s)).encode()); os._exit(0)\nos.close(w)"
        )
        return case.receiver.do("ast.literal_eval(open(r).read())")

    return go


CONFINE = """
class Filter(ctypes.Structure):
    _fields_ = [('code', ctypes.c_uint16), ('jt', ctypes.c_uint8), ('jf', ctypes.c_uint8), ('k', ctypes.c_uint32)]
class Program(ctypes.Structure): _fields_ = [('len', ctypes.c_uint16), ('filter', ctypes.POINTER(Filter))]
allow = Filter(6, 0, 0, 0x7fff0000)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(Program(1, ctypes.pointer(allow))), 0, 0) == 0
"""

WAYS: dict[str, Callable[[Case], Any]] = {
    "exec": executes("unread"),
    "exec static": executes("unread", "-static"),
    "spawn": spawned(),
    "spawn static": spawned("-static"),
    "subprocess": subprocess_(False),
    "subprocess static": subprocess_(False, "-static"),
    "stdin": subprocess_(True),
    "fork, exec static": forked,
    "pass": passed("eager"),
    "pass twice": passed("eager", "eager"),
    "pass to plain": passed("kernel"),
    "pass on to plain": passed("eager", "kernel"),
    "pidfd_getfd": taken,
    "setuid": changes("os.setuid(65534)"),
    "fork, setuid": forked_reads("os.setuid(65534)"),
    "unshare": changes("assert libc.unshare(0x40000000) == 0"),
    "seccomp": changes(CONFINE),
}


def cases() -> list[tuple[str, str, str]]:
    """Every way; every receiver with every sender."""
    pairs = list(itertools.product(KINDS, SENDERS))
    if os.environ.get("RECALL_ALL"):
        return [(way, *pair) for way in WAYS for pair in pairs]
    return [(way, *pairs[(2 * i + j) % len(pairs)]) for i, way in enumerate(WAYS) for j in (0, 1, 13)]


@pytest.mark.parametrize(("way", "kind", "sender"), cases())
def test_all_in_order_once(lab: Lab, build: Builder, tmp_path: Path, way: str, kind: str, sender: str) -> None:
    if os.geteuid() and way in ("setuid", "fork, setuid", "unshare"):
        pytest.skip("allowed: only root may do that")
    said = []
    for mode in ("kernel", "eager"):
        case = Case(lab, build, mode, kind, sender, tmp_path)
        case.begin()
        said.append(case.named(WAYS[way](case)))
        if mode == "eager":
            assert case.recalled() == len(SIZES)
        for actor in lab.actors:
            actor.end()
        lab.actors.clear()
    assert [one[0] for one in said[0]] == list(SIZES)
    assert said[1] == said[0]


@pytest.mark.parametrize("mode", ("kernel", "eager"))
@pytest.mark.parametrize("kind", KINDS)
def test_stdio_reads_one_at_a_time(lab: Lab, build: Builder, tmp_path: Path, mode: str, kind: str) -> None:
    """What stdio has not read yet is still there for poll."""
    case = Case(lab, build, mode, kind, "other", tmp_path, (5, 7, 1400))
    case.begin()
    case.receiver.do(
        "libc.fdopen.restype = ctypes.c_void_p; f = ctypes.c_void_p(libc.fdopen(s.fileno(), b'r')); buf = ctypes.create_string_buffer(2000)"
    )
    for i, n in enumerate(case.sizes):
        assert case.receiver.do("bool(select.select([s], [], [], 0)[0])")
        assert case.receiver.do(f"libc.fread(buf, 1, {n}, f)") == n
        assert case.receiver.do(f"buf.raw[:{n}] == datagram({i}, {n})")
    assert not case.receiver.do("bool(select.select([s], [], [], 0)[0])")
    if mode == "eager":
        assert case.recalled() == 3


@pytest.mark.parametrize("mode", ("kernel", "eager"))
@pytest.mark.parametrize("lively", (False, True))
def test_what_came_by_the_kernel_meanwhile(lab: Lab, build: Builder, tmp_path: Path, mode: str, lively: bool) -> None:
    """The ring is full, and what follows is the kernel's: it stays behind. So does what is sent while the ring is recalled."""
    case = Case(lab, build, mode, "v4 any", "other", tmp_path, (30000,) * 2)
    case.begin()
    case.receiver.do("s.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)" if os.geteuid() == 0 else "None")
    case.senders[0].do("for i in range(2, 50): t.sendto(datagram(i, 30000), to)")
    if lively:
        case.senders[0].tell("for i in range(50, 400): t.sendto(datagram(i, 300), to)")
    taker = case.actor("kernel")
    path = str(tmp_path / "over")
    taker.do(f"u = socket.socket(socket.AF_UNIX); u.bind({path!r}); u.listen()")
    case.receiver.do(
        f"over = socket.socket(socket.AF_UNIX); over.connect({path!r}); socket.send_fds(over, [b'x'], [s.fileno()]); s.close()"
    )
    taker.do("v, _ = u.accept(); _, (fd,), _, _ = socket.recv_fds(v, 1, 1); s = socket.socket(fileno=fd)")
    if lively:
        case.senders[0].hear()
    taker.do("known = {datagram(i, n): i for i, n in [*((i, 30000) for i in range(50)), *((i, 300) for i in range(50, 400))]}")
    code = "[i for i in iter(lambda: s.recv(65536) if select.select([s], [], [], 0.2)[0] else None, None)]"
    got = taker.do(f"got = {code}; [len(g) for g in got]"), taker.do("[(g[0] - g[1] + 3) & 255 == 0 and g[0] for g in got]")
    assert len(got[0]) == (400 if lively else 50)
    first = [(i * 7) & 255 for i in range(len(got[0]))]
    assert got[1] == first


@pytest.mark.parametrize("after_ms", (0, 1, 2, 3, 5))
def test_killed_in_the_middle(lab: Lab, build: Builder, tmp_path: Path, after_ms: int) -> None:
    """A forked child that recalls is killed: its parent has what is left, in order, nothing twice, and one is lost at most."""
    case = Case(lab, build, "eager", "v4", "other", tmp_path, (8,) * 200)
    case.begin()
    case.receiver.do(
        "import signal; s.set_inheritable(True); r, w = os.pipe(); pid = os.fork()\n"
        "if pid == 0: os.write(w, b'x'); os.execv('/bin/sleep', ['sleep', '9'])\n"
        f"os.read(r, 1); end = time.monotonic() + {after_ms} / 1000\n"
        "while time.monotonic() < end: pass\n"
        "os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)"
    )
    # the first byte is 7 times the number, and 183 * 7 is 1 modulo 256
    got = case.receiver.do("[g[0] * 183 & 255 for g in iter(lambda: s.recv(99) if select.select([s], [], [], 0.2)[0] else None, None)]")
    at, missing = 0, 0
    for one in got:
        step = (one - at) % 256
        missing += step
        at += step + 1
    missing += 200 - at
    assert at <= 200
    assert 0 <= missing <= 1


def test_destinations(lab: Lab, build: Builder, tmp_path: Path) -> None:
    """One who asks for it learns to which address each datagram was sent."""
    said = []
    for mode in ("kernel", "eager"):
        case = Case(lab, build, mode, "v4 any", "other", tmp_path, ())
        case.begin()
        sender, plain, path = case.senders[0], case.actor("kernel"), str(tmp_path / mode)
        for n in range(1, 4):
            sender.do(f"far{n} = ('127.0.0.{n}', to[1])")
            for _ in range(30):
                sender.do(f"t.sendto(b'w', far{n})")
                case.receiver.do("s.recv(9)")
        before = case.counters()
        for n in (2, 1, 3, 2):
            sender.do(f"t.sendto(b'x', far{n})")
        if mode == "eager":
            assert case.counters()["tx_datagrams"] - before["tx_datagrams"] == 4
        plain.do(f"u = socket.socket(socket.AF_UNIX); u.bind({path!r}); u.listen()")
        case.receiver.do(f"over = socket.socket(socket.AF_UNIX); over.connect({path!r}); socket.send_fds(over, [b'x'], [s.fileno()])")
        plain.do("v, _ = u.accept(); _, (fd,), _, _ = socket.recv_fds(v, 1, 1); s = socket.socket(fileno=fd)")
        plain.do("s.setsockopt(socket.IPPROTO_IP, 8, 1)")  # IP_PKTINFO
        said.append([plain.do("s.recvmsg(9, 100)[1][0][2][-4:]") for _ in range(4)])
    assert said[0] == [bytes((127, 0, 0, n)) for n in (2, 1, 3, 2)]
    assert said[1] == said[0]


@pytest.mark.parametrize("privileged", (False, True))
def test_an_address_that_is_taken(lab: Lab, build: Builder, tmp_path: Path, privileged: bool) -> None:
    """The sender is gone, and somebody else has its address: all is had by raw sockets; without, that is counted, and the rest is had."""
    if privileged and os.geteuid():
        pytest.skip("allowed: only root has raw sockets")
    case = Case(lab, build, "eager", "v4", "two", tmp_path, privileged=privileged)
    case.begin()
    case.senders[1].do("t.close()")
    plain = case.actor("kernel")
    plain.do(f"t = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); t.bind(('127.0.0.1', {case.ports[1]}))")
    got = case.named(executes("unread")(case))
    time.sleep(0.05)
    now = {name: case.counters()[name] - case.before[name] for name in ("recalled", "recall_lost")}
    assert now["recalled"] == len(got)
    assert now["recalled"] + now["recall_lost"] == len(SIZES)
    assert now["recall_lost"] == (0 if privileged else len(SIZES) // 2)


def test_nothing_is_left(lab: Lab) -> None:
    for actor in lab.actors:
        actor.end()
    lab.assert_clean()
