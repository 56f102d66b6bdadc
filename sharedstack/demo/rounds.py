"""The measurement: both sides in turn, each case in each round; then, unmeasured, a look inside while the shared side runs.

Order of a run: pilot (sizes the case, so that it takes `seconds`), rounds of kernel and shared, for each a fresh server. The look
inside comes last because `inspect` takes CPU from what it looks at.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from .children import Child, DemoError, free_port, program, segments, tail, wait_for_port
from .workload import CASES, Case, Operation, Workload, parse

SIDES = ("kernel", "shared")
CLIENT_LIMIT = 60.0


@dataclass(frozen=True)
class Sample:
    """One case on one side in one round. `cpu`: the server's, seconds; `segments`: TCP segments that the kernel received."""

    operations: dict[str, Operation]
    requests: int
    cpu: float
    segments: int


@dataclass
class Bytes:
    """Bytes by path, both directions of all connections, as `sharedstack inspect` saw them in the middle of a run."""

    local: int = 0
    kernel: int = 0


@dataclass
class Results:
    """All samples by (side, case), and what `inspect` said by case."""

    samples: dict[tuple[str, Case], list[Sample]] = field(default_factory=dict)
    by_path: dict[Case, Bytes] = field(default_factory=dict)
    why: dict[Case, str] = field(default_factory=dict)

    def rate(self, side: str, case: Case, operation: str) -> float:
        """Median. Unit: requests/s."""
        return median(s.operations[operation].rate for s in self.samples[side, case])

    def latency(self, side: str, case: Case, operation: str, which: str) -> float | None:
        """Median over the rounds of `p50` or `p99`. Unit: ms."""
        values = [getattr(s.operations[operation], which) for s in self.samples[side, case]]
        return None if None in values else float(median(values))

    def cpu(self, side: str, case: Case) -> float:
        """The server's CPU time of a request, median. Unit: µs."""
        return median(s.cpu / s.requests for s in self.samples[side, case]) * 1e6

    def segments(self, side: str, case: Case) -> float:
        """TCP segments of a request: the least of all rounds, as whatever else runs on the host only adds to it."""
        return min(s.segments / s.requests for s in self.samples[side, case])


class Demo:
    """Runs the workload on a stack. `say` is told what is being done."""

    def __init__(self, workload: Workload, stack: str, folder: Path, seconds: float, rounds: int, say: Callable[[str], None]) -> None:
        self.workload, self.stack, self.folder, self.seconds, self.rounds, self.say = workload, stack, folder, seconds, rounds, say
        self.prefix = {"kernel": [], "shared": [program("sharedstack"), "run", "--stack", stack, "--"]}
        self.sizes: dict[tuple[str, Case], int] = {}

    def run(self) -> Results:
        """Everything. DemoError where something fails."""
        results = Results()
        for number in range(self.rounds):
            for side in SIDES:
                self.say(f"round {number + 1} of {self.rounds}: {side}")
                with self._server(side) as (server, port):
                    for case in CASES:
                        results.samples.setdefault((side, case), []).append(self._measure(side, case, server, port))
        self.say("looking inside while it runs")
        with self._server("shared") as (server, port):
            for case in CASES:
                self._look(case, port, results)
        return results

    @contextmanager
    def _server(self, side: str) -> Iterator[tuple[Child, int]]:
        port = free_port()
        with Child([*self.prefix[side], *self.workload.server(port)], self.folder / f"server-{side}.log") as server:
            wait_for_port(port, server)
            yield server, port

    def _client(self, side: str, case: Case, requests: int, port: int) -> dict[str, Operation]:
        """Run the load generator to its end."""
        output, log = self.folder / "client.csv", self.folder / "client.log"
        with output.open("wb") as out, log.open("wb") as err:
            command = [*self.prefix[side], *self.workload.client(port, case, requests)]
            client = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=self.folder)
            try:
                status = client.wait(CLIENT_LIMIT)
            except subprocess.TimeoutExpired:
                raise DemoError(f"{case.name} on the {side} side is not done after {CLIENT_LIMIT:.0f} s: {command}") from None
            finally:
                client.kill()
                client.wait()
        if status != 0:
            raise DemoError(f"{command} ended with status {status}:\n{tail(log)}")
        return parse(output.read_text(), self.workload.operations, output)

    def _size(self, side: str, case: Case, port: int) -> int:
        """Requests of each operation that take about `seconds` in all; found out by a short run, once for each side."""
        if (side, case) not in self.sizes:
            pilot = self._client(side, case, case.pilot, port)
            slowest = min(operation.rate for operation in pilot.values())
            self.sizes[side, case] = max(case.pilot, int(slowest * self.seconds / len(pilot)))
        return self.sizes[side, case]

    def _measure(self, side: str, case: Case, server: Child, port: int) -> Sample:
        requests = self._size(side, case, port)
        cpu, before = server.cpu(), segments()
        operations = self._client(side, case, requests, port)
        after = segments()
        server.require()
        return Sample(operations, requests * len(operations), server.cpu() - cpu, after - before)

    def _look(self, case: Case, port: int, results: Results) -> None:
        """Inspect the stack while a client of the case is at work; the client is then stopped."""
        # more than it can do in the time, also where the run that found the size fell into a slow moment
        command = [*self.prefix["shared"], *self.workload.client(port, case, self._size("shared", case, port) * 200)]
        with Child(command, self.folder / "client.log") as client:
            time.sleep(min(1.0, self.seconds))
            results.by_path[case] = _bytes(self._inspect("--format", "json"), port)
            results.why[case] = _why(self._inspect("--why"), port)
            client.require()

    def _inspect(self, *options: str) -> str:
        command = [program("sharedstack"), "inspect", "--stack", self.stack, *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        if not done.stdout:
            raise DemoError(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr[-800:]}")
        return done.stdout


def _bytes(text: str, port: int) -> Bytes:
    """Sum the bytes sent by the two ends of our server's connections."""
    total = Bytes()
    for endpoint in json.loads(text)["endpoints"]:
        if any(endpoint[end].endswith(f":{port}") for end in ("local", "remote")):
            total.local += endpoint["tx"]["local_bytes"]
            total.kernel += endpoint["tx"]["kernel_bytes"]
    return total


def _why(text: str, port: int) -> str:
    """The lines about our server's connections, each reason once."""
    lines = [line for line in text.splitlines() if f":{port} " in f"{line} ".replace(": ", " ") and ": not_established: " not in line]
    once = {line.rpartition(": ")[2]: line for line in lines}
    return "\n".join([*once.values(), f"({len(lines)} sockets, {len(once)} different answers)"])
