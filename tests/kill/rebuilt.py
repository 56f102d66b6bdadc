"""The C core's repair on a copy of a quiet stack: what is derived must come out as it is. It is the second judge beside `inspect --check`."""

from __future__ import annotations

import ctypes
import mmap

from compat.fix_lab import Lab

from sharedstack.declare import binary, layout
from sharedstack.declare.layout import CONSTANTS as C
from sharedstack_helper.native import function


class _Copy:
    """A private mapping of a segment: what is written there is seen by nobody else."""

    def __init__(self, lab: Lab, part: str) -> None:
        with lab.daemon.path(part).open("rb") as file:
            self.map = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        self.view = memoryview(self.map)

    @property
    def address(self) -> int:
        return ctypes.addressof(ctypes.c_char.from_buffer(self.map))


class _Copies:
    def __init__(self, lab: Lab) -> None:
        self.stack, self.arena = _Copy(lab, "stack"), _Copy(lab, "arena")

    def derived(self) -> dict[str, object]:
        """What follows from the records: counts, the units in use, and who is in which chain of the flow table."""
        s, a = binary.stack(self.stack.view), binary.arena(self.arena.view)
        return {
            "endpoints_used": s["endpoints_used"],
            "links_used": s["links_used"],
            "pairs_used": a["pairs_used"],
            "units_used": a["units_used"],
            "units": tuple(a["units"]),
            "flows": self._flows(),
        }

    def _flows(self) -> dict[int, frozenset[int]]:
        heads = memoryview(self.stack.view[layout.STACK_FLOWS : layout.STACK_FLOWS + 4 * C["N_FLOW_BUCKETS"]]).cast("I")
        chains = {}
        for bucket, head in enumerate(heads):
            chain: list[int] = []
            while head and len(chain) <= C["N_ENDPOINTS"]:
                chain.append(head)
                head = binary.endpoint(self.stack.view, head - 1)["flow_next"]
            if chain:
                chains[bucket] = frozenset(chain)
        return chains


def differences(lab: Lab) -> list[str]:
    """What the C rebuild makes otherwise than it is; "busy" while somebody holds the locks of the tables."""
    copies = _Copies(lab)
    before = copies.derived()
    rebuild = function("rebuild", ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    if rebuild(copies.stack.address, copies.arena.address) != 0:
        return ["busy: a lock of the tables is held"]
    after = copies.derived()
    return [f"{name}: is {before[name]}, rebuilt {after[name]}" for name in before if before[name] != after[name]]
