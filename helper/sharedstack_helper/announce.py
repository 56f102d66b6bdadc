"""Telling that the helper is ready: a line on standard output, a descriptor, systemd. None of them can make it fail, or wait."""

from __future__ import annotations

import contextlib
import os
import select
import socket


def say(line: str) -> None:
    """A line on standard output, wherever that leads."""
    _write(1, f"{line}\n")


def complain(line: str) -> None:
    """A line on standard error, with our name before it."""
    _write(2, f"sharedstack-helper: {line}\n")


def ready(stack: str, ready_fd: int | None) -> None:
    """The helper accepts participants now."""
    say(f"sharedstack-helper: ready, stack {stack}, pid {os.getpid()}")
    if ready_fd is not None:
        _write(ready_fd, "READY\n")
        if ready_fd > 2:
            with contextlib.suppress(OSError):
                os.close(ready_fd)
    notify("READY=1")


def notify(state: str) -> None:
    """sd_notify(3): one datagram to NOTIFY_SOCKET, where a leading @ means the abstract namespace."""
    target = os.environ.get("NOTIFY_SOCKET", "")
    if target[:1] not in ("/", "@"):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto(state.encode(), socket.MSG_DONTWAIT, "\0" + target[1:] if target[0] == "@" else target)


def _write(fd: int, text: str) -> None:
    """As far as it is taken at once: nobody may be reading that pipe, and a pipe that polls writable takes PIPE_BUF bytes (pipe(7))."""
    with contextlib.suppress(OSError, ValueError):  # no such descriptor
        room = select.poll()
        room.register(fd, select.POLLOUT)
        if room.poll(0):
            os.write(fd, text.encode(errors="replace")[: select.PIPE_BUF])
