"""The flow table's hash: both ends of a connection fall into one bucket, so that each finds the other."""

from __future__ import annotations

from ..declare.binary import View
from ..declare.layout import CONSTANTS as C


def fnv1a(data: bytes) -> int:
    """FNV-1a, 32 bits."""
    value = 0x811C9DC5
    for byte in data:
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def bucket(family: int, one: tuple[bytes, int], other: tuple[bytes, int]) -> int:
    """The bucket of a connection between two (16-byte address, port), in either order."""
    halves = sorted(addr + port.to_bytes(2, "little") for addr, port in (one, other))
    return fnv1a(family.to_bytes(2, "little") + halves[0] + halves[1]) % C["N_FLOW_BUCKETS"]


def bucket_of(endpoint: View) -> int:
    """The bucket in which an endpoint record belongs."""
    local, remote = (endpoint["laddr"], endpoint["lport"]), (endpoint["raddr"], endpoint["rport"])
    return bucket(endpoint["family"], local, remote)
