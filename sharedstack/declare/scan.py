"""Reading one or a few fields of many records of a segment, fast enough to look at all of them whenever someone dies."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .binary import CODES
from .model import Struct


def reader(record: Struct, fields: tuple[str, ...]) -> struct.Struct:
    """A struct.Struct as large as the record that yields these scalar fields, which must be named in declared order."""
    code, at = "<", 0
    for place in (record.place(field) for field in fields):
        code += f"{place.offset - at}x{CODES[place.field.type]}"
        at = place.offset + place.size
    return struct.Struct(f"{code}{record.size - at}x")


def records(memory: memoryview, start: int, count: int, wanted: struct.Struct) -> Iterator[tuple[int, ...]]:
    """The wanted fields of `count` records from offset `start` on, in turn; others may change them meanwhile."""
    return wanted.iter_unpack(memory[start : start + count * wanted.size])
