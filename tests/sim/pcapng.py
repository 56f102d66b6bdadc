"""What the `sim` link saw, as a pcapng file (draft-ietf-opsawg-pcapng): an interface a node, packets from their IP header on."""

from __future__ import annotations

import struct
from pathlib import Path

LINKTYPE_RAW = 101


def _block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size


def write(path: Path, capture: bytes, nodes: int) -> int:
    """Writes the records of `capture` (ns u64, node u32, length u32, bytes); how many."""
    out = [_block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))]
    nanoseconds = struct.pack("<HHB3xHH", 9, 1, 9, 0, 0)  # if_tsresol
    out += [_block(1, struct.pack("<HHI", LINKTYPE_RAW, 0, 0) + nanoseconds)] * nodes
    at = count = 0
    while at < len(capture):
        ns, node, size = struct.unpack_from("<QII", capture, at)
        packet = capture[at + 16 : at + 16 + size]
        out.append(_block(6, struct.pack("<IIIII", node, ns >> 32, ns & 0xFFFFFFFF, size, size) + packet))
        at += 16 + size
        count += 1
    path.write_bytes(b"".join(out))
    return count
