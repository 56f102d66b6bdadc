"""A network interface that is lent to a stack: what its participants share of its AF_XDP sockets beside the kernel's rings.

The rings' positions lie in memory of the kernel, which every holder of a socket maps. Packets lie in a segment of their own, a part for
each queue: first the frames that are sent, then those that are received into (docs/internals/nic.md).
"""

from __future__ import annotations

from .model import Field, Line, Struct

CONSTANTS: dict[str, int] = {
    "NIC_MAGIC": 0x0031_4349_4E53_4853,
    "N_NIC_QUEUES": 16,
    "N_HOPS": 128,
    "NIC_PIECES": 8,  # frames that one packet takes at most
    # nic.flags
    "NIC_VIRTUAL": 1,  # its frames may have the checksum of the pseudo-header alone
    "NIC_UP": 2,
    "NIC_PARTS": 4,  # a packet may take several frames
    "NIC_BUSY_POLL": 8,  # whoever waits has the driver look for packets
    # nic_queue.flags
    "QUEUE_ZERO_COPY": 1,
    "QUEUE_NAPI": 2,  # the driver says what polls it
    # hop.state
    "HOP_FREE": 0,
    "HOP_KNOWN": 1,
    "HOP_LOST": 2,
}

_LOCK = "wire"

HOP = Struct(
    "hop",
    32,
    "Where to send what is for one address: the link-layer address of its next hop.",
    (
        Field("addr", "u8", "destination, IPv4 as ::ffff:a.b.c.d", count=16, owner="helper"),
        Field("state", "u32", "HOP_*: written last", owner="helper"),
        Field("mac", "u8", "of the next hop", count=6, owner="helper"),
        Field("mtu", "u32", "of the path to there, as the kernel knows it", unit="bytes", owner="helper"),
    ),
)

NIC_QUEUE = Struct(
    "nic_queue",
    64,
    "One queue of the interface: one AF_XDP socket.",
    (
        Field("recycled", "u64", "address of the frame on its way from the receive ring to the fill ring, plus one; 0: none", lock=_LOCK),
        Field("rx", "u64", "frames received", lock=_LOCK),
        Field("tx", "u64", "frames sent", lock=_LOCK),
        Field("rx_bad", "u64", "frames that made no sense: not IP, too short, outside of the queue's memory", lock=_LOCK),
        Field("tx_full", "u64", "times that no frame was free", lock=_LOCK),
        Field("tx_lost", "u64", "packets not sent because their next hop is not known", lock=_LOCK),
        Field("kicks", "u64", "system calls that told the kernel to send", lock=_LOCK),
        Field("flags", "u32", "QUEUE_* of its socket", owner="helper"),
        Field("until", "u32", "position in the receive ring up to which frames are of a packet that is on its way out of it", lock=_LOCK),
    ),
)

NIC = Struct(
    "nic",
    8192,
    "An interface lent to a stack.",
    (
        Line("the helper"),
        Field("magic", "u64", "NIC_MAGIC"),
        Field("ifindex", "u32", "its number"),
        Field("n_queues", "u32", "queues, each with a socket"),
        Field("n_frames", "u32", "frames of a queue to send from, and as many to receive into; a power of two"),
        Field("frame_bytes", "u32", "of a frame", unit="bytes"),
        Field("mtu", "u32", "of the interface now", unit="bytes"),
        Field("flags", "u32", "NIC_*"),
        Field("mac", "u8", "its link-layer address", count=6),
        Field("name", "u8", "its name, as in `ip link`", count=16),
        Line("whoever holds wire.lock"),
        Field("queue", "nic_queue", "queues", count=CONSTANTS["N_NIC_QUEUES"]),
        Line("the helper", "next hops"),
        Field("hops", "hop", "next hops, found by their address", count=CONSTANTS["N_HOPS"]),
    ),
    {"nic_queue": NIC_QUEUE, "hop": HOP},
)

STRUCTS: tuple[Struct, ...] = (HOP, NIC_QUEUE, NIC)
