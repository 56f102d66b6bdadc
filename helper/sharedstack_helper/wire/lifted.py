"""Records of what a helper has lifted, and how the keeper knows them."""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import dataclass, field

from sharedstack.declare import binary
from sharedstack.declare.layout import CONSTANTS

from ..nic.steering import Address, unmapped
from ..segments import Segments
from ..store.backup import KeeperOf
from .engine import CONNECTIONS, Engine, Figures, Tender

Flow = tuple[tuple[Address, int], tuple[Address, int]]
_TCP = "tcp "


@dataclass
class Lifted:
    """A connection of an engine's; `reuse`: its SO_REUSEADDR, which a repair forgets."""

    engine: int
    endpoint: int
    word: int
    cookie: int
    inode: int
    fd: int
    reuse: int
    flow: Flow
    place: int
    seen: Figures | None = None
    idle: int = 0


@dataclass
class Link:
    """An engine, who tends it, and the places for queues that are free."""

    engine: Engine
    tender: Tender
    places: list[int] = field(default_factory=lambda: list(range(CONNECTIONS - 1, -1, -1)))


def flow_of(record: binary.View) -> Flow:
    """Addresses and ports of an endpoint's record."""
    return (unmapped(record["laddr"]), int(record["lport"])), (unmapped(record["raddr"]), int(record["rport"]))


def is_of(record: binary.View, lifted: Lifted) -> bool:
    """Is the record that connection's still? Else its holder has closed it when no helper answered, and the engine ends it by itself."""
    return bool(record["state"] == CONSTANTS["EP_LIVE"] and record["cookie"] == lifted.cookie)


def unknown(segments: Segments, endpoint: int, cookie: int) -> bool:
    """Is it an engine's by its record, though the helper does not know it? Who asks must not take it for lowered."""
    if endpoint >= segments.endpoints_top:
        return False
    record = binary.endpoint(segments.stack_view, endpoint)
    return bool(record["cookie"] == cookie and int(record["wire"]) & CONSTANTS["WIRE_STATE_MASK"] == CONSTANTS["WIRE_ON"])


def cookie_of(fd: int) -> int:
    """SO_COOKIE of a socket."""
    with socket.socket(fileno=os.dup(fd)) as s:
        return int.from_bytes(s.getsockopt(socket.SOL_SOCKET, 57, 8), "little")


def reuses(fd: int) -> int:
    """SO_REUSEADDR, 0 or 1."""
    with socket.socket(fileno=os.dup(fd)) as s:
        return int(s.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) != 0)


def hold(keeper: KeeperOf, lifted: Lifted) -> None:
    """The keeper has it too: before anything is done to the connection."""
    (local, lport), (remote, rport) = lifted.flow
    about = [lifted.engine, lifted.endpoint, lifted.cookie, lifted.inode, lifted.reuse, lifted.place]
    keeper.hold(f"{_TCP}{lifted.cookie}", [*about, str(local), lport, str(remote), rport], [lifted.fd])


def let(keeper: KeeperOf, lifted: Lifted) -> None:
    """It is the kernel's alone: before its program goes on."""
    keeper.let(f"{_TCP}{lifted.cookie}")


def kept(keeper: KeeperOf) -> list[Lifted]:
    """What the keeper has; `word` is still to be found."""
    found = []
    for name, part in keeper.parts.items():
        if name.startswith(_TCP):
            link, endpoint, cookie, inode, reuse, place, local, lport, remote, rport = part.about
            flow = (ipaddress.ip_address(local), lport), (ipaddress.ip_address(remote), rport)
            found.append(Lifted(link, endpoint, 0, cookie, inode, part.fds[0], reuse, flow, place))
    return found
