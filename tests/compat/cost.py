"""What it costs to share and to lower lifted connections, beside the plain kernel: `make cost`.

    python -m compat.cost [--rounds N] [--connections N] [--lowered N]

- A fork (with _exit and waitpid) of a process in which 1,000 lifted sockets are open.
- The first use of a descriptor that came by SCM_RIGHTS, by fork, or by fork and exec: the receive of a waiting byte, and a send; less the
  same on the kernel, and less its second use.
- Lowering idle connections: by requests to the helper, and by `sharedstack lower`, which finds them as well.

Both sides take turns, a round each, so that what else the machine does meets both. Figures are medians (of forks, of the faster half);
nothing is pinned. `tests/programs/sharing.c` does what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compat.fix_lab import Builder, Lab, Namespace, program

WARM = 40  # messages each way: enough to be lifted
WAYS = ("passed", "forked", "executed")
CALLS = ("receive", "send", "recvmsg")
PATIENCE = 120.0


class Program:
    """`sharing` on one side."""

    def __init__(self, lab: Lab, binary: str, mode: str, connections: int, warm: int = WARM) -> None:
        argv = [binary, str(connections), str(warm)]
        self.process = lab.start(argv, mode, stdin=subprocess.PIPE, stderr=None)
        self.lines("ready")

    def lines(self, last: str) -> list[list[int]]:
        """Numbers of each line up to that one."""
        assert self.process.stdout
        found: list[list[int]] = []
        while (line := self.process.stdout.readline().strip()) != last:
            assert line, f"{self.process.args} ended with status {self.process.wait(PATIENCE)}"
            found.append([int(word) for word in line.split()])
        return found

    def do(self, what: str, times: int = 0) -> list[list[int]]:
        """One command, and its samples in nanoseconds."""
        assert self.process.stdin
        self.process.stdin.write(f"{what} {times}\n")
        self.process.stdin.flush()
        return self.lines(".")

    def end(self) -> None:
        self.process.communicate()
        assert self.process.returncode == 0


@dataclass(frozen=True)
class Fork:
    """Medians of the faster half in microseconds (the slower one is what else the machine does), and how many sockets were lifted."""

    kernel: float
    shared: float
    lifted: int

    @property
    def ratio(self) -> float:
        return self.shared / self.kernel


def paired(lab: Lab) -> int:
    """Ends of connections of which both directions are counted: what `inspect` shows as local, or as ready to be."""
    return 2 * lab.state().memory["pairs_used"]


def fork(lab: Lab, binary: str, connections: int = 500, rounds: int = 10, each: int = 20) -> Fork:
    sides = [Program(lab, binary, mode, connections) for mode in ("kernel", "default")]
    lifted = paired(lab)
    for side in sides:
        side.do("fork", 1)  # marks each end as shared; later ones find it so
    took: list[list[int]] = [[], []]
    for _ in range(rounds):
        for side, samples in zip(sides, took, strict=True):
            samples += [line[0] for line in side.do("fork", each)]
    for side in sides:
        side.do("check")
        side.end()
    kernel, shared = (statistics.median(sorted(samples)[: len(samples) // 2]) / 1e3 for samples in took)
    return Fork(kernel, shared, lifted)


@dataclass(frozen=True)
class Use:
    """One call on a descriptor that came that way, in nanoseconds: (p50, p99) of the first one and of the next one."""

    way: str
    call: str
    side: str
    first: tuple[int, int]
    next: tuple[int, int]


def quantiles(samples: Sequence[int]) -> tuple[int, int]:
    ordered = sorted(samples)
    return ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]


def first_uses(lab: Lab, binary: str, connections: int = 500, rounds: int = 2) -> list[Use]:
    """New connections for each round, since what was used is not new any more; the first of each process, which attaches, is left out."""
    found: list[Use] = []
    for way in WAYS:
        samples: dict[str, list[list[int]]] = {"kernel": [], "default": []}
        for _ in range(rounds):
            for mode, lines in samples.items():
                side = Program(lab, binary, mode, connections)
                lines += side.do(way, connections)[1:]
                side.end()
        for mode, lines in samples.items():
            *columns, rights = [quantiles(column) for column in zip(*lines, strict=True)]
            found += [Use(way, call, mode, columns[i], columns[i + 2]) for i, call in enumerate(CALLS[:2])]
            if way == "passed":
                found.append(Use(way, CALLS[2], mode, rights, rights))
    return found


# in the stack's namespace: the requests to the helper alone, for those that are lifted
ASK = """
import sys, time, json
from sharedstack import ask
from sharedstack.cli.lower import lower
from sharedstack.inspection import snapshot, state
uid, stack, name, pid = int(sys.argv[1]), *sys.argv[2:]
def cpu():
    return time.process_time() + int(open(f"/proc/{pid}/schedstat").read().split()[0]) / 1e9
