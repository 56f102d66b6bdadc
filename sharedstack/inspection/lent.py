"""The interfaces that are lent to a stack, and their engines, read from their segments. Only live: a dump has none of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..declare import binary, nic, wire
from ..declare.layout import CONSTANTS as C
from .snapshot import SHM, NoStackError, Snapshot, read_segment


@dataclass(frozen=True)
class Queue:
    """One queue of an interface, counted since it was lent."""

    zero_copy: bool
    rx: int
    tx: int
    rx_bad: int
    tx_full: int
    tx_lost: int
    kicks: int


@dataclass(frozen=True)
class Link:
    """A lent interface; `counters` are its engine's, those that are not 0."""

    number: int
    name: str
    up: bool
    virtual: bool
    mtu: int
    queues: list[Queue]
    connections: int
    counters: dict[str, int] = field(default_factory=dict)


def links(shot: Snapshot) -> list[Link]:
    """Those of a live stack; what cannot be read any more is left out."""
    found = []
    for number in range(min(binary.stack(shot.stack)["n_nics"], C["N_NICS"])):
        try:
            found.append(_link(shot.name, number))
        except NoStackError:
            continue
    return found


def _link(name: str, number: int) -> Link:
    stem = f"{name}.wire-{number}"
    n = binary.View(nic.NIC, memoryview(read_segment(SHM / f"{stem}-nic", nic.NIC.size)))
    w = binary.View(wire.WIRE, memoryview(read_segment(SHM / f"{stem}-area", wire.WIRE.size)))
    queues = [
        Queue(bool(q["flags"] & C["QUEUE_ZERO_COPY"]), *(q[field] for field in ("rx", "tx", "rx_bad", "tx_full", "tx_lost", "kicks")))
        for q in n["queue"][: min(n["n_queues"], C["N_NIC_QUEUES"])]
    ]
    counters = {name: value for (name, _), value in zip(wire.COUNTERS, w["counters"], strict=False) if value}
    flags = n["flags"]
    return Link(
        number, binary.text(n["name"]), bool(flags & C["NIC_UP"]), bool(flags & C["NIC_VIRTUAL"]), n["mtu"], queues, w["tcp_used"], counters
    )
