"""The ledger of a run (tests/programs/chaos_ledger.h), as the driver sees it: what each process did, and what it found wrong."""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
from pathlib import Path

PROCESSES, CONNECTIONS, FINDINGS, FINDING_BYTES = 1024, 1 << 20, 64, 320
COUNTS = (
    "connects",
    "accepts",
    "bytes_sent",
    "bytes_received",
    "ends",
    "resets",
    "forks",
    "workers",
    "execs",
    "passes",
    "shutdowns",
    "aborts",
    "datagrams_sent",
    "datagram_bytes",
    "datagrams_received",
    "datagrams_lost",
    "wire_datagrams_lost",
    "datagrams_refused",
    "rebinds",
    "corrupt",
)
_U32, _U64 = ctypes.c_uint32, ctypes.c_uint64


class Process(ctypes.Structure):
    """A row of the table of processes."""

    _fields_ = [
        ("pid", _U32),
        ("number", _U32),
        ("beat_ns", _U64),
        ("generation", _U32),
        ("group", _U32),
        ("targets", _U32),
        ("address", _U32),
        ("emptied", _U64),
        ("doing", ctypes.c_char * 80),
    ]


_PID = struct.Struct(f"<I{ctypes.sizeof(Process) - 4}x")


class Direction(ctypes.Structure):
    """What is known of one direction of a connection."""

    _fields_ = [("intent", _U64), ("accepted", _U64), ("asked", _U64), ("received", _U64)]


class Connection(ctypes.Structure):
    """A connection, and who held its ends last."""

    _fields_ = [("direction", Direction * 2), ("holder", _U32 * 2), ("fd", _U32 * 2), ("story", ctypes.c_char * 44), ("told", _U32)]


class Head(ctypes.Structure):
    """The whole file."""

    _fields_ = [
        ("magic", _U64),
        ("size", _U64),
        ("seed", _U64),
        ("patience_ns", _U64),
        ("stop", _U32),
        ("connections", _U32),
        ("flows", _U32),
        ("findings", _U32),
        ("actors", _U32),
        ("more", _U32),
        ("most", _U32 * 4),
        ("counts", _U64 * 32),
        ("finding", (ctypes.c_char * FINDING_BYTES) * FINDINGS),
        ("process", Process * PROCESSES),
        ("connection", Connection * CONNECTIONS),
    ]


class Ledger:
    """The file, mapped; it is sparse, and outside of /dev/shm, whose use is looked at."""

    def __init__(self, path: Path, seed: int, actors: int, patience: float) -> None:
        self.path = path
        size = ctypes.sizeof(Head)
        with path.open("w+b") as file:
            os.ftruncate(file.fileno(), size)
            self.head = Head.from_buffer(mmap.mmap(file.fileno(), size))
        self.head.magic, self.head.size, self.head.seed = os.getpid() << 32 | seed & 0xFFFFFFFF, size, seed
        self.head.actors, self.head.patience_ns = actors, int(patience * 1e9)

    def place(self, number: int, group: int, targets: int, address: str) -> None:
        """Where an actor is, and in which group those are to whom it connects."""
        row = self.head.process[number]
        row.number, row.group, row.targets = number, group, targets
        row.address = int.from_bytes(socket.inet_aton(address), "little")

    def living(self) -> list[tuple[int, Process]]:
        """Rows of processes; 1: somebody is about to write its number."""
        table = memoryview(self.head.process).cast("B")
        return [(i, self.head.process[i]) for i, (pid,) in enumerate(_PID.iter_unpack(table)) if pid > 1]

    def findings(self) -> list[str]:
        """What processes found wrong."""
        return [self.head.finding[i].value.decode(errors="replace") for i in range(min(self.head.findings, FINDINGS))]

    def counts(self) -> dict[str, int]:
        """Sums over all processes, those that were killed too."""
        return dict(zip(COUNTS, self.head.counts, strict=False))
