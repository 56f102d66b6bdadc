"""Datagram servers and clients of the wire tests (datagrams.py), and what a side says of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from wire.fix_world import SEED, WHOLE, Side

PROGRAM = str(Path(__file__).with_name("datagrams.py"))
PYTHON = sys.base_prefix + "/bin/python3"
N = 3000 if WHOLE else 600


def serve(
    side: Side, how: str, *, ours: bool = True, address: str = "", port: int = 0, **environment: str
) -> tuple[subprocess.Popen[str], int]:
    program = side.start(PYTHON, PROGRAM, "serve", address or side.address, str(port), how, ours=ours, **environment)
    return program, ready(program)


def ready(program: subprocess.Popen[str]) -> int:
    assert program.stdout
    said = program.stdout.readline().split()
    assert said[:1] == ["ready"], said
    return int(said[1])


def ask(side: Side, address: str, port: int, *, how: str = "sendto", n: int = N, ours: bool = True) -> dict[str, float]:
    return dict(json.loads(side.run(PYTHON, PROGRAM, "ask", address, str(port), how, str(SEED), str(n), ours=ours)))


def moved(side: Side, before: dict[str, int]) -> dict[str, int]:
    return {path: n - before[path] for path, n in side.bytes_by_path().items()}


def wired(side: Side) -> bool:
    return any(path == "wire" for path, _ in side.paths())


def reasons(side: Side) -> set[str]:
    return {e["rx"]["why"] for e in side.inspect()["endpoints"]}
