"""One helper takes the place of another: asked for over the control socket, which changes hands, so that its name is never free.

1  the new one, which has loaded all that it needs, asks (`takeover`), and says which layout it has;
2  the old one answers with its sockets (`handover`), and serves nobody until it hears more. Nothing else changes hands: segments are
   adopted, stored sockets and lent interfaces are the keeper's;
3  the new one says `ready`. The old one ceases to do anything; where the layouts differ it lowers everything, and retires its segments;
4  the old one says `yours` and ends. By the end of the connection the new one knows that it has.
Until `yours` is sent the old one is the helper: if the new one dies or is silent it goes on serving. From then on the new one is, dead or
alive.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sharedstack.declare import layout
from sharedstack.declare.messages import MAX_MESSAGE

from . import protocol
from .environment import HelperError, Place
from .protocol import Refused

READY_WITHIN = 2.0  # for which the old one serves nobody
ANSWER_WITHIN = 15.0  # others may take over before, one after the other
ENDED_WITHIN = 10.0
_LOOK_EVERY = 0.25  # whether the one that is asked is stopped
_SOCKETS = 3  # control, nudge and notify
MOST_CLIENTS = 64
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid


class GoneError(Exception):
    """The helper that was asked has ended, or has given its place to another one."""


@dataclass
class Handed:
    """What the last helper gave."""

    control: socket.socket
    nudge: socket.socket | None = None
    notify: socket.socket | None = None
    clients: list[socket.socket] = field(default_factory=list)


def peer(connected: socket.socket) -> tuple[int, int]:
    """Pid and uid of the other end (SO_PEERCRED)."""
    pid, uid, _ = _CREDENTIALS.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, uid


def take(place: Place, address: bytes) -> Handed:
    """Take the place of the helper that has bound `address`: it has ended when this returns.

    GoneError: there is none, or it is another one by now. HelperError: it does not let us.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as asking:
        try:
            asking.settimeout(ANSWER_WITHIN)
            asking.connect(address)
        except OSError as error:  # or many ask it: try again
            raise GoneError from error
        pid, uid = peer(asking)
        if uid != place.uid:
            raise HelperError(f"the name of the control socket of stack {place.stack} is held by pid {pid} of uid {uid}; use --stack")
        exchange = _Exchange(asking, pid, place.stack)
        fields, fds = exchange.ask("takeover", "handover", hash=layout.HASH)
        sockets = [socket.socket(fileno=fd) for fd in fds]
        try:
            found = _SOCKETS + fields["clients"]
            if len(sockets) != found:
                raise HelperError(f"the helper, pid {pid}, handed {len(sockets)} descriptors over, not {found}")
            exchange.ask("ready", "yours")
        except Exception:
            for one in sockets:
                one.close()
            raise
        exchange.ended()
    sockets[0].listen(MOST_CLIENTS)  # from now on its clients see our credentials
    bound = [one if one.getsockname() else None for one in sockets[1:_SOCKETS]]
    return Handed(sockets[0], bound[0], bound[1], sockets[_SOCKETS:])


@dataclass
class _Exchange:
    """Questions to the old helper, which may be stopped, and answers."""

    asking: socket.socket
    pid: int
    stack: str

    def ask(self, kind: str, answer: str, **fields: Any) -> tuple[dict[str, Any], list[int]]:
        """The answer of that kind, and descriptors with it."""
        try:
            self.asking.send(protocol.encode(kind, **fields))
            self._wait(ANSWER_WITHIN)
            packet, fds, _, _ = socket.recv_fds(self.asking, MAX_MESSAGE, _SOCKETS + MOST_CLIENTS)
        except OSError as error:
            raise GoneError from error
        if not packet:
            raise GoneError
        try:
            name, got = protocol.decode_reply(packet)
        except Refused as refused:
            raise self._refused(str(refused)) from refused
        for fd in fds:
            os.set_inheritable(fd, False)
        if name == answer:
            return got, list(fds)
        for fd in fds:
            os.close(fd)
        raise self._refused(got["text"] if name == "error" else f"it answered {name}")

    def ended(self) -> None:
        """Return when the old helper has ended, which it promised to do at once."""
        with contextlib.suppress(OSError):
            self._wait(ENDED_WITHIN)

    def _wait(self, seconds: float) -> None:
        readable = select.poll()
        readable.register(self.asking, select.POLLIN)
        until = time.monotonic() + seconds
        while not readable.poll(_LOOK_EVERY * 1000):
            if _stopped(self.pid) or time.monotonic() > until:
                how = "is stopped" if _stopped(self.pid) else "does not answer"
                raise HelperError(
                    f"the helper of stack {self.stack}, pid {self.pid}, {how}; let it go on (kill -CONT {self.pid}), or end it"
                    f" (kill -KILL {self.pid}: connections and stored sockets outlive it), and start this one again"
                )

    def _refused(self, why: str) -> HelperError:
        return HelperError(f"the helper of stack {self.stack}, pid {self.pid}, cannot be replaced: {why}; end it (kill {self.pid}) first")


def _stopped(pid: int) -> bool:
    """Is it stopped by a signal or a debugger, as /proc tells?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    except OSError:
        return False


def give(connection: socket.socket, cease: Callable[[], Callable[[], None]]) -> bool:
    """The old one's part, once `handover` is sent: is the other one the helper now?

    `cease` has this one do nothing any more, and returns how to go on all the same.
    """
    readable = select.poll()
    readable.register(connection, select.POLLIN)
    if not readable.poll(READY_WITHIN * 1000):
        return False
    try:
        name, _ = protocol.decode_request(connection.recv(MAX_MESSAGE))
    except (OSError, Refused):
        return False
    if name != "ready":
        return False
    go_on = cease()
    try:
        connection.send(protocol.encode("yours"), socket.MSG_NOSIGNAL)
    except OSError:
        go_on()
        return False
    return True
