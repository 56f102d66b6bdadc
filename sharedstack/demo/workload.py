"""What is run: redis where it is installed, else the package's own server and client. Neither knows of sharedstack."""

from __future__ import annotations

import csv
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .children import DemoError

_ECHO = Path(__file__).with_name("echo.py")


@dataclass(frozen=True)
class Case:
    """A load: connections, and requests that each sends before it reads an answer."""

    clients: int
    pipeline: int
    pilot: int  # requests of the first, short run, from whose rate the others are sized

    @property
    def name(self) -> str:
        """As in the tables."""
        return f"-c {self.clients}" + (f" -P {self.pipeline}" if self.pipeline > 1 else "")


CASES = (Case(1, 1, 1000), Case(50, 1, 5000), Case(50, 16, 50000))


@dataclass(frozen=True)
class Operation:
    """What the load generator reports of one operation. Units: requests/s, ms; latencies are None where it gives none."""

    rate: float
    p50: float | None
    p99: float | None


@dataclass(frozen=True)
class Workload:
    """A server and a load generator that prints CSV as redis-benchmark does."""

    title: str
    operations: tuple[str, ...]
    server: Callable[[int], Sequence[str]]
    client: Callable[[int, Case, int], Sequence[str]]


def _redis_server(port: int) -> Sequence[str]:
    settings = {"port": str(port), "bind": "127.0.0.1", "save": "", "appendonly": "no", "daemonize": "no", "databases": "1"}
    return ["redis-server", *(word for key, value in settings.items() for word in (f"--{key}", value))]


def _redis_client(port: int, case: Case, requests: int) -> Sequence[str]:
    load = ["-c", str(case.clients), "-P", str(case.pipeline), "-n", str(requests)]
    return ["redis-benchmark", "-h", "127.0.0.1", "-p", str(port), "-t", "set,get", *load, "--csv"]


def _echo_server(port: int) -> Sequence[str]:
    return [sys.executable, str(_ECHO), "server", str(port)]


def _echo_client(port: int, case: Case, requests: int) -> Sequence[str]:
    return [sys.executable, str(_ECHO), "client", str(port), str(case.clients), str(case.pipeline), str(requests)]


REDIS = Workload("redis-server and redis-benchmark -t set,get", ("SET", "GET"), _redis_server, _redis_client)
ECHO = Workload("sharedstack's own echo server and client (64-byte messages)", ("ECHO",), _echo_server, _echo_client)


def choose(own: bool) -> Workload:
    """Redis, or the package's own pair where redis is not installed or `own` is asked for."""
    path = os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin"
    there = all(shutil.which(name, path=path) for name in ("redis-server", "redis-benchmark"))
    return REDIS if there and not own else ECHO


def parse(output: str, operations: Sequence[str], log: Path) -> dict[str, Operation]:
    """The CSV of a load generator; redis before 6.2 prints neither a header nor latencies."""
    rows = [row for row in csv.reader(output.splitlines()) if len(row) > 1]
    header = rows.pop(0) if rows and rows[0][0] == "test" else ["test", "rps"]
    found = {}
    for row in rows:
        value = dict(zip(header, row, strict=False))
        p50, p99 = (float(value[key]) if key in value else None for key in ("p50_latency_ms", "p99_latency_ms"))
        found[value["test"]] = Operation(float(value["rps"]), p50, p99)
    if missing := [name for name in operations if name not in found]:
        raise DemoError(f"the load generator reported nothing for {', '.join(missing)}; see {log}:\n{output[-500:]}")
    return found
