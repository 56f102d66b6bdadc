"""The ends of a case: shs-peer as a child process that prints lines and, last, what it measured as JSON."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..demo.children import tail
from .stack import BenchError


def plain_environment() -> dict[str, str]:
    """Ours, with nothing in it that would load the library or name a stack; an LD_PRELOAD that is empty is not added to (option follow)."""
    return {name: value for name, value in os.environ.items() if name != "SHAREDSTACK_STACK"} | {"LD_PRELOAD": ""}


class Peer:
    """A running shs-peer in a session of its own. Leaving its `with` block ends it and its children."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.command, self.log, self._said = list(command), log, b""
        with log.open("wb") as errors:
            try:
                self.process = subprocess.Popen(
                    self.command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    start_new_session=True,
                    env=plain_environment(),
                    bufsize=0,
                )
            except OSError as error:
                raise BenchError(f"cannot run {command[0]}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:  # the group is there until it is waited for
            if self.process.poll() is None or kind is not None:
                os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def pid(self) -> int:
        """Process id; that of the program itself, as `sharedstack run` leaves no process between."""
        return self.process.pid

    def line(self, seconds: float) -> str:
        """The next line it prints; BenchError if it ends or says nothing in time."""
        until = time.monotonic() + seconds
        while b"\n" not in self._said:
            if not self._read(until):
                raise self._error("ended too early")
        line, _, self._said = self._said.partition(b"\n")
        return line.decode()

    def finish(self, seconds: float) -> dict[str, Any]:
        """End its input, wait for its end; what it printed last. BenchError if it fails or takes too long."""
        until = time.monotonic() + seconds
        if self.process.stdin is not None:
            self.process.stdin.close()
        while self._read(until):
            pass
        try:
            status = self.process.wait(max(until - time.monotonic(), 1.0))
        except subprocess.TimeoutExpired:
            raise self._error("does not end") from None
        if status != 0:
            raise self._error(f"ended with status {status}")
        lines = self._said.decode().splitlines()
        if not lines:
            raise self._error("printed no result")
        result: dict[str, Any] = json.loads(lines[-1])
        return result

    def _read(self, until: float) -> bool:
        """Take what it has printed; False at the end of its output, BenchError after the time `until`."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], max(until - time.monotonic(), 0.0))[0]:
            raise self._error("takes too long")
        more = os.read(self.process.stdout.fileno(), 1 << 16)
        self._said += more
        return bool(more)

    def _error(self, what: str) -> BenchError:
        return BenchError(f"`{' '.join(self.command)}` {what}: {tail(self.log)}")
