"""The links of a stack: which connections are lifted to their engines, and how they go there and come back.

Lifting (`lift`), asked for by a participant that sends the connection's descriptor along; it waits, so that nobody uses the
connection meanwhile:
1  the kernel leaves it alone (TCP_REPAIR), its packets come to the interface's sockets, no CPU handles one still;
2  what the kernel knows of it becomes the engine's, unless data is under way: then all is undone, and the program tries again later.
The helper keeps the descriptor for as long as the connection is lifted. So a connection whose holders have all gone is lowered like
any other, and then closed: the kernel sends what a kernel would.

Lowering (`lower`) is the way back. It is asked for by a participant, or happens because of the policy (`_look`): an idle
connection, a route that went elsewhere, holders that are gone.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sharedstack.declare import binary
from sharedstack.declare.layout import CONSTANTS
from sharedstack.declare.reasons import REASONS

from .. import announce
from ..environment import HelperError
from ..gc import Participants
from ..holders import held_open
from ..loop import Loop
from ..nic.steering import MOST_GIVEN_BACK, Address
from ..segments import Segments
from . import segment_of_peer
from .datagrams import IDLE_LOOKS, Datagrams, Steered
from .engine import CONNECTIONS, QUEUE, Engine, Figures, Taken, Tender
from .repair import BusyError, Repair

EVERY = 1.0
HOLDERS_AFTER = 0.01
_REASON = {r.name: number for number, r in enumerate(REASONS)}
_NONE, _LIFTING, _ON = CONSTANTS["WIRE_NONE"], CONSTANTS["WIRE_LIFTING"], CONSTANTS["WIRE_ON"]
_GEN, _LINK = CONSTANTS["WIRE_GEN_SHIFT"], CONSTANTS["WIRE_LINK_SHIFT"]


@dataclass
class _Lifted:
    """A connection of an engine's."""

    engine: int
    endpoint: int
    word: int
    cookie: int
    inode: int
    fd: int
    reuse: int
    flow: tuple[tuple[Address, int], tuple[Address, int]]
    place: int
    seen: Figures | None = None
    idle: int = 0


@dataclass
class _Link:
    engine: Engine
    tender: Tender
    places: list[int] = field(default_factory=lambda: list(range(CONNECTIONS - 1, -1, -1)))


