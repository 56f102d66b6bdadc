"""Sockets stored with the helper under a name, and taken back by a later process: a service restarts without closing a port.

    fdstore.put("web", listener)                # before the end of one process; what is stored is a copy, which outlives it
    [listener] = fdstore.get("web")             # in the next one; nothing is stored under that name then

A lifted connection is handed over to the kernel by being stored, as by any passing to a process outside the stack, and lifted again by
who takes it. Stored sockets outlive the helper. FdStoreError says what is wrong: no helper, a bad name, too many.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from . import ask
from .declare.names import DEFAULT_STACK


class FdStoreError(Exception):
    """The text says what failed, and what to do."""


@dataclass(frozen=True)
class Stored:
    """One that is stored: what it is in words, who stored it, seconds since then, and seconds that are left (0: no end)."""

    name: str
    what: str
    pid: int
    age: int
    left: int


class Client:
    """A connection with the helper of a stack, for several requests; it is closed by leaving `connected`."""

    def __init__(self, helper: ask.Helper) -> None:
        self._helper = helper

    def put(self, name: str, fd: int, seconds: int = 0) -> int:
        """Store a copy of a descriptor, for so many seconds (0: until it is taken); returns how many have that name now."""
        return int(self._helper.exchange("store", fd, name=name, seconds=seconds)[0]["count"])

    def take(self, name: str, index: int = 0, keep: bool = False) -> tuple[int, int]:
        """The index-th descriptor of that name, which is the caller's, and how many are stored under it now."""
        reply, fd = self._helper.exchange("retrieve", None, name=name, index=index, keep=keep)
        assert fd is not None
        return fd, int(reply["count"])

    def take_all(self, name: str, keep: bool = False) -> list[int]:
        """All of that name, oldest first. FdStoreError where there is none."""
        found: list[int] = []
        left = 1
        while left > (len(found) if keep else 0):
            fd, left = self.take(name, len(found) if keep else 0, keep)
            found.append(fd)
        return found

    def remove(self, name: str) -> int:
        """Close what is stored under that name; returns how many there were."""
        return int(self._helper.ask("discard", name=name)["count"])

    def list(self) -> list[Stored]:
        """All that is stored, oldest first."""
        found: list[Stored] = []
        while (reply := self._helper.ask("kept", index=len(found)))["name"]:
            found.append(Stored(reply["name"], reply["what"], reply["pid"], reply["age"], reply["left"]))
        return found


@contextmanager
def connected(stack: str = DEFAULT_STACK, uid: int | None = None) -> Iterator[Client]:
    """A connection with the helper of that stack."""
    with ask.connected(stack, uid, FdStoreError) as helper:
        yield Client(helper)


def _stack(stack: str | None) -> str:
    return stack or os.environ.get("SHAREDSTACK_STACK") or DEFAULT_STACK


def put(name: str, *sockets: socket.socket, seconds: int = 0, stack: str | None = None) -> int:
    """Store copies of sockets under a name, for so many seconds (0: until they are taken); returns how many have it now."""
    count = 0
    with connected(_stack(stack)) as client:
        for one in sockets:
            count = client.put(name, one.fileno(), seconds)
    return count


def get(name: str, *, keep: bool = False, stack: str | None = None) -> list[socket.socket]:
    """The sockets that are stored under a name, oldest first, none where there is none; they are stored on only with `keep`."""
    with connected(_stack(stack)) as client:
        if all(one.name != name for one in client.list()):
            return []
        return [socket.socket(fileno=fd) for fd in client.take_all(name, keep)]


def remove(name: str, *, stack: str | None = None) -> int:
    """Close what is stored under a name; returns how many there were."""
    with connected(_stack(stack)) as client:
        return client.remove(name)


def stored(*, stack: str | None = None) -> list[Stored]:
    """All that is stored."""
    with connected(_stack(stack)) as client:
        return client.list()
