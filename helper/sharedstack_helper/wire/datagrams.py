"""Datagram sockets whose packets from and to some peers an engine carries.

The engine's record is of a socket and one peer (a flow). A participant that has talked with a peer often enough asks for one
(`steer`) and sends the socket's descriptor along, to show that it is its own; the kernel's rules have let that peer's datagrams
through to it already. A flow ends when it is idle, when its route goes elsewhere, when nobody holds its socket, or when a
participant asks (`lower`): then what the engine got before is in the socket's ring, and the kernel has what comes later.

Nothing is kept of the descriptor: a datagram socket has no state but its address.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sharedstack.declare import binary
from sharedstack.declare.layout import CONSTANTS
from sharedstack.declare.reasons import REASONS

from .. import announce, diag
from ..environment import HelperError
from ..nic.steering import Address
from ..segments import Segments
from .engine import Engine
from .judged import Denied

IDLE_LOOKS = 5
PORTS_EVERY = 5  # looks
_STATE, _ON, _LIFTING = CONSTANTS["WIRE_STATE_MASK"], CONSTANTS["WIRE_ON"], CONSTANTS["WIRE_LIFTING"]
_GEN, _LINK, _LINK_MASK = CONSTANTS["WIRE_GEN_SHIFT"], CONSTANTS["WIRE_LINK_SHIFT"], CONSTANTS["WIRE_LINK_MASK"]
_REASON = {r.name: number for number, r in enumerate(REASONS)}
_SO_COOKIE = 57


@dataclass(frozen=True)
class Steered:
    """Why not (a reason's name, "none" if it is), and else which link and the engine's handle."""

    why: str
    link: int = 0
    handle: int = 0


@dataclass
class _Flow:
    engine: int
    endpoint: int
    cookie: int
    inode: int
    handle: int
    local: tuple[Address, int]
    remote: tuple[Address, int]
    connected: bool
    seen: tuple[int, int] = (0, 0)
    idle: int = 0


class Datagrams:
    """The flows of datagrams of all links of a stack. Everything runs in the main thread."""

    def __init__(self, segments: Segments, engines: Sequence[Engine]) -> None:
        self._segments, self._engines = segments, engines
        self._flows: dict[tuple[int, Address, int], _Flow] = {}
        self._looks = 0

    def __bool__(self) -> bool:
        return bool(self._flows)

    def steer(self, endpoint: int, cookie: int, fd: int, local: str, remote: str, port: int, denied: Denied) -> Steered:
        """Carry what this socket sends to a peer and gets from there by an engine. The descriptor stays the caller's."""
        try:
            here, there = ipaddress.ip_address(local), ipaddress.ip_address(remote)
        except ValueError:
            return Steered("no_route")
        if endpoint >= self._segments.endpoints_top or not 0 < port < 1 << 16:
            return Steered("not_established")
        record = binary.endpoint(self._segments.stack_view, endpoint)
        own, connected = _socket(fd, cookie)
        if record["cookie"] != cookie or own != record["lport"] or int(record["wire"]) & _STATE not in (_LIFTING, _ON):
            return Steered("not_established")
        if denied(record, (here, own), (there, port)):
            return Steered("lowered_rule")
        known = self._flows.get((endpoint, there, port))
        if known and known.cookie == cookie:
            return Steered("none", known.engine, known.handle)
        if connected != (there, port) and _shared(own, cookie):
            return Steered("shared_port")
        for number, engine in enumerate(self._engines):
            try:
                if not engine.interface.hops.want(there):
                    return Steered("next_hop")
                if here not in engine.interface.hops.own():
                    return Steered("no_route")
            except HelperError:
                continue
            flow = _Flow(number, endpoint, cookie, int(record["inode"]), 0, (here, own), (there, port), connected == (there, port))
            return self._open(flow, record)
        return Steered("no_route")

    def _open(self, flow: _Flow, record: binary.View) -> Steered:
        engine, word, lifts = self._engines[flow.engine], int(record["wire"]), int(record["wire_lifts"])
        on = word if word & _STATE == _ON else (word & ~(_STATE | _LINK_MASK << _LINK)) | _ON | flow.engine << _LINK
        record["wire_lifts"] = lifts + (on != word)
        handle = engine.open_datagrams(flow.endpoint + 1, flow.cookie, flow.local, flow.remote, word, on)
        if handle is None:
            record["wire_lifts"] = lifts
            return Steered("exhausted")
        flow.handle = handle
        self._flows[flow.endpoint, *flow.remote] = flow
        try:
            engine.interface.steering.add_flow(socket.IPPROTO_UDP, flow.local, flow.remote)
        except HelperError as error:
            announce.complain(str(error))
            self._end([flow], "exhausted")
            return Steered("exhausted")
        engine.interface.steering.settle()
        return Steered("none", flow.engine, handle)

    def has(self, endpoint: int, cookie: int) -> bool:
        """Is any peer of that socket an engine's?"""
        return any(f.endpoint == endpoint and f.cookie == cookie for f in self._flows.values())

    def lower(self, endpoint: int, cookie: int, why: str = "none") -> None:
        """All peers of a socket are the kernel's again; nothing, where none is an engine's."""
        self._end([f for f in self._flows.values() if f.endpoint == endpoint and f.cookie == cookie], why)

    def lower_all(self, why: str) -> None:
        """All flows are the kernel's again."""
        self._end(list(self._flows.values()), why)

    def obey(self, denied: Denied) -> None:
        """End what the policy denies."""
        view = self._segments.stack_view
        self._end([f for f in self._flows.values() if denied(binary.endpoint(view, f.endpoint), f.local, f.remote)], "lowered_rule")

    def routes_changed(self, number: int, gone: set[Address], own: set[Address]) -> None:
        """Peers to whom another way goes now are the kernel's; from an address that is not the host's any more nothing is sent."""
        flows = [f for f in self._flows.values() if f.engine == number]
        self._end([f for f in flows if f.remote[0] in gone or f.local[0] not in own], "no_route")

    def look(self) -> None:
        """Once a second: end what is idle, and what the kernel would give to another socket by now; learn of paths that became narrow."""
        for flow in list(self._flows.values()):
            figures = self._engines[flow.engine].datagrams(flow.handle)
            flow.idle = flow.idle + 1 if figures == flow.seen else 0
            flow.seen = figures
        self._end([f for f in self._flows.values() if f.idle >= IDLE_LOOKS], "wire_idle")
        for number, remote in {(f.engine, f.remote[0]) for f in self._flows.values()}:
            with suppress(HelperError):  # the kernel's notices tell of that
                self._engines[number].interface.hops.want(remote)
        self._looks += 1
        if self._looks % PORTS_EVERY == 0:
            for port, cookie in {(f.local[1], f.cookie) for f in self._flows.values() if not f.connected}:
                if _shared(port, cookie):
                    self._end([f for f in self._flows.values() if f.cookie == cookie and not f.connected], "shared_port")

    def inodes(self) -> set[int]:
        """Of the sockets that have flows."""
        return {f.inode for f in self._flows.values()}

    def end_unheld(self, held: set[int], hidden: bool) -> None:
        """End flows whose sockets are none of these, and those whose records are another socket's by now."""
        self._end([f for f in self._flows.values() if (f.inode not in held and not hidden) or not self._is_of(f)], "none")

    def _is_of(self, flow: _Flow) -> bool:
        record = binary.endpoint(self._segments.stack_view, flow.endpoint)
        return bool(record["cookie"] == flow.cookie and record["state"] == CONSTANTS["EP_LIVE"])

    def _end(self, flows: Iterable[_Flow], why: str) -> None:
        ending = list(flows)
        for flow in ending:
            self._engines[flow.engine].interface.steering.remove_flow(socket.IPPROTO_UDP, flow.local, flow.remote)
        for engine in {flow.engine for flow in ending}:
            self._engines[engine].interface.steering.settle()
        for flow in ending:
            self._engines[flow.engine].close_datagrams(flow.handle)
            del self._flows[flow.endpoint, *flow.remote]
        left = {flow.endpoint for flow in self._flows.values()}
        for flow in ending:
            if flow.endpoint not in left and self._is_of(flow):
                record = binary.endpoint(self._segments.stack_view, flow.endpoint)
                self._engines[flow.engine].finish(flow.endpoint + 1, int(record["wire"]) >> _GEN << _GEN)
                record["wire_why"] = _REASON[why]


def _shared(port: int, cookie: int) -> bool:
    """Are there, or may there be, other sockets with this local port?"""
    try:
        return bool(diag.udp_sockets_on(port) - {cookie})
    except OSError:
        return True


def _socket(fd: int, cookie: int) -> tuple[int, tuple[Address, int] | None]:
    """Port and connected peer of a datagram socket; port -1: it is none, or another one."""
    with socket.socket(fileno=fd) as s:
        try:
            known = int.from_bytes(s.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8), "little")
            if known != cookie or s.type != socket.SOCK_DGRAM or s.family not in (socket.AF_INET, socket.AF_INET6):
                return -1, None
            port = int(s.getsockname()[1])
            try:
                name = s.getpeername()
            except OSError:
                return port, None
            peer = ipaddress.ip_address(name[0].partition("%")[0])
            four = peer.ipv4_mapped if isinstance(peer, ipaddress.IPv6Address) else None
            return port, (four or peer, int(name[1]))
        except OSError:
            return -1, None
        finally:
            s.detach()
