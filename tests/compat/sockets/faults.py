"""What goes wrong around the library: no descriptors left, descriptors closed behind its back, sockets of other families."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import tempfile

from compat.sockets import calls as c
from compat.sockets.stage import Stage, scene


def take_all() -> list[int]:
    """Every descriptor that is to be had."""
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.dup(0))
    return taken


@scene(lifts=False)
def no_descriptors(stage: Stage) -> None:
    """The limit is reached before the library ever had a descriptor: all goes on as without it."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    a, b = stage.fresh()
    taken = take_all()
    stage.say("none left", c.call("dup", 0))
    for i in range(30):
        assert c.send(a, b"there") == 5 and c.recv(b, 10) == b"there", i
        assert c.send(b, b"back") == 4 and c.recv(a, 10) == b"back", i
    stage.say("turns", "right")
    waiter = stage.thread(lambda: c.recv(b, 10))
    stage.say("waits", waiter.waits(0.02))
    c.send(a, b"late")
    stage.say("waited for", waiter.result())
    stage.say("polled", c.poll(b, select.POLLIN, 20))
    stage.say("socket", c.call("socket", socket.AF_INET, socket.SOCK_STREAM, 0))
    for fd in taken:
        os.close(fd)
    stage.say("socket again", c.call("socket", socket.AF_INET, socket.SOCK_STREAM, 0) > 0)


@scene()
def descriptors_run_out(stage: Stage) -> None:
    """The same with connections that are there already."""
    a, b = stage.ends()
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
    taken = take_all()
    stage.say("none left", c.call("dup", 0))
    for _ in range(5):
        waiter = stage.thread(lambda: c.recv(b, 10))
        stage.say("waits", waiter.waits(0.02))
        c.send(a, b"late")
        stage.say("waited for", waiter.result())
    stage.say("accept", c.call("accept", (kept := a_listener(taken))[0], None, None))
    del kept
    for fd in taken:
        os.close(fd)


def a_listener(taken: list[int]) -> tuple[socket.socket, socket.socket]:
    """A listener with a connection in its queue, made of two of the descriptors."""
    for _ in range(2):
        os.close(taken.pop())
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    client = socket.socket()
    client.connect(listener.getsockname())
    return listener, client


@scene()
def closed_behind_its_back(stage: Stage) -> None:
    """By the bare system call; the peer sees the end, the number is nobody's."""
    a, b = stage.ends()
    c.send(b, b"unread")
    c.recv(a, 100)
    number = a.detach()
    stage.say("close", c.raw_close(number))
    stage.say("peer", c.recv(b, 10))
    stage.say("receives", c.recv(number, 10, socket.MSG_DONTWAIT))
    stage.say("sends", c.send(number, b"x", socket.MSG_NOSIGNAL))
    stage.say("polls", c.poll(number, select.POLLIN | select.POLLOUT, 0))
    stage.say("option", c.get(number, socket.SOL_SOCKET, socket.SO_ERROR))
    stage.say("unread", c.ioctl(number, c.FIONREAD))
    stage.say("shutdown", c.call("shutdown", number, socket.SHUT_WR))
    stage.say("close again", c.call("close", number))


@scene()
def number_is_a_file_now(stage: Stage) -> None:
    """The number of a connection that was closed so is a file's: reads and writes are the file's."""
    a, b = stage.ends()
    number = a.detach()
    with tempfile.TemporaryFile() as file:
        file.write(b"of the file")
        file.flush()
        file.seek(0)
        fd = c.raw_dup(file.fileno(), number)
    stage.say("same number", fd == number)
    stage.say("read", c.call("read", fd, room := c.ctypes.create_string_buffer(20), c.size(20)))
    stage.say("it is", room.value)
    stage.say("write", c.call("write", fd, b"more", c.size(4)))
    stage.say("read at the end", c.call("read", fd, room, c.size(20)))
    stage.say("all", os.pread(fd, 100, 0))
    stage.say("peer", c.recv(b, 10, socket.MSG_DONTWAIT))
    stage.say("close", c.call("close", fd))


