"""The next step, taken by whoever has the socket now; and what is looked at afterwards, by all who have it."""

from __future__ import annotations

from collections.abc import Callable

from differential.streams import DONTWAIT, NOSIGNAL
from differential.waits import IN, OUT, RDHUP
from matrix.case import SIZE, Case, Place
from matrix.worlds import PEER

PIECE = 700
MUCH = 20_000


def _recv(case: Case, place: Place, fd: int) -> None:
    if case.subject.group == "datagrams" and not case.subject.lost and case.subject.waiting:
        case.subject.waiting.pop(0)
    case.unnamed(place.slot, f"recv {fd} 4 5000 {DONTWAIT} 1 0 0")


def _send(case: Case, place: Place, fd: int) -> None:
    case.both(place.slot, f"send {fd} 0 7 {SIZE} {DONTWAIT | NOSIGNAL} 1 0 0 0")


def _stream(case: Case, place: Place) -> int:
    """The connection's number there, -1: it has none."""
    return place.fds[case.subject.stream] if case.subject.group in ("stream", "set") and not case.subject.lost else -1


def _used(case: Case, place: Place) -> int:
    """The number of which a step is: the connection's, or the only one."""
    fd = _stream(case, place)
    return place.fd if fd < 0 else fd


def _alive(case: Case) -> bool:
    """Can the peer answer?"""
    s = case.subject
    return s.group in ("stream", "set") and not s.gone and not s.lost


def read(case: Case) -> None:
    place, s = case.actor, case.subject
    if s.group == "set":
        case.both(place.slot, f"wait {place.fd} 8 0")
    fd = _stream(case, place)
    if fd < 0:
        _recv(case, place, place.fd)
        return
    if case.both_read and s.into.left:
        s.into.taken = half = s.into.sent // 2
        case.both(place.slot, f"recv {fd} 0 {half} 0 1 {half} 0")
        place = case.places[0]
    case.drain(place.slot, fd, s.into)


def write(case: Case) -> None:
    place, s = case.actor, case.subject
    fd = _stream(case, place)
    if fd < 0 or s.out.fin or s.gone:
        _send(case, place, _used(case, place))
        return
    case.send(place.slot, fd, s.out, PIECE)
    case.drain(PEER, s.peer, s.out)


def both(case: Case) -> None:
    """Reads and writes at the same time, as the peer does."""
    place, s = case.actor, case.subject
    fd = _stream(case, place)
    if not _alive(case) or s.out.fin or s.into.fin:
        _send(case, place, _used(case, place))
        _recv(case, place, _used(case, place))
        return
    reads = [s.out.left + MUCH, s.into.left + MUCH]
    case.tell(PEER, f"both {s.peer} {s.into.key + s.into.sent} {MUCH} {reads[0]}")
    case.both(place.slot, f"both {fd} {s.out.key + s.out.sent} {MUCH} {reads[1]}")
    case.same(case.hear(PEER), "both, of the peer")
    for flow in (s.into, s.out):
        flow.sent += MUCH
        flow.taken = flow.sent


def poll(case: Case) -> None:
    place, s = case.actor, case.subject
    number = _used(case, place)
    case.both(place.slot, f"poll 0 {number} {IN | OUT | RDHUP}")
    case.both(place.slot, f"select 0 {number} {IN | OUT}")
    epoll = case.both(place.slot, "epoll").result
    case.both(place.slot, f"ctl {epoll} 1 {number} {IN | OUT | RDHUP} 77")
    case.both(place.slot, f"wait {epoll} 8 0")
    if s.group == "set" and not s.lost:
        case.both(place.slot, f"wait {place.fd} 8 0")
    if _alive(case) and not s.into.fin and not s.into.left:
        case.both(place.slot, f"ctl {epoll} 3 {number} {IN} 78")
        case.tell(place.slot, f"wait {epoll} 8 3000")
        case.send(PEER, s.peer, s.into, PIECE)
        case.same(case.hear(place.slot), "epoll_wait, woken")
    case.both(place.slot, f"close {epoll}")


def stdio(case: Case) -> None:
    place, s = case.actor, case.subject
    fd = _stream(case, place)
    if fd < 0 and s.group == "datagrams":
        case.both(place.slot, f"poll 0 {place.fd} {IN}")
        case.both(place.slot, f"stdio {place.fd} {s.waiting.pop(0)} 3 {SIZE if s.ports else 0}")
        return
    if fd < 0:
        case.both(place.slot, f"stdio {place.fd} 0 3 0" if s.group == "connecting" else f"stdio {place.fd} {SIZE} 3 0")
        return
    put = 0 if s.out.fin or s.gone else PIECE
    case.both(place.slot, f"stdio {fd} {s.into.left} {s.out.key + s.out.sent} {put}")
    s.into.taken = s.into.sent
    s.out.sent += put
    if put:
        case.drain(PEER, s.peer, s.out)


