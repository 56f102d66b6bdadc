"""The layout of the shared-memory segments.

A *stack* segment belongs to one uid in one network namespace: header, participant slots, flow table, endpoint records, links
of datagram senders, and the rules of the policy (policy.py).
An *arena* segment belongs to a pair of uids: pairs (two ring directions each) and the map of its bulk memory.
A *bulk* segment is ring memory, in units; it has no structure of its own.
The engine of the wire path has an area of its own (wire.py).

Rules (docs/internals/invariants.md): no pointers, only indices with generations; an index is stored plus one, so that
zero is "none"; primary fields change by one release store at a time; derived fields can be rebuilt from them.
"""

from __future__ import annotations

from . import nic, policy, wire
from .counters import COUNTERS
from .kernel_options import OF_CALL
from .model import Field, Line, Struct, layout_hash
from .options import OPTIONS

CONSTANTS: dict[str, int] = {
    "VERSION": 1,
    "STACK_MAGIC": 0x0031_4B53_5453_4853,
    "ARENA_MAGIC": 0x0031_4E41_5241_4853,
    "N_SLOTS": 1024,
    "N_ENDPOINTS": 32768,
    "N_FLOW_BUCKETS": 16384,
    "N_PAIRS": 8192,
    "UNIT_BYTES": 16384,
    "N_UNITS": 2048,
    "SET_MANY": 1025,
    "N_TOLD": 64,
    # a program that may have fewer (RLIMIT_NOFILE) has them for itself: it stays with the kernel
    "FEWEST_DESCRIPTORS": 64,
    "TOLD_SHIFT": 16,
    "WINDOW_BYTES": 16 << 20,
    "MAX_RING_UNITS": 64,
    "RECORD_ALIGN": 16,
    "N_BELLS": 64,
    "N_TAKES": 64,
    "N_RE_CHUNKS": 8,
    # a bell's armed number: its thread waits for the number itself to change (futex(2)), not for a datagram
    "BELL_NAP": 1,
    "N_LINKS": 4096,
    "N_LINK_BUCKETS": 1024,
    # the 64-bit word of a direction: write index, open, bell, takers
    "WORD_INDEX_BITS": 46,
    "WORD_OPEN": 1 << 46,
    "WORD_STICKY": 1 << 47,
    "WORD_TAKER": 1 << 48,
    # a lock word: owner slot plus one in the upper half, thread tag, waiters bit
    "LOCK_SLOT_SHIFT": 16,
    "LOCK_WAITERS": 1,
    # a slot plus one that names nobody: the helper puts it in a dead one's place, before the slot is another's
    "BURIED": 0xFFFF,
    # stack states
    "STACK_READY": 1,
    "STACK_DRAINING": 2,
    "STACK_RETIRED": 3,
    # slot states; above them, while a slot is claimed, the claimer's pid namespace (its inode's lowest bits) and its process id there
    "SLOT_STATE_BITS": 4,
    "SLOT_PIDNS_BITS": 6,
    "SLOT_FREE": 0,
    "SLOT_CLAIMED": 1,  # with the claimer in the bits above: it may die before it has written anything else
    "SLOT_LIVE": 2,
    "SLOT_DEAD": 3,
    # slot flags
    "SLOT_UNWITNESSED": 1,
    "SLOT_HELPER": 2,
    # endpoint states
    "EP_FREE": 0,
    "EP_LIVE": 1,
    "EP_CLOSED": 2,
    # endpoint flags
    "EPF_NONBLOCK": 1,
    "EPF_SHARED": 2,
    "EPF_KERNEL_ONLY": 4,
    "EPF_RCVTIMEO": 8,
    "EPF_SNDTIMEO": 16,
    "EPF_RDSHUT": 32,
    "EPF_WRSHUT": 64,
    "EPF_SEALED": 128,  # one of its directions was sticky when it was un-paired: never paired again
    "EPF_PINNED": 256,  # it could not be brought under count again: never un-paired
    "EPF_UNPAIRED": 512,  # registered, no pair for now: the next calls of either end pair it
    "EPF_REMOTE": 1024,  # its peer may be on another host, and there is a link: perhaps for the engine
    "EPF_PROBED": 2048,  # the helper looks who holds it; whoever shares or lowers it takes this away first
    "EPF_STORED": 4096,  # KERNEL_ONLY is for the helper alone, which stores it: it goes when somebody has taken it
    "EPF_DENIED": 8192,  # the policy keeps it with the kernel: one of `denied` and `denied_peer` is not 0
    # endpoint.wire: state | link << WIRE_LINK_SHIFT | generation << WIRE_GEN_SHIFT, the generation changes when it is lifted
    "WIRE_NONE": 0,
    "WIRE_LIFTING": 1,
    "WIRE_ON": 2,
    "WIRE_LOWERING": 3,
    "WIRE_STATE_MASK": 3,
    "WIRE_BEGUN": 4,  # with WIRE_LIFTING: the helper is at it, and it cannot be given up any more
    "WIRE_LINK_SHIFT": 4,
    "WIRE_LINK_MASK": 15,
    "WIRE_GEN_SHIFT": 8,
    "N_NICS": 4,
    # added to the family of a datagram socket's record: no connection has the same flow
    "FAMILY_DATAGRAM": 256,
    # opt_level of an endpoint whose opt_name is a flag of send(2) or recv(2)
    "OPTION_OF_CALL": OF_CALL,
    # pair states
    "PAIR_FREE": 0,
    "PAIR_LIVE": 1,
    "PAIR_PARKED": 2,
    # link states, the low bits of link.word
    "LINK_FREE": 0,
    "LINK_WANTED": 1,
    "LINK_ALLOWED": 2,
    "LINK_STATE_BITS": 2,
    # bulk kinds
    "BULK_POSIX": 1,
    "BULK_SYSV_HUGE": 2,
    # record kinds in a ring
    "REC_DATA": 0,
    "REC_SWITCH": 1,
    "REC_DATAGRAM": 2,
    "REC_DATAGRAM6": 3,
    "TAG_WIRE": 1 << 63,  # in the tag of a datagram's record: an engine brought it
    "TAG_LINK_SHIFT": 48,  # above that in the tag: by which link it was pushed
    "TAG_LINK_MASK": (1 << 13) - 1,
    # a packed read index: index / 16 above, bytes consumed of the head record below
    "RD_OFF_BITS": 22,
    # a packed chunk: first unit plus one (12 bits) | log2 of its units (4 bits) | index / 16 at which it begins (42 bits)
    "CHUNK_LOG_SHIFT": 12,
    "CHUNK_BASE_SHIFT": 16,
}

