"""A stack of the bench's own: a helper that nobody else uses, and nothing left of it afterwards."""

from __future__ import annotations

import os
import secrets
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import sysv_ipc

from ..declare import binary, layout
from ..declare.layout import CONSTANTS
from ..demo.children import Child, DemoError, program, tail
from ..inspection import snapshot
from ..inspection.state import State, decode

READY_WITHIN = 15.0  # seconds
PARTS = ("stack", "arena", "bulk")


class BenchError(Exception):
    """The bench, or a case of it, cannot go on; the message says what failed and what to do."""


@dataclass(frozen=True)
class Totals:
    """Bytes sent since the stack was made, by path, by all that took part. The kernel's: on registered connections only."""

    local: int
    kernel: int


class Stack:
    """The stack `name` and its helper's pid. Reading it disturbs nobody: it is copied, no lock is taken."""

    def __init__(self, name: str, helper: Child) -> None:
        self.name, self.helper = name, helper

    def require(self) -> None:
        """BenchError if the helper has ended."""
        try:
            self.helper.require()
        except DemoError as error:
            raise BenchError(str(error)) from error

    def _state(self) -> State:
        return decode(snapshot.take(snapshot.find(os.getuid(), self.name)), live=False)

    def totals(self) -> Totals:
        """Bytes by path so far."""
        counters = self._state().counters
        return Totals(counters["tx_local_bytes"], counters["tx_kernel_bytes"])

    def memory_in_use(self) -> int:
        """Shared memory of all connections: records of ends and pairs, and rings. Unit: bytes."""
        used = self._state().memory
        records = used["endpoints_used"] * layout.ENDPOINT.size + used["pairs_used"] * layout.PAIR.size
        return int(records + used["units_used"] * used["unit_bytes"])


@contextmanager
def private(folder: Path) -> Iterator[Stack]:
    """Start a helper on a new stack, with a log in `folder`; in the end stop it and remove the segments."""
    name = f"bench{secrets.token_hex(4)}"
    log = folder / "helper.log"
    ready, writer = os.pipe()
    try:
        command = [program("sharedstack-helper"), "--stack", name, "--ready-fd", str(writer)]
        with Child(command, log, pass_fds=[writer]) as helper:
            os.close(writer)
            writer = -1
            if not select.select([ready], [], [], READY_WITHIN)[0] or not os.read(ready, 64):
                raise BenchError(f"{command[0]} is not ready after {READY_WITHIN:.0f} s at most:\n{tail(log)}")
            yield Stack(name, helper)
    except DemoError as error:
        raise BenchError(str(error)) from error
    finally:
        for fd in (ready, writer):
            if fd >= 0:
                os.close(fd)
        _remove(name)


def _remove(stack: str) -> None:
    """Segments outlive their helper for the sake of programs that run; ours have ended."""
    try:
        name = snapshot.find(os.getuid(), stack)
    except snapshot.NoStackError:
        return
    with suppress(snapshot.NoStackError, snapshot.LayoutError, sysv_ipc.ExistentialError):
        arena = binary.arena(snapshot.take(name).arena)
        if arena["bulk_kind"] == CONSTANTS["BULK_SYSV_HUGE"]:
            sysv_ipc.remove_shared_memory(arena["bulk_id"])
    for part in PARTS:
        (snapshot.SHM / f"{name}.{part}").unlink(missing_ok=True)
