"""What a scene is played on: connections, fresh or on the local path; threads that wait; and the lines of what came back.

A scene is a function of a `Stage`, declared by `@scene`. It says what it sees, line by line, by `say`; on the kernel and through the
library the lines must be the same. One that takes its connections from `ends` is played with fresh ones, and with lifted ones: then both
directions of each are on the local path when the scene gets them, as the stack's own records say.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sharedstack.inspection import snapshot
from sharedstack.inspection.state import decode

SO_COOKIE = 57
SEGMENTS = "CONFORMANCE_SEGMENTS"
ROUNDS = 24
KINDS = ("fresh", "lifted")


@dataclass(frozen=True)
class Scene:
    """`lifts`: it is played once more with lifted connections."""

    subject: str
    name: str
    play: Callable[[Stage], None]
    lifts: bool


SCENES: dict[str, Scene] = {}


def scene(lifts: bool = True) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    """Declare a scene; its subject is its module."""

    def declare(play: Callable[[Stage], None]) -> Callable[[Stage], None]:
        assert play.__name__ not in SCENES
        SCENES[play.__name__] = Scene(play.__module__.rpartition(".")[2], play.__name__, play, lifts)
        return play

    return declare


class Waiter:
    """A thread that makes one call; what it returned is its result."""

    def __init__(self, what: Callable[[], Any]) -> None:
        self.tid, self._result, self._started = 0, ["still waits"], threading.Event()

        def run() -> None:
            self.tid = threading.get_native_id()
            self._started.set()
            self._result[0] = what()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        self._started.wait()

    def asleep(self) -> Waiter:
        """Return when the thread has come to rest in its call."""
        seen = 0
        with contextlib.suppress(OSError):  # it is gone
            while seen < 5:
                state = Path(f"/proc/self/task/{self.tid}/stat").read_text().rpartition(")")[2].split()[0]
                seen = seen + 1 if state == "S" else 0
                time.sleep(0.001)
        return self

    def result(self, seconds: float = 5) -> Any:
        self._thread.join(seconds)
        return self._result[0]

    def waits(self, seconds: float = 0.05) -> bool:
        """Is it still waiting after so long?"""
        self._thread.join(seconds)
        return self._thread.is_alive()


@dataclass
class Stage:
    """One playing of a scene."""

    lifted: bool
    lines: list[tuple[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)

    @property
    def ours(self) -> str:
        """Name of the segments; empty on the kernel."""
        return os.environ.get(SEGMENTS, "")

    def say(self, label: str, value: object) -> None:
        self.lines.append((label, value if isinstance(value, str) else repr(value)))

    def listener(self, family: int = socket.AF_INET, backlog: int = 16) -> socket.socket:
        made = socket.socket(family)
        made.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        made.listen(backlog)
        return made

    def fresh(self, family: int = socket.AF_INET) -> tuple[socket.socket, socket.socket]:
        """Client and server; nothing was sent yet."""
        with self.listener(family) as listener:
            a = socket.socket(family)
            a.connect(listener.getsockname())
            b, _ = listener.accept()
        for end in (a, b):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.kept += [a, b]
        return a, b

    def ends(self, family: int = socket.AF_INET) -> tuple[socket.socket, socket.socket]:
        """Client and server, as this playing has them."""
        a, b = self.fresh(family)
        if self.lifted:
            self.warm(a, b)
        return a, b

    def ends_cheaply(self) -> tuple[socket.socket, socket.socket]:
        """As `ends`, for many of them: where they are lifted nobody looks whether they were."""
        a, b = self.fresh()
        if self.lifted:
            for _ in range(8):
                for x, y in ((a, b), (b, a)):
                    x.sendall(b"w" * 200)
                    assert y.recv(200, socket.MSG_WAITALL) == b"w" * 200
        return a, b

    def warm(self, a: socket.socket, b: socket.socket) -> None:
        """Messages there and back; then note which way bytes go."""
        for _ in range(ROUNDS):
            for x, y in ((a, b), (b, a)):
                x.sendall(b"w" * 200)
                assert y.recv(200, socket.MSG_WAITALL) == b"w" * 200
        self.look(a, b)

    def look(self, *ends: socket.socket) -> None:
        """Note the paths of connections: "local", or what it is."""
        if not self.ours:
            return
        cookies = [int.from_bytes(s.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), "little") for s in ends]
        known = {e.cookie: e for e in decode(snapshot.take(self.ours), live=False).endpoints}
        for cookie in cookies:
            e = known.get(cookie)
            paths = {e.tx.path if e.tx.path == "local" else e.tx.why, e.rx.path if e.rx.path == "local" else e.rx.why} if e else {"unknown"}
            self.paths += sorted(paths)

    def thread(self, what: Callable[[], Any]) -> Waiter:
        return Waiter(what)

    def took(self, label: str, start: float, wanted_ms: float) -> None:
        """Say whether a wait that began at `start` was as long as it should be: not shorter; a busy machine wakes late."""
        ms = (time.monotonic() - start) * 1e3
        right = wanted_ms - 1 <= ms <= wanted_ms * 1.2 + 60
        self.say(label, f"took {wanted_ms:.0f} ms" if right else f"took {ms:.1f} ms instead of {wanted_ms:.0f}")