BELL = Struct(
    "bell",
    16,
    "The doorbell of one thread: an AF_UNIX datagram socket on the abstract name `sharedstack.bell.<name in hex>`.",
    (
        Field("name", "u64", "random name of the socket; 0: the bell does not exist", owner="slot"),
        Field(
            "armed",
            "u32",
            "nonzero, another number each time, while its thread sleeps behind it (on this word: BELL_NAP); who rings changes it to 0",
            owner="slot and writers",
        ),
        Field("used", "u32", "thread tag of its owner; 0: free", owner="slot"),
    ),
)

SLOT = Struct(
    "slot",
    4096,
    "One participant (a process that has mapped the stack).",
    (
        Line("the kernel and the owner", "laid out as libc's robust mutex, because its list links live here"),
        Field("robust", "u32", "thread id of the home thread; the kernel sets FUTEX_OWNER_DIED when it ends (set_robust_list(2))"),
        Field("robust_links", "u32", "list links of the owner's libc (robust list); meaningless to others", count=15),
        Line("the owner"),
        Field("state", "u32", "SLOT_*", lock="ctl"),
        Field("gen", "u32", "incremented when the slot is claimed", lock="ctl"),
        Field("pid", "u32", "process id in the owner's pid namespace", lock="ctl"),
        Field("uid", "u32", "real uid of the owner", lock="ctl"),
        Field("start_ns", "u64", "when the slot was claimed", unit="ns CLOCK_MONOTONIC", lock="ctl"),
        Field("pidns", "u64", "inode of the owner's pid namespace", lock="ctl"),
        Field("flags", "u32", "SLOT_UNWITNESSED: the home thread ended, the process lives on; SLOT_HELPER"),
        Field("bits", "u32", "32 or 64"),
        Field("comm", "u8", "name of the program, as in /proc/PID/comm", count=16),
        Line("the owner's threads"),
        Field("spinning", "u32", "threads that spin now", derived=True),
        Field("sharing", "u32", "threads that are about to give descriptors to another process"),
        Line("the owner's threads", "doorbells"),
        Field("bells", "bell", "doorbells of the owner's threads", count=64),
        Line("the owner's threads"),
        Field("takes", "u32", "directions (pair * 2 + direction, plus one) in which a thread is counted as a taker", count=64),
        Line("the owner's threads"),
        Field("counters", "u64", "counters, in declared order", count=64),
        Line("the owner's threads", "why sockets that have no record will never have one"),
        Field("told", "u64", "inode of the socket << TOLD_SHIFT | REASON_*; 0: none", count=64),
        Field("told_at", "u32", "where the next one goes"),
        Field(
            "awaits",
            "u32",
            "lock word of a thread whose lock one of ours waits for, or was the last not to get in time; 0: none",
            derived=True,
        ),
        Field("awaits_ns", "u64", "since when; 0: none", unit="ns CLOCK_MONOTONIC", derived=True),
        Line("the helper", "the policy"),
        Field("rules", "u64", "bit i: rule i concerns the participant, because of its users, groups and program"),
        Field("rules_gen", "u32", "policy.gen for which that was found out; 0: not yet"),
    ),
    {"bell": BELL},
)

