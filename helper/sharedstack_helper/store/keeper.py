"""The keeper: a process that holds copies of descriptors, so that they outlive the helper: what programs store, what links are made of.

`python -m sharedstack_helper.store.keeper FD`: FD is its listening socket. A helper connects and tells it what to hold; it answers to
`drop`, when that is done, and to `all`, with one packet for each and an empty one. It ends when it holds nothing. One helper at a time
is served; another one that connects takes its place.

Packets are msgpack arrays: ["keep", number, name, pid, since, until] with the descriptor, ["drop", number], ["all"]; answers are as `keep`,
and ["dropped", number]. Parts of links have a name: ["hold", name, what is known of it] with descriptors, ["let", name]; they are told in
the answers to `all`, too.

["moving", command] says that a connection is on its way between the kernel and an engine; an empty command, that it is there. Its program
waits meanwhile: if the helper dies over it, the keeper starts another one at once, by that command, whoever else may do so too.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import msgpack

PACKET = 4096
MOST_FDS = 64


def send(to: socket.socket, packet: list[Any], fds: Sequence[int] = ()) -> None:
    """One packet, and descriptors with it."""
    socket.send_fds(to, [msgpack.packb(packet)], fds)


def receive(come_from: socket.socket) -> tuple[list[Any], list[int]]:
    """One packet, and the descriptors that came with it. EOFError at the end of the connection."""
    data, fds, _, _ = socket.recv_fds(come_from, PACKET, MOST_FDS)
    for fd in fds:
        os.set_inheritable(fd, False)
    if not data:
        raise EOFError
    return msgpack.unpackb(data), list(fds)


def detached(command: Sequence[str], keep: Sequence[int] = (), patience: float | None = None) -> None:
    """Run a command as nobody's child, with these descriptors. OSError or SubprocessError where that fails."""
    shell = ["sh", "-c", '"$@" </dev/null >/dev/null 2>&1 &', "sh", *command]  # a shell in between, so that it is init's child
    subprocess.run(shell, check=True, pass_fds=keep, start_new_session=True, cwd="/", timeout=patience)


class Keeper:
    """What is held; `run` serves until that is nothing."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._helper: socket.socket | None = None
        self._held: dict[int, tuple[list[Any], int]] = {}
        self._parts: dict[str, tuple[list[Any], list[int]]] = {}
        self._moving: list[str] = []
        self._began = False

    def run(self) -> None:
        """Serve until nothing is held any more."""
        while self._held or self._parts or not self._began:
            ready, _, _ = select.select([self._listener, *([self._helper] if self._helper else [])], [], [], self._patience())
            self._expire()
            if self._helper in ready:
                self._serve()
            if self._listener in ready:
                self._accept()

    def _accept(self) -> None:
        helper, _ = self._listener.accept()
        uid = int.from_bytes(helper.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[4:8], sys.byteorder)
        if uid not in (os.getuid(), 0):
            helper.close()
            return
        while self._helper and select.select([self._helper], [], [], 0)[0]:
            self._serve(followed=True)  # what the last one had told before it ended
        if self._helper:
            self._helper.close()
        self._helper = helper

    def _serve(self, followed: bool = False) -> None:
        assert self._helper
        try:
            packet, fds = receive(self._helper)
        except (EOFError, OSError):
            self._helper.close()
            self._helper = None
            self._began = True  # if it held nothing by now, it never will
            if not followed:
                self._replace()
            return
        if packet[0] == "keep" and fds:
            self._held[packet[1]] = (packet, fds[0])
            self._began = True
        elif packet[0] == "drop":
            self._drop(packet[1])
            with contextlib.suppress(OSError):
                send(self._helper, ["dropped", packet[1]])
        elif packet[0] == "all":
            self._moving = []  # whoever asks brings it to its end
            with contextlib.suppress(OSError):
                for one, held in self._held.values():
                    send(self._helper, one, [held])
                for one, parts in self._parts.values():
                    send(self._helper, one, parts)
                send(self._helper, [])
        else:
            self._serve_links(packet, fds)

    def _serve_links(self, packet: list[Any], fds: list[int]) -> None:
        if packet[0] in ("hold", "let"):
            for fd in self._parts.pop(packet[1], ([], []))[1]:
                os.close(fd)
        if packet[0] == "hold":
            self._parts[packet[1]] = (packet, fds)
            self._began = True
        elif packet[0] == "moving":
            self._moving = packet[1]

    def _replace(self) -> None:
        """The helper has gone: another one, if a program waits for what it was about."""
        command, self._moving = self._moving, []
        if command:
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                detached(command)

    def _drop(self, number: int) -> None:
        if number in self._held:
            os.close(self._held.pop(number)[1])

    def _patience(self) -> float | None:
        ends = [packet[5] for packet, _ in self._held.values() if packet[5]]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _expire(self) -> None:
        now = time.monotonic()
        for number, (packet, _) in list(self._held.items()):
            if packet[5] and packet[5] <= now:
                self._drop(number)


def main() -> None:
    """Serve on the descriptor that the command line names. Signals that end a helper are not for this."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as comm:
        comm.write("sharedstack-kee")
    Keeper(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
