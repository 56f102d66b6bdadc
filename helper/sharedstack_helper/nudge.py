"""The nudge socket: `slot N` tells that a participant took a slot without asking (a forked child, one that attached by name).

What it says is a hint: any well-formed nudge causes one look at all slots, so that nudges lost to a full queue do not matter.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable

from sharedstack.declare import names

from . import announce
from .environment import Place
from .loop import Loop

_NUDGE = re.compile(rb"slot \d{1,5}\n?")
_BATCH = 256


def listen(loop: Loop, place: Place, on_nudge: Callable[[], None], handed: socket.socket | None = None) -> socket.socket | None:
    """Call `on_nudge` once for each batch that comes by the socket, bound here or `handed` over.

    None, with a complaint, where the name is taken.
    """
    nudges = handed or _bind(place)
    if nudges is not None:
        bound = nudges
        loop.watch(bound.fileno(), lambda: _receive(bound, on_nudge))
    return nudges


def _bind(place: Place) -> socket.socket | None:
    nudges = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        nudges.bind(names.nudge_socket(place.uid, place.stack))
    except OSError as error:
        nudges.close()
        announce.complain(f"cannot bind the nudge socket: {error.strerror}; deaths of forked children are noticed later")
        return None
    return nudges


def _receive(nudges: socket.socket, on_nudge: Callable[[], None]) -> None:
    heard = False
    with contextlib.suppress(OSError):
        for _ in range(_BATCH):
            heard = bool(_NUDGE.fullmatch(nudges.recv(16))) or heard
    if heard:
        on_nudge()