ENDPOINT = Struct(
    "endpoint",
    256,
    "The stack's record of an anchor that is, was or may be lifted.",
    (
        Line("whoever holds ctl", "identity"),
        Field("state", "u32", "EP_*", lock="ctl"),
        Field("gen", "u32", "incremented when the record is taken into use", lock="ctl"),
        Field("cookie", "u64", "SO_COOKIE of the anchor, never reused by the kernel", lock="ctl"),
        Field("inode", "u64", "inode of the anchor (fstat(2)), as in /proc/PID/fd", lock="ctl"),
        Field("pair", "u32", "pair plus one; 0: not paired", lock="ctl"),
        Field("side", "u32", "0 or 1: which end of the pair; writes direction `side`, reads direction `1 - side`", lock="ctl"),
        Field("flow_next", "u32", "next endpoint plus one in the flow bucket", lock="ctl", derived=True),
        Field("flags", "u32", "EPF_*", owner="any holder, atomic or"),
        Field(
            "slot", "u32", "slot plus one of the participant that registered it; 0: it left, and nobody has it; BURIED: it died", lock="ctl"
        ),
        Field("holders", "u32", "participants of this stack known to hold the anchor", lock="ctl"),
        Field("family", "u16", "AF_INET or AF_INET6; FAMILY_DATAGRAM is added for a datagram socket", lock="ctl"),
        Field("lport", "u16", "local port, host order", lock="ctl"),
        Field("rport", "u16", "remote port, host order", lock="ctl"),
        Field("pairings", "u32", "times it was paired: an idle pair is given back, and made again when data comes", lock="ctl"),
        Field(
            "wire",
            "u32",
            "WIRE_*, link and generation: whose connection it is, the kernel's or an engine's; of a datagram socket, whether an engine has "
            "some of its peers",
            owner="compare-and-swap",
        ),
        Line("whoever holds ctl", "addresses"),
        Field("laddr", "u8", "local address, IPv4 as ::ffff:a.b.c.d", count=16, lock="ctl"),
        Field("raddr", "u8", "remote address, IPv4 as ::ffff:a.b.c.d", count=16, lock="ctl"),
        Field("created_ns", "u64", "when the record was taken into use", unit="ns CLOCK_MONOTONIC", lock="ctl"),
        Field("error", "u32", "errno of the connection's end that a look consumed and no receive has reported yet", lock="rlock"),
        Field("why_tx", "u32", "REASON_*: why the sending direction is not on the local path", owner="a holder"),
        Field("why_rx", "u32", "REASON_*: why the receiving direction is not on the local path", owner="a holder"),
        Field("opt_level", "u32", "level of the option that made it the kernel's, OPTION_OF_CALL; 0: none did", owner="a holder"),
        Field("opt_name", "u32", "its number, as in setsockopt(2), or the flags of the call", owner="a holder"),
        Field("set_slot", "u32", "slot plus one of the process that has it in an epoll set; SET_MANY: several; 0: none", owner="a holder"),
        Line("the writer", "sending"),
        Field("tx_local", "u64", "bytes sent by ring", unit="bytes", lock="wlock"),
        Field("tx_kernel", "u64", "bytes sent by the kernel since the record exists", unit="bytes", lock="wlock"),
        Field("tx_calls", "u64", "sends by ring", unit="calls", lock="wlock"),
        Field("tx_full", "u64", "sends that found the ring full", unit="calls", lock="wlock"),
        Field("tx_bells", "u64", "doorbells rung", unit="calls", lock="wlock"),
        Field("sndbuf", "u32", "what the program set by SO_SNDBUF; 0: nothing", unit="bytes", owner="a holder"),
        Field("rcvbuf", "u32", "what the program set by SO_RCVBUF; 0: nothing", unit="bytes", owner="a holder"),
        Field("tx_wire", "u64", "bytes sent by an engine", unit="bytes", lock="wire"),
        Field("wire_handle", "u64", "the engine's name of the connection, of meaning in WIRE_ON and WIRE_LOWERING", owner="helper"),
        Line("the reader", "receiving"),
        Field("rx_local", "u64", "bytes received by ring", unit="bytes", lock="rlock"),
        Field("rx_kernel", "u64", "bytes received by the kernel since the record exists", unit="bytes", lock="rlock"),
        Field("rx_calls", "u64", "receives by ring", unit="calls", lock="rlock"),
        Field("rx_lifts", "u64", "times the ring was opened", lock="rlock"),
        Field("rx_lowers", "u64", "times the ring was shut", lock="rlock"),
        Field("rx_wire", "u64", "bytes received by an engine", unit="bytes", lock="wire"),
        Field("wire_lifts", "u32", "times it was lifted to an engine", owner="helper"),
        Field("wire_why", "u32", "REASON_*: why it is not an engine's", owner="a holder, and the helper"),
        Field("denied", "u32", "a VERDICT_* on this end, or a rule plus one; 0: the policy allows it", owner="a holder, and the helper"),
        Field("denied_peer", "u32", "the same on the other end", owner="a holder, and the helper"),
    ),
)

