"""Each reason why a direction is on the kernel's path, produced by a small real program and read back by `sharedstack inspect --why`.

The programs are Pythons that are told what to do (`Actor`). What cannot come to be yet is listed, with why.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable

import pytest
from compat.fix_lab import Actor, Builder, Lab, Namespace
from unit.fix_helper_daemon import wait_until

from sharedstack.declare import binary, layout
from sharedstack.declare.reasons import REASONS

pytest_plugins = ["compat.fix_paths"]

# what is looked at must not have gone idle meanwhile, however busy the machine is
HELPER = ("--cool-every", "60")

IMPOSSIBLE = {
    "none": "it stands for the local path",
    "other_uid": "an arena belongs to one uid until the helper pairs those of two (a system helper)",
    "next_hop": "the kernel has just sent packets of the same connection to that neighbour, and knows it",
    "counts_differ": "the kernel's counts agree on every kernel that is to be had here",
}
# Those of connections with other hosts: tests/wire/test_reasons.py has a test of each.
OF_THE_POLICY = {"lowered_rule", "unjudged", "lo_rules"}  # tests/compat/test_policy.py and test_lo.py have a test of each
OF_THE_WIRE = {"wire_young", "wire_busy", "wire_bulk", "wire_idle", "wire_slower", "no_route", "shared_port"}


class Talk:
    """A connection between two actors: `c` in the server, `s` in the client."""

    def __init__(self, server: Actor, client: Actor) -> None:
        self.server, self.client = server, client
        port = server.do("l = socket.create_server(('127.0.0.1', 0)); l.getsockname()[1]")
        client.do(f"s = socket.create_connection(('127.0.0.1', {port}))")
        server.do("c, _ = l.accept()")
        for one, name in ((server, "c"), (client, "s")):
            one.do(f"def take(n=200): return len({name}.recv(n, socket.MSG_WAITALL))\ndef give(n=200): {name}.sendall(b'x' * n)")

    def turns(self, count: int) -> None:
        """Messages there and back."""
        for _ in range(count):
            self.client.do("give()")
            assert self.server.do("take()") == 200
            self.server.do("give()")
            assert self.client.do("take()") == 200


def talk(lab: Lab, mode: str = "eager", turns: int = 8, **env: str) -> Talk:
    made = Talk(lab.actor(mode, **env), lab.actor(mode, **env))
    made.turns(turns)
    return made


def why(lab: Lab, actor: Actor, name: str, stack: str = "") -> tuple[str, str]:
    """The reasons (sends, receives) of a socket of an actor; twice, in the table and in JSON."""
    fd = actor.do(f"{name}.fileno()")
    found = [line for line in lab.why(actor.pid, "--all", stack=stack) if fd in line["fds"]]
    assert len(found) == 1, f"descriptor {fd} of {actor.pid}: {lab.why(actor.pid, '--all', stack=stack)}"
    assert found[0]["text"]
    return found[0]["tx"], found[0]["rx"]


@pytest.fixture(autouse=True)
def ended(lab: Lab) -> object:
    """No actor outlives its test."""
    yield
    for actor in lab.actors:
        actor.end()
    lab.actors.clear()


def test_none(lab: Lab) -> None:
    """The other tests start from here: both directions are local."""
    t = talk(lab)
    assert (why(lab, t.client, "s"), why(lab, t.server, "c")) == (("none", "none"),) * 2


def test_peer_unknown(lab: Lab) -> None:
    t = Talk(lab.actor("kernel"), lab.actor("eager"))
    t.turns(4)
    assert why(lab, t.client, "s") == ("peer_unknown", "peer_unknown")


def test_peer_unknown_without_a_record(lab: Lab) -> None:
    t = Talk(lab.actor("kernel"), lab.actor("default"))
    assert why(lab, t.client, "s") == ("peer_unknown", "peer_unknown")


def test_reader_asleep(lab: Lab) -> None:
    t = talk(lab, SHAREDSTACK_DOZE="0")
    t.server.tell("take()")
    wait_until(lambda: why(lab, t.client, "s")[0] == "reader_asleep")
    t.client.do("give()")
    assert t.server.hear() == 200


def test_reader_asleep_in_epoll(lab: Lab) -> None:
    t = talk(lab, SHAREDSTACK_DOZE="0")
    t.server.do("p = select.epoll(); p.register(c, select.EPOLLIN)")
    t.turns(2)
    t.server.tell("len(p.poll(10))")
    wait_until(lambda: why(lab, t.client, "s")[0] == "reader_asleep")
    t.client.do("give()")
    assert t.server.hear() == 1


def test_short_lived(lab: Lab) -> None:
    t = talk(lab, "default", turns=1)
    assert why(lab, t.client, "s") == ("short_lived", "short_lived")


def test_not_reading(lab: Lab) -> None:
    t = Talk(lab.actor("eager"), lab.actor("eager"))
    for _ in range(4):
        t.client.do("give()")
        t.server.do("give()")
    assert "not_reading" in why(lab, t.client, "s")


@pytest.mark.skipif(os.getuid() != 0, reason="allowed: network namespaces are root's")
def test_other_netns(lab: Lab) -> None:
    """A process attaches, and enters another namespace: its sockets there are left alone."""
    t = talk(lab)
    other = Namespace()
    try:
        t.client.do(
            "import ctypes\n"
            f"fd = os.open({str(other.path)!r}, os.O_RDONLY)\n"
            "if ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000): raise OSError(ctypes.get_errno(), 'setns')\n"
            "l = socket.create_server(('127.0.0.1', 0)); a = socket.create_connection(l.getsockname()); b, _ = l.accept()\n"
            "for _ in range(4): a.sendall(b'1'); b.recv(1); b.sendall(b'2'); a.recv(1)"
        )
        assert why(lab, t.client, "a") == ("other_netns", "other_netns")
        t.turns(2)  # and the one from before lives
    finally:
        t.client.end()
        other.close()


def named(lab: Lab, actor: Actor, name: str) -> str:
    """The option that `--why` names for a socket; it is in the words too."""
    fd = actor.do(f"{name}.fileno()")
    (line,) = [line for line in lab.why(actor.pid) if fd in line["fds"]]
    assert line["text"].endswith(f": {line['option']}") == bool(line["option"])
    option: str = line["option"]
    return option


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("SO_RCVLOWAT", "socket.SOL_SOCKET, socket.SO_RCVLOWAT, 2"),
        ("SO_OOBINLINE", "socket.SOL_SOCKET, socket.SO_OOBINLINE, 1"),
        ("SO_TIMESTAMP", "socket.SOL_SOCKET, 29, 1"),
        ("TCP_REPAIR", "socket.IPPROTO_TCP, 19, 1"),
    ],
)
def test_option(lab: Lab, name: str, setting: str) -> None:
    """Both ends name the option that one of them has set; TCP_REPAIR is not for everybody, and lowers all the same."""
    t = talk(lab)
    t.server.do(f"try: c.setsockopt({setting})\nexcept PermissionError: pass")
    if name == "TCP_REPAIR":
        t.server.do("try: c.setsockopt(socket.IPPROTO_TCP, 19, 0)\nexcept PermissionError: pass")
    t.turns(2)
    for actor, end in ((t.server, "c"), (t.client, "s")):
        assert why(lab, actor, end) == ("option", "option")
        assert named(lab, actor, end) == name


def test_option_that_was_set_before_the_connection_was_used(lab: Lab) -> None:
    t = Talk(lab.actor("eager"), lab.actor("eager"))
    t.server.do("l.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 2)")  # what it accepts inherits it
    port = t.server.do("l.getsockname()[1]")
    t.client.do(f"s = socket.create_connection(('127.0.0.1', {port}))")
    t.server.do("c, _ = l.accept()")
    t.turns(4)
    assert why(lab, t.server, "c") == ("option", "option")
    assert named(lab, t.server, "c") == named(lab, t.client, "s") == "SO_RCVLOWAT"


def test_option_of_a_call(lab: Lab) -> None:
    t = talk(lab)
    t.client.do("give()")
    assert len(t.server.do("c.recv(200, socket.MSG_TRUNC)")) == 200
    t.turns(2)
    assert why(lab, t.server, "c") == ("option", "option")
    assert named(lab, t.server, "c") == named(lab, t.client, "s") == "MSG_TRUNC"


def test_no_option_is_named_for_another_reason(lab: Lab) -> None:
    t = talk(lab)
    assert named(lab, t.server, "c") == ""


def test_outside_holder(lab: Lab) -> None:
    t = talk(lab)
    t.server.do("c.set_inheritable(True); os.waitpid(os.posix_spawn('/bin/true', ['true'], {'LD_PRELOAD': ''}), 0)")
    t.turns(2)
    assert why(lab, t.server, "c") == ("outside_holder", "outside_holder")


def test_not_inet(lab: Lab) -> None:
    one = lab.actor("eager")
    one.do("a, b = socket.socketpair()")
    assert why(lab, one, "a") == ("not_inet", "not_inet")
    one.do("u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('127.0.0.1', 0))")
    assert set(why(lab, one, "u")) == {"short_lived"}


def test_not_established(lab: Lab) -> None:
    one = lab.actor("eager")
    one.do("l = socket.create_server(('127.0.0.1', 0))")
    assert why(lab, one, "l") == ("not_established", "not_established")


def test_no_helper(lab: Lab) -> None:
    """A stack that nobody made; `sharedstack run` would start a helper, so the library is preloaded without it."""
    absent = f"{lab.stack}x"
    t = talk_plain(lab, absent)
    t.turns(4)
    assert why(lab, t.client, "s", absent) == ("no_helper", "no_helper")


def talk_plain(lab: Lab, stack: str, **env: str) -> Talk:
    settings = {"LD_PRELOAD": lab.library, "SHAREDSTACK_STACK": stack, "SHAREDSTACK_EAGER": "2", **env}
    return Talk(lab.actor("kernel", **settings), lab.actor("kernel", **settings))


def test_layout_mismatch(own_lab: Lab) -> None:
    """The hash in the header is another one: the library refuses, naming both, and so does inspect."""
    header = own_lab.daemon.header()
    header["layout_hash"] = layout.HASH ^ 1
    t = talk_plain(own_lab, own_lab.stack)
    t.turns(4)
    assert why(own_lab, t.client, "s") == ("layout_mismatch", "layout_mismatch")
    refused = own_lab.inspect()
    assert refused.returncode == 1
    assert f"{layout.HASH:#x}" in refused.stderr
    assert f"{layout.HASH ^ 1:#x}" in refused.stderr
    header["layout_hash"] = layout.HASH


def test_layout_mismatch_is_said_by_the_library(own_lab: Lab, build: Builder) -> None:
    own_lab.daemon.header()["layout_hash"] = layout.HASH ^ 1
    env = own_lab.environ("eager", LD_PRELOAD=own_lab.library, SHAREDSTACK_STACK=own_lab.stack, SHAREDSTACK_LOG="1")
    done = own_lab.direct([build("streams"), "4", "1", "10000"], env)
    own_lab.daemon.header()["layout_hash"] = layout.HASH
    assert (done.returncode, done.stdout) == (0, "ok\n")
    hashes = {int(found, 16) for found in re.findall(r"[0-9a-f]{16}", done.stderr)}
    assert {layout.HASH, layout.HASH ^ 1} <= hashes, done.stderr
    assert "layout_mismatch" in done.stderr


def test_exhausted(own_lab: Lab) -> None:
    """A stack with three units of ring memory: the first connection takes two, for the second there is not enough."""
    binary.arena(own_lab.daemon.map("arena"))["n_units"] = 3
    first, second = talk(own_lab), talk(own_lab)
    ends = own_lab.state().endpoints  # at once: what is idle for two seconds gives its memory to the others
    assert [(e.tx.why, e.rx.why) for e in ends[:2]] == [("none", "none")] * 2
    assert "exhausted" in {reason for e in ends[2:] for reason in (e.tx.why, e.rx.why)}
    first.turns(2)
    second.turns(2)
    for actor in own_lab.actors:
        actor.end()


def test_draining(own_lab: Lab) -> None:
    """SIGTERM to the helper: all is lowered. It takes the names away, so they are linked beforehand, to look at what it left."""
    t = talk(own_lab)
    kept = f"{own_lab.stack}k"
    links = []
    for part in ("stack", "arena", "bulk"):
        path = own_lab.daemon.path(part)
        links.append(path.with_name(path.name.replace(own_lab.stack, kept)))
        links[-1].hardlink_to(path)
    try:
        assert own_lab.daemon.end(signal.SIGTERM)[0] == 0
        t.turns(3)
        assert why(own_lab, t.client, "s", kept) == ("draining", "draining")
        assert why(own_lab, t.server, "c", kept) == ("draining", "draining")
    finally:
        for link in links:
            link.unlink()


def test_forked(lab: Lab) -> None:
    """Accepted, and shared with a child before it was used."""
    t = Talk(lab.actor("eager"), lab.actor("eager"))
    t.server.do("child = os.fork() or time.sleep(60)")
    t.turns(4)
    seen = why(lab, t.server, "c")
    t.server.do("os.kill(child, 9); os.waitpid(child, 0)[1]")
    assert seen == ("forked", "forked")


def test_standard_stream(lab: Lab) -> None:
    one, client = lab.actor("eager"), lab.actor("eager")
    port = one.do("l = socket.create_server(('127.0.0.1', 0)); l.getsockname()[1]")
    client.do(f"s = socket.create_connection(('127.0.0.1', {port}))")
    one.do("c, _ = l.accept(); os.dup2(c.fileno(), 2); c.close(); c = socket.socket(fileno=2)")
    for _ in range(4):
        client.do("s.sendall(b'1')")
        one.do("c.recv(1); c.sendall(b'2')")
        client.do("s.recv(1)")
    seen = why(lab, one, "c")
    one.do("c.detach()")
    assert seen == ("standard_stream", "standard_stream")


STDIO = "import ctypes; libc = ctypes.CDLL(None); libc.fdopen.restype = ctypes.c_void_p; stream = libc.fdopen(c.fileno(), b'r+')"


def test_stdio(lab: Lab) -> None:
    t = talk(lab)
    t.server.do(STDIO)
    t.turns(2)
    assert why(lab, t.server, "c") == ("stdio", "stdio")


def test_stdio_before_it_was_used(lab: Lab) -> None:
    t = Talk(lab.actor("default"), lab.actor("default"))  # eager registers a connection before it is used
    t.server.do(STDIO)
    t.turns(8)
    assert why(lab, t.server, "c") == ("stdio", "stdio")


def test_many_sets(lab: Lab) -> None:
    t = Talk(lab.actor("eager"), lab.actor("eager"))
    t.server.do("p, q = select.epoll(), select.epoll(); p.register(c, select.EPOLLIN); q.register(c, select.EPOLLIN)")
    t.turns(4)
    assert why(lab, t.server, "c")[1] == "many_sets"
    assert why(lab, t.client, "s")[0] == "many_sets"


def test_nested_sets(lab: Lab) -> None:
    t = Talk(lab.actor("eager"), lab.actor("eager"))
    t.server.do("p, q = select.epoll(), select.epoll(); p.register(c, select.EPOLLIN); q.register(p, select.EPOLLIN)")
    t.turns(4)
    assert why(lab, t.server, "c")[1] == "many_sets"
    t.client.do("give()")
    assert t.server.do("len(q.poll(10))") == 1
    assert t.server.do("take()") == 200


def test_open_limit(lab: Lab) -> None:
    """Of two connections in one set only one ring may be open."""
    t = Talk(lab.actor("eager", SHAREDSTACK_OPEN_MAX="1"), lab.actor("eager"))
    t.server.do("p = select.epoll(); p.register(c, select.EPOLLIN)")
    t.turns(4)
    port = t.server.do("l.getsockname()[1]")
    t.client.do(f"s2 = socket.create_connection(('127.0.0.1', {port}))")
    t.server.do("c2, _ = l.accept(); p.register(c2, select.EPOLLIN)")
    for _ in range(4):
        t.client.do("s2.sendall(b'1')")
        t.server.do("c2.recv(1); c2.sendall(b'2')")
        t.client.do("s2.recv(1)")
    assert why(lab, t.server, "c")[1] == "none"
    assert why(lab, t.server, "c2")[1] == "open_limit"


def test_native_reader(lab: Lab) -> None:
    """One thread polls in the kernel, another one reads and finds the ring shut: it stays so while the first one is there."""
    t = talk(lab, SHAREDSTACK_DOZE="0")
    t.server.do("p = select.epoll(); p.register(c, select.EPOLLIN)")
    t.turns(2)
    assert t.server.do("len(p.poll(0.02))") == 0  # which shuts it
    t.server.do(
        "seen, q = [], select.poll(); q.register(c, select.POLLIN)\n"
        "thread = threading.Thread(target=lambda: seen.extend(q.poll(5000)), daemon=True); thread.start(); time.sleep(0.1)\n"
        "try: c.recv(10, socket.MSG_DONTWAIT)\n"
        "except BlockingIOError: pass"
    )
    assert why(lab, t.server, "c")[1] == "native_reader"
    t.client.do("give()")
    assert t.server.do("thread.join(5); len(seen)") == 1
    assert t.server.do("take()") == 200


def test_urgent(lab: Lab) -> None:
    t = talk(lab)
    t.client.do("s.send(b'!', socket.MSG_OOB)")
    assert t.server.do("time.sleep(0.01); c.recv(1, socket.MSG_OOB)") == b"!"
    t.turns(2)
    assert why(lab, t.client, "s")[0] == "urgent"
    assert why(lab, t.server, "c")[1] == "urgent"


def test_shut_down(lab: Lab) -> None:
    t = talk(lab)
    t.client.do("s.shutdown(socket.SHUT_WR)")
    assert t.server.do("c.recv(10)") == b""
    assert why(lab, t.client, "s")[0] == "shut_down"
    t.server.do("give()")
    assert t.client.do("take()") == 200


def test_idle(own_lab: Lab) -> None:
    own_lab.daemon.end()
    own_lab.daemon.start("--cool-every", "0.01", prefix=tuple(own_lab.namespace.prefix), stdin=subprocess.DEVNULL, cwd="/")
    t = talk(own_lab)
    wait_until(lambda: not own_lab.state().memory["pairs_used"])
    assert (why(own_lab, t.client, "s"), why(own_lab, t.server, "c")) == (("idle", "idle"),) * 2


def test_disabled(lab: Lab) -> None:
    t = Talk(lab.actor("eager", SHAREDSTACK_ENABLE="0"), lab.actor("eager"))
    t.turns(4)
    assert why(lab, t.server, "c") == ("disabled", "disabled")


URING = "import ctypes; ring = ctypes.CDLL(None).syscall(425, 4, ctypes.create_string_buffer(120)); ring"


def test_io_uring(lab: Lab) -> None:
    """A process sets up a ring: what it has is lowered, what it makes later is not lifted; nothing is lost."""
    t = talk(lab)
    t.client.do("give()")
    if t.server.do(URING) < 0:
        pytest.skip("allowed: io_uring is forbidden here")
    assert t.server.do("take()") == 200
    t.turns(2)
    assert why(lab, t.server, "c") == ("io_uring", "io_uring")
    port = t.server.do("l.getsockname()[1]")
    t.client.do(f"s2 = socket.create_connection(('127.0.0.1', {port}))")
    t.server.do("c2, _ = l.accept()")
    for _ in range(8):
        t.client.do("s2.sendall(b'1')")
        t.server.do("c2.recv(1); c2.sendall(b'2')")
        t.client.do("s2.recv(1)")
    assert why(lab, t.server, "c2") == ("io_uring", "io_uring")
    assert why(lab, t.client, "s") == why(lab, t.client, "s2") == ("io_uring", "io_uring")
    sent = lab.sent()
    t.turns(4)
    assert lab.sent().local == sent.local


def test_aio(lab: Lab) -> None:
    t = talk(lab)
    t.client.do("give()")
    t.server.do(
        "import ctypes\n"
        "class Request(ctypes.Structure): _fields_ = [('fd', ctypes.c_int), ('op', ctypes.c_int), ('prio', ctypes.c_int),"
        " ('at', ctypes.c_void_p), ('n', ctypes.c_size_t), ('rest', ctypes.c_char * 168)]\n"
        "room, libc = ctypes.create_string_buffer(200), ctypes.CDLL(None)\n"
        "request = Request(c.fileno(), 0, 0, ctypes.addressof(room), 200)\n"
        "assert libc.aio_read(ctypes.byref(request)) == 0\n"
        "while libc.aio_error(ctypes.byref(request)) == 115: time.sleep(0.001)"
    )
    assert t.server.do("libc.aio_return(ctypes.byref(request)), room.raw == b'x' * 200") == (200, True)
    t.turns(2)
    assert why(lab, t.server, "c") == ("aio", "aio")


def two_sockets(actor: Actor) -> None:
    """u and v, which exchange datagrams until each may push to the other."""
    actor.do(
        "u, v = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))\n"
        "u.bind(('127.0.0.1', 0)); v.bind(('127.0.0.1', 0)); u.connect(v.getsockname()); v.connect(u.getsockname())\n"
        "for _ in range(8): (u.send(b'x'), v.recv(9), v.send(b'x'), u.recv(9))"
    )


def test_not_linked(lab: Lab) -> None:
    """A receiver outside the library confirms nothing."""
    outside, one = lab.actor("kernel"), lab.actor("eager")
    port = outside.do("v = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); v.bind(('127.0.0.1', 0)); v.getsockname()[1]")
    one.do(f"u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nfor _ in range(9): u.sendto(b'x', ('127.0.0.1', {port}))")
    assert why(lab, one, "u") == ("not_linked", "not_linked")
    two_sockets(one)
    assert why(lab, one, "u") == ("none", "none")


def test_control_data(lab: Lab) -> None:
    one = lab.actor("eager")
    two_sockets(one)
    assert one.do("u.send(b'ab', socket.MSG_MORE), u.send(b'c'), v.recv(9)") == (2, 1, b"abc")
    assert why(lab, one, "u") == ("control_data", "control_data")


def test_words_and_status(lab: Lab) -> None:
    """The same by lines for people, with what can be done about it."""
    t = Talk(lab.actor("kernel"), lab.actor("eager"))
    t.turns(4)
    done = lab.inspect("--why")
    assert done.returncode == 0
    line = next(one for one in done.stdout.splitlines() if one.startswith(f"{t.client.pid} "))
    assert re.search(r"fd \d+ tcp 127\.0\.0\.1:\d+ 127\.0\.0\.1:\d+: peer_unknown: .*sharedstack run", line)
    everything = json.loads(lab.inspect("--format", "json").stdout)
    mine = [e for e in everything["endpoints"] if t.client.pid in [holder["pid"] for holder in e["processes"]]]
    assert [(e["tx"]["path"], e["tx"]["why"]) for e in mine] == [("kernel", "peer_unknown")]


def test_every_reason_is_here() -> None:
    """A new reason needs a test of its name, or a line that says why it cannot come to be."""
    tests: dict[str, Callable[..., None]] = {name.removeprefix("test_"): it for name, it in globals().items() if name.startswith("test_")}
    assert {r.name for r in REASONS} == ({r.name for r in REASONS} & tests.keys()) | IMPOSSIBLE.keys() | OF_THE_WIRE | OF_THE_POLICY


def test_nothing_is_left(lab: Lab) -> None:
    lab.assert_clean()
