"""The states in which a socket travels: each makes it in HOLDER, and says what it is."""

from __future__ import annotations

from collections.abc import Callable

from differential.waits import IN, RDHUP
from matrix.case import HOLDER, Case, Place, Subject
from matrix.worlds import PEER

WARM = 80  # rounds before the journey: enough for the library to lift it in any mode


def connected(case: Case) -> tuple[int, int]:
    """A connection between HOLDER and PEER that has carried something: their descriptors."""
    listener, ports = case.listener(PEER)
    fd = case.connect(HOLDER, ports)
    peer = case.accept(PEER, listener)
    case.both(PEER, f"close {listener}")
    for slot, number in ((HOLDER, fd), (PEER, peer)):
        case.both(slot, f"set {number} 6 1 1")
    case.converse(HOLDER, fd, PEER, peer, WARM)
    case.learn(fd)
    return fd, peer


def _stream(case: Case) -> int:
    fd, peer = connected(case)
    case.subject = Subject("stream", peer)
    case.places = [Place(HOLDER, [fd])]
    return fd


def listener(case: Case) -> None:
    fd, ports = case.listener(HOLDER)
    case.subject = Subject("listening", ports=ports)
    case.places = [Place(HOLDER, [fd])]


def waiting(case: Case) -> None:
    """Two connections wait, one of which has sent something."""
    listener(case)
    case.subject.waiting = [case.connect(PEER, case.subject.ports) for _ in range(2)]
    case.send(PEER, case.subject.waiting[0], case.subject.into, 900)


def connecting(case: Case) -> None:
    """The peer's backlog is full: the SYN is sent again a second later."""
    fd, ports = case.listener(PEER, 0)
    case.subject = Subject("connecting", fd, ports=ports)
    case.connect(HOLDER, ports)
    case.places = [Place(HOLDER, [case.connect(HOLDER, ports, 1 | 0o4000)])]


def idle(case: Case) -> None:
    _stream(case)


def unread(case: Case) -> None:
    """Bytes are unread at both ends."""
    fd = _stream(case)
    case.send(HOLDER, fd, case.subject.out, 3000)
    case.send(PEER, case.subject.peer, case.subject.into, 5000)


def half_out(case: Case) -> None:
    """It sends no more, and what it sent is unread."""
    fd = _stream(case)
    case.send(HOLDER, fd, case.subject.out, 2000)
    case.both(HOLDER, f"shutdown {fd} 1")
    case.subject.out.fin = True


def half_in(case: Case) -> None:
    """The peer sends no more, and what it sent is unread."""
    _stream(case)
    case.send(PEER, case.subject.peer, case.subject.into, 2500)
    case.both(PEER, f"shutdown {case.subject.peer} 1")
    case.subject.into.fin = True


def gone(case: Case) -> None:
    """The peer was killed after it had sent something."""
    fd = _stream(case)
    case.send(PEER, case.subject.peer, case.subject.into, 1500)
    case.kill(PEER)
    case.both(HOLDER, f"poll 3000 {fd} {RDHUP}")  # on the wire it is the helper that ends the connection
    case.subject.into.fin = case.subject.gone = True


def _datagrams(case: Case, both_ways: bool) -> None:
    slots = (HOLDER, PEER)
    fds = [case.both(slot, "socket 2 2 0").result for slot in slots]
    for slot, fd in zip(slots, fds, strict=True):
        case.both(slot, f"bind {fd} 2 0 0")
    ports = [case.ports_of(slot, fd) for slot, fd in zip(slots, fds, strict=True)]
    case.same(case.ask(PEER, *(f"connect {fds[1]} 2 {case.code()} {port}" for port in ports[0])))
    if both_ways:
        case.same(case.ask(HOLDER, *(f"connect {fds[0]} 2 {case.code()} {port}" for port in ports[1])))
    for i in range(12):
        case.both(PEER, f"send {fds[1]} 0 {i} 200 0 1 0 0 0")
        case.unnamed(HOLDER, f"recv {fds[0]} 4 2000 0 1 0 1")
    case.subject = Subject("datagrams", fds[1], ports=ports[1] if both_ways else [])
    case.places = [Place(HOLDER, [fds[0]])]
    for n in (300, 50):
        case.both(PEER, f"send {fds[1]} 0 {n} {n} 0 1 0 0 0")
        case.subject.waiting.append(n)


def datagrams_bound(case: Case) -> None:
    _datagrams(case, False)


def datagrams_connected(case: Case) -> None:
    _datagrams(case, True)


def watching(case: Case) -> None:
    """An epoll set that watches a connection with unread bytes, and a listener; all three travel."""
    fd = _stream(case)
    listening, case.subject.ports = case.listener(HOLDER)
    set_ = case.both(HOLDER, "epoll").result
    for number in (fd, listening):
        case.both(HOLDER, f"ctl {set_} 1 {number} {IN} {number}")
    case.subject.group, case.subject.stream = "set", 1
    case.places = [Place(HOLDER, [set_, fd, listening])]
    case.send(PEER, case.subject.peer, case.subject.into, 700)


SOCKETS: dict[str, Callable[[Case], None]] = {
    "listener": listener,
    "listener with connections waiting": waiting,
    "connecting": connecting,
    "established, idle": idle,
    "established, unread both ways": unread,
    "half-closed by itself": half_out,
    "half-closed by the peer": half_in,
    "peer gone": gone,
    "UDP bound": datagrams_bound,
    "UDP connected": datagrams_connected,
    "epoll set": watching,
}
