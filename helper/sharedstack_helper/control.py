"""The control socket: who may attach gets the segments; every wrong packet gets its error, and costs nothing else.

Binding the name keeps a second helper of this stack away (`claim`). A client is served packet by packet; it is cut off after an error,
when it is silent for too long, or when its answer cannot be sent at once. There is room for one descriptor with a packet: the
kernel itself closes others that somebody sends along, and what no message asks for is closed here.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import sharedstack
from sharedstack.declare import layout, names
from sharedstack.declare.messages import MAX_MESSAGE

from . import announce, handover, protocol
from .environment import HelperError, Place
from .handover import Handed, peer
from .loop import Loop, Timer
from .protocol import Fields, Refused
from .segments import Segments
from .store.kept import FOREVER, Store

MAX_CLIENTS = handover.MOST_CLIENTS
SILENCE_SECONDS = 2.0
_RIGHTS = socket.CMSG_LEN(array.array("i").itemsize)  # CMSG_SPACE would have room for two


@dataclass(frozen=True)
class Running:
    """Another helper that serves this stack."""

    pid: int


def claim(place: Place, takeover: bool = False) -> Handed | Running:
    """The listening control socket, or the helper that has it, unless its place is to be taken. HelperError if a stranger has the name."""
    address = names.control_socket(place.uid, place.stack)
    deadline = time.monotonic() + (handover.ANSWER_WITHIN if takeover else 3)
    while True:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            listener.bind(address)
            listener.listen(MAX_CLIENTS)
            return Handed(listener)
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise HelperError(f"cannot bind the control socket of stack {place.stack}: {error.strerror}") from error
        if takeover:
            with contextlib.suppress(handover.GoneError):
                return handover.take(place, address)
        elif (running := _ask(place, address)) is not None:
            return running
        if time.monotonic() > deadline:
            raise HelperError(f"the control socket of stack {place.stack} is held by a process that does not answer; end it first")
        time.sleep(0.02)  # it is leaving just now


def _ask(place: Place, address: bytes) -> Running | None:
    """Ping whoever has bound the name; None if nobody answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as asking:
        asking.settimeout(2)
        try:
            asking.connect(address)
            pid, uid = peer(asking)
            if uid not in (place.uid, 0):
                raise HelperError(f"the name of the control socket of stack {place.stack} is held by pid {pid} of uid {uid}; use --stack")
            asking.send(protocol.encode("ping"))
            name, fields = protocol.decode_reply(asking.recv(MAX_MESSAGE))
        except (OSError, Refused):
            return None
    return Running(fields["pid"]) if name == "pong" else None


def _descriptor(rights: list[tuple[int, int, bytes]]) -> int | None:
    """The descriptor that came along, if one did."""
    for level, kind, data in rights:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received = array.array("i")
            received.frombytes(data[: len(data) - len(data) % received.itemsize])
            return received[0] if received else None
    return None


@dataclass
class _Client:
    connection: socket.socket
    pid: int
    cut_off: Timer
    sent: int | None = None  # a descriptor that came with the packet being served


class Wire(Protocol):
    """The links of the stack."""

    def lend(self, number: int) -> list[int] | None:
        """Descriptors of a link; None: there is none of that number."""

    def lift(self, endpoint: int, cookie: int, fd: int) -> int:
        """Lift a connection: 0 or a REASON_*. The descriptor is the callee's."""

    def lower(self, endpoint: int, cookie: int) -> int:
        """Lower a connection, or all peers of a datagram socket: 0 or a REASON_*."""

    def has(self, endpoint: int, cookie: int) -> bool:
        """Is it, or any peer of it, an engine's?"""

    def steer(self, endpoint: int, cookie: int, fd: int, local: str, remote: str, port: int) -> tuple[int, int, int]:
        """Carry datagrams by an engine: 0 or a REASON_*, link, handle. The descriptor stays the caller's."""


class Rings(Protocol):
    """The rings of the stack."""

    def lower(self, ends: list[list[int]]) -> list[int]:
        """Shut those of records, given by endpoint and cookie; how many were open of each."""


