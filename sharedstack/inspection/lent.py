"""The interfaces that are lent to a stack, and their engines, read from their segments. Only live: a dump has none of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ..declare import binary, nic, scan, wire
from ..declare.layout import CONSTANTS as C
from .snapshot import SHM, NoStackError, Snapshot, read_segment

_MOST = 1 << 16  # records of connections that are read, whatever the area says
_STATE = scan.reader(wire.TCP, ("state",))
_STATES = {value: name.removeprefix("TCP_").lower() for name, value in wire.CONSTANTS.items() if name.startswith("TCP_") and value}


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
    """A lent interface; `counters` are its engine's, those that are not 0; `states`: how many connections are in which state of TCP."""

    number: int
    name: str
    up: bool
    virtual: bool
    mtu: int
    queues: list[Queue]
    connections: int
    states: dict[str, int]
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
    area = SHM / f"{stem}-area"
    n = binary.View(nic.NIC, memoryview(read_segment(SHM / f"{stem}-nic", nic.NIC.size)))
    w = binary.View(wire.WIRE, memoryview(read_segment(area, wire.WIRE.size)))
    most = min(w["n_tcp"], _MOST)
    records = memoryview(read_segment(area, wire.WIRE.size + most * wire.TCP.size))
    states = Counter(state for (state,) in scan.records(records, wire.WIRE.size, most, _STATE))
    queues = [
        Queue(bool(q["flags"] & C["QUEUE_ZERO_COPY"]), *(q[field] for field in ("rx", "tx", "rx_bad", "tx_full", "tx_lost", "kicks")))
        for q in n["queue"][: min(n["n_queues"], C["N_NIC_QUEUES"])]
    ]
    counters = {name: value for (name, _), value in zip(wire.COUNTERS, w["counters"], strict=False) if value}
    flags = n["flags"]
    return Link(
        number,
        binary.text(n["name"]),
        bool(flags & C["NIC_UP"]),
        bool(flags & C["NIC_VIRTUAL"]),
        n["mtu"],
        queues,
        w["tcp_used"],
        {called: states[value] for value, called in _STATES.items() if states[value]},
        counters,
    )