@scene()
def number_is_a_pipe_now(stage: Stage) -> None:
    a, b = stage.ends()
    number = a.detach()
    made, w = os.pipe()
    r = c.raw_dup(made, number)
    stage.say("same number", r == number)
    stage.say("poll", c.poll(r, select.POLLIN, 0))
    os.write(w, b"piped")
    stage.say("poll", c.poll(r, select.POLLIN, 100))
    stage.say("read", os.read(r, 10))
    stage.say("peer", c.recv(b, 10, socket.MSG_DONTWAIT))
    waiter = stage.thread(lambda: os.read(r, 10)).asleep()
    os.write(w, b"later")
    stage.say("waited for", waiter.result())


@scene()
def number_is_another_connection_now(stage: Stage) -> None:
    """Made by calls that the library sees, or accepted into the number."""
    a, b = stage.ends()
    number = a.detach()
    c.raw_close(number)
    x, y = stage.fresh()
    stage.say("same number", number in (x.fileno(), y.fileno()))
    for i in range(20):
        assert c.send(x, b"there") == 5 and c.recv(y, 10) == b"there", i
        assert c.send(y, b"back") == 4 and c.recv(x, 10) == b"back", i
    stage.say("talks", "right")
    stage.say("the old peer", c.recv(b, 10, socket.MSG_DONTWAIT))


@scene(lifts=False)
def other_families(stage: Stage) -> None:
    """Sockets that are none of the library's."""
    pairs = [
        (f"unix {kind.name}", *socket.socketpair(socket.AF_UNIX, kind))
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)
    ]
    for name, a, b in pairs:
        for _ in range(12):
            assert c.send(a, b"there") == 5 and c.recv(b, 100) == b"there"
        stage.say(name, (c.send(a, b"truncated"), c.recv_n(b, 3, socket.MSG_TRUNC), c.poll(a, select.POLLOUT)))
        waiter = stage.thread(lambda b=b: c.recv(b, 100)).asleep()  # type: ignore[misc]
        c.send(a, b"late")
        stage.say("waited for", waiter.result() if kind_keeps(b) else waiter.result()[-4:])
    a, b = pairs[0][1:]
    r, w = os.pipe()
    a.sendmsg([b"with"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, r.to_bytes(4, "little"))])
    data, rights, _flags, _name = b.recvmsg(100, 100)
    got = int.from_bytes(rights[0][2][:4], "little")
    os.write(w, b"piped")
    stage.say("passed", (data, os.read(got, 10)))
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    stage.say("netlink", (netlink.sendto(b"\x14\0\0\0\x12\0\x01\x03\x01\0\0\0\0\0\0\0\0\0\0\0", (0, 0)), len(netlink.recv(65536)) > 20))
    for family, kind, protocol in (
        (socket.AF_PACKET, socket.SOCK_RAW, 0),
        (40, socket.SOCK_STREAM, 0),
        (socket.AF_INET, socket.SOCK_RAW, 1),
        (socket.AF_INET, socket.SOCK_STREAM, 262),
    ):
        try:
            s = socket.socket(family, kind, protocol)
            stage.say(f"family {int(family)}", (c.recv(s, 10, socket.MSG_DONTWAIT), c.send(s, b"x", socket.MSG_NOSIGNAL)))
            if protocol == 262:
                listener = socket.socket(family, kind, protocol)
                listener.bind(("127.0.0.1", 0))
                listener.listen()
                stage.say("mptcp", c.connect(s, c.inet(listener.getsockname()[1])))
                d, _ = listener.accept()
                for _ in range(12):
                    assert c.send(s, b"there") == 5 and c.recv(d, 100) == b"there"
                stage.say("talks", "right")
        except OSError as error:
            stage.say(f"family {int(family)}", c.name_of(error.errno or 0))


def kind_keeps(s: socket.socket) -> bool:
    return s.type != socket.SOCK_STREAM
