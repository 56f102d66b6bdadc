"""Loads: HTTP by wrk, with connections that are closed after each request and such that are kept; and echo by talk.py."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable

from compat.processes.stage import Program, Said, Stage, until

# connections of each kind at a time
CLOSED, KEPT = 2, 6
_SOCKET_ERRORS = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")


def _wrk(stage: Stage, port: int, connections: int, *options: str) -> Program:
    """Runs until it is interrupted, and then says what it has counted."""
    return stage.start("wrk", "-t1", f"-c{connections}", "-d3600s", *options, f"http://127.0.0.1:{port}/", stop=signal.SIGINT)


def _counted(said: str) -> tuple[int, int]:
    """Requests, and those that failed."""
    done = re.search(r"(\d+) requests in", said)
    assert done, said
    errors = _SOCKET_ERRORS.search(said)
    other = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    return int(done[1]), sum(map(int, errors.groups() if errors else ())) + (int(other[1]) if other else 0)


def http(stage: Stage, port: int, event: Callable[[], None], *, kept: bool = True) -> Said:
    """Requests in two ways; in the middle of them the event, after which the server answers "two" and no more "one".

    A server that closes a kept connection may meet a request that is on its way (RFC 9112, 9.6), on the kernel too: at most one for each
    such connection is cut off so. A request for which a connection was made of its own must not fail.
    """
    before = stage.fetch(port)
    closing = _wrk(stage, port, CLOSED, "-H", "Connection: close")
    keeping = _wrk(stage, port, KEPT) if kept else None
    time.sleep(stage.seconds / 2)
    stage.look()
    event()
    until(lambda: stage.fetch(port) == "two", "the server answers as after the event")
    time.sleep(stage.seconds / 2)
    closing.send(signal.SIGINT)
    done, failed = _counted(closing.result())
    note = ""
    if keeping:
        keeping.send(signal.SIGINT)
        more, cut = _counted(keeping.result())
        done += more
        note = f"{cut} cut off on kept connections" if cut else ""
        failed += max(0, cut - KEPT)
    return Said({"before": before, "after": stage.fetch(port), "some were answered": done > 0}, done, failed, note)


def echo(stage: Stage, port: int, *, connections: int = 4, plain: bool = False) -> Said:
    """Connections one after the other; on each what is sent comes back, and then the end."""
    talk = stage.python("talk.py", port, connections, stage.seconds, plain=plain)
    time.sleep(stage.seconds / 2)
    stage.look()
    words = talk.result(stage.seconds + 30).split()
    return Said({"echoed": words[:2]}, done=int(words[2]))
