"""What the machine knows of its processes and sockets: enough to choose calls that make sense, and to know what bytes are due.

The model predicts no results: those are compared between the worlds. Where worlds may differ (how much a full socket takes), it has a
number for each of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

TABLE = 65521
SHALLOW = 32768  # unread bytes up to which the kernel's windows and buffers surely have room: all of it arrives at once
MOST = 380_000  # unread bytes of a stream


def _table() -> bytes:
    made, x = bytearray(), 1
    for _ in range(TABLE):
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
        made.append(x >> 24)
    return bytes(made)


_BYTES = memoryview(_table() * 8)


def checksum(place: int, n: int) -> int:
    """Of n bytes from that place of the table on, which repeats for ever (executor.c)."""
    start = place % TABLE
    return zlib.adler32(_BYTES[start : start + n])


@dataclass(eq=False)
class Stream:
    """One direction of a connection; what was sent and what was received are counted by world."""

    key: int
    sent: list[int]
    taken: list[int]
    fin: bool = False
    held: bool = False  # by MSG_MORE, TCP_CORK: the kernel keeps a remainder back, for 200 ms at most
    late: bool = False  # by Nagle's algorithm, not waited for
    deep: bool = False  # more than SHALLOW was unread, and not all of that is read yet
    shared_until: int = 0  # bytes that were sent when another process last got the reading end: those may be in a ring

    def left(self, world: int) -> int:
        return self.sent[world] - self.taken[world]

    def most(self) -> int:
        return max(s - t for s, t in zip(self.sent, self.taken, strict=True))

    def least(self) -> int:
        return min(s - t for s, t in zip(self.sent, self.taken, strict=True))

    def shared(self) -> None:
        """Another process has the reading end from now on: no ring is opened any more."""
        self.shared_until = max(self.sent)

    def note(self, limit: int) -> None:
        """After bytes went in or out."""
        if self.most() > limit:
            self.deep = True
        elif self.most() == 0:
            self.deep = self.late = False

    @property
    def exact(self) -> bool:
        """Is all that was sent there now, on the kernel?"""
        return not (self.held or self.late or self.deep)


@dataclass
class Datagram:
    """One that is queued: who sent it, where its bytes begin."""

    sender: Socket
    place: int
    size: int
    number: int


@dataclass(eq=False)
class Socket:
    """An open socket description, whoever holds descriptors of it."""

    number: int
    kind: str
    family: int
    nonblock: bool = False
    state: str = "new"  # new, bound, listening, connecting, connected, failed
    code: int = 0  # of the address: 0 any, 1 loopback
    ports: list[int] = field(default_factory=list)
    v6only: bool = False
    # streams
    nodelay: bool = False
    cork: bool = False
    linger: int | None = None
    timed: bool = False  # SO_RCVTIMEO is set
    lowat: int = 1
    limit: int = SHALLOW
    out: Stream | None = None
    into: Stream | None = None
    peer: Socket | None = None
    shut_rd: bool = False
    shut_wr: bool = False
    reset: bool = False
    happened: int = 0  # what came: bytes, ends, connections
    gone: bool = False
    backlog: int = 0
    pending: list[Socket] = field(default_factory=list)
    # datagrams
    place: int = 0
    corked: int = 0
    towards: Socket | None = None
    queues: list[list[Datagram]] = field(default_factory=list)
    peeked: list[Datagram | None] = field(default_factory=list)
    refused: bool = False

    @property
    def readable(self) -> bool:
        """A blocking receive ends by itself, in every world."""
        if self.kind == "udp":
            return all(self.queues) or self.shut_rd
        if self.state in ("connecting",):
            return False
        if self.into is None:
            return True  # an error, whatever its state
        low = max(1, self.lowat)
        return self.into.least() >= low or self.into.fin or self.reset or self.shut_rd

    @property
    def limit_left(self) -> int:
        """Bytes that can surely be sent now without waiting."""
        limit = self.limit if self.nodelay else min(self.limit, SHALLOW // 2)
        return 0 if self.out is None else max(0, limit - self.out.most())


@dataclass
class Member:
    """Of an epoll set: what is asked for."""

    events: int
    data: int
    seen: int = -1  # of what happened to the socket, when it was last reported; -1: just armed


@dataclass(eq=False)
class Epoll:
    """An epoll set; members are descriptor number and description, as in the kernel."""

    number: int
    members: dict[tuple[int, Socket], Member] = field(default_factory=dict)


Thing = Socket | Epoll


class Model:
    """All of it. A process is a dictionary of its descriptors."""

    def __init__(self, worlds: int) -> None:
        self.worlds = worlds
        self.processes: dict[int, dict[int, Thing]] = {}
        self.numbers = count(1)

    def socket(self, kind: str, family: int, nonblock: bool) -> Socket:
        made = Socket(next(self.numbers), kind, family, nonblock)
        if kind == "udp":
            made.queues = [[] for _ in range(self.worlds)]
            made.peeked = [None] * self.worlds
            made.place = made.number * 7919
        return made

    def stream(self) -> Stream:
        return Stream(next(self.numbers) * 7919, [0] * self.worlds, [0] * self.worlds)

    def join(self, client: Socket, listener: Socket) -> Socket:
        """The other end of a new connection, in the listener's queue."""
        server = Socket(next(self.numbers), "tcp", listener.family, nodelay=listener.nodelay, cork=listener.cork, linger=listener.linger)
        server.limit, server.lowat, server.timed = listener.limit, listener.lowat, listener.timed
        server.state = client.state = "connected"
        server.code, server.ports = 1, listener.ports
        client.out, client.into = server.into, server.out = self.stream(), self.stream()
        client.peer, server.peer = server, client
        listener.pending.append(server)
        listener.happened += 1
        return server

    def holders(self, thing: Thing) -> Iterator[tuple[int, int]]:
        """Process and descriptor."""
        for p, fds in self.processes.items():
            for fd, t in fds.items():
                if t is thing:
                    yield p, fd

    def held(self, thing: Thing) -> bool:
        return next(self.holders(thing), None) is not None

    def free(self, p: int) -> int:
        """The lowest number without a descriptor."""
        fds = self.processes[p]
        return next(n for n in count(3) if n not in fds)

    def sockets(self, *states: str, kind: str = "tcp") -> list[tuple[int, int, Socket]]:
        """Process, descriptor, socket of those in such a state."""
        return [
            (p, fd, t)
            for p, fds in self.processes.items()
            for fd, t in fds.items()
            if isinstance(t, Socket) and t.kind == kind and (not states or t.state in states)
        ]

    def sets(self) -> list[tuple[int, int, Epoll]]:
        return [(p, fd, t) for p, fds in self.processes.items() for fd, t in fds.items() if isinstance(t, Epoll)]

    def dropped(self, thing: Thing) -> None:
        """Its last descriptor was closed."""
        for _, _, e in self.sets():
            e.members = {key: m for key, m in e.members.items() if key[1] is not thing}
        if isinstance(thing, Epoll) or thing.gone:
            return
        thing.gone = True
        for waiting in thing.pending:
            waiting.gone = True
            self.reset(waiting.peer)
        if thing.kind == "tcp" and thing.out and thing.into:
            if thing.into.most() > 0 or thing.linger == 0:
                self.reset(thing.peer)
            thing.out.fin = True
            thing.out.held = False
            if thing.peer:
                thing.peer.happened += 1

    @staticmethod
    def reset(peer: Socket | None) -> None:
        """An RST came."""
        if peer is not None:
            peer.reset = True
            peer.happened += 1
