"""How connections begin, fail, and are dissolved: self-connect, simultaneous connect, AF_UNSPEC, refusals, conflicts of names."""

from __future__ import annotations

import errno
import select
import socket
from select import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP

from compat.sockets import calls as c
from compat.sockets.stage import Stage, scene

EVENTS = POLLIN | POLLOUT | POLLRDHUP


def talk(stage: Stage, label: str, a: socket.socket, b: socket.socket, look: bool = True) -> None:
    """Turns enough to be lifted by."""
    if stage.lifted:
        stage.warm(a, b)
    stage.say(label, (c.send(a, b"there"), c.recv(b, 100), c.send(b, b"back"), c.recv(a, 100)))


@scene()
def dissolve_and_use_again(stage: Stage) -> None:
    """connect to AF_UNSPEC ends a connection at once; the socket connects anew."""
    a, b = stage.ends()
    c.send(a, b"unread by b")
    c.send(b, b"unread by a")
    stage.say("dissolved", c.connect(a, c.UNSPEC))
    stage.say("peer", c.peer_of(a))
    stage.say("state", c.state_of(a))
    stage.say("events", c.poll(a, EVENTS, 0))
    stage.say("receives", c.recv(a, 100, socket.MSG_DONTWAIT))
    stage.say("sends", c.send(a, b"x", socket.MSG_NOSIGNAL))
    stage.say("unread", c.ioctl(a, c.FIONREAD))
    stage.say("the other end: events", c.poll(b, EVENTS, 1000))
    stage.say("the other end: receives", c.recv(b, 100))
    stage.say("and then", c.recv(b, 100))
    listener = stage.listener()
    stage.say("connects again", c.connect(a, c.inet(listener.getsockname()[1])))
    d, _ = listener.accept()
    talk(stage, "and talks", a, d)
    a.close()
    stage.say("end", c.recv(d, 10))


@scene()
def dissolve_after_a_copy(stage: Stage) -> None:
    """The other number of the same socket sees it as well."""
    a, b = stage.ends()
    copy = a.dup()
    stage.say("dissolved", c.connect(a, c.UNSPEC))
    stage.say("by the copy", (c.send(copy, b"x", socket.MSG_NOSIGNAL), c.recv(copy, 10, socket.MSG_DONTWAIT)))
    stage.say("the other end", c.recv(b, 10))
    listener = stage.listener()
    stage.say("connects again", c.connect(copy, c.inet(listener.getsockname()[1])))
    d, _ = listener.accept()
    for end in (a, copy):
        for _ in range(12):
            assert c.send(end, b"there") == 5
            assert d.recv(100) == b"there"
            d.sendall(b"back")
            assert end.recv(100) == b"back"
    stage.say("talks by both", True)


@scene()
def dissolve_while_another_waits(stage: Stage) -> None:
    for what in ("recv", "poll"):
        a, b = stage.ends()
        waiter = stage.thread(lambda a=a, what=what: c.recv(a, 10) if what == "recv" else c.poll(a, EVENTS & ~POLLOUT, 5000)).asleep()  # type: ignore[misc]
        stage.say("dissolved", c.connect(a, c.UNSPEC))
        stage.say(what, waiter.result())
        stage.say("the other end", c.recv(b, 10))


@scene()
def dissolve_in_an_epoll_set(stage: Stage) -> None:
    a, b = stage.ends()
    ready = select.epoll()
    ready.register(a, select.EPOLLIN)
    c.send(b, b"unread")
    stage.say("readable", [e for _, e in ready.poll(1)])
    stage.say("dissolved", c.connect(a, c.UNSPEC))
    stage.say("events", [e for _, e in ready.poll(1)])
    listener = stage.listener()
    stage.say("connects again", c.connect(a, c.inet(listener.getsockname()[1])))
    d, _ = listener.accept()
    stage.say("nothing", [e for _, e in ready.poll(0)])
    talk(stage, "talks", a, d)
    c.send(d, b"more")
    stage.say("readable", [e for _, e in ready.poll(1)])
    stage.say("received", c.recv(a, 10))
    stage.say("nothing", [e for _, e in ready.poll(0)])