shot = snapshot.take(name)
ends = state.ends(shot, state.lifted(shot))
with ask.connected(stack, uid) as helper:
    began, used = time.perf_counter(), cpu()
    lowered = sum(one.rings > 0 for one in lower(helper, ends))
    print(json.dumps([lowered, time.perf_counter() - began, cpu() - used]))
"""


@dataclass(frozen=True)
class Lowering:
    """Of idle connections: how many were lifted, seconds of all requests for them, and of CPU, ours and the helper's; and how many
    the command found lifted of how many, in how many seconds."""

    asked: int
    requests: float
    cpu: float
    lowered: int
    connections: int
    seconds: float
    start: float  # of them, what the command takes on an empty stack


def command(lab: Lab) -> tuple[float, int]:
    """`sharedstack lower`: seconds, and rings that it shut."""
    began = time.perf_counter()
    argv = [*lab.namespace.prefix, program("sharedstack"), "lower", "--stack", lab.stack, "--format", "json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=lab.environ("kernel"))
    return time.perf_counter() - began, sum(one["rings"] for one in json.loads(done.stdout)["lowered"])


def lowering(lab: Lab, binary: str, connections: int, few: int = 500) -> Lowering:
    start, _ = command(lab)
    assert lab.daemon.process
    side = Program(lab, binary, "eager", few, 8)
    done = lab.direct(
        [sys.executable, "-c", ASK, str(lab.namespace.uid), lab.stack, lab.name, str(lab.daemon.process.pid)], lab.environ("kernel")
    )
    assert done.returncode == 0, done.stderr
    side.do("check")
    side.end()
    lab.settle()
    sides = [Program(lab, binary, "eager", connections // 2, 8) for _ in range(2)]  # a process may have 20,000 descriptors as a rule
    seconds, rings = command(lab)
    for side in sides:
        side.do("check")
        side.end()
    lab.settle()
    return Lowering(*json.loads(done.stdout), rings // 2, connections, seconds, start)


def show(lab: Lab, binary: str, rounds: int, connections: int, lowered: int) -> None:
    with Path("/proc/cpuinfo").open() as f:
        cpu = next((line.partition(":")[2].strip() for line in f if line.startswith("model name")), platform.machine())
    print(f"{cpu}, {os.cpu_count()} CPUs, Linux {platform.release()}, load average {os.getloadavg()[0]:.2f}, {time.strftime('%F')}")
    f = fork(lab, binary, connections, rounds)
    print(f"fork with {f.lifted} lifted sockets: kernel {f.kernel:.0f} us, shared {f.shared:.0f} us, ratio {f.ratio:.2f}")
    for u in first_uses(lab, binary, connections):
        print(
            f"{u.way:9} {u.call:8} {u.side:8} first p50 {u.first[0]:6} p99 {u.first[1]:7} ns, next p50 {u.next[0]:6} p99 {u.next[1]:7} ns"
        )
    low = lowering(lab, binary, lowered)
    print(f"lowering {low.asked} lifted connections: {low.requests / low.asked * 1e6:.1f} us each, CPU {low.cpu / low.asked * 1e6:.1f} us")
    print(f"sharedstack lower: {low.connections} connections, {low.lowered} lifted, {low.seconds:.2f} s; without any {low.start:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--lowered", type=int, default=10_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        namespace = Namespace()
        try:
            # rings that the helper takes back meanwhile, as it does when they are idle, would be none to lower
            with Lab(namespace, "cost", "--cool-every", "60") as lab:
                show(lab, Builder(Path(folder))("sharing"), args.rounds, args.connections, args.lowered)
        finally:
            namespace.close()


if __name__ == "__main__":
    main()
