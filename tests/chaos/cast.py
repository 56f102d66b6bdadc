"""The processes of a run: begun, replaced when they die, killed and stopped, and looked after: nobody may wait for ever."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from chaos.ledger import Ledger
from chaos.places import Place, library
from chaos.sanitizers import Sanitizer

PR_SET_CHILD_SUBREAPER = 36


class Cast:
    """All actors, and the children that they have."""

    def __init__(
        self, ledger: Ledger, actor: str, mode: str, places: list[Place], dice: random.Random, sanitizer: Sanitizer | None
    ) -> None:
        self.ledger, self.actor, self.mode, self.places, self.dice = ledger, actor, mode, places, dice
        self.preload = sanitizer.preload if sanitizer else library()
        self.environment = sanitizer.environment if sanitizer else {}
        self.actors: dict[int, subprocess.Popen[bytes]] = {}
        self.lives: dict[int, int] = {}
        self.stopped: dict[int, tuple[int, float]] = {}
        self.begun = self.kills = self.stops = 0
        self.bad: list[str] = []
        self.killed: dict[int, float] = {}
        # an actor that is killed leaves children: they become ours
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def begin(self, place: Place, number: int) -> None:
        """An actor in that place of the table, for the first time or again."""
        life = self.lives[number] = self.lives.get(number, -1) + 1
        argv = place.command(
            "nice", "-n", "19", "env", f"LD_PRELOAD={self.preload}", self.actor, str(self.ledger.path), str(number), str(life)
        )
        self.actors[number] = subprocess.Popen(
            argv, env=place.environ(self.mode) | self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        self.begun += 1

    def begin_all(self) -> None:
        for place in self.places:
            for number in place.numbers:
                self.begin(place, number)

    def reap(self) -> list[int]:
        """Whoever has ended; numbers of actors among them."""
        ended = []
        for number, process in list(self.actors.items()):
            if process.poll() is not None:
                if process.returncode not in (0, -signal.SIGKILL):
                    self.bad.append(f"actor {number} ended with status {process.returncode}")
                self._gone(process.pid)
                del self.actors[number]
                ended.append(number)
        # one that has ended, and is waited for by somebody else, would be found again and again
        known = {p.pid for p in self.actors.values()} | set[int]().union(*(p.serving.children() for p in self.places if p.serving))
        with suppress(ChildProcessError):
            while (one := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and one.si_pid not in known:
                _, status = os.waitpid(one.si_pid, 0)
                if os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL:
                    self.bad.append(f"child {one.si_pid} ended by signal {os.WTERMSIG(status)}")
                self._gone(one.si_pid)
        for _, row in self.ledger.living():  # children whose parents live are reaped by nobody
            if row.pid and not Path(f"/proc/{row.pid}").exists():
                self._gone(row.pid)
        return ended

    def replace(self, numbers: list[int]) -> None:
        for number in numbers:
            self.begin(next(p for p in self.places if number in p.numbers), number)

    def kill_one(self) -> None:
        """SIGKILL for one of all, children included."""
        if row := self._choose():
            pid = row.pid
            if self._send(pid, signal.SIGKILL):
                self.kills += 1
                self.killed[pid] = time.monotonic()

    def stop_one(self, longest: float) -> None:
        """SIGSTOP for one of all, and SIGCONT some time later."""
        row = self._choose()
        if row and row.pid not in self.stopped and len(self.stopped) < 10 and self._send(row.pid, signal.SIGSTOP):
            self.stopped[row.pid] = os.pidfd_open(row.pid), time.monotonic() + self.dice.uniform(0.001, longest)
            self.stops += 1

    def go_on(self, everybody: bool = False) -> None:
        """SIGCONT for those whose time has come."""
        for pid, (pidfd, until) in list(self.stopped.items()):
            if everybody or time.monotonic() >= until:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGCONT)
                os.close(pidfd)
                del self.stopped[pid]

    def hung(self, patience: float) -> list[str]:
        """Processes that have not come out of a call for so long, though nobody stopped them."""
        now = time.monotonic_ns()
        return [
            f"hang: process {row.pid} ({row.number}) for {(now - row.beat_ns) / 1e9:.0f} s in `{row.doing.decode()}`"
            for _, row in self.ledger.living()
            if row.pid and row.pid not in self.stopped and now - row.beat_ns > patience * 1e9
        ]

    def end_all(self) -> None:
        """By SIGKILL, whatever they do."""
        self.go_on(everybody=True)
        until = time.monotonic() + 10
        while (living := self.ledger.living()) or self.actors:
            for _, row in living:
                self._send(row.pid, signal.SIGKILL)
            for process in self.actors.values():
                process.kill()
            self.reap()
            assert time.monotonic() < until, "they cannot be killed"
            time.sleep(0.01)

    def _choose(self):  # type: ignore[no-untyped-def]
        living = self.ledger.living()
        return self.dice.choice(living)[1] if living else None

    def _send(self, pid: int, number: int) -> bool:
        """To a process of ours, and no other: a number may be somebody else's by now."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return False
        try:
            if os.readlink(f"/proc/{pid}/exe") != self.actor:
                return False
            signal.pidfd_send_signal(pidfd, number)
            return True
        except OSError:
            return False
        finally:
            os.close(pidfd)

    def _gone(self, pid: int) -> None:
        for _, row in self.ledger.living():
            if row.pid == pid:
                row.pid = 0