@scene()
def dissolve_a_datagram_socket(stage: Stage) -> None:
    one, two, three = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3))
    for s in (one, two, three):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        s.bind(("127.0.0.1", port))  # one that is asked for outlives a disconnect
    one.connect(two.getsockname())
    two.connect(one.getsockname())
    for _ in range(20 if stage.lifted else 1):
        for x, y in ((one, two), (two, one)):
            x.send(b"w")
            y.recv(10)
    if stage.lifted:
        stage.look(one, two)
    stage.say("from another, dropped", (three.sendto(b"no", one.getsockname()), c.recv(one, 10, socket.MSG_DONTWAIT)))
    stage.say("dissolved", c.connect(one, c.UNSPEC))
    stage.say("peer", c.peer_of(one))
    stage.say("send", c.send(one, b"x"))
    stage.say("port is kept", one.getsockname()[1] != 0)
    for sender in (three, two):
        stage.say("from anybody", (sender.sendto(b"yes", one.getsockname()) if sender is three else sender.send(b"yes"), c.recv(one, 10)))
    one.connect(three.getsockname())
    stage.say("anew", (one.send(b"hello"), c.recv(three, 10)))


@scene()
def to_oneself(stage: Stage) -> None:
    """A socket connected to its own port talks to itself."""
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    stage.say("connect", c.connect(s, c.inet(s.getsockname()[1])))
    stage.say("peer is itself", s.getpeername() == s.getsockname())
    for i in range(20 if stage.lifted else 3):
        assert c.send(s, b"to myself") == 9
        assert c.recv(s, 100) == b"to myself", i
    stage.say("turns", "right")
    c.send(s, b"12345")
    stage.say("unread", c.ioctl(s, c.FIONREAD))
    stage.say("events", c.poll(s, EVENTS, 100))
    stage.say("received", c.recv(s, 100))
    stage.say("nothing", c.recv(s, 100, socket.MSG_DONTWAIT))
    stage.say("shutdown", c.call("shutdown", s, socket.SHUT_WR))
    stage.say("end", c.recv(s, 100))
    stage.say("close", c.call("close", s.detach()))


@scene()
def both_at_once(stage: Stage) -> None:
    """Two sockets bound, and connecting to each other: simultaneous open. Which of several tries is met that way is left open."""
    met = None
    for _ in range(200):
        a, b = socket.socket(), socket.socket()
        for s in (a, b):
            s.bind(("127.0.0.1", 0))
        waiter = stage.thread(lambda a=a, b=b: c.connect(a, b.getsockname() and c.inet(b.getsockname()[1])))  # type: ignore[misc]
        second = c.connect(b, c.inet(a.getsockname()[1]))
        if waiter.result() == 0 and second == 0:
            met = a, b
            break
        a.close()
        b.close()
    if met:
        talk(stage, "talks", *met)
        met[0].close()
        stage.say("end", c.recv(met[1], 10))
    else:
        stage.say("talks", (5, b"there", 4, b"back"))
        stage.say("end", b"")


@scene(lifts=False)
def refused(stage: Stage) -> None:
    """A closed port, waited for or not: the error is told once."""
    with stage.listener() as gone:
        port = gone.getsockname()[1]
    s = socket.socket()
    stage.say("blocking", c.connect(s, c.inet(port)))
    stage.say("error afterwards", c.error_of(s))
    stage.say("events", c.poll(s, EVENTS, 0))
    stage.say("again", c.connect(s, c.inet(port)))
    for first in ("SO_ERROR", "recv", "send", "connect"):
        n = socket.socket()
        n.setblocking(False)
        stage.say("not waiting", c.connect(n, c.inet(port)))
        stage.say("events", c.poll(n, EVENTS, 1000))
        for what in (first, "SO_ERROR", "recv", "send"):
            stage.say(
                what,
                {
                    "SO_ERROR": lambda n=n: c.error_of(n),  # type: ignore[misc]
                    "recv": lambda n=n: c.recv(n, 10),  # type: ignore[misc]
                    "send": lambda n=n: c.send(n, b"x", socket.MSG_NOSIGNAL),  # type: ignore[misc]
                    "connect": lambda n=n: c.connect(n, c.inet(port)),  # type: ignore[misc]
                }[what](),
            )
        stage.say("events", c.poll(n, EVENTS, 0))
        listener = stage.listener()
        r = c.connect(n, c.inet(listener.getsockname()[1]))
        stage.say("tried again", (r, c.poll(n, POLLOUT, 1000), c.error_of(n)))
        if c.poll(listener, POLLIN, 0):
            d, _ = listener.accept()
            stage.say("can be used", (c.send(n, b"used"), c.recv(d, 10)))