class Control:
    """Serves the control socket of one stack.

    `on_attach` is called with the pid of a process after it was lent the segments; `figures` yields participants and reaped. `successor` is
    called with the connection of another helper, which was handed our sockets, and whether it adopts our segments: is it the helper now?
    `reload` reads the policy again, and says in words what it is; HelperError: it stays as it was.
    """

    def __init__(
        self,
        loop: Loop,
        place: Place,
        segments: Segments,
        handed: Handed,
        on_attach: Callable[[int], None],
        figures: Callable[[], tuple[int, int]],
        wire: Wire,
        rings: Rings,
        store: Store,
        successor: Callable[[socket.socket, bool], bool],
        reload: Callable[[], str],
    ) -> None:
        self._loop, self._place, self._segments, self._handed = loop, place, segments, handed
        self._listener, self._successor, self._reload = handed.control, successor, reload
        self._wire, self._rings, self._store = wire, rings, store
        self._on_attach, self._figures = on_attach, figures
        self._clients: dict[int, _Client] = {}
        self._accepting = False
        self._draining = False
        self._refused = 0
        for client in handed.clients:
            self._take(client)
        self._accept_again()

    def drain(self) -> None:
        """Answer whoever waits that the helper is leaving; to be called when the loop has ended."""
        self._draining = True
        while self._accepting and len(self._clients) < MAX_CLIENTS and self._accept_one():
            pass
        for client in list(self._clients.values()):
            self._serve(client)

    def _accept_again(self) -> None:
        if not self._accepting and len(self._clients) < MAX_CLIENTS:
            self._accepting = True
            self._loop.watch(self._listener.fileno(), self._accept)

    def _pause(self) -> None:
        if self._accepting:
            self._accepting = False
            self._loop.forget(self._listener.fileno())

    def _accept(self) -> None:
        self._accept_one()
        if len(self._clients) >= MAX_CLIENTS:
            self._pause()

    def _accept_one(self) -> bool:
        """Take one client from the queue; False if none waits, or none can be taken now."""
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._pause()
                self._loop.later(0.1, self._accept_again)
                return False
            return True  # this one has gone already
        self._take(connection)
        return True

    def _take(self, connection: socket.socket) -> None:
        """A client, who may have asked something already."""
        connection.setblocking(False)
        pid, uid = peer(connection)
        cut_off = self._loop.later(SILENCE_SECONDS, lambda: self._drop(client))
        client = _Client(connection, pid, cut_off)
        self._clients[connection.fileno()] = client
        self._loop.watch(connection.fileno(), lambda: self._serve(client))
        if uid not in (self._place.uid, 0):
            text = f"stack {self._place.stack} belongs to uid {self._place.uid}, you are uid {uid}; start a helper of your own"
            self._refuse(client, Refused("uid", text))

    def _serve(self, client: _Client) -> None:
        """Receive and answer one packet."""
        try:
            packet, rights, flags, _ = client.connection.recvmsg(MAX_MESSAGE, _RIGHTS, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
            return
        client.sent = _descriptor(rights)
        try:
            if flags & socket.MSG_TRUNC:
                raise Refused("oversized", f"the packet is larger than {MAX_MESSAGE} bytes; no message is")
            if not packet:  # the end of the connection, or an empty packet: they look the same
                raise Refused("malformed", "the packet is empty; send a msgpack map with v and t")
            name, fields = protocol.decode_request(packet)
            self._answer(client, name, fields)
        except Refused as refused:
            self._refuse(client, refused)
        finally:
            if client.sent is not None:
                os.close(client.sent)

    def _answer(self, client: _Client, name: str, fields: Fields) -> None:
        if self._draining:
            raise Refused("draining", f"the helper of stack {self._place.stack} (pid {os.getpid()}) is leaving; start another")
        if name == "attach":
            self._check(fields)
            bulk_id = self._segments.bulk_id
            packet = protocol.encode("lend", hash=layout.HASH, name=self._place.stack, bulk_id=bulk_id)
            if self._send(client, packet, self._segments.fds):
                self._on_attach(client.pid)
        elif name == "ping":
            self._send(client, protocol.encode("pong", pid=os.getpid(), release=sharedstack.__version__))
        elif name == "status":
            participants, reaped = self._figures()
            packet = protocol.encode(
                "state",
                pid=os.getpid(),
                release=sharedstack.__version__,
                stack=self._place.stack,
                participants=participants,
                reaped=reaped,
                refused=self._refused,
            )
            self._send(client, packet)
        elif name == "reload":
            self._send(client, protocol.encode("reloaded", policy=self._reloaded()))
        elif name == "takeover":
            self._hand_over(client, fields)
        elif name == "unlift":
            self._send(client, protocol.encode("unlifted", results=self._unlift(fields["ends"])))
        elif name in ("store", "retrieve", "discard", "kept"):
            self._answer_store(client, name, fields)
        elif name in ("borrow", "lift", "steer", "lower"):
            self._answer_wire(client, name, fields)
        else:
            raise Refused("unknown", f"this helper does not serve {name}")
        client.cut_off.cancel()
        client.cut_off = self._loop.later(SILENCE_SECONDS, lambda: self._drop(client))

    def _reloaded(self) -> str:
        try:
            return self._reload()
        except HelperError as error:
            announce.complain(f"{error}; the policy stays as it was")
            raise Refused("policy", str(error)[: MAX_MESSAGE // 4]) from error

    def _hand_over(self, client: _Client, fields: Fields) -> None:
        """Another helper is to take our place; it is cut off if it does not, and we go on."""
        if peer(client.connection)[1] != self._place.uid:
            raise Refused("uid", f"only uid {self._place.uid} may take over")
        others = [one.connection for one in self._clients.values() if one is not client]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as none:
            sockets = [self._listener, self._handed.nudge or none, self._handed.notify or none, *others]
            adopt = fields["hash"] == layout.HASH
            packet = protocol.encode("handover", adopt=adopt, clients=len(others))
            sent = self._send(client, packet, [one.fileno() for one in sockets])
        if sent and not self._successor(client.connection, adopt):
            raise Refused("draining", "you did not say ready in time: this helper goes on")

    def _unlift(self, ends: list[list[int]]) -> list[list[int | bool]]:
        results: list[list[int | bool]] = []
        for end, rings in zip(ends, self._rings.lower(ends), strict=True):
            wire = self._wire.has(*end)
            results.append([rings, wire, self._wire.lower(*end) if wire else 0])
        return results

    def _answer_wire(self, client: _Client, name: str, fields: Fields) -> None:
        if name == "borrow":
            fds = self._wire.lend(fields["link"])
            if fds is None:
                raise Refused("field", f"stack {self._place.stack} has no link {fields['link']}")
            self._send(client, protocol.encode("wire", sockets=len(fds) - 4), fds)
            return
        if name in ("lift", "steer") and client.sent is None:
            raise Refused("field", f"message {name} comes without the descriptor of a socket")
        if name == "steer" and client.sent is not None:
            where = (fields["local"], fields["remote"], fields["port"])
            why, link, handle = self._wire.steer(fields["endpoint"], fields["cookie"], client.sent, *where)
            self._send(client, protocol.encode("steered", why=why, link=link, handle=handle))
            return
        if name == "lift" and client.sent is not None:
            fd, client.sent = client.sent, None
            why = self._wire.lift(fields["endpoint"], fields["cookie"], fd)
        else:
            why = self._wire.lower(fields["endpoint"], fields["cookie"])
        self._send(client, protocol.encode("done", why=why))

    def _answer_store(self, client: _Client, name: str, fields: Fields) -> None:
        if name == "store":
            if client.sent is None:
                raise Refused("field", "message store comes without a descriptor")
            count = self._store.put(fields["name"], client.sent, client.pid, fields["seconds"])
            self._send(client, protocol.encode("stored", count=count))
        elif name == "retrieve":
            kept = self._store.find(fields["name"], fields["index"])
            left = len(self._store.named(kept.name)) - (not fields["keep"])
            if self._send(client, protocol.encode("handed", count=left), [kept.fd]) and not fields["keep"]:
                self._store.drop(kept)  # not before it is on its way
        elif name == "discard":
            self._send(client, protocol.encode("stored", count=self._store.remove(fields["name"])))
        else:
            self._send(client, self._listed(fields["index"]))

    def _listed(self, index: int) -> bytes:
        total, kept, now = len(self._store), self._store.at(index), time.monotonic()
        if kept is None:
            return protocol.encode("keeps", total=total, name="", what="", pid=0, age=0, left=0)
        left = 0 if kept.until == FOREVER else max(1, round(kept.until - now))
        age = max(0, round(now - kept.since))
        return protocol.encode("keeps", total=total, name=kept.name, what=kept.what, pid=kept.pid, age=age, left=left)

    def _check(self, fields: Fields) -> None:
        if fields["hash"] != layout.HASH:
            hashes = f"your layout hash is {fields['hash']:#018x}, the helper's {layout.HASH:#018x}"
            raise Refused("layout", f"{hashes}: library and helper are of different releases; restart the helper of yours")
        if fields["netns"] != self._place.netns:
            both = f"you are in network namespace {fields['netns']}, the stack in {self._place.netns}"
            raise Refused("netns", f"{both}; start a helper in yours")

    def _refuse(self, client: _Client, refused: Refused) -> None:
        """Answer with an error and cut off; what it sent besides is read first, else it would get ECONNRESET instead."""
        with contextlib.suppress(OSError):
            for _ in range(16):
                if not client.connection.recv(1):
                    break
        self._refused += self._send(client, protocol.error(refused))
        self._drop(client)

    def _send(self, client: _Client, packet: bytes, fds: list[int] | None = None) -> bool:
        """Send without waiting; whoever does not take its answer is cut off."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            client.connection.sendmsg([packet], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            return True
        except OSError:
            self._drop(client)
            return False

    def _drop(self, client: _Client) -> None:
        client.cut_off.cancel()
        fd = client.connection.fileno()
        if self._clients.pop(fd, None) is not None:
            self._loop.forget(fd)
            client.connection.close()
            self._accept_again()