DIRECTION = Struct(
    "direction",
    256,
    "One direction of a pair: a byte ring beside the kernel's stream (docs/internals/protocol.md).",
    (
        Line("reader and writer", "what a spinning reader looks at; but for the word it seldom changes"),
        Field("word", "u64", "write index 46 bits | open | sticky | takers 16 bits", owner="compare-and-swap"),
        Field("ksent", "u64", "stream bytes given to the kernel, FIN counts one; released after the call", unit="bytes", lock="wlock"),
        Field("pub_ns", "u64", "when data was last sent to a reader that was not spinning", unit="ns CLOCK_MONOTONIC", lock="wlock"),
        Field("wcpu", "u32", "CPU of the last send", lock="wlock", derived=True),
        Line("the writer"),
        Field("wlock", "u32", "lock word of the writer's side"),
        Field(
            "tx_on",
            "u32",
            "0 not counted; 1 ksent is exact, counted under wlock; 2 to be read from the kernel again; 3 being brought under count",
            lock="wlock",
        ),
        Field("wchunk", "u64", "chunk written to, packed: CHUNK_*; 0: none", lock="wlock"),
        Field("rd_seen", "u64", "read index when the writer last looked", unit="bytes", lock="wlock", derived=True),
        Field("wslot", "u32", "slot plus one of the last writer", lock="wlock"),
        Field(
            "most",
            "u32",
            "that may be unread, with the records' headers: the smaller of its writer's sndbuf and its reader's rcvbuf; 0: no such bound",
            unit="bytes",
            owner="a holder of either end",
            derived=True,
        ),
        Field(
            "answered",
            "u64",
            "the other direction's write index when a send last went by the kernel: later records there acknowledged nothing",
            unit="bytes",
            lock="wlock",
            derived=True,
        ),
        Field("wcookie", "u64", "SO_COOKIE of the end that writes here, looked at under wlock; 0: nobody", lock="wlock"),
        Line("the reader"),
        Field("rd", "u64", "packed: read index (records before it are consumed) and bytes consumed of the record there", lock="rlock"),
        Field("taken", "u64", "stream bytes taken from the kernel", unit="bytes", owner="readers, atomic add"),
        Field("rlock", "u32", "lock word of the reader's side"),
        Field(
            "rx_on",
            "u32",
            "0 not counted; 1 taken is exact, receives are counted; 2 to be read from the kernel again; 3 being brought under count",
            lock="rlock",
        ),
        Field("rchunk", "u64", "chunk read from, packed: CHUNK_*; 0: none", lock="rlock"),
        Field("rcookie", "u64", "SO_COOKIE of the end that reads here, looked at under rlock; 0: nobody", lock="rlock"),
        Field("wr_seen", "u64", "of datagrams: write index when the reader last looked", unit="bytes", lock="rlock", derived=True),
        Field("rthread", "u32", "lock word of the thread that received last; noted by eager readers", lock="rlock", derived=True),
        Line("the reader", "what a writer looks at; it seldom changes"),
        Field("bell", "u32", "(slot * N_BELLS + bell) plus one to ring after publishing; 0: none", owner="dozing thread"),
        Field("opener", "u32", "slot plus one of the participant that opened the ring", lock="rlock"),
        Field("rcpu", "u32", "CPU of the last receive", lock="rlock", derived=True),
        Field("re_on", "u32", "1: there is residue, which its writer sends again by the kernel, first", lock="wlock"),
        Field("re_rd", "u64", "where the residue begins in the ring, packed as rd; it ends at the write index", lock="wlock"),
        Field("re_base", "u64", "`taken` when the ring was recalled: where the bytes in re_chunks begin", unit="bytes", lock="wlock"),
        Field("re_ksent", "u64", "`ksent` then: what it has grown since is sent again already", unit="bytes", lock="wlock"),
        Field(
            "re_chunks",
            "u16",
            "chunks, the low 16 bits of CHUNK_*, with kernel bytes that were taken out from behind ring bytes; 0: none",
            count=CONSTANTS["N_RE_CHUNKS"],
            lock="arena",
        ),
    ),
)

