"""What is measured: each case with its two ends, its figures, and whether it must be accelerated."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A kind of result; `low` tells that less is better, `floor` that it is a round trip, to be held against a cache line's."""

    title: str
    low: bool = True
    floor: bool = False


FIGURES: dict[str, Figure] = {
    "p50_us": Figure("p50, µs", floor=True),
    "p99_us": Figure("p99, µs"),
    "p99.9_us": Figure("p99.9, µs"),
    "rate": Figure("1,000/s", low=False),
    "gbit": Figure("Gbit/s", low=False),
    "call_ns": Figure("ns/call"),
    "cpu_us": Figure("server CPU, µs/op"),
    "cpu_percent": Figure("CPU, % of a core"),
    "switches": Figure("context switches"),
    "end_bytes": Figure("shared bytes/end"),
}
LATENCY = ("p50_us", "p99_us", "cpu_us")


@dataclass(frozen=True)
class Case:
    """A case. `server` and `client` are arguments of shs-peer, without port, time, connections and CPU.

    `must`: fewer than `results.ACCELERATED` TCP segments of an operation may go by the kernel. `connections`: how many
    (`quick`: with --quick). `timed`: runs for a time rather than for a number of operations. `once`: in the first round only.
    """

    name: str
    title: str
    server: tuple[str, ...]
    client: tuple[str, ...]
    figures: tuple[str, ...]
    must: bool = True
    connections: int = 1
    quick: int = 1
    timed: bool = True
    once: bool = False


def _pingpong(name: str, title: str, way: str, *, size: int = 64, members: int = 1, quick: int = 1) -> Case:
    options = ("-w", way, "-s", str(size))
    return Case(name, title, ("echo", *options), ("pingpong", *options), LATENCY, connections=members, quick=quick)


def _load(name: str, rate: int) -> Case:
    figures = ("p50_us", "p99_us", "cpu_percent")
    return Case(name, f"{rate:,} messages/s offered, each answered", ("echo",), ("load", "-r", str(rate)), figures, must=False)


CASES: tuple[Case, ...] = (
    _pingpong("pingpong", "ping-pong, 64 B, blocking recv", "block"),
    _pingpong("pingpong_poll", "ping-pong, 64 B, poll", "poll"),
    _pingpong("pingpong_epoll", "ping-pong, 64 B, epoll", "epoll"),
    _pingpong("pingpong_4k", "ping-pong, 4 KiB, blocking recv", "block", size=4096),
    Case("stream", "stream of 64 B messages", ("sink", "-s", "64"), ("stream", "-s", "64"), ("rate", "cpu_us")),
    Case("bandwidth", "stream of 64 KiB writes", ("sink", "-s", "65536"), ("stream", "-s", "65536"), ("gbit", "cpu_us")),
    Case(
        "connect",
        "connect, accept, close",
        ("accept",),
        ("connect",),
        ("rate", "cpu_us"),
        must=False,
        timed=False,
        connections=8000,
        quick=300,
    ),
    _load("load_1k", 1000),
    _load("load_10k", 10_000),
    _load("load_50k", 50_000),
    _pingpong("epoll_10", "ping-pong by epoll, 1 active of 10", "epoll", members=10, quick=10),
    _pingpong("epoll_10k", "ping-pong by epoll, 1 active of 10,000", "epoll", members=10_000, quick=500),
    Case("pairs8", "8 pairs of processes, ping-pong, 64 B", ("forks",), ("pairs",), ("rate", "cpu_us"), must=False, connections=8, quick=8),
    Case(
        "idle",
        "silent connections",
        ("echo", "-w", "epoll"),
        ("idle",),
        ("switches", "cpu_percent", "end_bytes"),
        must=False,
        connections=1000,
        quick=50,
        timed=False,
        once=True,
    ),
    Case("call", "recv that finds nothing, unpaired socket", (), ("call",), ("call_ns",), must=False),
)
