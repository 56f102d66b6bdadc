"""The packed words of the layout, decoded: direction word, read index, chunk, lock word, references plus one.

Written from the comments of `declare.layout`, on purpose without a look at the C code: it is what the checker holds
the C code against.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..declare.binary import View
from ..declare.layout import CONSTANTS as C

INDEX_MASK = (1 << C["WORD_INDEX_BITS"]) - 1
TAKER_SHIFT = C["WORD_TAKER"].bit_length() - 1
UNIT = C["UNIT_BYTES"]
ALIGN = C["RECORD_ALIGN"]
TAG_BITS = C["LOCK_SLOT_SHIFT"] - 1

_CHUNK_FIRST_MASK = (1 << C["CHUNK_LOG_SHIFT"]) - 1
_CHUNK_LOG_MASK = (1 << (C["CHUNK_BASE_SHIFT"] - C["CHUNK_LOG_SHIFT"])) - 1
_BASE_BITS = C["WORD_INDEX_BITS"] - 4


def ahead(later: int, earlier: int) -> int:
    """Bytes from index `earlier` to index `later`; indices wrap at 46 bits."""
    return (later - earlier) & INDEX_MASK


def aligned(length: int) -> int:
    """`length` rounded up to RECORD_ALIGN."""
    return -(-length // ALIGN) * ALIGN


@dataclass(frozen=True)
class DirectionWord:
    """Write index in bytes, is the ring open, is an outside holder marked, how many readers are in the kernel."""

    index: int
    open: bool
    sticky: bool
    takers: int

    @classmethod
    def decode(cls, word: int) -> DirectionWord:
        """The fields of a `direction.word`."""
        return cls(word & INDEX_MASK, bool(word & C["WORD_OPEN"]), bool(word & C["WORD_STICKY"]), word >> TAKER_SHIFT)

    def encode(self) -> int:
        """The 64-bit word."""
        flags = (C["WORD_OPEN"] if self.open else 0) | (C["WORD_STICKY"] if self.sticky else 0)
        return self.index | flags | self.takers << TAKER_SHIFT

    @property
    def pushable(self) -> bool:
        """A writer may put a record into the ring."""
        return self.open and not self.takers and not self.sticky


@dataclass(frozen=True)
class ReadIndex:
    """Records before byte `index` are consumed, and `consumed` bytes of the record there."""

    index: int
    consumed: int

    @classmethod
    def decode(cls, packed: int) -> ReadIndex:
        """The fields of a `direction.rd`."""
        return cls((packed >> C["RD_OFF_BITS"]) * ALIGN, packed & ((1 << C["RD_OFF_BITS"]) - 1))

    def encode(self) -> int:
        """The 64-bit word."""
        return self.index // ALIGN << C["RD_OFF_BITS"] | self.consumed


def unread(direction: View) -> ReadIndex:
    """Where the bytes in the ring begin that nobody has yet: those that a reader will take, or residue."""
    return ReadIndex.decode(direction["re_rd"] if direction["re_on"] else direction["rd"])


@dataclass(frozen=True)
class Chunk:
    """Ring memory: `units` units from unit `first` on, begun at ring index `base`; `extra` is what must be zero."""

    first: int
    log: int
    base: int
    extra: int = 0

    @classmethod
    def decode(cls, packed: int) -> Chunk | None:
        """The chunk of a `wchunk`, `rchunk` or REC_SWITCH record; None where there is none."""
        if packed == 0:
            return None
        base = packed >> C["CHUNK_BASE_SHIFT"]
        return cls(
            (packed & _CHUNK_FIRST_MASK) - 1,
            packed >> C["CHUNK_LOG_SHIFT"] & _CHUNK_LOG_MASK,
            (base & ((1 << _BASE_BITS) - 1)) * ALIGN,
            base >> _BASE_BITS,
        )

    def encode(self) -> int:
        """The 64-bit word."""
        return self.first + 1 | self.log << C["CHUNK_LOG_SHIFT"] | self.base // ALIGN << C["CHUNK_BASE_SHIFT"]

    @property
    def units(self) -> int:
        """Units that it takes."""
        return 1 << self.log

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.units * UNIT

    def place(self, index: int) -> int:
        """Offset of ring index `index` in the bulk segment."""
        return self.first * UNIT + ahead(index, self.base) % self.bytes


@dataclass(frozen=True)
class LockWord:
    """Who holds a lock: `slot` (None: free), the thread's tag, and whether somebody waits."""

    slot: int | None
    tag: int
    waiters: bool

    @classmethod
    def decode(cls, word: int) -> LockWord:
        """The fields of a lock word."""
        slot = (word >> C["LOCK_SLOT_SHIFT"]) - 1
        return cls(slot if slot >= 0 else None, word >> 1 & ((1 << TAG_BITS) - 1), bool(word & C["LOCK_WAITERS"]))

    def encode(self) -> int:
        """The 32-bit word."""
        return (0 if self.slot is None else self.slot + 1) << C["LOCK_SLOT_SHIFT"] | self.tag << 1 | int(self.waiters)


def take_ref(pair: int, direction: int) -> int:
    """What `slot.takes` holds for a taker of this direction."""
    return pair * 2 + direction + 1


def bell_ref(slot: int, bell: int) -> int:
    """What `direction.bell` holds for this doorbell."""
    return slot * C["N_BELLS"] + bell + 1
