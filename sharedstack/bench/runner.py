"""Measures: every case in every round, kernel and shared in turn; who goes first changes with the round."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hdrh.histogram import HdrHistogram

from .. import paths
from ..demo.children import program
from . import machine
from .cases import Case
from .peers import Peer
from .stack import BenchError, Stack, Totals

SIDES = ("kernel", "shared")
LONGEST_NS = 1 << 38
PATIENCE = 30.0  # seconds beyond what a case should take
SETTLE = 0.5  # seconds from the last message to what counts as idle


@dataclass(frozen=True)
class Plan:
    """How to measure. `server_cpu`, `client_cpu`: None leaves that side to the scheduler."""

    cases: tuple[Case, ...]
    rounds: int = 3
    seconds: float = 1.0
    idle_seconds: float = 10.0
    quick: bool = False
    profile: str = ""
    server_cpu: int | None = None
    client_cpu: int | None = None

    def connections(self, case: Case) -> int:
        """As many as the case wants; of those that are open at the same time, as many as one process may have."""
        wanted = case.quick if self.quick else case.connections
        return wanted if case.client[0] == "connect" else min(wanted, machine.most_connections())


@dataclass(frozen=True)
class Sample:
    """One case, one side, one round.

    `values` by figure. `segments`: TCP segments of an operation that the kernel received, in this network namespace; `own_segments`:
    likewise, on the case's own connections. `local`, `kernel`: bytes by path, of both ends (shared side only).
    """

    values: dict[str, float]
    ops: int
    segments: float
    own_segments: float
    local: int = 0
    kernel: int = 0


@dataclass
class Measured:
    """All samples by (case, side), the floors of each round (ns), and what failed, by case."""

    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)
    floors: list[dict[str, float]] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


def percentiles(times: list[list[int]]) -> dict[str, float]:
    """Of [ns, count] pairs, by HdrHistogram. Unit: µs."""
    if not times:
        return {}
    histogram = HdrHistogram(1, LONGEST_NS, 3)
    for value, count in times:
        histogram.record_value(max(value, 1), count)
    wanted = {"p50_us": 50.0, "p90_us": 90.0, "p99_us": 99.0, "p99.9_us": 99.9, "max_us": 100.0}
    return {name: histogram.get_value_at_percentile(percent) / 1000 for name, percent in wanted.items()}


class Runner:
    """Runs a plan on a stack. `say` is told what is being done."""

    def __init__(self, plan: Plan, stack: Stack, folder: Path, say: Callable[[str], None]) -> None:
        self.plan, self.stack, self.folder, self.say = plan, stack, folder, say
        self.peer, self.floor = (str(paths.bench_program(name)) for name in ("peer", "floor"))
        profile = ["-p", plan.profile] if plan.profile else []
        self.prefix = {"kernel": [], "shared": [program("sharedstack"), "run", "--require", "--stack", stack.name, *profile, "--"]}

    def run(self) -> Measured:
        """Everything. A case that fails is noted and left out from then on; BenchError only where nothing can go on."""
        measured = Measured()
        for number in range(self.plan.rounds):
            measured.floors.append(self._floors())
            for case in self.plan.cases:
                if case.name in measured.failures or (case.once and number):
                    continue
                self.say(f"round {number + 1} of {self.plan.rounds}: {case.name}")
                try:
                    for side in SIDES if number % 2 == 0 else SIDES[::-1]:
                        measured.samples.setdefault((case.name, side), []).append(self._measure(case, side))
                except (BenchError, OSError, ValueError) as error:
                    measured.failures[case.name] = str(error)
                    self.stack.require()
        return measured

    def _floors(self) -> dict[str, float]:
        allowed = machine.cpus()
        command = [self.floor, str(allowed[0]), str(allowed[1 % len(allowed)])]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise BenchError(f"{' '.join(command)}: {error}") from error
        floors: dict[str, float] = json.loads(done.stdout)
        return floors

    def _start(self, side: str, end: str, role: list[str], cpu: int | None) -> Peer:
        bound = [] if cpu is None else ["-u", str(cpu)]
        return Peer([*self.prefix[side], self.peer, *role, *bound], self.folder / f"{end}.log")

    def _measure(self, case: Case, side: str) -> Sample:
        before = self._totals(side)
        result, server, extra = self._both_ends(case, side) if case.server else self._alone(case, side)
        after = self._totals(side)
        ops, seconds = int(result["ops"]), result["ns"] / 1e9
        if ops == 0:
            raise BenchError(f"{case.name}, {side}: not one operation in {seconds:.2f} s")
        values = {**percentiles(result["times"]), **extra}
        if seconds:
            values |= {"rate": ops / seconds / 1000, "call_ns": seconds * 1e9 / ops}
        if case.name == "bandwidth":
            values["gbit"] = ops * 65536 * 8 / seconds / 1e9
        if server.get("ops"):
            values["cpu_us"] = server["cpu_ns"] / server["ops"] / 1000
        if case.client[0] == "load":
            busy = server["cpu_ns"] + extra["helper_ns"]
            values["cpu_percent"] = 100 * busy / (server["ops"] / int(case.client[2]) * 1e9)
        own = result["segments"] / ops
        return Sample(values, ops, result["all_segments"] / ops, own, after.local - before.local, after.kernel - before.kernel)

    def _totals(self, side: str) -> Totals:
        return self.stack.totals() if side == "shared" else Totals(0, 0)

    def _alone(self, case: Case, side: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, float]]:
        with self._start(side, "client", [*case.client, "-t", self._ms()], self.plan.client_cpu) as client:
            return client.finish(self.plan.seconds + PATIENCE), {}, {}

    def _ms(self) -> str:
        return str(max(int(self.plan.seconds * 1000), 1))

    def _both_ends(self, case: Case, side: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, float]]:
        """What client and server printed, and figures taken from outside."""
        connections = ["-c", str(self.plan.connections(case))]
        timed = ["-t", self._ms()] if case.timed else []
        with self._start(side, "server", [*case.server, *connections], self.plan.server_cpu) as server:
            port = server.line(PATIENCE).removeprefix("port ")
            helper = machine.cpu_ns(self.stack.helper.pid)
            with self._start(side, "client", [*case.client, "-p", port, *connections, *timed], self.plan.client_cpu) as client:
                extra = self._silence(case, side, server, client) if case.name == "idle" else {}
                result = client.finish(self.plan.seconds * 2 + PATIENCE)
                counted = server.finish(PATIENCE)
            used = machine.cpu_ns(self.stack.helper.pid) - helper
        return result, counted, extra | {"helper_ns": used if side == "shared" else 0}

    def _silence(self, case: Case, side: str, server: Peer, client: Peer) -> dict[str, float]:
        """Context switches and CPU of all that take part while nothing is sent, and the memory that is kept for it."""
        client.line(PATIENCE)
        time.sleep(SETTLE)
        pids = [server.pid, client.pid] + ([self.stack.helper.pid] if side == "shared" else [])
        switches, cpu, began = (sum(map(machine.switches, pids)), sum(map(machine.cpu_ns, pids)), time.monotonic())
        time.sleep(self.plan.idle_seconds)
        took = time.monotonic() - began
        values: dict[str, float] = {
            "switches": sum(map(machine.switches, pids)) - switches,
            "cpu_percent": (sum(map(machine.cpu_ns, pids)) - cpu) / took / 1e7,
        }
        if side == "shared":
            values["end_bytes"] = self.stack.memory_in_use() / (2 * self.plan.connections(case))
        return values
