"""Kill points of the helper: within what it does to a stack when a participant has died, and when connections have gone quiet."""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from compat.fix_lab import Actor
from kill.operations import Operation
from kill.world import Judged, World

TESTS = Path(__file__).resolve().parents[1]
READY_WITHIN = 10.0


@dataclass(frozen=True)
class HelperOperation:
    """A function of the native core in its nth call; with a participant that dies when the helper is ready, or none."""

    name: str
    function: str
    nth: int = 1
    someone_dies: bool = True
    options: tuple[str, ...] = ()


HELPER_OPERATIONS: tuple[HelperOperation, ...] = (
    HelperOperation("helper_reap", "reap"),
    HelperOperation("helper_free", "endpoint_gone"),
    # the second look at connections that are quiet takes their rings
    HelperOperation("helper_cool", "cool", nth=2, someone_dies=False, options=("--cool-every", "0.05")),
)
# what the peer sees of the one that dies: six bytes, and the end
_SEEN = Operation("", accepted=6, most=6)


class HelperWorld(World):
    """A world whose helper is killed, and followed by another one."""

    def kill_helper(self, operation: HelperOperation, point: str) -> Judged:
        """One helper, killed at `point`; then all must be well for the next one."""
        doomed = self._doomed() if operation.someone_dies else None
        if not doomed:
            self.work()
        self.lab.daemon.end(signal.SIGKILL)
        with tempfile.TemporaryDirectory() as folder:
            ready = Path(folder) / "ready"
            clean = ["env", "-u", "LD_PRELOAD", f"PYTHONPATH={TESTS}", sys.executable, "-m", "kill.trapped_helper"]
            argv = [*clean, self.build("trapped", "-shared", "-fPIC"), operation.function, str(operation.nth), str(ready), self.lab.stack]
            over = threading.Event()
            trigger = threading.Thread(target=_when_ready, args=(ready, over, doomed.process.kill if doomed else lambda: None))
            trigger.start()
            judged = Judged(self.tracer.run(point, [*argv, *operation.options], lambda: None, lambda: None))
            over.set()
            trigger.join()
        if doomed:
            doomed.process.wait()
            self.lab.actors.remove(doomed)
        self.lab.start_helper()
        self.judge(judged, _SEEN if doomed else None)
        return judged

    def _doomed(self) -> Actor:
        """A participant whose connection with the peer is lifted; it has sent six bytes."""
        actor = self.lab.actor("eager")
        self.peer.tell("accept(); echo(6)")
        actor.do(f"s = socket.create_connection(('127.0.0.1', {self.port}))")
        actor.do("pattern = bytes((i * 31 + i // 251) & 255 for i in range(6))")
        actor.do("for i in range(6): s.send(pattern[i:i + 1]); s.recv(1)")
        self.peer.hear()
        return actor


def _when_ready(file: Path, over: threading.Event, do: Callable[[], None]) -> None:
    """Do it when the helper is ready, or when it has met its end before: it begins with its predecessor's slot."""
    until = time.monotonic() + READY_WITHIN
    while time.monotonic() < until and not (file.exists() and file.stat().st_size) and not over.wait(0.002):
        pass
    do()
