"""Descriptors that programs store by sd_notify(3): FDSTORE=1 and FDNAME=…, as to systemd; FDSTOREREMOVE=1 removes.

Programs find the socket by NOTIFY_SOCKET, which `sharedstack fdstore get NAME -- CMD` sets. All else that they notify of is nobody's affair
here. Each descriptor that is not stored is closed, which is what sd_notify_barrier waits for.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct

from sharedstack.declare import names

from .. import announce
from ..environment import Place
from ..loop import Loop
from ..protocol import Refused
from .kept import MOST_OF_A_NAME, Store

_LONGEST = 4096
_CREDENTIALS = struct.Struct("=iII")
_UNNAMED = "stored"  # as systemd calls what comes without a name


def listen(loop: Loop, place: Place, store: Store, handed: socket.socket | None = None) -> socket.socket | None:
    """Serve the socket, bound here or `handed` over; None, with a complaint, where the name is taken."""
    notices = handed or _bind(place)
    if notices is not None:
        bound = notices
        loop.watch(bound.fileno(), lambda: _receive(bound, place.uid, store))
    return notices


def _bind(place: Place) -> socket.socket | None:
    notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    notices.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    try:
        notices.bind(names.notify_socket(place.uid, place.stack))
    except OSError as error:
        notices.close()
        announce.complain(f"cannot bind the notification socket: {error.strerror}; sd_notify stores nothing")
        return None
    return notices


def _receive(notices: socket.socket, uid: int, store: Store) -> None:
    room = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(4 * MOST_OF_A_NAME)
    with contextlib.suppress(BlockingIOError):
        data, controls, _, _ = notices.recvmsg(_LONGEST, room, socket.MSG_CMSG_CLOEXEC)
        fds: list[int] = []
        pid = owner = -1
        for level, kind, content in controls:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds += struct.unpack(f"={len(content) // 4}i", content[: len(content) // 4 * 4])
            elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                pid, owner, _ = _CREDENTIALS.unpack(content[: _CREDENTIALS.size])
        try:
            if owner in (uid, 0):
                _handle(data, fds, pid, store)
        finally:
            for fd in fds:
                os.close(fd)


def _handle(data: bytes, fds: list[int], pid: int, store: Store) -> None:
    said = dict(line.split("=", 1) for line in data.decode(errors="replace").splitlines() if "=" in line)
    name = said.get("FDNAME", _UNNAMED)
    try:
        if said.get("FDSTORE") == "1":
            for fd in fds:
                store.put(name, fd, pid, 0)
        elif said.get("FDSTOREREMOVE") == "1":
            store.remove(name)
    except Refused as refused:
        announce.complain(f"process {pid} stores a descriptor in vain: {refused.text}")
