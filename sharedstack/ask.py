"""Asking the helper of a stack, by its control socket (declare/messages.py): what its commands and the Python interface do."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgpack

from .declare.messages import MAX_MESSAGE, PROTOCOL_VERSION
from .declare.names import control_socket

_PATIENCE = 10.0  # seconds for an answer


class Helper:
    """A connection with a helper, for several requests. What goes wrong is raised as `error`, with a text for people."""

    def __init__(self, connection: socket.socket, error: type[Exception]) -> None:
        self._connection, self._error = connection, error

    def ask(self, kind: str, /, **fields: Any) -> dict[str, Any]:
        """Send a message; the answer."""
        return self.exchange(kind, None, **fields)[0]

    def exchange(self, kind: str, fd: int | None, /, **fields: Any) -> tuple[dict[str, Any], int | None]:
        """The same with a descriptor along: of the message, and of the answer."""
        packet = msgpack.packb({"v": PROTOCOL_VERSION, "t": kind, **fields})
        try:
            socket.send_fds(self._connection, [packet], [] if fd is None else [fd])
            data, fds, _, _ = socket.recv_fds(self._connection, MAX_MESSAGE, 1, socket.MSG_CMSG_CLOEXEC)
            reply: dict[str, Any] = msgpack.unpackb(data)
        except (OSError, ValueError) as error:
            raise self._error(f"the helper does not answer: {error}") from error
        if reply["t"] == "error":
            raise self._error(reply["text"])
        return reply, fds[0] if fds else None


@contextmanager
def connected(stack: str, uid: int | None = None, error: type[Exception] = RuntimeError) -> Iterator[Helper]:
    """A connection with the helper of that stack, of that user or our own."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(_PATIENCE)
        try:
            connection.connect(control_socket(os.getuid() if uid is None else uid, stack))
        except OSError as e:
            raise error(f"stack {stack} has no helper ({e.strerror}): start one (sharedstack-helper --stack {stack})") from e
        yield Helper(connection, error)
