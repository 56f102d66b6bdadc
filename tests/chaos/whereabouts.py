"""Where a process is that should have gone on: for a person."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PIDFD_GETFD, _TCP_REPAIR = 438, 19


def where(pid: int) -> Iterator[str]:
    """What the kernel and gdb say of it, line by line."""
    yield f"process {pid}"
    for what in ("wchan", "stack", "syscall"):
        try:
            yield f"{what}: {Path(f'/proc/{pid}/{what}').read_text().strip()}"
        except OSError as error:
            yield f"{what}: {error}"
    command = ["gdb", "-p", str(pid), "-batch", "-ex", "thread apply all backtrace", "-ex", "print self"]
    try:
        yield subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        yield f"gdb: {error}"
    yield from _queues(pid)


def _queues(pid: int) -> Iterator[str]:
    """What the kernel has for the sockets of a process that does not read them now."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:  # it has ended
        return
    for held in sorted(Path(f"/proc/{pid}/fd").iterdir()):
        fd = libc.syscall(_PIDFD_GETFD, pidfd, int(held.name), 0)
        if fd < 0:
            continue
        try:
            one = socket.socket(fileno=fd)
        except OSError:  # it is none
            os.close(fd)
            continue
        with one, suppress(OSError):
            if one.type == socket.SOCK_STREAM and one.family == socket.AF_INET:
                state = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
                waiting = fcntl.ioctl(one.fileno(), termios.FIONREAD, bytes(4))
                repair = one.getsockopt(socket.IPPROTO_TCP, _TCP_REPAIR)
                yield f"descriptor {held.name}: state {state}, {int.from_bytes(waiting, sys.byteorder)} bytes to read, repair {repair}"
    os.close(pidfd)


def commands() -> Iterator[tuple[int, str]]:
    """Number and command line of all processes."""
    for folder in Path("/proc").glob("[1-9]*"):
        with suppress(OSError):
            yield int(folder.name), (folder / "cmdline").read_text(errors="replace").replace("\0", " ")
