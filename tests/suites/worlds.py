"""The three worlds in which a suite runs: the plain kernel, the library with its defaults, and the library eager.

They share one network namespace, in which loopback is up and an interface to nowhere has an address of each family: getaddrinfo(3) leaves
a family out (AI_ADDRCONFIG) that has none but loopback's. Each world but the kernel's has a helper and a stack of its own. One thing runs
at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from compat.fix_lab import MODES, Lab, Namespace
from suites.inside import kernel_payload

from sharedstack.declare import layout
from sharedstack.declare.counters import COUNTERS

# RFC 2544's network for tests, and a unique local address (RFC 4193): neither leaves that interface
_ADDRESSES = ("198.18.0.1/24", "fd00:198:18::1/64")
COUNTED = ("tx_local_bytes", "tx_kernel_bytes")
# of what was sent by the kernel on connections under count; a byte has one of them
REASONS = ("tx_kernel_full", "tx_kernel_asleep", "tx_kernel_unread", "tx_kernel_lowered", "tx_kernel_special")

PATIENT = {"SHAREDSTACK_EAGER": "1"}  # waits for readers and room


@dataclass
class Moved:
    """Bytes sent: by ring and by the kernel on connections under count, as participants counted; by the kernel in all, as it counted."""

    local: int = 0
    counted: int = 0
    kernel: int = 0
    segments: int = 0

    def __add__(self, other: Moved) -> Moved:
        return Moved(self.local + other.local, self.counted + other.counted, self.kernel + other.kernel, self.segments + other.segments)

    def __sub__(self, other: Moved) -> Moved:
        return Moved(self.local - other.local, self.counted - other.counted, self.kernel - other.kernel, self.segments - other.segments)

    @property
    def share(self) -> float:
        """Of all bytes, those that went by ring."""
        return self.local / ((self.local + self.kernel) or 1)


@dataclass
class Ended:
    """How a command ended; `late`: it had to be killed. `why`: bytes by counter, of REASONS."""

    status: int
    late: bool
    seconds: float
    moved: Moved
    why: dict[str, int]


def _ends(pid: int, limit: float) -> bool:
    """Wait for the end of a child, without reaping it."""
    pidfd = os.pidfd_open(pid)
    try:
        return bool(select.select([pidfd], [], [], limit)[0])
    finally:
        os.close(pidfd)


class Worlds:
    """The namespace, and a lab for each world that is asked for."""

    def __init__(self, suite: str, names: Sequence[str] = MODES) -> None:
        self.suite, self.names = suite, tuple(names)
        self.namespace = Namespace()
        self._stack = contextlib.ExitStack()
        self.labs: dict[str, Lab] = {}

    def __enter__(self) -> Self:
        if not self.namespace.own:
            self.namespace.close()
            raise PermissionError("a network namespace of one's own needs root")
        self._stack.callback(self.namespace.close)
        # a dummy, or what behaves like one where the kernel has none
        if not any(self._ip(f"link add suites0 type {kind}", check=False) for kind in ("dummy", "bridge", "ifb", "veth")):
            raise OSError("no interface can be made: neither dummy nor bridge, ifb or veth")
        for address in _ADDRESSES:
            self._ip(f"address add {address} dev suites0" + (" nodad" if ":" in address else ""))
        self._ip("link set suites0 up")
        for name in self.names:
            lab = Lab(self.namespace, self.suite)
            lab.look_every = 3600  # the reasons are counters here: nothing has to be sampled
            self.labs[name] = lab if name == "kernel" else self._stack.enter_context(lab)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def _ip(self, arguments: str, check: bool = True) -> bool:
        done = subprocess.run([*self.namespace.prefix, "ip", *arguments.split()], check=check, stderr=None if check else subprocess.DEVNULL)
        return done.returncode == 0

    def counters(self, world: str) -> str:
        """Where the counters are in the stack's segment, for inside.py."""
        if world == "kernel":
            return "-"
        numbers = [next(i for i, c in enumerate(COUNTERS) if c.name == name) for name in COUNTED]
        place = {
            f: next(p.offset for p in s.placed() if p.field.name == f) for s, f in ((layout.STACK, "totals"), (layout.SLOT, "counters"))
        }
        places = [(place["totals"] + 8 * n, place["counters"] + 8 * n) for n in numbers]
        path = str(self.labs[world].daemon.path("stack"))
        state = next(p.offset for p in layout.SLOT.placed() if p.field.name == "state")
        spec: dict[str, Any] = {"path": path, "places": places, "first": layout.STACK_SLOTS, "stride": layout.SLOT.size, "state": state}
        return json.dumps(spec | {"count": layout.CONSTANTS["N_SLOTS"]})

    def moved(self, world: str) -> Moved:
        """What has been sent since the stack began."""
        holder = self.namespace.holder
        kernel, segments = kernel_payload(f"/proc/{holder.pid}/net" if holder else "/proc/net")
        if world == "kernel":
            return Moved(0, 0, kernel, segments)
        sent = self.labs[world].sent()
        return Moved(sent.local, sent.kernel, kernel, segments)

    def reasons(self, world: str) -> dict[str, int]:
        """Bytes by reason since the stack began."""
        counters = self.labs[world].state().counters if world != "kernel" else {}
        return {name: counters.get(name, 0) for name in REASONS}

    def run(self, world: str, argv: Sequence[str], output: Path, limit: float, cwd: Path, env: dict[str, str] | None = None) -> Ended:
        """Run to its end, at most `limit` seconds, as leader of a session of its own; what it writes goes to `output`."""
        lab, before, why, began = self.labs[world], self.moved(world), self.reasons(world), time.monotonic()
        with output.open("ab") as out:
            process = subprocess.Popen(
                # a suite that tests signals must not inherit that we, or make, were started with some ignored
                ["env", "--default-signal", *lab.command(argv, world)],
                env=lab.environ(world, **(PATIENT if world == "eager" else {}), **(env or {})),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                start_new_session=True,
            )
            late = not _ends(process.pid, limit)
            os.killpg(process.pid, signal.SIGKILL)  # also what it left behind in its process group, which is its own until it is waited for
            process.wait()
        if world != "kernel":
            lab.settle()
        seconds, after = time.monotonic() - began, self.reasons(world)
        return Ended(process.returncode, late, seconds, self.moved(world) - before, {name: after[name] - why[name] for name in REASONS})