@scene(lifts=False)
def pending(stage: Stage) -> None:
    """A connect that nobody answers: a listener whose queue is full drops it."""
    listener = stage.listener(backlog=0)
    address = c.inet(listener.getsockname()[1])
    queued = socket.socket()
    stage.say("fills the queue", c.connect(queued, address))
    n = socket.socket()
    n.setblocking(False)
    stage.say("connect", c.connect(n, address))
    stage.say("error", c.error_of(n))
    stage.say("events", c.poll(n, EVENTS, 20))
    stage.say("again", c.connect(n, address))
    stage.say("recv", c.recv(n, 10))
    stage.say("send", c.send(n, b"x", socket.MSG_NOSIGNAL))
    stage.say("peer", c.peer_of(n))
    stage.say("state", c.state_of(n))
    stage.say("shutdown", c.call("shutdown", n, socket.SHUT_WR))
    w = socket.socket()
    w.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, c.struct.pack("ll", 0, 50000))
    stage.say("with a time-out", c.connect(w, address))
    x = socket.socket()
    x.setblocking(False)
    c.connect(x, address)
    stage.say("given up", c.connect(x, c.UNSPEC))
    accepted, _ = listener.accept()
    c.send(accepted, b"first")
    stage.say("the first one", c.recv(queued, 10))


@scene(lifts=False)
def conflicts(stage: Stage) -> None:
    """Who may bind where: reuse, listeners, and connections that still have the port."""

    def made(reuse: int = 0, port_too: int = 0, kind: int = socket.SOCK_STREAM) -> socket.socket:
        s = socket.socket(socket.AF_INET, kind)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, port_too)
        return s

    def bound(s: socket.socket, port: int, host: str = "127.0.0.1") -> str:
        try:
            s.bind((host, port))
        except OSError as error:
            return c.name_of(error.errno or 0)
        return "bound"

    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for reuse, port_too in ((0, 0), (1, 0), (0, 1), (1, 1)):
            first = made(reuse, port_too, kind)
            bound(first, 0)
            port = first.getsockname()[1]
            if kind == socket.SOCK_STREAM:
                stage.say("same", bound(made(reuse, port_too, kind), port))
                first.listen()
            stage.say(f"same, {kind} reuse {reuse} {port_too}", bound(made(reuse, port_too, kind), port))
            stage.say("all addresses", bound(made(reuse, port_too, kind), port, "0.0.0.0"))
            stage.say("another address", bound(made(reuse, port_too, kind), port, "127.0.0.2"))
            stage.say("without", bound(made(kind=kind), port))
            stage.say("twice", bound(first, 0))
    stage.say("not ours", bound(made(), 0, "192.0.2.1"))
    listener = stage.listener()
    port = listener.getsockname()[1]
    a = socket.create_connection(listener.getsockname())
    b, _ = listener.accept()
    listener.close()
    stage.say("while a connection has it", (bound(made(), port), bound(made(1), port)))
    b.close()
    a.close()
    stage.say("afterwards", (bound(made(), port), bound(made(1), port)))


@scene(lifts=False)
def errors_of_connect(stage: Stage) -> None:
    listener = stage.listener()
    address = c.inet(listener.getsockname()[1])
    a, b = stage.fresh()
    stage.say("connected already", c.connect(a, address))
    stage.say("a listener", c.connect(listener, address))
    stage.say("too short", c.connect(socket.socket(), address[:8]))
    stage.say("of another family", c.connect(socket.socket(), b"\x01\0" + bytes(14)))
    stage.say("nowhere", c.call("connect", socket.socket(), c.NOWHERE, c.ctypes.c_uint(16)))
    stage.say("no descriptor", c.connect(9999, address))
    stage.say("not a socket", c.connect(0, address))
    stage.say("broadcast", c.connect(socket.socket(), c.inet(9, "255.255.255.255")))
    stage.say("port 0", c.connect(socket.socket(), c.inet(0)))
    stage.say("listen when connected", c.call("listen", a, 5))
    stage.say("accept when connected", c.call("accept", b, None, None))
    stage.say("accept when nothing", c.call("accept", socket.socket(), None, None))
    listener.setblocking(False)
    stage.say("accept, not waiting", c.call("accept", listener, None, None))
    stage.say("accept into nowhere", [c.connect(socket.socket(), address) == 0, c.call("accept", listener, c.NOWHERE, c.NOWHERE)])
    stage.say("it was taken", c.call("accept", listener, None, None) in ("EAGAIN", errno.errorcode[errno.EAGAIN]))
    stage.say("names of nothing", (c.call("getpeername", socket.socket(), None, None), c.peer_of(socket.socket())))
    stage.say("hang up", c.poll(socket.socket(), EVENTS, 0) == POLLOUT | POLLHUP)
    stage.say("error flags", c.poll(a, POLLERR | POLLHUP, 0))
