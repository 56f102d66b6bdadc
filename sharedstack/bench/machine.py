"""What it ran on, and what /proc says of processes."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

SPARE_DESCRIPTORS = 64


def cpus() -> list[int]:
    """CPUs that this process may use, in order."""
    return sorted(os.sched_getaffinity(0))


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().splitlines()[0].strip()
    except (OSError, IndexError):
        return "unknown"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def facts() -> dict[str, Any]:
    """Kernel, CPUs, load average, congestion control of TCP."""
    return {
        "kernel": platform.release(),
        "cpus": cpus(),
        "cpus_there": os.cpu_count(),
        "cpu_model": _cpu_model(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "congestion_control": _first_line("/proc/sys/net/ipv4/tcp_congestion_control"),
        "uid": os.getuid(),
    }


def most_connections() -> int:
    """Connections that one process may have: its hard limit of descriptors, less a few."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 1 << 20 if hard == resource.RLIM_INFINITY else max(hard - SPARE_DESCRIPTORS, 1)


def _tasks(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").iterdir())


def cpu_ns(pid: int) -> int:
    """CPU time of a process, all its threads that live. Unit: ns. Source: proc(5), schedstat; where that is missing, ticks."""
    try:
        return sum(int((task / "schedstat").read_text().split()[0]) for task in _tasks(pid))
    except FileNotFoundError:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def switches(pid: int) -> int:
    """Context switches of a process, all its threads that live, wanted or not."""
    total = 0
    for task in _tasks(pid):
        for line in (task / "status").read_text().splitlines():
            if "ctxt_switches:" in line:
                total += int(line.split()[1])
    return total
