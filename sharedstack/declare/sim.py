"""What a run of the `sim` link is given, and what it tells: for tests alone, neither in shared memory nor in the layout hash."""

from __future__ import annotations

from .model import Field, Struct

CONSTANTS: dict[str, int] = {
    # how a connection ends
    "END_BOTH": 0,
    "END_FIRST": 1,
    "END_SIMULTANEOUS": 2,
    "END_RESET": 3,
    "END_UNREAD": 4,
    # what a run was judged: bits
    "SIM_STUCK": 1,
    "SIM_BYTES": 2,
    "SIM_ERROR": 4,
    "SIM_INCOMPLETE": 8,
    "SIM_CHECK": 16,
    "SIM_LEAK": 32,
    "SIM_NO_RESET": 64,
}

SCENARIO = Struct(
    "sim_scenario",
    192,
    "Connections between nodes, and the network between them. Of arrays of two the first is of the end that opened, or the way from it.",
    (
        Field("seed", "u64", "decides everything that is random"),
        Field("family", "u32", "4 or 6"),
        Field("flags", "u32", "TF_SACK, TF_TS, TF_ECN, TF_NODELAY of all ends"),
        Field("nodes", "u32", "engines, 2 to 3"),
        Field("connections", "u32", "1 to 8, between neighbours"),
        Field("ending", "u32", "END_*"),
        Field("icmp", "u32", "1: who drops a packet for its size says so by ICMP"),
        Field("scale", "u32", "window scale of each end", count=2),
        Field("mss", "u32", "what each end announces", count=2, unit="bytes"),
        Field("tx_size", "u32", "send queue, a power of two up to 131072", count=2, unit="bytes"),
        Field("rx_size", "u32", "receive queue, likewise", count=2, unit="bytes"),
        Field("bytes", "u32", "bytes that each end sends", count=2, unit="bytes"),
        Field("iss", "u32", "first sequence number", count=2),
        Field("write", "u32", "most bytes of one send", count=2, unit="bytes"),
        Field("read", "u32", "most bytes of one receive", count=2, unit="bytes"),
        Field("pause_us", "u32", "between receives", count=2, unit="µs"),
        Field("delay_us", "u32", "on the way", count=2, unit="µs"),
        Field("jitter_us", "u32", "at most so much more", count=2, unit="µs"),
        Field("loss", "u32", "lost", count=2, unit="10⁻⁶"),
        Field("reorder", "u32", "delayed by as much again", count=2, unit="10⁻⁶"),
        Field("duplicate", "u32", "delivered twice", count=2, unit="10⁻⁶"),
        Field("corrupt", "u32", "with one bit turned over", count=2, unit="10⁻⁶"),
        Field("rate", "u32", "0: unlimited", count=2, unit="kbit/s"),
        Field("queue", "u32", "before a limited rate", count=2, unit="bytes"),
        Field("mtu", "u32", "of the way", count=2, unit="bytes"),
        Field("busy", "u32", "times that a device has no room", unit="10⁻⁶"),
        Field("ecn_mark", "u32", "packets that are marked rather than lost", unit="10⁻⁶"),
    ),
)

RESULT = Struct(
    "sim_result",
    192,
    "What a run has come to. Sums over all connections; of arrays of two the first is of what the openers have sent.",
    (
        Field("verdict", "u32", "SIM_*; 0: all as it must be"),
        Field("line", "u32", "what shs_engine_check returned"),
        Field("elapsed_ns", "u64", "virtual time until the last end had ended", unit="ns"),
        Field("sent", "u64", "bytes taken by send", count=2, unit="bytes"),
        Field("received", "u64", "bytes given by recv", count=2, unit="bytes"),
        Field("hash_sent", "u64", "FNV-1a of them, connections by exclusive or", count=2),
        Field("hash_received", "u64", "likewise", count=2),
        Field("events", "u64", "steps"),
        Field("packets", "u64", "given to the network"),
        Field("lost", "u64", "lost by it, by chance, size or full queues"),
        Field("duplicated", "u64", "delivered twice"),
        Field("corrupted", "u64", "changed"),
        Field("retransmits", "u64", "segments sent again"),
        Field("timeouts", "u64", "retransmission time-outs"),
        Field("resets", "u64", "ends that were told of a reset"),
    ),
)

STRUCTS: tuple[Struct, ...] = (SCENARIO, RESULT)
