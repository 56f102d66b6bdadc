"""The segment of a lent interface as the helper writes it: struct `nic` of the declarations."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator

from sharedstack.declare.layout import BY_NAME, CONSTANTS
from sharedstack.declare.model import Placed

from .steering import Address, mapped

_NIC = {p.field.name: p for p in BY_NAME["nic"].placed()}
_HOP = {p.field.name: p for p in BY_NAME["hop"].placed()}
_QUEUE = {p.field.name: p for p in BY_NAME["nic_queue"].placed()}
_FORMATS = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q"}
BYTES = BY_NAME["nic"].size


class Segment:
    """One struct `nic` in mapped memory. Readers look at a hop's state first, so that it is written last."""

    def __init__(self, memory: mmap.mmap) -> None:
        self.memory = memory

    def set(self, name: str, value: int) -> None:
        """A scalar field of the header."""
        self._put(_NIC[name], 0, value)

    def get(self, name: str) -> int:
        """A scalar field of the header."""
        p = _NIC[name]
        return int(struct.unpack_from("=" + _FORMATS[p.field.type], self.memory, p.offset)[0])

    @property
    def mac(self) -> bytes:
        """The interface's own link-layer address."""
        return bytes(self.memory[_NIC["mac"].offset : _NIC["mac"].offset + 6])

    def queue(self, number: int) -> dict[str, int]:
        """What is counted of a queue."""
        base = _NIC["queue"].offset + number * BY_NAME["nic_queue"].size
        return {name: int(struct.unpack_from("=" + _FORMATS[p.field.type], self.memory, base + p.offset)[0]) for name, p in _QUEUE.items()}

    def set_queue_flags(self, number: int, flags: int) -> None:
        """QUEUE_* of its socket."""
        self._put(_QUEUE["flags"], _NIC["queue"].offset + number * BY_NAME["nic_queue"].size, flags)

    def set_link(self, mtu: int, mac: bytes, up: bool) -> None:
        """What the interface is now."""
        self.set("mtu", mtu)
        self.memory[_NIC["mac"].offset : _NIC["mac"].offset + 6] = mac
        flags = self.get("flags") & ~CONSTANTS["NIC_UP"]
        self.set("flags", flags | (CONSTANTS["NIC_UP"] if up else 0))

    def set_name(self, name: str) -> None:
        """The interface's name, at most 15 characters."""
        at = _NIC["name"].offset
        self.memory[at : at + 16] = name.encode()[:15].ljust(16, b"\0")

    def set_hop(self, remote: Address, mac: bytes | None, mtu: int = 0) -> bool:
        """Where packets for `remote` go, and how large they may be; None: nowhere for now. False: no room.

        A place once used keeps its address, since readers stop at the first free one.
        """
        for base, state, held in self._places(remote):
            if state != CONSTANTS["HOP_FREE"] and held != mapped(remote):
                continue
            if mac is None:
                if state != CONSTANTS["HOP_FREE"]:
                    self._put(_HOP["state"], base, CONSTANTS["HOP_LOST"])
                return True
            if state == CONSTANTS["HOP_FREE"]:
                self.memory[base : base + 16] = mapped(remote)
            at = base + _HOP["mac"].offset
            self.memory[at : at + 6] = mac
            self._put(_HOP["mtu"], base, mtu)
            self._put(_HOP["state"], base, CONSTANTS["HOP_KNOWN"])
            return True
        return False

    def hop(self, remote: Address) -> bytes | None:
        """Where packets for `remote` go now; None: nowhere."""
        for base, state, held in self._places(remote):
            if held == mapped(remote):
                at = base + _HOP["mac"].offset
                return bytes(self.memory[at : at + 6]) if state == CONSTANTS["HOP_KNOWN"] else None
        return None

    def _places(self, remote: Address) -> Iterator[tuple[int, int, bytes]]:
        """Where `remote` may be, in the order of search: offset, state and key of each place."""
        key, places = mapped(remote), CONSTANTS["N_HOPS"]
        first = (key[15] + key[14] * 31 + key[13] * 7) % places
        for i in range(places):
            base = _NIC["hops"].offset + (first + i) % places * BY_NAME["hop"].size
            state = struct.unpack_from("=I", self.memory, base + _HOP["state"].offset)[0]
            yield base, state, bytes(self.memory[base : base + 16])

    def _put(self, p: Placed, base: int, value: int) -> None:
        struct.pack_into("=" + _FORMATS[p.field.type], self.memory, base + p.offset, value)
