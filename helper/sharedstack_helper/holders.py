"""Who holds which sockets open, as /proc tells: /proc/PID/fd, and what is under way in Unix sockets."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

_RIGHTS = re.compile(r"^scm_fds:\s*([1-9]\d*)", re.MULTILINE)


def held_open(participants: list[tuple[int, int]], inodes: set[int]) -> tuple[set[int], bool]:
    """Which of the sockets with these inodes participants (slot, pid) hold open, and whether some of them could not be looked at."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    held: set[int] = set()
    hidden = False
    for _, pid in participants:
        try:
            held |= {wanted[link] for link in links(pid).values() if link in wanted} if pid else set()
            hidden = hidden or not pid
        except PermissionError:
            hidden = True
        except OSError:
            continue  # it has just gone
    return held, hidden


def links(pid: int) -> dict[str, str]:
    """What the descriptors of a process lead to, by number. OSError if it is gone, or may not be looked at."""
    found = {}
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        try:
            found[name] = os.readlink(f"{folder}/{name}")
        except FileNotFoundError:
            continue  # closed meanwhile
    return found


def everybody() -> Iterator[int]:
    """The pids of all processes."""
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


@dataclass
class Holders:
    """Descriptors of some sockets: how many a process has of each. `hidden`: there may be more than were found."""

    of: dict[int, Counter[int]] = field(default_factory=dict)
    hidden: bool = False

    def sole(self, inode: int) -> int | None:
        """The process that has the only descriptor of that socket."""
        found = self.of.get(inode, Counter())
        return None if self.hidden or found.total() != 1 else next(iter(found))


def holders(pids: Iterable[int], inodes: set[int], rights: bool) -> Holders:
    """Look at these processes. `rights`: descriptors that are under way in one of their Unix sockets may be any.

    That is looked at last, and only if some socket has one descriptor: it takes longer than all the rest.
    """
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found = Holders()
    others: list[tuple[int, str]] = []
    for pid in pids:
        try:
            theirs = links(pid)
        except PermissionError:
            found.hidden |= _may_be_ours(pid)
            continue
        except OSError:
            continue  # it has just gone
        for number, link in theirs.items():
            if link in wanted:
                found.of.setdefault(wanted[link], Counter())[pid] += 1
            elif rights and link.startswith("socket:"):
                others.append((pid, number))
    if any(found.sole(inode) is not None for inode in inodes):
        found.hidden = any(_under_way(pid, number) for pid, number in others)
    return found


def any_under_way(pids: Iterable[int]) -> bool:
    """Is a descriptor, of whatever, under way in a Unix socket that one of these processes has, if it is in our network namespace?

    But for helpers: what is stored is under way for as long as it is.
    """
    ours = os.readlink("/proc/self/ns/net")
    for pid in pids:
        try:
            if os.readlink(f"/proc/{pid}/ns/net") != ours or _is_helper(pid):
                continue
            theirs = links(pid)
        except OSError:
            continue  # it has just gone, or is not ours to look at
        if any(link.startswith("socket:") and _under_way(pid, number) for number, link in theirs.items()):
            return True
    return False


def _is_helper(pid: int) -> bool:
    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
        return comm.read().startswith("sharedstack-")


def _may_be_ours(pid: int) -> bool:
    """May a process that cannot be looked at have got a descriptor unseen?

    One of another user got none without that being noticed; the first process inherits nothing, and not even root may look at it in some
    sandboxes.
    """
    if pid == 1:
        return False
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            uids = next((line.split()[1:] for line in status if line.startswith("Uid:")), [])
    except OSError:
        return False  # it has just gone
    return os.getuid() == 0 or str(os.getuid()) in uids


def _under_way(pid: int, number: str) -> bool:
    """Are descriptors in the queue of a Unix socket? (Kernels before 5.11 do not tell.)"""
    try:
        with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as info:
            return _RIGHTS.search(info.read()) is not None
    except OSError:
        return False  # closed meanwhile, with what was in it
