"""Read and write declared structs in a buffer of shared memory, from Python.

`View` gives typed access by field name. Single scalar reads and writes of aligned 4- and 8-byte fields are one load or
store on the platforms that we run on; nothing here is a compare-and-swap: what needs one is done by the native core.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

from . import layout, sim
from .model import Placed, Struct, scalar_size

CODES = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i32": "i", "i64": "q"}

Buffer = memoryview


class View:
    """A struct at an offset of a buffer: `view["field"]` reads, `view["field"] = value` writes.

    Scalars are int; u8 arrays are bytes; other arrays are tuples; nested structs are views (arrays: tuples of views).
    """

    __slots__ = ("_buffer", "_offset", "_struct")

    def __init__(self, struct_: Struct, buffer: Buffer, offset: int = 0) -> None:
        self._struct, self._buffer, self._offset = struct_, buffer, offset

    @property
    def offset(self) -> int:
        """Byte offset of the struct in its buffer."""
        return self._offset

    def __getitem__(self, name: str) -> Any:
        return _READERS[self._struct.name][name](self._buffer, self._offset)

    def __setitem__(self, name: str, value: int | bytes | tuple[int, ...]) -> None:
        place = _place(self._struct, name)
        at, count = self._offset + place.offset, place.field.count
        if isinstance(value, bytes):
            if len(value) > place.size:
                raise ValueError(f"{self._struct.name}.{name} takes {place.size} bytes, got {len(value)}")
            self._buffer[at : at + place.size] = value.ljust(place.size, b"\0")
            return
        values = value if isinstance(value, tuple) else (value,)
        struct.pack_into(f"<{count}{CODES[place.field.type]}", self._buffer, at, *values)

    def items(self) -> Iterator[tuple[str, Any]]:
        """All fields with their values, in declared order."""
        for place in self._struct.placed():
            yield place.field.name, self[place.field.name]


_PLACES: dict[str, dict[str, Placed]] = {s.name: {p.field.name: p for p in s.placed()} for s in (*layout.STRUCTS, *sim.STRUCTS)}


def _reader(place: Placed) -> Callable[[Buffer, int], Any]:
    """What reads the field of a struct at an offset: made once, since a stack has tens of thousands of records."""
    offset, count = place.offset, place.field.count
    if scalar_size(place.field.type) is None:
        inner = layout.BY_NAME[place.field.type]
        if count == 1:
            return lambda buffer, at: View(inner, buffer, at + offset)
        return lambda buffer, at: tuple(View(inner, buffer, at + offset + i * inner.size) for i in range(count))
    if place.field.type == "u8" and count > 1:
        return lambda buffer, at: bytes(buffer[at + offset : at + offset + count])
    unpack = struct.Struct(f"<{count}{CODES[place.field.type]}").unpack_from
    return lambda buffer, at: unpack(buffer, at + offset) if count > 1 else unpack(buffer, at + offset)[0]


_READERS = {name: {field: _reader(place) for field, place in places.items()} for name, places in _PLACES.items()}


def _place(struct_: Struct, name: str) -> Placed:
    return _PLACES[struct_.name][name]


def stack(buffer: Buffer) -> View:
    """The header of a stack segment."""
    return View(layout.STACK, buffer)


def arena(buffer: Buffer) -> View:
    """The header of an arena segment."""
    return View(layout.ARENA, buffer)


def slot(buffer: Buffer, index: int) -> View:
    """Participant slot `index` of a stack segment."""
    return View(layout.SLOT, buffer, layout.STACK_SLOTS + index * layout.SLOT.size)


def endpoint(buffer: Buffer, index: int) -> View:
    """Endpoint record `index` of a stack segment."""
    return View(layout.ENDPOINT, buffer, layout.STACK_ENDPOINTS + index * layout.ENDPOINT.size)


def pair(buffer: Buffer, index: int) -> View:
    """Pair `index` of an arena segment."""
    return View(layout.PAIR, buffer, layout.ARENA_PAIRS + index * layout.PAIR.size)


def link(buffer: Buffer, index: int) -> View:
    """Link `index`, in a copy of the links of a stack segment."""
    return View(layout.LINK, buffer, index * layout.LINK.size)


def policy(buffer: Buffer) -> View:
    """The rules, in a copy of that part of a stack segment."""
    return View(layout.BY_NAME["policy"], buffer)


def link_bucket(buffer: Buffer, index: int) -> int:
    """First link plus one of a destination port's bucket, 0 if it is empty."""
    value: int = struct.unpack_from("<I", buffer, layout.STACK_LINK_BUCKETS + index * 4)[0]
    return value


def flow_bucket(buffer: Buffer, index: int) -> int:
    """First endpoint plus one of flow bucket `index`, 0 if it is empty."""
    value: int = struct.unpack_from("<I", buffer, layout.STACK_FLOWS + index * 4)[0]
    return value


def text(raw: bytes) -> str:
    """A zero-terminated text field."""
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")
