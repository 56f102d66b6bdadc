"""What is known of the packets of an established flow on lo, bit by bit, and what a rule's comparisons make of it."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

# True, False; None: it may be
Answer = bool | None
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAME = 16  # IFNAMSIZ
_ESTABLISHED, _NEW, _UNTRACKED = 2, 8, 64  # NF_CT_STATE_BIT
_SYN = 0x02
_LOOPBACK = 772  # ARPHRD_LOOPBACK
_ETHERTYPES = {4: 0x0800, 6: 0x86DD}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
# offset, bytes, and which: of addresses, and of the next protocol
_ADDRESSES = {4: ((12, 4), (16, 4)), 6: ((8, 16), (24, 16))}
_PROTOCOL = {4: 9, 6: 6}
_TCP_FLAGS = 13


@dataclass(frozen=True)
class Value:
    """A value of so many bytes that is one of these: bits that the mask has are as in the number, others may be anything."""

    size: int
    ways: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, *known: bytes) -> Value:
        """One of these, which are of one size."""
        return cls(len(known[0]), tuple((int.from_bytes(one), _ones(len(one))) for one in known))

    @classmethod
    def unknown(cls, size: int) -> Value:
        """Anything."""
        return cls(size, ((0, 0),))

    def part(self, offset: int, size: int) -> Value:
        """Some of its bytes."""
        shift, ones = 8 * (self.size - offset - size), _ones(size)
        return Value(size, tuple((value >> shift & ones, mask >> shift & ones) for value, mask in self.ways))

    def masked(self, keep: bytes, flip: bytes) -> Value:
        """Bits that are not kept are 0, then some are flipped."""
        if len(keep) != self.size or len(flip) != self.size:
            return Value.unknown(self.size)
        kept, flipped, ones = int.from_bytes(keep), int.from_bytes(flip), _ones(self.size)
        return Value(
            self.size, tuple(((value & mask & kept) ^ (flipped & (mask | ~kept)), (mask | ~kept) & ones) for value, mask in self.ways)
        )

    def within(self, low: bytes, high: bytes) -> Answer:
        """Is it one of low to high? Of fewer bytes than it has: its first ones are compared."""
        if not 0 < len(low) == len(high) <= self.size:
            return None
        first, last = int.from_bytes(low), int.from_bytes(high)
        ways = self.part(0, len(low)).ways
        if first == last:
            return together(None if mask != _ones(len(low)) and not (value ^ first) & mask else value == first for value, mask in ways)
        spans = ((value & mask, value & mask | (~mask & _ones(len(low)))) for value, mask in ways)
        return together((first <= least and most <= last) or (None if least <= last and first <= most else False) for least, most in spans)


def _ones(size: int) -> int:
    return (1 << 8 * size) - 1


def together(answers: Iterable[Answer]) -> Answer:
    """Of several ways that a packet may be."""
    found = set(answers)
    return found.pop() if len(found) == 1 else None


@dataclass(frozen=True)
class Packet:
    """Packets of established flows on lo: of IP `version` 4 or 6, of `protocol` TCP or UDP, between addresses of this host.

    `untracked`: they may be, as some rule says so.
    """

    version: int
    protocol: int
    own: tuple[Network, ...]
    lo: int
    untracked: bool = False

    def meta(self, key: str, arrives: bool) -> Value | None:
        """What `meta` loads, where it arrives by lo or leaves by it; None: anything."""
        name, none = b"lo".ljust(_NAME, b"\0"), bytes(_NAME)
        known = {
            "IIFNAME": name if arrives else none,
            "OIFNAME": none if arrives else name,
            "IIF": struct.pack("=I", self.lo if arrives else 0),
            "OIF": struct.pack("=I", 0 if arrives else self.lo),
            "IIFTYPE": struct.pack("=H", _LOOPBACK if arrives else 0),
            "OIFTYPE": struct.pack("=H", 0 if arrives else _LOOPBACK),
            "NFPROTO": bytes([_FAMILIES[self.version]]),
            "L4PROTO": bytes([self.protocol]),
            "PROTOCOL": struct.pack("!H", _ETHERTYPES[self.version]),
        }.get(key)
        return None if known is None else Value.of(known)

    @property
    def state(self) -> Value:
        """Of connection tracking: datagrams that nobody answers are new for ever."""
        states = [_ESTABLISHED, *([_NEW] if self.protocol == socket.IPPROTO_UDP else []), *([_UNTRACKED] if self.untracked else [])]
        return Value.of(*(struct.pack("=I", state) for state in states))

    def header(self, base: str, offset: int, size: int) -> Value:
        """Bytes of a header: NETWORK or TRANSPORT."""
        if base == "NETWORK":
            for start, whole in _ADDRESSES[self.version]:
                if start <= offset and offset + size <= start + whole:
                    return self._address(whole).part(offset - start, size)
            if (offset, size) == (_PROTOCOL[self.version], 1):
                return Value.of(bytes([self.protocol]))
        elif (base, offset, size, self.protocol) == ("TRANSPORT", _TCP_FLAGS, 1, socket.IPPROTO_TCP):
            return Value(1, ((0, _SYN),))
        return Value.unknown(size)

    def _address(self, size: int) -> Value:
        own = [network for network in self.own if network.version == self.version]
        return Value(size, tuple((int(one.network_address), int(one.netmask)) for one in own)) if own else Value.unknown(size)
