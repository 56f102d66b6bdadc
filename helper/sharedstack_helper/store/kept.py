"""What is stored: descriptors by name, oldest first, within limits, some with an end."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..loop import Loop, Timer
from ..protocol import Refused

MOST, MOST_OF_A_NAME = 512, 64
FOREVER = 0.0
_NAME = re.compile(r"[ -9;-~]{1,255}")  # as systemd has names of descriptors: printable, and no colon, which separates them


@dataclass
class Kept:
    """One descriptor; `until` is of the monotonic clock, FOREVER for no end."""

    number: int
    name: str
    fd: int
    pid: int
    since: float
    until: float

    @property
    def what(self) -> str:
        """What it is, for people: protocol, address, state."""
        try:
            with socket.socket(fileno=os.dup(self.fd)) as s:
                return _described(s)
        except OSError:
            return "not a socket"


class Backup(Protocol):
    """Holds the same descriptors in another process."""

    def keep(self, kept: Kept) -> None:
        """This one too."""

    def drop(self, numbers: list[int]) -> None:
        """Not these any more."""


class Store:
    """Descriptors by name. What is wrong with a request is a Refused. `dropped` is called when some are stored no more."""

    def __init__(self, loop: Loop, backup: Backup, adopted: list[Kept], dropped: Callable[[], None]) -> None:
        self._loop, self._backup, self._dropped = loop, backup, dropped
        self._kept = {kept.number: kept for kept in adopted}
        self._timers: dict[int, Timer] = {}
        for kept in adopted:
            self._limit(kept)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def all(self) -> list[Kept]:
        """All of them, oldest first."""
        return list(self._kept.values())

    def put(self, name: str, fd: int, pid: int, seconds: int) -> int:
        """Keep a copy of a descriptor, which stays the caller's, for so many seconds (0: until it is taken); how many have that name."""
        if not _NAME.fullmatch(name):
            raise Refused("name", "a name has 1 to 255 printable characters, and no colon")
        if len(self._kept) >= MOST or len(self.named(name)) >= MOST_OF_A_NAME:
            raise Refused("limit", f"{MOST} descriptors can be stored, {MOST_OF_A_NAME} of one name: remove some (sharedstack fdstore rm)")
        number, now = max(self._kept, default=0) + 1, time.monotonic()
        try:
            kept = Kept(number, name, os.dup(fd), pid, now, now + seconds if seconds else FOREVER)
        except OSError as error:
            raise Refused("limit", f"the helper has no descriptor left: {error.strerror}") from error
        self._kept[number] = kept
        self._backup.keep(kept)
        self._limit(kept)
        return len(self.named(name))

    def named(self, name: str) -> list[Kept]:
        """Those of that name, oldest first."""
        return [kept for kept in self._kept.values() if kept.name == name]

    def find(self, name: str, index: int) -> Kept:
        """The index-th of that name."""
        found = self.named(name)
        if index >= len(found):
            raise Refused("name", f"nothing is stored under {name!r}" if not found else f"{len(found)} are stored under {name!r}")
        return found[index]

    def at(self, index: int) -> Kept | None:
        """The index-th of all; None: there are not so many."""
        return self.all[index] if index < len(self._kept) else None

    def drop(self, *dropped: Kept) -> None:
        """They are stored no more; nothing, where they are not."""
        found = [kept for kept in dropped if self._kept.pop(kept.number, None)]
        for kept in found:
            if timer := self._timers.pop(kept.number, None):
                timer.cancel()
            os.close(kept.fd)
        if found:
            self._backup.drop([kept.number for kept in found])
            self._dropped()

    def remove(self, name: str) -> int:
        """Drop all of that name; how many there were."""
        found = self.named(name)
        self.drop(*found)
        return len(found)

    def _limit(self, kept: Kept) -> None:
        if kept.until != FOREVER:
            over: Callable[[], None] = lambda: self.drop(kept)  # noqa: E731
            self._timers[kept.number] = self._loop.later(max(0.0, kept.until - time.monotonic()), over)


def _described(s: socket.socket) -> str:
    kind = {socket.SOCK_STREAM: "stream", socket.SOCK_DGRAM: "datagram"}.get(s.type, f"type {s.type}")
    if s.family not in (socket.AF_INET, socket.AF_INET6):
        return f"{kind}, {s.family.name if isinstance(s.family, socket.AddressFamily) else s.family}"
    proto = {socket.SOCK_STREAM: "tcp", socket.SOCK_DGRAM: "udp"}.get(s.type, kind)
    here = _address(s.getsockname())
    if s.type == socket.SOCK_STREAM and s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return f"{proto} {here} listening"
    try:
        return f"{proto} {here} - {_address(s.getpeername())}"
    except OSError:
        return f"{proto} {here}"


def _address(name: tuple[str, int]) -> str:
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
