"""The real helper as a child process on a stack of its own, a client of its control socket, and a participant to kill."""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest

from sharedstack.declare import binary, layout, names
from sharedstack.declare.layout import CONSTANTS
from sharedstack.declare.messages import MAX_MESSAGE, PROTOCOL_VERSION
from sharedstack_helper import environment

COMMAND = [sys.executable, "-m", "sharedstack_helper"]
_numbers = itertools.count()


def wait_until(what: Callable[[], bool], seconds: float = 5) -> None:
    """Look every 5 ms until it is so."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.005)


class Client:
    """A connection to the control socket."""

    def __init__(self, stack: str, uid: int | None = None) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(10)
        self.socket.connect(names.control_socket(os.getuid() if uid is None else uid, stack))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, kind: str, **fields: Any) -> None:
        self.socket.send(msgpack.packb({"v": PROTOCOL_VERSION, "t": kind, **fields}))

    def reply(self) -> dict[str, Any]:
        return self.reply_and_fds()[0]

    def reply_and_fds(self) -> tuple[dict[str, Any], list[int]]:
        packet, fds, _, _ = socket.recv_fds(self.socket, MAX_MESSAGE, 8)
        assert packet, "the helper hung up without an answer"
        decoded: dict[str, Any] = msgpack.unpackb(packet)
        return decoded, fds

    def ask(self, kind: str, **fields: Any) -> dict[str, Any]:
        self.send(kind, **fields)
        return self.reply()


class Daemon:
    """A helper on a stack of its own; `start` may be called again after it ended."""

    def __init__(self) -> None:
        self.stack = f"t{os.getpid()}-{next(_numbers)}"
        self.netns = environment.netns_cookie()
        self.uid = os.getuid()
        self.process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, *arguments: str, prefix: tuple[str, ...] = (), **options: Any) -> Daemon:
        command = [*prefix, *COMMAND, "--stack", self.stack, *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("sharedstack-helper: ready"):
            pytest.fail(f"not ready: {line}{self.process.communicate()[1]}")
        return self

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; exit status and what it wrote on standard error."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=10)
        return self.process.returncode, errors

    def client(self) -> Client:
        return Client(self.stack)

    def ask(self, kind: str, **fields: Any) -> dict[str, Any]:
        with self.client() as client:
            return client.ask(kind, **fields)

    def attach(self) -> tuple[dict[str, Any], list[int]]:
        with self.client() as client:
            client.send("attach", hash=layout.HASH, netns=self.netns)
            return client.reply_and_fds()

    def path(self, part: str) -> Path:
        return Path(f"/dev/shm{names.segment(self.uid, self.netns, self.stack, part)}")

    def map(self, part: str) -> memoryview:
        """A segment, by name."""
        with self.path(part).open("r+b") as file:
            return memoryview(mmap.mmap(file.fileno(), 0))

    def header(self) -> binary.View:
        return binary.stack(self.map("stack"))

    def clean(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        for part in ("stack", "arena", "bulk"):
            with contextlib.suppress(FileNotFoundError):
                self.path(part).unlink()


class Participant:
    """A process that attached and claimed a slot; `how` is "ask" or "name" (by name, with a nudge)."""

    def __init__(self, daemon: Daemon, how: str = "ask", pass_fds: tuple[int, ...] = ()) -> None:
        self.daemon = daemon
        command = [sys.executable, __file__, daemon.stack, how]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=pass_fds)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the participant failed"
        self.slot = int(line)

    def state(self) -> int:
        return int(binary.slot(self.daemon.map("stack"), self.slot)["state"])

    def gone(self) -> bool:
        return self.state() == CONSTANTS["SLOT_FREE"]

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def _participate(stack: str, how: str) -> None:
    """What the process of a Participant does."""
    from types import SimpleNamespace

    from sharedstack_helper import shm
    from sharedstack_helper.native import Native

    daemon = Daemon()
    daemon.stack = stack
    if how == "ask":
        _, fds = daemon.attach()
        memory = mmap.mmap(fds[0], 0)
    else:
        with daemon.path("stack").open("r+b") as file:
            memory = mmap.mmap(file.fileno(), 0)
    native = Native(SimpleNamespace(stack_address=shm.address(memory), arena_address=0))
    slot = native.claim(os.getpid(), 0)
    if how == "name":
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nudge:
            nudge.sendto(f"slot {slot}".encode(), names.nudge_socket(os.getuid(), stack))
    print(slot, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _participate(sys.argv[1], sys.argv[2])
