"""Using up the tables of a stack: what is taken is nobody's, so the helper leaves it alone, and there is room again afterwards."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from collections.abc import Iterator

from compat.fix_lab import Lab

from sharedstack import paths
from sharedstack.declare import binary, layout
from sharedstack.declare.layout import CONSTANTS as C
from sharedstack.declare.model import Struct


@contextlib.contextmanager
def mapped(lab: Lab, part: str) -> Iterator[memoryview]:
    """A segment, for writing."""
    with lab.daemon.path(part).open("r+b") as file:
        yield memoryview(mmap.mmap(file.fileno(), 0))


@contextlib.contextmanager
def _records(lab: Lab, struct: Struct, first: int, count: int, field: str, taken: int, top: str) -> Iterator[None]:
    """All free records of the stack segment are in use, by nobody: `field` is `taken`."""
    with mapped(lab, "stack") as memory:
        views = [binary.View(struct, memory, first + i * struct.size) for i in range(count)]
        free = [v for v in views if not v[field] & 3]
        for v in free:
            if struct is not layout.LINK and not v["gen"]:
                v["gen"] = 1  # it was used before
            v[field] = v[field] | taken
        binary.stack(memory)[top] = count
        yield
        for v in free:
            v[field] = v[field] & ~3
        binary.stack(memory)["endpoint_hint"] = 0


def slots(lab: Lab) -> contextlib.AbstractContextManager[None]:
    """As many participants as there can be."""
    return _records(lab, layout.SLOT, layout.STACK_SLOTS, C["N_SLOTS"], "state", C["SLOT_CLAIMED"], "slots_top")


def endpoints(lab: Lab) -> contextlib.AbstractContextManager[None]:
    """As many registered sockets."""
    return _records(lab, layout.ENDPOINT, layout.STACK_ENDPOINTS, C["N_ENDPOINTS"], "state", C["EP_CLOSED"], "endpoints_top")


def links(lab: Lab) -> contextlib.AbstractContextManager[None]:
    """As many permissions of datagram senders."""
    return _records(lab, layout.LINK, layout.STACK_LINKS, C["N_LINKS"], "word", C["LINK_WANTED"], "links_top")


@contextlib.contextmanager
def pairs(lab: Lab) -> Iterator[None]:
    """As many active connections."""
    with mapped(lab, "arena") as memory:
        binary.arena(memory)["pairs_used"] = C["N_PAIRS"]
        yield
    rebuild(lab)


@contextlib.contextmanager
def units(lab: Lab, left: int = 0) -> Iterator[None]:
    """All ring memory but the last `left` units is in use."""
    with mapped(lab, "arena") as memory:
        arena = binary.arena(memory)
        full = (1 << C["N_UNITS"] - left) - 1
        words = tuple(arena["units"][i] | full >> 64 * i & (1 << 64) - 1 for i in range(C["N_UNITS"] // 64))
        arena["units"] = words
        arena["units_used"] = sum(word.bit_count() for word in words)
        yield
    rebuild(lab)


def rebuild(lab: Lab) -> None:
    """Tables as their records say, by the core."""
    native = ctypes.CDLL(str(paths.native_library())).shs_native_rebuild
    native.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    with mapped(lab, "stack") as stack, mapped(lab, "arena") as arena:
        addresses = [ctypes.addressof(ctypes.c_char.from_buffer(part)) for part in (stack, arena)]
        while native(*addresses) != 0:
            pass
