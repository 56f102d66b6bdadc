"""Play scenes, each in a process of its own, forked from one that has everything loaded: `python -m compat.sockets.play [NAME...]`.

A line of JSON for each playing: name, kind, lines, paths. One that dies or hangs says so in its lines.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import select
import signal
import sys
import traceback

from compat.sockets.stage import KINDS, SCENES, Stage

SUBJECTS = ("ending", "flags", "urgent", "connecting", "options", "counting", "vectors", "order", "waiting", "listening", "faults")
PATIENCE = 6


def load() -> None:
    """All scenes, by their modules."""
    for subject in SUBJECTS:
        importlib.import_module(f"compat.sockets.{subject}")


def _child(name: str, kind: str, out: int) -> None:
    faulthandler.enable()
    faulthandler.dump_traceback_later(PATIENCE - 2)
    stage = Stage(kind == "lifted")
    try:
        SCENES[name].play(stage)
    except BaseException as error:
        stage.say("failed", f"{type(error).__name__}: {error}")
        traceback.print_exc()
    os.write(out, json.dumps({"name": name, "kind": kind, "lines": stage.lines, "paths": stage.paths}).encode() + b"\n")


def play(name: str, kind: str) -> str:
    """One playing; its line."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os.setpgid(0, 0)
        try:
            _child(name, kind, write)
            sys.stderr.flush()
        finally:
            os._exit(0)
    os.close(write)
    text = b""
    while not text.endswith(b"\n") and select.select([read], [], [], PATIENCE)[0] and (more := os.read(read, 1 << 16)):
        text += more
    os.close(read)
    if not text.endswith(b"\n"):
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # children that a scene left behind
    if text.endswith(b"\n"):
        return text.decode().rstrip("\n")
    said = f"killed by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"ended with status {status}"
    return json.dumps({"name": name, "kind": kind, "lines": [["died", said]], "paths": []})


def main() -> None:
    load()
    for name in sys.argv[1:] or SCENES:
        for kind in KINDS:
            if kind == "fresh" or SCENES[name].lifts:
                print(play(name, kind), flush=True)


if __name__ == "__main__":
    main()
