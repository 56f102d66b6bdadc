"""Who a participant is, as /proc says: user, groups, and program."""

from __future__ import annotations

import os
from contextlib import suppress

from .rules import Participant

_DELETED = " (deleted)"  # proc(5): an upgrade has replaced the file since


def unknown(uid: int) -> Participant:
    """One of which nothing but its user is known: a process that cannot be seen from here."""
    return Participant(uid, None, None)


def who(pid: int, uid: int) -> Participant:
    """The process `pid`, in whose stead `uid` is believed where it cannot be looked at; of a program that is just executed, the new one."""
    found = unknown(uid)
    with suppress(OSError):
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
        groups = frozenset(int(gid) for name in ("Gid", "Groups") for gid in fields[name].split())
        found = Participant(int(fields["Uid"].split()[0]), groups, None)
        return Participant(found.uid, groups, os.readlink(f"/proc/{pid}/exe").removesuffix(_DELETED))
    return found
