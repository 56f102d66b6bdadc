"""The links of a stack: which connections are lifted to their engines, and how they go there and come back.

Lifting (`lift`), asked for by a participant that sends the connection's descriptor along; it waits, so that nobody uses the
connection meanwhile:
1  the kernel leaves it alone (TCP_REPAIR), its packets come to the interface's sockets, no CPU handles one still;
2  what the kernel knows of it becomes the engine's, unless data is under way: then all is undone, and the program tries again later.
The helper keeps the descriptor for as long as the connection is lifted. So a connection whose holders have all gone is lowered like
any other, and then closed: the kernel sends what a kernel would. The keeper (store/keeper.py) has all descriptors too, and knows when a
connection is on its way: the next helper adopts the links, and ends what was under way (adopt.py).

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
from ..store.backup import KeeperOf
from . import adopt, segment_of_peer
from .datagrams import IDLE_LOOKS, Datagrams, Steered
from .engine import QUEUE, Engine, KeptLink, Taken, Tender
from .judged import Judge
from .lifted import Flow, Lifted, Link, cookie_of, flow_of, hold, is_of, let, reuses, unknown
from .repair import BusyError, Repair

EVERY = 1.0
HOLDERS_AFTER = 0.01
_REASON = {r.name: number for number, r in enumerate(REASONS)}
_NONE, _LIFTING, _ON = CONSTANTS["WIRE_NONE"], CONSTANTS["WIRE_LIFTING"], CONSTANTS["WIRE_ON"]
_GEN, _LINK = CONSTANTS["WIRE_GEN_SHIFT"], CONSTANTS["WIRE_LINK_SHIFT"]


class Links:
    """All links of one stack: those that the last helper lent, if they are the first of those that are asked for or none is asked for.

    `again`: the command that starts this helper another time. Everything runs in the main thread. Raises HelperError.
    """

    def __init__(
        self,
        loop: Loop,
        segments: Segments,
        names: Sequence[str],
        stem: str,
        keeper: KeeperOf,
        busy_us: int = 0,
        again: Sequence[str] = (),
    ) -> None:
        self._loop, self._segments, self._keeper, self._again = loop, segments, keeper, again
        self._links: list[Link] = []
        self._lifted: dict[int, Lifted] = {}
        self._due = self._looking = False
        self._participants: Participants = list
        self._closed: Callable[[], None] = lambda: None
        self.judge = Judge()
        self._closing: list[Lifted] = []
        self._datagrams = Datagrams(segments, [])
        kept = adopt.links(keeper, segments.adopted)
        if names or kept:
            self._repair = Repair()
        if kept and not self._adopt(kept, stem):
            kept = []
        if names and [one.name for one in kept] != list(names[: len(kept)]):
            self.close()
        if names and any(one.busy_us != busy_us for one in kept):
            announce.complain(
                "interfaces that were lent before are polled as they were: to change that, end the helper, and start another one"
            )
        for name in names[len(self._links) :]:
            number = len(self._links)
            self._use([Engine(segments, name, f"{stem}-{number}", busy_us)])
            adopt.keep(keeper, number, self._links[number].engine, busy_us)
        segments.header["n_nics"] = len(self._links)

    def _adopt(self, kept: list[KeptLink], stem: str) -> bool:
        """Go on with what another helper lent; False where it cannot be had any more."""
        try:
            self._use([Engine(self._segments, one.name, f"{stem}-{number}", one.busy_us, one) for number, one in enumerate(kept)])
        except HelperError as error:
            announce.complain(f"{error}; what the last helper lent is given up")
            adopt.forget(self._keeper)
            return False
        mender = adopt.Mender(self._segments, self._keeper, self._repair, self._links, self._to_kernel, self._give_back)
        mender.mend(self._lifted, self._closing)
        for number in range(len(kept)):
            self._renew(number, self._links[number].engine.interface.hops.renew)
        self._request()
        return True

    def _use(self, engines: list[Engine]) -> None:
        for engine in engines:
            number = len(self._links)
            self._links.append(Link(engine, Tender(engine)))
            self._loop.watch(engine.interface.hops.fileno(), lambda number=number: self._notices(number))  # type: ignore[misc]
        self._datagrams = Datagrams(self._segments, [link.engine for link in self._links])

    def __len__(self) -> int:
        return len(self._links)

    def look_at(self, participants: Participants, closed: Callable[[], None]) -> None:
        """Where to learn the slots and pids of the living; and who frees the records of what is closed for the dead."""
        self._participants, self._closed = participants, closed

    def obey(self) -> None:
        """The policy may have become another one: what it denies is the kernel's."""
        self._datagrams.obey(self.judge.denied)
        for lifted in list(self._lifted.values()):
            if self.judge.denied(binary.endpoint(self._segments.stack_view, lifted.endpoint), *lifted.flow):
                self.lower(lifted.endpoint, lifted.cookie, "lowered_rule")

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
        if word & CONSTANTS["WIRE_STATE_MASK"] != _LIFTING or record["cookie"] != cookie or cookie_of(fd) != cookie:
            return "not_established", False
        flow = flow_of(record)
        if self.judge.denied(record, *flow):
            return "lowered_rule", False
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
                try:
                    return self._lift_to(number, endpoint, record, word, fd, flow)
                finally:
                    self._keeper.moving(())
        return "no_route", False

    def _lift_to(
        self,
        number: int,
        endpoint: int,
        record: binary.View,
        word: int,
        fd: int,
        flow: Flow,
    ) -> tuple[str, bool]:
        link = self._links[number]
        steering = link.engine.interface.steering
        place = link.places[-1]
        try:
            offsets = link.engine.reserve(place)
        except HelperError as error:
            announce.complain(str(error))
            return "exhausted", False
        begun = link.engine.begin(endpoint + 1, word)
        if begun is None:
            return "no_helper", False
        word, cookie, inode = begun, int(record["cookie"]), int(record["inode"])
        lifted = Lifted(number, endpoint, word, cookie, inode, fd, reuses(fd), flow, place)
        self._keeper.moving(self._again)
        hold(self._keeper, lifted)
        try:
            self._repair.begin(fd)
        except OSError:
            let(self._keeper, lifted)
            return "not_established", False
        steering.add_flow(socket.IPPROTO_TCP, *flow)
        why = "wire_busy"
        try:
            steering.settle()
            image = self._repair.read(fd)
            image.fields["tx_off"], image.fields["rx_off"] = offsets
            image.fields["tx_size"] = image.fields["rx_size"] = QUEUE
            on = word >> _GEN << _GEN | number << _LINK | _ON
            lifts = int(record["wire_lifts"])
            record["wire_lifts"] = lifts + 1
            if link.engine.open(endpoint + 1, image, word, on) == 0:
                link.places.pop()
                lifted.word = on
                self._lifted[endpoint] = lifted
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
        self._repair.end(fd, lifted.reuse)
        let(self._keeper, lifted)
        self._give_back(link)
        return why, False

    def steer(self, endpoint: int, cookie: int, fd: int, local: str, remote: str, port: int) -> tuple[int, int, int]:
        """Carry datagrams of a socket from and to a peer by an engine: 0 or a REASON_*, link, handle. The descriptor stays the caller's."""
        got = self._datagrams.steer(endpoint, cookie, fd, local, remote, port, self.judge.denied) if self._links else Steered("no_route")
        if got.why == "none":
            self._links[got.link].tender.kick()
            self._request()
        return _REASON[got.why], got.link, got.handle

    def lower(self, endpoint: int, cookie: int, why: str = "none") -> int:
        """Make a connection, or all peers of a datagram socket, the kernel's again: 0 or a REASON_*. `why` is noted in its record."""
        self._datagrams.lower(endpoint, cookie, why)
        lifted = self._lifted.get(endpoint)
        if lifted is None or lifted.cookie != cookie:
            return _REASON["not_established" if unknown(self._segments, endpoint, cookie) else "none"]
        link = self._links[lifted.engine]
        if not link.engine.interface.hops.reaches(*(end[0] for end in reversed(lifted.flow))):
            return _REASON["no_route"]  # the kernel takes no connection that it has no route for
        self._keeper.moving(self._again)
        with link.engine.held():
            taken = link.engine.take(endpoint + 1, cookie, lifted.word)
            if taken is None:
                self._keeper.moving(())
                return _REASON["not_established"]
            self._to_kernel(link, lifted, taken)
        binary.endpoint(self._segments.stack_view, endpoint)["wire_why"] = _REASON[why]
        let(self._keeper, lifted)
        link.engine.finish(endpoint + 1, (lifted.word >> _GEN << _GEN) | _NONE)
        self._keeper.moving(())  # not before: its program waits for that word
        del self._lifted[endpoint]
        link.places.append(lifted.place)
        os.close(lifted.fd)
        return _REASON["none"]

    def has(self, endpoint: int, cookie: int) -> bool:
        """Is that connection, or any peer of that datagram socket, an engine's?"""
        lifted = self._lifted.get(endpoint)
        return (lifted is not None and lifted.cookie == cookie) or self._datagrams.has(endpoint, cookie)

    def _to_kernel(self, link: Link, lifted: Lifted, taken: Taken, written: bool = False) -> None:
        """The descriptor is the connection again, and gets what came for it meanwhile, its end among it.

        `written`: another helper came so far that its packets are the kernel's.
        """
        steering = link.engine.interface.steering
        ended = segment_of_peer.without_end(taken.image, taken.state)
        try:
            sent = self._repair.sent(lifted.fd, taken) if written else self._repair.write(lifted.fd, taken)
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
        for closing in self._closing:
            os.close(closing.fd)
        for name in list(self._keeper.parts):
            self._keeper.let(name)

    def pause(self) -> None:
        """Nothing more is done to the engines, but what is asked for."""
        for link in self._links:
            link.tender.stop()

    def go_on(self) -> None:
        """After `pause`."""
        for link in self._links:
            link.tender = Tender(link.engine)

    def bury(self, slot: int) -> None:
        """The participant of that slot is dead, and the slot will be another's: nothing of the engines is to be its any more."""
        for link in self._links:
            link.engine.bury(slot)

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

    def _give_back(self, link: Link) -> None:
        """What was in the rings still is the kernel's now."""
        strays, at = link.engine.strays(), 0
        while at < len(strays):
            (size,) = struct.unpack_from("=I", strays, at)
            for frame in segment_of_peer.in_pieces(strays[at + 4 : at + 4 + size], MOST_GIVEN_BACK):
                link.engine.interface.steering.give_back(frame, link.engine.interface.ifindex)
            at += 4 + size

    def _notices(self, number: int) -> None:
        """Routes, neighbours, addresses or the interface changed."""
        self._renew(number, self._links[number].engine.interface.hops.look)

    def _renew(self, number: int, look: Callable[[], list[Address]]) -> None:
        """What goes another way now, or by a narrower one, is the kernel's."""
        interface = self._links[number].engine.interface
        before = interface.segment.get("mtu")
        gone, own = set(look()), interface.hops.own()
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
            if not is_of(binary.endpoint(self._segments.stack_view, lifted.endpoint), lifted):
                self._closing.append(self._lifted.pop(lifted.endpoint))
            elif why := self._judge(lifted):
                self.lower(lifted.endpoint, lifted.cookie, why)
        self._datagrams.look()
        for one in self._closing[:]:
            if adopt.over(self._links[one.engine], one):
                self._closing.remove(one)
                self._links[one.engine].places.append(one.place)
                let(self._keeper, one)
                os.close(one.fd)
        if self._lifted or self._datagrams or self._closing:
            self._request()

    def _judge(self, lifted: Lifted) -> str:
        figures = self._links[lifted.engine].engine.figures(lifted.endpoint + 1)
        before, lifted.seen = lifted.seen, figures
        if figures is None or before is None:
            return ""
        if figures.state == CONSTANTS["TCP_CLOSED"]:
            return ""  # who holds it has to hear why from the engine
        lifted.idle = lifted.idle + 1 if (figures.sent, figures.received) == (before.sent, before.received) else 0
        return "wire_idle" if lifted.idle >= IDLE_LOOKS and time.monotonic_ns() - figures.last_ns > EVERY * 1e9 else ""
