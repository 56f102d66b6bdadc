"""The worlds in which cases are played: the plain kernel's and one of each mode, on one host (paths local and kernel) or on two (wire)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from compat.fix_lab import MODES, Builder, Namespace
from differential.worlds import World
from unit.fix_helper_daemon import Daemon
from wire.conversations import EAGER, TwoHosts
from wire.fix_world import Side, wait_for, world

from sharedstack.inspection import snapshot
from sharedstack.inspection.state import Endpoint, decode

NOBODY = 65534
PEER = 1  # the slot of whoever has the other end


class Programs:
    """The executor, in the ways in which it may be executed; in a folder that everybody can read."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        self.build = Builder(folder)
        self.executor = self.build("executor")
        self.environment = {"EXECUTOR_STATIC": self.build("executor", "-static"), "EXECUTOR_SETUID": str(folder / "setuid")}
        shutil.copyfile(self.executor, folder / "setuid")
        os.chown(folder / "setuid", NOBODY, NOBODY)
        (folder / "setuid").chmod(0o4755)


class OneHost(World):
    """A world whose stack has another one beside it."""

    def __init__(self, mode: str, programs: Programs, elsewhere: Namespace) -> None:
        self.other = Daemon()
        self.has_helper = mode != "kernel"
        environment = programs.environment | {"EXECUTOR_NETNS": str(elsewhere.path), "EXECUTOR_STACK": self.other.stack}
        super().__init__(mode, programs.build, "matrix", **environment)

    def __enter__(self) -> OneHost:
        if self.has_helper:
            self.other.netns = self.namespace.netns
            self.other.start(prefix=tuple(self.namespace.prefix), stdin=subprocess.DEVNULL, cwd="/")
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.other.clean()

    def endpoint(self, cookie: int) -> Endpoint | None:
        """The record of the subject's connection."""
        return _with_cookie(self.lab.name, cookie)

    def stop_helper(self) -> None:
        """By SIGKILL."""
        assert self.lab.daemon.process
        self.lab.daemon.process.kill()
        self.lab.daemon.process.communicate()

    def start_helper(self) -> None:
        self.lab.start_helper()

    def unclean(self) -> str:
        """What is left of cases that are over, or what `inspect --check` finds."""
        try:
            self.lab.assert_clean()
        except AssertionError as error:
            return str(error)
        return ""


class Spread(TwoHosts):
    """The peer is alone on the second host."""

    def __init__(self, mode: str, sides: Sequence[Side], programs: Programs, elsewhere: Namespace) -> None:
        ours = mode != "kernel"
        environment = programs.environment | (EAGER if mode == "eager" else {}) | {"EXECUTOR_NETNS": str(elsewhere.path)}
        environment["EXECUTOR_STACK"] = "nowhere"
        self.segments = sides[0].segments
        self.has_helper = mode == "kernel"  # all modes have the same: one of them keeps it
        super().__init__(mode, sides, (ours, ours), programs.executor, **environment)

    def host_of(self, slot: int) -> int:
        return int(slot == PEER)

    def endpoint(self, cookie: int) -> Endpoint | None:
        return _with_cookie(self.segments, cookie)

    def stop_helper(self) -> None:
        """By SIGTERM: it takes its interface back."""
        self.sides[0].stop_helper()

    def start_helper(self) -> None:
        self.sides[0].start_helper()

    def unclean(self) -> str:
        """What is left of cases that are over, on either host."""
        left: list[dict[str, int]] = []

        def nothing() -> bool:
            left[:] = [side.left() for side in self.sides]
            return not any(n for side in left for n in side.values())

        try:
            wait_for(nothing, 10)
        except AssertionError:
            return str(left)
        return ""


AnyWorld = OneHost | Spread


def _with_cookie(segments: str, cookie: int) -> Endpoint | None:
    try:
        found = decode(snapshot.take(segments), live=False).endpoints
    except snapshot.NoStackError:  # its helper has ended
        return None
    return next((e for e in found if e.cookie == cookie), None)


@contextmanager
def one_host(programs: Programs) -> Iterator[list[OneHost]]:
    """Worlds for the paths local and kernel."""
    elsewhere = Namespace()
    with ExitStack() as stack:
        stack.callback(elsewhere.close)
        yield [stack.enter_context(OneHost(mode, programs, elsewhere)) for mode in MODES]


@contextmanager
def two_hosts(programs: Programs) -> Iterator[list[Spread]]:
    """Worlds for the wire: the same two hosts, and one helper on each, for all modes."""
    elsewhere = Namespace()
    with world() as sides:
        worlds: list[Spread] = []
        try:
            worlds += [Spread(mode, sides, programs, elsewhere) for mode in MODES]
            yield worlds
        finally:
            for pid in [pid for made in worlds for pid in made.pids.values()]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for side in sides:
                side.end_programs()
            elsewhere.close()
