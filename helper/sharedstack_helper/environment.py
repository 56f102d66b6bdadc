"""Who and where we are: user, network namespace, pid namespace; the terms in which segments and sockets are named."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import socket
from dataclasses import dataclass

_SO_NETNS_COOKIE = 71  # asm-generic/socket.h; since Linux 5.14


# Descriptors: some twenty of its own, clients', and one for each participant.
FEWEST = 64


class HelperError(Exception):
    """The helper cannot start; the text is one line that says what failed, on what, and what to do."""


@dataclass(frozen=True)
class Place:
    """The user, the network namespace and the name that make a stack unique on this machine."""

    uid: int
    netns: int
    stack: str


def netns_cookie() -> int:
    """SO_NETNS_COOKIE of our network namespace; on older kernels the inode of /proc/self/ns/net.

    An AF_UNIX socket is asked: it belongs to the same namespace, and exists where AF_INET does not.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            return int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")
    except OSError:
        return os.stat("/proc/self/ns/net").st_ino


def pid_namespace() -> int:
    """Inode of our pid namespace, as participants write it into their slots; 0 if /proc is not there."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def fill_standard_descriptors() -> None:
    """Open /dev/null on those of 0, 1 and 2 that are closed, so that nothing of ours is ever taken for standard output."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: fd


def raise_descriptor_limit() -> None:
    """Each participant costs a pidfd: use what the hard limit allows. HelperError where that is not enough to begin with."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FEWEST:
        raise HelperError(f"may have {hard} descriptors, and needs {FEWEST} at least: raise the limit (ulimit -Hn)")
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def kernel_at_least(version: tuple[int, int]) -> bool:
    """Is the running kernel of this version, or newer?"""
    return tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2] if part.isdigit()) >= version