PAIR = Struct(
    "pair",
    640,
    "Both ends of one connection of this host, and its two directions; or what a datagram socket receives (docs/internals/datagrams.md).",
    (
        Line("whoever holds the arena's lock"),
        Field("state", "u32", "PAIR_*", lock="arena"),
        Field("gen", "u32", "incremented when the pair is taken into use, and when it is given back", lock="arena"),
        Field("endpoint", "u32", "endpoint plus one at each end; 0: gone", count=2, lock="arena"),
        Field("cookie", "u64", "SO_COOKIE of the anchor at each end", count=2, lock="arena"),
        Field("made_ns", "u64", "when the pair was made", unit="ns CLOCK_MONOTONIC", lock="arena"),
        Line("the reader of datagrams", "what their senders look at; directions are 128-byte aligned"),
        Field("looks", "u64", "looks at the kernel's queue that were begun", lock="rlock"),
        Field("empty", "u64", "the last look before which nothing is left in the kernel's queue", lock="rlock"),
        Field("empty_ns", "u64", "when that look was begun", unit="ns CLOCK_MONOTONIC", lock="rlock"),
        Field("mark", "u64", "a look before which so much is left:", lock="rlock"),
        Field("mark_ns", "u64", "when that look was begun", unit="ns CLOCK_MONOTONIC", lock="rlock"),
        Field("mark_left", "u64", "at most so many datagrams", lock="rlock"),
        Field(
            "recall_ns", "u64", "until when senders wait for a recall of the ring to end; 0: none", unit="ns CLOCK_MONOTONIC", lock="rlock"
        ),
        Field("pad", "u64", "unused"),
        Field("dir", "direction", "direction i is written by end i and read by end 1 - i", count=2),
    ),
    {"direction": DIRECTION},
)

