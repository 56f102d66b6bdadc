"""Snapshot files, `inspect -w FILE` and `-r FILE`: one msgpack map.

`format`, `version`, `layout` (hash), `name`, `taken_ns`, and `stack`, `arena`, `bulk`: maps from offset to bytes. Runs of zero
pages are left out. No byte of any program's data is in it; addresses, ports and program names are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack

from ..declare import layout
from .snapshot import LayoutError, Parts, Snapshot

FORMAT = "sharedstack-snapshot"
VERSION = 1
_PAGE = 4096
_SIZE_MAX = max(layout.STACK_BYTES, layout.ARENA_BYTES)


class DumpError(Exception):
    """The file is no snapshot of ours; the message says why."""


def _parts(buffer: memoryview) -> Parts:
    """The pages that are not all zero, and the length as a last empty part."""
    pages = {at: bytes(buffer[at : at + _PAGE]) for at in range(0, len(buffer), _PAGE)}
    return {at: page for at, page in pages.items() if any(page)} | {len(buffer): b""}


def _buffer(parts: Parts, what: str) -> memoryview:
    size = max((at + len(data) for at, data in parts.items()), default=0)
    if size > _SIZE_MAX or min(parts, default=0) < 0:
        raise DumpError(f"{what}: parts up to {size} bytes, the segment has at most {_SIZE_MAX}")
    buffer = bytearray(size)
    for at, data in parts.items():
        buffer[at : at + len(data)] = data
    return memoryview(buffer)


def write(shot: Snapshot, path: Path) -> None:
    """Write a snapshot, readable by its owner only; OSError if that fails."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "layout": layout.HASH,
        "name": shot.name,
        "taken_ns": shot.taken_ns,
        "stack": _parts(shot.stack),
        "arena": _parts(shot.arena),
        "bulk": shot.bulk,
        "links": bytes(shot.links),
        "policy": shot.policy,
    }
    path.touch(mode=0o600)
    path.write_bytes(msgpack.packb(content))


def read(path: Path) -> Snapshot:
    """Read a snapshot; DumpError if the file is none, LayoutError if it was taken of another layout."""
    try:
        content: Any = msgpack.unpackb(path.read_bytes(), strict_map_key=False)
    except (ValueError, msgpack.UnpackException) as e:
        raise DumpError(f"{path}: not a msgpack file: {e}") from e
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DumpError(f"{path}: not a snapshot written by `sharedstack inspect -w`")
    if content.get("version") != VERSION:
        raise DumpError(f"{path}: version {content.get('version')} of the format, this installation reads {VERSION}")
    if content.get("layout") != layout.HASH:
        raise LayoutError(f"{path}: layout hash is {content.get('layout', 0):#x}, this installation's is {layout.HASH:#x}")
    try:
        stack, arena = _buffer(content["stack"], "stack"), _buffer(content["arena"], "arena")
        name, taken_ns, bulk = str(content["name"]), int(content["taken_ns"]), dict(content["bulk"])
        links, policy = memoryview(bytearray(content["links"])), bytes(content["policy"])
    except (KeyError, TypeError, ValueError) as e:
        raise DumpError(f"{path}: damaged: {e!r}") from e
    if len(stack) < layout.STACK_ENDPOINTS or len(arena) < layout.ARENA_PAIRS or len(policy) != layout.BY_NAME["policy"].size:
        raise DumpError(f"{path}: damaged: the headers are incomplete")
    return Snapshot(name, taken_ns, stack, arena, bulk, links, policy)