class Links:
    """All links of one stack. Everything runs in the main thread."""

    def __init__(self, loop: Loop, segments: Segments, names: Sequence[str], stem: str, busy_us: int = 0) -> None:
        self._loop, self._segments = loop, segments
        self._links: list[_Link] = []
        self._lifted: dict[int, _Lifted] = {}
        self._due = self._looking = False
        self._participants: Participants = list
        self._closed: Callable[[], None] = lambda: None
        if names:
            self._repair = Repair()
        for number, name in enumerate(names):
            engine = Engine(segments, name, f"{stem}-{number}", busy_us)
            self._links.append(_Link(engine, Tender(engine)))
            loop.watch(engine.interface.hops.fileno(), lambda number=number: self._notices(number))  # type: ignore[misc]
        self._datagrams = Datagrams(segments, [link.engine for link in self._links])
        segments.header["n_nics"] = len(self._links)

    def __len__(self) -> int:
        return len(self._links)

    def look_at(self, participants: Participants, closed: Callable[[], None]) -> None:
        """Where to learn the slots and pids of the living; and who frees the records of what is closed for the dead."""
        self._participants, self._closed = participants, closed

    def describe(self) -> str:
        """The links and how their programs are attached, for people."""
        return ", ".join(f"{link.engine.interface.name} ({link.engine.interface.mode})" for link in self._links)

    def lend(self, number: int) -> list[int] | None:
        """Descriptors of a link, in the order of message `wire`; None: there is none of that number."""
        return self._links[number].engine.fds if number < len(self._links) else None

    def lift(self, endpoint: int, cookie: int, fd: int) -> int:
        """Lift the connection of a record, whose participant waits: 0 or a REASON_*. The descriptor is the callee's."""
        kept = False
        try:
            why, kept = self._lift(endpoint, cookie, fd)
            return _REASON[why]
        finally:
            if not kept:
                os.close(fd)

    def _lift(self, endpoint: int, cookie: int, fd: int) -> tuple[str, bool]:
        if endpoint >= self._segments.endpoints_top or endpoint in self._lifted:
            return "not_established", False
        record = binary.endpoint(self._segments.stack_view, endpoint)
        word = int(record["wire"])
        if word & CONSTANTS["WIRE_STATE_MASK"] != _LIFTING or record["cookie"] != cookie or _cookie(fd) != cookie:
            return "not_established", False
        flow = _flow(record)
        for number, link in enumerate(self._links):
            try:
                known = link.engine.interface.hops.want(flow[1][0])
            except HelperError:
                continue
            if not known:
                return "next_hop", False
            if not link.places:
                return "exhausted", False
            with link.engine.held():
                return self._lift_to(number, endpoint, record, word, fd, flow)
        return "no_route", False

    def _lift_to(
        self,
        number: int,
        endpoint: int,
        record: binary.View,
        word: int,
        fd: int,
        flow: tuple[tuple[Address, int], tuple[Address, int]],
    ) -> tuple[str, bool]:
        link = self._links[number]
        steering = link.engine.interface.steering
        place = link.places[-1]
        try:
            offsets = link.engine.reserve(place)
        except HelperError as error:
            announce.complain(str(error))
            return "exhausted", False
        try:
            reuse = self._repair.begin(fd)
        except OSError:
            return "not_established", False
        steering.add_flow(socket.IPPROTO_TCP, *flow)
        why = "wire_busy"
        try:
            steering.settle()
            image = self._repair.read(fd)
            image.fields["tx_off"], image.fields["rx_off"] = offsets
            image.fields["tx_size"] = image.fields["rx_size"] = QUEUE
            on = (word & ~(CONSTANTS["WIRE_STATE_MASK"] | CONSTANTS["WIRE_LINK_MASK"] << _LINK)) | _ON | number << _LINK
            lifts = int(record["wire_lifts"])
            record["wire_lifts"] = lifts + 1
            if link.engine.open(endpoint + 1, image, word, on) == 0:
                link.places.pop()
                cookie, inode = int(record["cookie"]), int(record["inode"])
                self._lifted[endpoint] = _Lifted(number, endpoint, on, cookie, inode, fd, reuse, flow, place)
                link.tender.kick()
                self._request()
                return "none", True
            record["wire_lifts"] = lifts
            why = "exhausted"
        except BusyError:
            pass
        except OSError:
            why = "not_established"
        steering.remove_flow(socket.IPPROTO_TCP, *flow)
        steering.settle()
        self._repair.end(fd, reuse)
        self._give_back(link)
        return why, False

    def steer(self, endpoint: int, cookie: int, fd: int, local: str, remote: str, port: int) -> tuple[int, int, int]:
        """Carry datagrams of a socket from and to a peer by an engine: 0 or a REASON_*, link, handle. The descriptor stays the caller's."""
        got = self._datagrams.steer(endpoint, cookie, fd, local, remote, port) if self._links else Steered("no_route")
        if got.why == "none":
            self._links[got.link].tender.kick()
            self._request()
        return _REASON[got.why], got.link, got.handle

    def lower(self, endpoint: int, cookie: int, why: str = "none") -> int:
        """Make a connection, or all peers of a datagram socket, the kernel's again: 0 or a REASON_*. `why` is noted in its record."""
        self._datagrams.lower(endpoint, cookie, why)
        lifted = self._lifted.get(endpoint)
        if lifted is None or lifted.cookie != cookie:
            return _REASON["none"]
        link = self._links[lifted.engine]
        if not link.engine.interface.hops.reaches(*(end[0] for end in reversed(lifted.flow))):
            return _REASON["no_route"]  # the kernel takes no connection that it has no route for
        with link.engine.held():
            taken = link.engine.take(endpoint + 1, lifted.word)
            if taken is None:
                return _REASON["not_established"]
            self._to_kernel(link, lifted, taken)
        binary.endpoint(self._segments.stack_view, endpoint)["wire_why"] = _REASON[why]
        link.engine.finish(endpoint + 1, (lifted.word >> _GEN << _GEN) | _NONE)
        del self._lifted[endpoint]
        link.places.append(lifted.place)
        os.close(lifted.fd)
        return _REASON["none"]

    def has(self, endpoint: int, cookie: int) -> bool:
        """Is that connection, or any peer of that datagram socket, an engine's?"""
        lifted = self._lifted.get(endpoint)
        return (lifted is not None and lifted.cookie == cookie) or self._datagrams.has(endpoint, cookie)

    def _to_kernel(self, link: _Link, lifted: _Lifted, taken: Taken) -> None:
        """The descriptor is the connection again, and gets what came for it meanwhile, its end among it."""
        steering = link.engine.interface.steering
        ended = segment_of_peer.without_end(taken.image, taken.state)
        try:
            sent = self._repair.write(lifted.fd, taken)
            steering.remove_flow(socket.IPPROTO_TCP, *lifted.flow)
            steering.settle()
            self._repair.end(lifted.fd, lifted.reuse, taken.unsent[sent:])
        except OSError as error:
            if error.errno not in (errno.ECONNRESET, errno.EPIPE):  # else its peer has ended it meanwhile
                announce.complain(f"cannot lower the connection to {lifted.flow[1]}: {error}; it is lost")
            steering.remove_flow(socket.IPPROTO_TCP, *lifted.flow)
            ended = []
        for after, flags in enumerate(ended):  # before what came after that
            end = segment_of_peer.frame(taken.image, link.engine.interface.segment.mac, flags, after)
            steering.give_back(end, link.engine.interface.ifindex)
        self._give_back(link)

    def lower_all(self, why: str) -> None:
        """Everything is the kernel's again."""
        self._datagrams.lower_all(why)
        for lifted in list(self._lifted.values()):
            self.lower(lifted.endpoint, lifted.cookie, why)

    def close(self) -> None:
        """Lower everything, and give the interfaces back."""
        self._segments.header["n_nics"] = 0
        self.lower_all("draining")
        for link in self._links:
            self._loop.forget(link.engine.interface.hops.fileno())
            link.tender.stop()
            link.engine.close()
        self._links = []

    def pause(self) -> None:
        """Nothing more is done to the engines, but what is asked for."""
        for link in self._links:
            link.tender.stop()

    def go_on(self) -> None:
        """After `pause`."""
        for link in self._links:
            link.tender = Tender(link.engine)

    def attend(self) -> None:
        """Some program sends a stream, perhaps: whoever tends the engines is to look after it."""
        for link in self._links:
            link.tender.kick()

    def look_for_holders(self) -> None:
        """Some participant has gone, or closed what others may hold: soon, see whether anybody holds what is lifted."""
        if (self._lifted or self._datagrams) and not self._looking:
            self._looking = True
            self._loop.later(HOLDERS_AFTER, self._lower_unheld)

    def _lower_unheld(self) -> None:
        """Connections that nobody holds any more are lowered, and closed by that."""
        self._looking = False
        inodes = {lifted.inode for lifted in self._lifted.values()} | self._datagrams.inodes()
        held, hidden = held_open(self._participants(), inodes)
        self._datagrams.end_unheld(held, hidden)
        for lifted in list(self._lifted.values()):
            if lifted.inode not in held and not hidden:
                self.lower(lifted.endpoint, lifted.cookie)
                self._closed()

    def _give_back(self, link: _Link) -> None:
        """What was in the rings still is the kernel's now."""
        strays, at = link.engine.strays(), 0
        while at < len(strays):
            (size,) = struct.unpack_from("=I", strays, at)
            for frame in segment_of_peer.in_pieces(strays[at + 4 : at + 4 + size], MOST_GIVEN_BACK):
                link.engine.interface.steering.give_back(frame, link.engine.interface.ifindex)
            at += 4 + size

    def _notices(self, number: int) -> None:
        """Routes, neighbours, addresses or the interface changed: what goes another way now, or by a narrower one, is the kernel's."""
        interface = self._links[number].engine.interface
        before = interface.segment.get("mtu")
        gone, own = set(interface.hops.look()), interface.hops.own()
        narrower = interface.segment.get("mtu") < before
        self._datagrams.routes_changed(number, gone, own)
        for lifted in list(self._lifted.values()):
            local, remote = (end[0] for end in lifted.flow)
            if lifted.engine == number and (narrower or remote in gone):
                self.lower(lifted.endpoint, lifted.cookie, "no_route")
            elif lifted.engine == number and local not in own:
                interface.hops.hold(remote)  # as the kernel, which sends nothing from an address that is not the host's

    def _request(self) -> None:
        if not self._due:
            self._due = True
            self._loop.later(EVERY, self._look)

    def _look(self) -> None:
        """The policy, once a second while anything is an engine's."""
        self._due = False
        for lifted in list(self._lifted.values()):
            why = self._judge(lifted)
            if why:
                self.lower(lifted.endpoint, lifted.cookie, why)
        self._datagrams.look()
        if self._lifted or self._datagrams:
            self._request()

    def _judge(self, lifted: _Lifted) -> str:
        figures = self._links[lifted.engine].engine.figures(lifted.endpoint + 1)
        before, lifted.seen = lifted.seen, figures
        if figures is None or before is None:
            return ""
        if figures.state == CONSTANTS["TCP_CLOSED"]:
            return ""  # who holds it has to hear why from the engine
        lifted.idle = lifted.idle + 1 if (figures.sent, figures.received) == (before.sent, before.received) else 0
        return "wire_idle" if lifted.idle >= IDLE_LOOKS and time.monotonic_ns() - figures.last_ns > EVERY * 1e9 else ""


def _cookie(fd: int) -> int:
    with socket.socket(fileno=os.dup(fd)) as s:
        return int.from_bytes(s.getsockopt(socket.SOL_SOCKET, 57, 8), "little")  # SO_COOKIE


def _flow(record: binary.View) -> tuple[tuple[Address, int], tuple[Address, int]]:
    return (segment_of_peer.address(record["laddr"]), int(record["lport"])), (
        segment_of_peer.address(record["raddr"]),
        int(record["rport"]),
    )