LINK = Struct(
    "link",
    128,
    "A datagram sender's permission to push to a receiver: the kernel delivered from this source to this destination.",
    (
        Line("whoever holds ctl", "but for LINK_ALLOWED to LINK_WANTED, which anybody may change"),
        Field("word", "u64", "generation << LINK_STATE_BITS | LINK_*", lock="ctl"),
        Field("sender", "u32", "endpoint plus one of the sender", lock="ctl"),
        Field("receiver", "u32", "endpoint plus one of the receiver; of meaning in LINK_ALLOWED only", lock="ctl"),
        Field("pair", "u32", "pair plus one of the receiver", lock="ctl"),
        Field("pair_gen", "u32", "its generation", lock="ctl"),
        Field("next", "u32", "next link plus one in the bucket of the destination port", lock="ctl", derived=True),
        Field("dport", "u16", "destination port, host order", lock="ctl"),
        Field("sport", "u16", "source port, host order", lock="ctl"),
        Field("wanted_ns", "u64", "when it was last put to LINK_WANTED under ctl", unit="ns CLOCK_MONOTONIC", lock="ctl"),
        Field("allowed_ns", "u64", "when it was last put to LINK_ALLOWED", unit="ns CLOCK_MONOTONIC", lock="ctl"),
        Field("denied_ns", "u64", "when the policy last denied it; 0: never", unit="ns CLOCK_MONOTONIC", owner="its receiver"),
        Line("whoever holds ctl", "addresses"),
        Field("daddr", "u8", "destination address, IPv4 as ::ffff:a.b.c.d", count=16, lock="ctl"),
        Field("saddr", "u8", "source address, IPv4 as ::ffff:a.b.c.d", count=16, lock="ctl"),
    ),
)

RECORD = Struct(
    "record",
    16,
    "What precedes the bytes of a send in a ring; records are aligned to RECORD_ALIGN.",
    (
        Field("len", "u32", "bytes that follow", unit="bytes"),
        Field("kind", "u32", "REC_*"),
        Field(
            "ksent",
            "u64",
            "REC_DATA: ksent when it was written, these stream bytes come before it; REC_SWITCH: the next chunk, packed; REC_DATAGRAM: "
            "source port << 32 | IPv4 address; REC_DATAGRAM6: source port << 32, the address is the first 16 of the bytes that follow; "
            "TAG_WIRE is added for one from another host, else the link's number plus one << TAG_LINK_SHIFT",
        ),
    ),
)

STACK = Struct(
    "stack",
    4096,
    "Header of the stack segment.",
    (
        Line("the helper, once"),
        Field("magic", "u64", "STACK_MAGIC"),
        Field("layout_hash", "u64", "hash of this declaration"),
        Field("version", "u32", "VERSION"),
        Field("uid", "u32", "uid that the stack belongs to"),
        Field("netns", "u64", "SO_NETNS_COOKIE of its network namespace"),
        Field("made_ns", "u64", "when it was made", unit="ns CLOCK_MONOTONIC"),
        Field("n_cpus", "u32", "CPUs on line"),
        Line("the helper"),
        Field("state", "u32", "STACK_*"),
        Field("helper", "u32", "slot plus one of the helper; 0: none"),
        Field("pair_ok", "u32", "1: endpoints may be paired"),
        Field("probes", "u32", "searches for holders: who has marked an endpoint as shared since the last one need not do so again"),
        Field("n_nics", "u32", "interfaces that are lent to the stack"),
        Field("kept", "u32", "KEPT_*: what goes by lo is the kernel's, because rules of its own count or change packets there"),
        Line("whoever holds ctl"),
        Field("ctl", "u32", "lock word: slots, endpoints, flow table"),
        Field("endpoint_hint", "u32", "where to look for a free endpoint", lock="ctl", derived=True),
        Field("endpoints_used", "u32", "endpoints not free", lock="ctl", derived=True),
        Field("endpoints_top", "u32", "endpoints ever used: higher ones were never touched", lock="ctl", derived=True),
        Field("slots_top", "u32", "slots ever used", lock="ctl", derived=True),
        Field("links_used", "u32", "links not free", lock="ctl", derived=True),
        Field("links_top", "u32", "links ever used: higher ones were never touched", lock="ctl", derived=True),
        Line("all participants, atomic add", "how busy the CPUs are with us"),
        Field("spinners", "u32", "threads that spin now", derived=True),
        Line("the helper"),
        Field("options", "u64", "options of the stack, in declared order; participants may override some", count=64),
        Field("stack_name", "u8", "name of the stack segment, zero-terminated", count=64),
        Field("arena_name", "u8", "name of the arena segment, zero-terminated", count=64),
        Field("bulk_name", "u8", "name of the POSIX bulk segment, zero-terminated", count=64),
        Field("totals", "u64", "sums of the counters of participants that have gone", count=64, lock="ctl"),
    ),
)

