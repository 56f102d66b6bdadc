"""The keeper of descriptors, alone: what a helper told it is kept, however the helper ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sharedstack_helper.store.keeper import receive, send


@contextmanager
def keeper() -> Iterator[tuple[subprocess.Popen[bytes], bytes]]:
    """One, and the address of its socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind("")  # a name of the kernel's choice
        listener.listen(4)
        fd = listener.fileno()
        process = subprocess.Popen([sys.executable, "-P", "-m", "sharedstack_helper.store.keeper", str(fd)], pass_fds=[fd])
        try:
            yield process, listener.getsockname()
        finally:
            process.kill()
            process.wait()


def helper(address: bytes) -> socket.socket:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link.settimeout(10)
    link.connect(address)
    return link


def everything(link: socket.socket) -> list[str]:
    """The names of all that it holds."""
    send(link, ["all"])
    names = []
    while True:
        packet, fds = receive(link)
        for fd in fds:
            os.close(fd)
        if not packet:
            return sorted(names)
        names.append(packet[1])


def test_what_a_helper_said_before_it_died_is_heard_though_another_one_is_there() -> None:
    with keeper() as (process, address), open(os.devnull, "rb") as null:
        first = helper(address)
        send(first, ["hold", "before", 1], [null.fileno()])
        assert everything(first) == ["before"]  # it serves this one
        os.kill(process.pid, signal.SIGSTOP)  # it has no CPU
        for number in range(40):
            send(first, ["hold", f"tcp {number:02}", number], [null.fileno()])
        send(first, ["let", "before"])
        first.close()
        with helper(address) as second:
            os.kill(process.pid, signal.SIGCONT)
            assert everything(second) == [f"tcp {number:02}" for number in range(40)]
