"""The helper's side of the keeper: started when something is to be held, found again by the next helper."""

from __future__ import annotations

import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sharedstack.declare import names

from .. import announce
from ..environment import Place
from ..loop import Loop
from .keeper import detached, receive, send
from .kept import Kept

_PATIENCE = 5.0
_DROPPED_WITHIN = _TOLD_WITHIN = 0.2
_QUICK, _MOST_QUICK = 1.0, 4  # seconds that a keeper lives at least, and how many in a row may not


@dataclass
class Part:
    """Descriptors of a link, and what is known of them."""

    about: list[Any]
    fds: list[int]


class KeeperOf:
    """The keeper of a stack. Without one, which is complained of, what it would hold lives as long as the helper.

    `parts`: by name, what it holds of links.
    """

    def __init__(self, loop: Loop, place: Place) -> None:
        self._loop, self._address = loop, names.keeper_socket(place.uid, place.stack)
        self._uid = place.uid
        self._link: socket.socket | None = None
        self._held: Callable[[], list[Kept]] = list
        self.parts: dict[str, Part] = {}
        self._started, self._quick_ends = 0.0, 0
        self._dropping = 0  # it has not said yet that it has closed so many

    def holds(self, held: Callable[[], list[Kept]]) -> None:
        """Where to learn what another keeper has to hold, should this one die."""
        self._held = held

    def adopt(self) -> list[Kept]:
        """What the keeper of the last helper holds; nothing, where there is none."""
        link = self._connect()
        if link is None:
            return []
        found = []
        try:
            link.settimeout(_PATIENCE)
            send(link, ["all"])
            while True:
                packet, fds = receive(link)
                if not packet:
                    break
                if packet[0] == "hold":
                    self.parts[packet[1]] = Part(packet[2], fds)
                elif fds:
                    _, number, name, pid, since, until = packet
                    found.append(Kept(number, name, fds[0], pid, since, until))
        except (EOFError, OSError, ValueError) as error:
            announce.complain(f"the keeper of stored sockets does not answer: {error}")
        self._use(link)
        return found

    def keep(self, kept: Kept) -> None:
        """The keeper holds it too."""
        if self._link is None:
            self._start()
        else:
            self._send(["keep", kept.number, kept.name, kept.pid, kept.since, kept.until], [kept.fd])

    def hold(self, name: str, about: list[Any], fds: list[int]) -> None:
        """These descriptors of a link, too, which stay the caller's and are open until `let`."""
        self.parts[name] = Part(about, fds)
        if self._link is None:
            self._start()
        else:
            self._send(["hold", name, about], fds)

    def let(self, name: str) -> None:
        """Not these any more."""
        if self.parts.pop(name, None):
            self._send(["let", name])

    def moving(self, command: Sequence[str]) -> None:
        """A program waits for us: if we die, it is to start another helper by this command; an empty one: not any more."""
        self._send(["moving", list(command)])

    def drop(self, numbers: list[int]) -> None:
        """Not these any more: the keeper has closed them when this returns, if it is not stopped, or kept from running."""
        self._dropping += sum(self._send(["drop", number]) for number in numbers)
        until = time.monotonic() + _DROPPED_WITHIN
        while self._link and self._dropping and select.select([self._link], [], [], max(0.0, until - time.monotonic()))[0]:
            self._listen()

    def close(self) -> None:
        """The keeper goes on with what it holds."""
        self._dropping = 0
        if self._link:
            self._loop.forget(self._link.fileno())
            self._link.close()
            self._link = None

    def _connect(self) -> socket.socket | None:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            link.connect(self._address)
            _, uid, _ = struct.unpack("=iII", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        except OSError:
            link.close()
            return None
        if uid != self._uid:
            announce.complain(f"the name of the keeper of stored sockets is held by uid {uid}: they are not kept beyond this helper")
            link.close()
            return None
        return link

    def _use(self, link: socket.socket) -> None:
        link.setblocking(False)
        self._link, self._started = link, time.monotonic()
        self._loop.watch(link.fileno(), self._listen)

    def _listen(self) -> None:
        """It says that it has closed something, or it has ended."""
        try:
            if self._link:
                receive(self._link)
                self._dropping -= 1
        except BlockingIOError:
            pass
        except (EOFError, OSError):
            self._ended()

    def _ended(self) -> None:
        """The keeper was killed, or holds nothing any more."""
        self.close()
        self._quick_ends = self._quick_ends + 1 if time.monotonic() - self._started < _QUICK else 0
        held = self._held() or self.parts
        if held and self._quick_ends < _MOST_QUICK:
            self._start()
        elif held:
            announce.complain("the keeper ends as soon as it is started: stored sockets and links do not outlive this helper")

    def _start(self) -> None:
        """A keeper of our own, which is nobody's child; it gets all that is stored."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as listener:
            try:
                listener.bind(self._address)
                listener.listen(4)
                command = [sys.executable, "-P", "-m", "sharedstack_helper.store.keeper", str(listener.fileno())]
                detached(command, [listener.fileno()], _PATIENCE)
            except (OSError, subprocess.SubprocessError) as error:
                announce.complain(f"no keeper of stored sockets can be started: {error}; they do not outlive this helper")
                return
            link = self._connect()
        if link is None:
            return
        self._use(link)
        for kept in self._held():
            self.keep(kept)
        for name, part in self.parts.items():
            self._send(["hold", name, part.about], part.fds)

    def _send(self, packet: list[Any], fds: Sequence[int] = ()) -> bool:
        until = time.monotonic() + _TOLD_WITHIN
        while self._link:
            try:
                send(self._link, packet, fds)
                return True
            except BlockingIOError:
                if not select.select([], [self._link], [], max(0.0, until - time.monotonic()))[1]:
                    announce.complain("the keeper is stopped: what it is to hold now does not outlive this helper")
                    break
            except OSError:
                break  # it has ended, which _ended is told
        return False