ARENA = Struct(
    "arena",
    4096,
    "Header of an arena segment.",
    (
        Line("the helper, once"),
        Field("magic", "u64", "ARENA_MAGIC"),
        Field("layout_hash", "u64", "hash of this declaration"),
        Field("uid", "u32", "the two uids whose connections live here", count=2),
        Field("bulk_kind", "u32", "BULK_POSIX or BULK_SYSV_HUGE"),
        Field("bulk_id", "i32", "System V identifier of the bulk segment, or -1"),
        Field("n_units", "u32", "units in the bulk segment"),
        Line("whoever holds the lock"),
        Field("lock", "u32", "lock word: pairs and units"),
        Field("pair_hint", "u32", "where to look for a free pair", lock="arena", derived=True),
        Field("pairs_used", "u32", "pairs not free", lock="arena", derived=True),
        Field("pairs_top", "u32", "pairs ever used", lock="arena", derived=True),
        Field("units_used", "u32", "units in use", lock="arena", derived=True),
        Field(
            "adrift",
            "u32",
            "1: a unit may be marked that no direction names any more: its reader did not get the lock in time, who has it next rebuilds",
            owner="anybody",
            derived=True,
        ),
        Field(
            "cooling",
            "u32",
            "1: the helper looks now and then whether rings and pairs can be given back; 0: who takes one nudges it",
            owner="helper",
        ),
        Line("whoever holds the lock"),
        Field("units", "u64", "bit i: unit i is in use", count=32, lock="arena", derived=True),
    ),
)

STRUCTS: tuple[Struct, ...] = (
    *(BELL, SLOT, ENDPOINT, DIRECTION, PAIR, LINK, RECORD, STACK, ARENA),
    *(*policy.STRUCTS, *wire.STRUCTS, *nic.STRUCTS),
)
BY_NAME: dict[str, Struct] = {s.name: s for s in STRUCTS}

STACK_SLOTS = STACK.size
STACK_FLOWS = STACK_SLOTS + CONSTANTS["N_SLOTS"] * SLOT.size
STACK_LINK_BUCKETS = STACK_FLOWS + CONSTANTS["N_FLOW_BUCKETS"] * 4
STACK_ENDPOINTS = STACK_LINK_BUCKETS + CONSTANTS["N_LINK_BUCKETS"] * 4
STACK_LINKS = STACK_ENDPOINTS + CONSTANTS["N_ENDPOINTS"] * ENDPOINT.size
STACK_POLICY = STACK_LINKS + CONSTANTS["N_LINKS"] * LINK.size
STACK_BYTES = STACK_POLICY + policy.POLICY.size
ARENA_PAIRS = ARENA.size
ARENA_BYTES = ARENA_PAIRS + CONSTANTS["N_PAIRS"] * PAIR.size
BULK_BYTES = CONSTANTS["N_UNITS"] * CONSTANTS["UNIT_BYTES"]

CONSTANTS.update(
    STACK_SLOTS=STACK_SLOTS,
    STACK_FLOWS=STACK_FLOWS,
    STACK_LINK_BUCKETS=STACK_LINK_BUCKETS,
    STACK_ENDPOINTS=STACK_ENDPOINTS,
    STACK_LINKS=STACK_LINKS,
    STACK_POLICY=STACK_POLICY,
    STACK_BYTES=STACK_BYTES,
    ARENA_PAIRS=ARENA_PAIRS,
    ARENA_BYTES=ARENA_BYTES,
    BULK_BYTES=BULK_BYTES,
    **policy.CONSTANTS,
    **wire.CONSTANTS,
    **nic.CONSTANTS,
)

if len(COUNTERS) > 64 or len(OPTIONS) > 64:
    raise ValueError("counters and options have 64 places each; make room in SLOT and STACK")

HASH: int = layout_hash(STRUCTS, {**CONSTANTS, "counters": len(COUNTERS), "options": len(OPTIONS), "wire_counters": len(wire.COUNTERS)})
