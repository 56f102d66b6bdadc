"""The helper of a place: one that the run began, or one that was there before it, since a keeper had begun it."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

PATIENCE = 10.0


class Serving:
    """Who serves: known when the one that is begun here says that it is ready, or who is."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.pid = 0
        """Of the one that serves; 0: it is not known yet."""
        with log.open("ab") as complaints:
            self._begun = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, cwd="/")
        assert self._begun.stdout
        os.set_blocking(self._begun.stdout.fileno(), False)
        self._said = b""
        self._pidfd = -1

    def ended(self) -> bool:
        """Is there none, or none any more?"""
        over = False
        if not self.pid:
            over = self._listen()
        if self._pidfd >= 0:
            over = bool(select.select([self._pidfd], [], [], 0)[0])
        if over:
            self._forget()
        return over

    def end(self, number: int) -> None:
        """By that signal; SIGKILL if it is not enough."""
        self.ended()
        if self._pidfd < 0:
            self._begun.kill()
        else:
            for one in (number, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, one)
                if select.select([self._pidfd], [], [], PATIENCE)[0]:
                    break
        self._forget()

    def children(self) -> set[int]:
        """Processes that are waited for here."""
        return {self._begun.pid} if self._begun.poll() is None else set()

    def _listen(self) -> bool:
        assert self._begun.stdout
        with suppress(BlockingIOError):
            said = os.read(self._begun.stdout.fileno(), 4096)
            self._said += said
            if found := re.search(rb"pid (\d+)$", self._said, re.M):
                self.pid = int(found[1])
                try:
                    self._pidfd = os.pidfd_open(self.pid)
                except ProcessLookupError:
                    return True
            return not said
        return False

    def _forget(self) -> None:
        self._begun.wait(PATIENCE)
        assert self._begun.stdout
        self._begun.stdout.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