def shutdown(case: Case) -> None:
    """Of the sending direction; of both where the socket does not send."""
    place, s = case.actor, case.subject
    fd = _stream(case, place)
    case.both(place.slot, f"shutdown {place.fd} 2" if fd < 0 else f"shutdown {fd} 1")
    if fd >= 0:
        s.out.fin = True
        if not s.gone:
            case.drain(PEER, s.peer, s.out)
    elif s.group == "listening":
        case.shut = True


def close(case: Case) -> None:
    place = case.actor
    for fd in place.fds:
        case.both(place.slot, f"close {fd}")
    case.places.pop()


def accept(case: Case) -> None:
    place, s = case.actor, case.subject
    listener = place.fds[2] if s.group == "set" and not s.lost else place.fd
    if s.group in ("listening", "set") and not s.lost:
        if not s.waiting:
            s.waiting.append(case.connect(PEER, s.ports))
        serve(case, place, listener)
        return
    case.both(place.slot, f"flags {listener} 1")
    case.unnamed(place.slot, f"accept {listener} -1")
    case.both(place.slot, f"flags {listener} 0")


def kill(case: Case) -> None:
    case.kill(case.actor.slot)


STEPS: dict[str, Callable[[Case], None]] = {
    "read": read,
    "write": write,
    "both at once": both,
    "poll and epoll": poll,
    "stdio": stdio,
    "shutdown": shutdown,
    "close": close,
    "accept": accept,
    "kill -9": kill,
}


def serve(case: Case, place: Place, listener: int) -> None:
    """Accept the connection that waits longest, take what it sent, and talk to it."""
    s = case.subject
    peer = s.waiting.pop(0)
    fd = case.accept(place.slot, listener)
    if s.group == "listening" and s.into.left:
        case.drain(place.slot, fd, s.into)
    case.converse(place.slot, fd, PEER, peer)
    case.both(place.slot, f"close {fd}")
    case.both(PEER, f"drain {peer} 0 1")


def afterwards(case: Case) -> None:
    """All who have it use it once more; then the last one closes it, and the peer sees that."""
    s = case.subject
    if not s.lost:
        _AFTER[s.group](case)
    for place in case.places:
        for fd in place.fds:
            case.both(place.slot, f"close {fd}")
    if s.group in ("stream", "set") and not s.gone:
        _last_sight(case)


def _after_stream(case: Case) -> None:
    s = case.subject
    for i, place in enumerate(case.places):
        fd = place.fds[s.stream]
        if i == 0 and s.into.left:
            case.drain(place.slot, fd, s.into)
        if i == 0 and s.out.left and not s.gone:
            case.drain(PEER, s.peer, s.out)
        if not s.gone and not s.out.fin and not s.into.fin:
            case.converse(place.slot, fd, PEER, s.peer)


def _last_sight(case: Case) -> None:
    """Bytes that nobody took make the end a reset; but of a ring nobody knows that (docs/differences.md): either end will do then."""
    s = case.subject
    s.out.fin = True
    if s.into.left and case.path == "local":
        answers = case.ask(PEER, f"drain {s.peer} {s.out.left} 1")
        case.same([a.more[1] in ("0", "-1") and a.more[2] in ("0", "104") for a in answers], "the peer's end", answers)
    else:
        case.drain(PEER, s.peer, s.out)


def _after_listening(case: Case) -> None:
    s = case.subject
    for place in case.places:
        if case.shut:
            case.both(place.slot, f"poll 0 {place.fd} {IN}")
            continue
        while s.waiting:
            serve(case, place, place.fd)
        s.waiting.append(case.connect(PEER, s.ports))
        serve(case, place, place.fd)


def _after_datagrams(case: Case) -> None:
    s = case.subject
    for place in case.places:
        while s.waiting:
            _recv(case, place, place.fd)
        case.both(PEER, f"send {s.peer} 0 11 120 {NOSIGNAL} 1 0 0 0")
        _recv(case, place, place.fd)
        if s.ports:
            case.both(place.slot, f"send {place.fd} 0 12 130 {NOSIGNAL} 1 0 0 0")
            case.unnamed(PEER, f"recv {s.peer} 4 2000 {DONTWAIT} 1 0 0")


_AFTER: dict[str, Callable[[Case], None]] = {
    "stream": _after_stream,
    "set": _after_stream,
    "listening": _after_listening,
    "datagrams": _after_datagrams,
    "connecting": lambda _case: None,
}
