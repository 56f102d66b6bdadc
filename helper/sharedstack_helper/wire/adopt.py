"""The links of another helper, which was killed or replaced: adopted as they are, and what was on its way brought to an end.

Engines and interfaces outlive their helper: participants drive them, and the keeper has all descriptors. Of a connection, its record's word
and the kernel's socket tell how far it had come (links.py has the steps):

    LIFTING, NONE   its participant asks again, or has gone: it is the kernel's, whatever was done to it is undone;
    ON              it is the engine's;
    LOWERING        it is taken out of the engine if it is there still, else what was taken is in the engine's memory of that (`taken`). As
                    long as its packets are steered here the kernel has had none: it is written anew. Then the kernel has gone on with
                    it, and gets what it was not given yet.

One whose record is another's by now was closed by its holder when there was no helper: the engine ends it, and then the kernel forgets it.
Datagrams are the kernel's again: their participants ask anew.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from sharedstack.declare import binary, layout, scan
from sharedstack.declare.layout import CONSTANTS

from .. import announce
from ..nic.steering import TCP, UDP
from ..segments import Segments
from ..store.backup import KeeperOf
from .engine import Engine, KeptLink, Seen, Taken
from .lifted import Flow, Lifted, Link, is_of, kept, let
from .repair import Repair

_STATE, _GEN = CONSTANTS["WIRE_STATE_MASK"], CONSTANTS["WIRE_GEN_SHIFT"]
_ON, _LOWERING = CONSTANTS["WIRE_ON"], CONSTANTS["WIRE_LOWERING"]
_LINK = "link "
_CAP_NET_ADMIN = 12
_ENDPOINT = scan.reader(layout.ENDPOINT, ("state", "cookie", "family", "wire"))
_DATAGRAM = CONSTANTS["FAMILY_DATAGRAM"]


def keep(keeper: KeeperOf, number: int, engine: Engine, busy_us: int) -> None:
    """The keeper has it too, as long as it is lent."""
    about = [layout.HASH, engine.interface.name, busy_us, engine.interface.mode]
    keeper.hold(f"{_LINK}{number}", about, engine.kept)


def links(keeper: KeeperOf, adopted: bool) -> list[KeptLink]:
    """Those that can be adopted, by number; `adopted`: so were the segments. Of others nothing is kept any more."""
    numbered = [keeper.parts.get(f"{_LINK}{number}") for number in range(CONSTANTS["N_NICS"])]
    found = [part for part in numbered if part is not None]
    if not found:
        return []
    if not _may_repair():
        announce.complain("the interfaces that the last helper lent need one with CAP_NET_ADMIN: connections by them go on without it")
        return []
    if adopted and all(part.about[0] == layout.HASH for part in found):
        return [KeptLink(str(part.about[1]), int(part.about[2]), str(part.about[3]), part.fds) for part in found]
    forget(keeper)
    return []


def forget(keeper: KeeperOf) -> None:
    """Nothing of links is kept any more, and all that was is closed."""
    for name, part in list(keeper.parts.items()):
        for fd in part.fds:
            os.close(fd)
        keeper.let(name)


def _may_repair() -> bool:
    status = Path("/proc/self/status").read_text().splitlines()
    return bool(int(next(line.split()[1] for line in status if line.startswith("CapEff:")), 16) >> _CAP_NET_ADMIN & 1)


class Mender:
    """Brings to its end what the last helper was about. `to_kernel` and `give_back` are those of Links."""

    def __init__(
        self,
        segments: Segments,
        keeper: KeeperOf,
        repair: Repair,
        links: list[Link],
        to_kernel: Callable[[Link, Lifted, Taken, bool], None],
        give_back: Callable[[Link], None],
    ) -> None:
        self._segments, self._keeper, self._repair, self._links = segments, keeper, repair, links
        self._to_kernel, self._give_back = to_kernel, give_back

    def mend(self, lifted: dict[int, Lifted], closing: list[Lifted]) -> None:
        """Fill in what is lifted, by endpoint, and what engines end by themselves."""
        found = kept(self._keeper)
        for number, link in enumerate(self._links):
            self._end_datagrams(link)
            of_engine: dict[Flow, Seen] = {(one.local, one.remote): one for one in link.engine.seen()}
            for one in found:
                if one.engine == number:
                    self._mend(link, one, of_engine.get(one.flow), lifted, closing)
            taken = {one.place for one in link.engine.seen()} | {one.place for one in closing if one.engine == number}
            link.places = [place for place in link.places if place not in taken]
            for place in range(max(taken, default=-1) + 1):
                link.engine.reserve(place)
        self._let_go({one.cookie for one in found})

    def _mend(self, link: Link, one: Lifted, seen: Seen | None, lifted: dict[int, Lifted], closing: list[Lifted]) -> None:
        record = binary.endpoint(self._segments.stack_view, one.endpoint)
        one.word = int(record["wire"])
        if not is_of(record, one):
            closing.append(one)
        elif one.word & _STATE == _ON and seen:
            link.engine.interface.hops.keep(one.flow[1][0])
            lifted[one.endpoint] = one
        elif one.word & _STATE in (_ON, _LOWERING):
            self._finish(link, one, seen)
        else:
            self._undo(link, one, seen)

    def _finish(self, link: Link, one: Lifted, seen: Seen | None) -> None:
        """It was being lowered."""
        engine, steering = link.engine, link.engine.interface.steering
        with engine.held():
            again = seen and engine.take(one.endpoint + 1, one.cookie, one.word)
            taken = again or engine.taken(one.endpoint + 1, one.cookie)
            if taken:
                self._to_kernel(link, one, taken, not steering.has_flow(TCP, *one.flow))
            else:
                announce.complain(f"the connection to {one.flow[1]} is in no engine; it is lost")
                steering.remove_flow(TCP, *one.flow)
        let(self._keeper, one)
        engine.finish(one.endpoint + 1, one.word >> _GEN << _GEN)
        os.close(one.fd)

    def _undo(self, link: Link, one: Lifted, seen: Seen | None) -> None:
        """It was being lifted, or its lowering was all but over."""
        with link.engine.held():
            if seen:
                link.engine.forget(seen.handle)
            link.engine.interface.steering.remove_flow(TCP, *one.flow)
            link.engine.interface.steering.settle()
            if self._repair.under_way(one.fd):
                self._repair.end(one.fd, one.reuse)
            let(self._keeper, one)
            self._give_back(link)
        os.close(one.fd)

    def _end_datagrams(self, link: Link) -> None:
        engine = link.engine
        flows = list(engine.seen(datagrams=True))
        for one in flows:
            engine.interface.steering.remove_flow(UDP, one.local, one.remote)
        engine.interface.steering.settle()
        for one in flows:
            engine.close_datagrams(one.handle)

    def _let_go(self, mended: set[int]) -> None:
        """What is no engine's any more by all but its word: datagrams, and connections that the keeper was told to let."""
        found = scan.records(self._segments.stack_view, layout.STACK_ENDPOINTS, self._segments.endpoints_top, _ENDPOINT)
        for index, (state, cookie, family, word) in enumerate(found):
            over = word & _STATE == _ON if family >= _DATAGRAM else word & _STATE == _LOWERING and cookie not in mended
            if state == CONSTANTS["EP_LIVE"] and over:
                self._links[0].engine.finish(index + 1, word >> _GEN << _GEN)


def over(link: Link, one: Lifted) -> bool:
    """Has the engine ended a connection that nobody holds? Then nothing of it is left."""
    seen = next((seen for seen in link.engine.seen() if (seen.local, seen.remote) == one.flow), None)
    if seen and seen.state != CONSTANTS["TCP_CLOSED"]:
        return False
    if seen:
        link.engine.forget(seen.handle)
    link.engine.interface.steering.remove_flow(socket.IPPROTO_TCP, *one.flow)
    return True
