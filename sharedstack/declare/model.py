"""The vocabulary of layout declarations: fields, structs, offsets and the layout hash.

Offsets follow one rule for 32- and 64-bit processes alike: a field is aligned to its own size, and `Line` starts a new
cache line. Nothing depends on the compiler; the generated headers assert every offset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

CACHE_LINE = 64
_SIZES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "i32": 4, "i64": 8}
_C_TYPES = {"u8": "uint8_t", "u16": "uint16_t", "u32": "uint32_t", "u64": "uint64_t", "i32": "int32_t", "i64": "int64_t"}


@dataclass(frozen=True)
class Line:
    """Starts a new cache line; `owner` says who writes the fields of that line."""

    owner: str
    why: str = ""


@dataclass(frozen=True)
class Field:
    """One field of shared memory.

    `type` is u8…u64, i32, i64 or the name of a declared struct; `count` makes an array of it. `lock` names the lock
    that guards writes (empty: single atomic stores by the owner). `derived` fields can be rebuilt from the others.
    """

    name: str
    type: str
    meaning: str
    count: int = 1
    unit: str = ""
    owner: str = ""
    lock: str = ""
    derived: bool = False


@dataclass(frozen=True)
class Placed:
    """A field with its byte offset and size inside its struct."""

    field: Field
    offset: int
    size: int
    item: int
    owner: str


@dataclass(frozen=True)
class Struct:
    """A declared struct: `size` is checked, not computed, so that growth is a decision."""

    name: str
    size: int
    meaning: str
    parts: tuple[Line | Field, ...]
    structs: Mapping[str, Struct] = field(default_factory=dict)

    def placed(self) -> Iterator[Placed]:
        """Yield the fields in order with their offsets; raise ValueError where they do not fit `size`."""
        offset, owner = 0, ""
        for part in self.parts:
            if isinstance(part, Line):
                offset = -(-offset // CACHE_LINE) * CACHE_LINE
                owner = part.owner
                continue
            item = _SIZES.get(part.type) or self.structs[part.type].size
            align = min(item, 8) if part.type in _SIZES else 8
            offset = -(-offset // align) * align
            yield Placed(part, offset, item * part.count, item, part.owner or owner)
            offset += item * part.count
        if offset > self.size:
            raise ValueError(f"{self.name}: fields take {offset} bytes, declared are {self.size}")

    def place(self, name: str) -> Placed:
        """The placed field called `name`; KeyError if there is none."""
        for placed in self.placed():
            if placed.field.name == name:
                return placed
        raise KeyError(f"{self.name}.{name}")


def c_type(type_: str) -> str:
    """The C spelling of a declared type."""
    return _C_TYPES.get(type_, f"struct shs_{type_}")


def scalar_size(type_: str) -> int | None:
    """Bytes of a scalar type, or None for a struct."""
    return _SIZES.get(type_)


def layout_hash(structs: tuple[Struct, ...], constants: Mapping[str, int]) -> int:
    """A 64-bit hash of names, types, offsets and constants: two builds with one hash can share memory."""
    digest = hashlib.sha256()
    for struct in structs:
        digest.update(f"{struct.name}:{struct.size}\n".encode())
        for p in struct.placed():
            digest.update(f"{p.field.name}:{p.field.type}:{p.field.count}:{p.offset}\n".encode())
    for name, value in sorted(constants.items()):
        digest.update(f"{name}={value}\n".encode())
    return int.from_bytes(digest.digest()[:8], "little")
