"""EPOLLEXCLUSIVE: what epoll_ctl(2) allows, and who is woken. It prints what it finds; the kernel's lines are the right ones.

exclusive.py ctl        which events, on a listener, on a connection that has been used, and on one that is used in the set
exclusive.py processes  a connection that forked processes watch, each in a set of its own
exclusive.py threads    the same by threads; and plain members beside exclusive ones
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import sys
import threading

WATCHERS = 4
ROUNDS = 60
HANGS = 10  # seconds
BITS = ("IN", "OUT", "ERR", "HUP", "ET", "PRI", "RDHUP", "RDNORM", "WRNORM", "MSG", "ONESHOT")
EXCLUSIVE = getattr(select, "EPOLLEXCLUSIVE", 1 << 28)
WAKEUP = 1 << 29


def connected() -> tuple[socket.socket, socket.socket]:
    """A connection that has been used enough to be lifted: its two ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        a = socket.create_connection(listener.getsockname())
        b, _ = listener.accept()
    for s in (a, b):
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(6):
        a.send(b"there")
        assert b.recv(9) == b"there"
        b.send(b"back")
        assert a.recv(9) == b"back"
    return a, b


def tell(what: str, call, *arguments: object) -> None:  # type: ignore[no-untyped-def]
    try:
        call(*arguments)
        print(f"{what}: 0")
    except OSError as e:
        print(f"{what}: {errno.errorcode[e.errno or 0]}")


def controls(name: str, s: socket.socket) -> None:
    for bit in BITS:
        with select.epoll() as e:
            tell(f"{name}: ADD exclusive {bit}", e.register, s, EXCLUSIVE | getattr(select, f"EPOLL{bit}"))
    with select.epoll() as e:
        tell(f"{name}: ADD exclusive IN WAKEUP", e.register, s, EXCLUSIVE | select.EPOLLIN | WAKEUP)
    with select.epoll() as e:
        tell(f"{name}: ADD exclusive alone", e.register, s, EXCLUSIVE)
        tell(f"{name}: MOD to exclusive IN", e.modify, s, EXCLUSIVE | select.EPOLLIN)
        tell(f"{name}: MOD to IN", e.modify, s, select.EPOLLIN)
        tell(f"{name}: ADD again", e.register, s, EXCLUSIVE | select.EPOLLIN)
        tell(f"{name}: DEL", e.unregister, s)
        tell(f"{name}: ADD IN", e.register, s, select.EPOLLIN)
        tell(f"{name}: MOD plain to exclusive", e.modify, s, EXCLUSIVE | select.EPOLLIN)
        tell(f"{name}: MOD plain to ET", e.modify, s, select.EPOLLIN | select.EPOLLET)
        tell(f"{name}: DEL plain", e.unregister, s)
        tell(f"{name}: ADD anew", e.register, s, EXCLUSIVE | select.EPOLLIN)
        with select.epoll() as outer:
            tell(f"{name}: the set in another one, exclusive", outer.register, e, EXCLUSIVE | select.EPOLLIN)
            tell(f"{name}: the set in another one", outer.register, e, select.EPOLLIN)


def used_in_a_set() -> None:
    """Changes of a member that is receiving, of which the library may tell the kernel late."""
    a, b = connected()
    with select.epoll() as e:
        e.register(b, select.EPOLLIN)
        for i in range(30):
            a.send(b"ask")
            assert e.poll(5) == [(b.fileno(), select.EPOLLIN)] and b.recv(9) == b"ask"
            if i == 10:
                tell("in use: MOD to exclusive", e.modify, b, EXCLUSIVE | select.EPOLLIN)
                e.unregister(b)
                tell("in use: ADD exclusive ONESHOT", e.register, b, EXCLUSIVE | select.EPOLLIN | select.EPOLLONESHOT)
                tell("in use: ADD exclusive", e.register, b, EXCLUSIVE | select.EPOLLIN)
            if i == 20:
                tell("in use: MOD of exclusive", e.modify, b, select.EPOLLIN)
                e.unregister(b)
                tell("in use: ADD plain", e.register, b, select.EPOLLIN)
        a.close()
        print("in use: the end", e.poll(5)[0][1] & select.EPOLLIN, b.recv(9))


def watch(s: socket.socket, events: int, answer: bytes) -> None:
    """Wait in a set of its own, again and again, and answer what comes, until the end of the stream."""
    with select.epoll() as e:
        e.register(s, events)
        while True:
            assert e.poll(), "a wait without end ended"
            try:
                got = s.recv(4)
            except BlockingIOError:  # another one was faster
                continue
            if not got:
                return
            s.send(answer + got[1:])


def ask(a: socket.socket) -> int:
    """Bytes that are answered, one at a time, in order; at the end of the stream all who watch have to go."""
    answers = 0
    for i in range(ROUNDS):
        a.send(b"a%03d" % i)
        got = b""
        while len(got) < 4 and (more := a.recv(4 - len(got))):
            got += more
        assert got[1:] == b"%03d" % i, got
        answers += 1
    a.shutdown(socket.SHUT_WR)
    return answers


def processes() -> None:
    a, b = connected()
    b.setblocking(False)
    pids = []
    for n in range(WATCHERS):
        pid = os.fork()
        if pid == 0:
            signal.alarm(HANGS)
            a.close()
            watch(b, EXCLUSIVE | select.EPOLLIN, b"%d" % n)
            os._exit(0)
        pids.append(pid)
    print("processes: answered", ask(a))
    print("processes: ended", [os.waitpid(pid, 0)[1] for pid in pids])


def threads(kinds: tuple[int, ...]) -> None:
    a, b = connected()
    b.setblocking(False)
    some = [threading.Thread(target=watch, args=(b, kinds[n % len(kinds)] | select.EPOLLIN, b"%d" % n)) for n in range(WATCHERS)]
    for t in some:
        t.start()
    print("threads: answered", ask(a))
    for t in some:
        t.join()
    print("threads: ended")


def main(part: str) -> None:
    signal.alarm(HANGS)  # by which it ends if it hangs; a forked child has none yet
    if part == "ctl":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            controls("listener", listener)
        a, b = connected()
        controls("connection", b)
        a.send(b"unread")
        controls("connection with unread bytes", b)
        used_in_a_set()
    elif part == "processes":
        processes()
    else:
        for kinds in ((EXCLUSIVE,), (EXCLUSIVE, 0), (0,)):
            threads(kinds)


if __name__ == "__main__":
    main(sys.argv[1])
