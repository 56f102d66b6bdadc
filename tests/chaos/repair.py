"""How soon the killing of a process is repaired, beside 10,000 other endpoints.

python -m chaos.repair [--endpoints N] [--kills N] [--connections N]

A process with some connections is killed by SIGKILL while it pours into one of them, often with a lock held; measured is the time until
its peers have seen the end of each (by the lock's repair, where there is one), until a message of an uninvolved connection has come back,
and until the helper has given back its slot; after the last one, until the records of all of them are given back. Nothing is pinned.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from compat.cost import Program, quantiles
from compat.fix_lab import Builder, Lab, Namespace
from unit.fix_helper_daemon import wait_until

from sharedstack.declare import layout

BOUND_MS = 5.0
ROWS = ("the ends are seen by the peers", "an uninvolved message, there and back", "the helper has given back its slot")
BOUNDED = 2  # of them: what others have to wait for
EACH = 5000  # endpoints of a process, which may have 20,000 descriptors as a rule


@dataclass(frozen=True)
class Repairs:
    """Times of each row in milliseconds, how many endpoints there were beside, and how many locks were taken over from the dead."""

    rows: list[tuple[float, float]]
    endpoints: int
    kills: int
    locks: int
    seconds: float
    """After the last kill, until all records were given back."""

    @property
    def worst(self) -> float:
        """The largest p99 of what is bounded."""
        return max(p99 for _, p99 in self.rows[:BOUNDED])


def measure(lab: Lab, build: Builder, endpoints: int, kills: int, connections: int) -> Repairs:
    crowd = [Program(lab, build("sharing"), "eager", min(EACH, endpoints - at) // 2, 8) for at in range(0, endpoints, EACH)]
    there = lab.state().memory["endpoints_used"]
    before = lab.state().counters["lock_repairs"]
    stack = str(lab.daemon.path("stack"))
    slots = layout.STACK_SLOTS + layout.SLOT.place("state").offset
    argv = [build("chaos_repair"), stack, str(slots), str(kills), str(connections)]
    with lab.start(argv, "eager", stderr=None) as process:
        out = process.communicate(timeout=60 + kills)[0]
    assert process.returncode == 0, f"status {process.returncode}"
    began = time.monotonic()
    wait_until(lambda: lab.state().memory["endpoints_used"] <= there, 30)
    seconds = time.monotonic() - began
    lines = [[int(word) for word in line.split()] for line in out.splitlines()]
    for side in crowd:
        side.do("check")
        side.end()
    lab.settle()
    assert all(all(line) for line in lines), f"something was not given back within 2 s: {lines}"
    columns = [quantiles(column) for column in zip(*lines, strict=True)]
    return Repairs(
        [(p50 / 1e6, p99 / 1e6) for p50, p99 in columns], there, len(lines), lab.state().counters["lock_repairs"] - before, seconds
    )


def show(found: Repairs) -> None:
    print(f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.2f}, {time.strftime('%F')}")
    print(
        f"{found.kills} kills beside {found.endpoints} endpoints, {found.locks} locks taken over from the dead; milliseconds since the kill"
    )
    for name, (p50, p99) in zip(ROWS, found.rows, strict=True):
        print(f"  {name:42} p50 {p50:8.3f}  p99 {p99:8.3f}{'' if name in ROWS[BOUNDED:] else f'  (bound {BOUND_MS:g})'}")
    print(f"the records of the last ones were given back after {found.seconds:.2f} s")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.repair", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--endpoints", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--connections", type=int, default=8, help="of each process that is killed (%(default)s)")
    asked = parser.parse_args()
    namespace = Namespace()
    try:
        with tempfile.TemporaryDirectory() as folder, Lab(namespace, "repair", "--cool-every", "60") as lab:
            lab.look_every = 1e6
            found = measure(lab, Builder(Path(folder)), asked.endpoints, asked.kills, asked.connections)
            show(found)
            lab.assert_clean()
    finally:
        namespace.close()
    return int(found.worst >= BOUND_MS)


if __name__ == "__main__":
    sys.exit(main())
