"""Looking at the kernel's rules on lo whenever it tells of a change, and keeping packets there while one counts, changes or drops them.

1  a notice, of nftables, an interface, its queues and filters, or an address: what it says is not read, it is one reason to look;
2  a look, in a thread of its own since a large ruleset takes seconds: all is read, and walked through (walk.py);
3  its result, in the main thread: families are kept (stack.kept, native/endpoint/policy.c), or may be lifted again.
The first look is waited for, for a tenth of a second; until it has come, everything on lo stays in the kernel. Looks take a fifth of a
CPU at most. Changes of iptables-legacy are told by nobody: they are seen at the next look, whatever is the reason for that.
"""

from __future__ import annotations

import ctypes
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from sharedstack.declare.layout import CONSTANTS

from .. import announce, native
from ..loop import Loop, Timer
from ..segments import Segments
from . import devices, nft, walk
from .walk import Finding

_NETLINK_NETFILTER = 12
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_GROUPS = {
    socket.NETLINK_ROUTE: (1, 4, 5, 9),  # RTNLGRP_LINK, TC, IPV4_IFADDR, IPV6_IFADDR
    _NETLINK_NETFILTER: (7,),  # NFNLGRP_NFTABLES
}
_BOTH = CONSTANTS["KEPT_INET"] | CONSTANTS["KEPT_INET6"]
_KEPT = {4: CONSTANTS["KEPT_INET"], 6: CONSTANTS["KEPT_INET6"], 0: _BOTH}
_SOON, _SHARE = 0.01, 5
_FIRST_WAIT = 0.1
_ROOM = 1 << 20


@dataclass(frozen=True)
class Seen:
    """A look: what was found, and what could not be looked at, for people (empty: nothing)."""

    found: tuple[Finding, ...] = ()
    hidden: str = ""

    @property
    def kept(self) -> int:
        """KEPT_* for it."""
        return sum({bit for one in self.found for bit in (1, 2) if _KEPT[one.version] & bit})

    @property
    def text(self) -> str:
        """What keeps them, in short."""
        first = self.found[0].text if self.found else ""
        more = len({one.text for one in self.found}) - 1
        return f"{first}, and {more} more" if more > 0 else first


def look() -> Seen:
    """Look now, in whichever thread."""
    try:
        found, own, lo = devices.look()
    except Exception as error:  # pyroute2 raises many kinds
        return Seen((), f"the interface lo cannot be looked at: {error}")
    try:
        return Seen((*found, *walk.look(nft.read(), own, lo)))
    except OSError as error:
        if isinstance(error, PermissionError):
            return Seen(tuple(found), "the rules of nftables cannot be seen without CAP_NET_ADMIN")
        return Seen(tuple(found), str(error))


class Watcher:
    """Keeps packets on lo in the kernel while its rules ask for it. All but the looks runs in the main thread."""

    def __init__(self, loop: Loop, segments: Segments, heed: bool) -> None:
        self._loop, self._segments = loop, segments
        self._keep = native.function("policy_keep", ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_char_p)
        self._done = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._listening: list[socket.socket] = []
        self._thread: threading.Thread | None = None
        self._timer: Timer | None = None
        self._again = False
        self._delay = _SOON
        self._latest: Seen | None = None
        self._said = ""
        self._heed = False
        loop.watch(self._done, self._finished)
        if heed:
            self.heed(True)
        else:
            self._use(Seen())

    def heed(self, wanted: bool) -> None:
        """Respect these rules from now on, or ignore them."""
        if wanted == self._heed:
            return
        self._heed = wanted
        if not wanted:
            for one in self._listening:
                self._loop.forget(one.fileno())
                one.close()
            self._listening.clear()
            self._use(Seen())
            return
        for protocol, groups in _GROUPS.items():
            self._listen(protocol, groups)
        if not self._segments.adopted:
            self._put(_BOTH, "the helper has not looked at the kernel's rules yet")
        self._look()
        if self._thread is not None:
            self._thread.join(_FIRST_WAIT)
            if not self._thread.is_alive():
                self._finished()

    def _listen(self, protocol: int, groups: tuple[int, ...]) -> None:
        """Have the kernel tell of changes, as far as it lets us."""
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol)
        try:
            made.bind((0, 0))
            for group in groups:
                made.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        except OSError:
            made.close()  # then it cannot be looked at either, and the look says so
            return
        self._listening.append(made)
        self._loop.watch(made.fileno(), lambda: self._noticed(made))

    def _noticed(self, told: socket.socket) -> None:
        with suppress(OSError):  # ENOBUFS: so much has changed that some of it was not told
            for _ in range(1000):
                told.recv(_ROOM)
        if self._timer is None:
            self._timer = self._loop.later(self._delay, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._thread is not None:
            self._again = True
            return
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        began = time.thread_time()
        self._latest = look()
        self._delay = max(_SOON, (time.thread_time() - began) * _SHARE)
        os.eventfd_write(self._done, 1)

    def _finished(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._done)
        if self._thread is None or self._latest is None:
            return
        self._thread.join()
        seen, self._thread, self._latest = self._latest, None, None
        if self._heed:
            self._use(seen)
        if self._again:
            self._again = False
            self._timer = self._timer or self._loop.later(self._delay, self._look)

    def _use(self, seen: Seen) -> None:
        self._put(seen.kept, seen.text)
        if seen.text != self._said:
            announce.complain(
                f"what goes by lo stays in the kernel: {seen.text}" if seen.text else "what goes by lo may be lifted: its rules have gone"
            )
        self._said = seen.text

    def _put(self, families: int, why: str) -> None:
        self._keep(self._segments.stack_address, self._segments.arena_address, families, why.encode())
