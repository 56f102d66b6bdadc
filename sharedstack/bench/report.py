"""What is printed: on what it ran, the table, the notes, the verdict."""

from __future__ import annotations

import os
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table

from .cases import FIGURES, Case
from .results import ACCELERATED, Results, Row
from .runner import Plan

WIDTH = 124
BUSY = 0.5  # load average for each CPU, above which figures say little


def console(file: TextIO) -> Console:
    """A terminal's own width and colours, else plain text of a fixed width."""
    out = Console(file=file, highlight=False, soft_wrap=True)
    return out if out.is_terminal else Console(file=file, highlight=False, soft_wrap=True, width=WIDTH, color_system=None)


def placement(plan: Plan) -> str:
    """Who runs where, in words."""
    if plan.server_cpu is None:
        return "nothing pinned"
    if plan.server_cpu == plan.client_cpu:
        return f"server and client both on CPU {plan.server_cpu}"
    return f"server on CPU {plan.server_cpu}, client on CPU {plan.client_cpu}"


def head(out: Console, plan: Plan, machine: dict[str, Any], stack: str) -> None:
    """Say on what it runs, before it does."""
    load = machine["load_average"]
    out.print(f"sharedstack bench: {placement(plan)}; {plan.rounds} round{'s' if plan.rounds > 1 else ''} of {plan.seconds:g} s a case")
    out.print(
        f"Linux {machine['kernel']}, {len(machine['cpus'])} of {machine['cpus_there']} CPUs, {machine['cpu_model']}, "
        f"load average {' '.join(map(str, load))}, congestion control {machine['congestion_control']}, uid {machine['uid']}",
        markup=False,
    )
    settings = " ".join(f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith("SHAREDSTACK_") and k != "SHAREDSTACK_STACK")
    out.print(f"stack {stack}, profile {plan.profile or 'default'}{', ' + settings if settings else ''}", markup=False)
    if load[0] > BUSY * len(machine["cpus"]):
        out.print("This machine is busy: the figures say little.")
    for case in plan.cases:
        wanted = case.quick if plan.quick else case.connections
        if plan.connections(case) < wanted:
            out.print(f"{case.name}: {plan.connections(case):,} connections instead of {wanted:,}: the limit of open files is too low.")


def _number(value: float | None) -> str:
    """Three digits that count, and all before the point."""
    if value is None:
        return "-"
    places = 0 if value == 0 or abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{places}f}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{_number(value)}×"


def show(out: Console, results: Results) -> None:
    """The floors and the table."""
    table = Table(box=box.ASCII2)
    for name, where in (
        ("case", "left"),
        ("figure", "left"),
        *((n, "right") for n in ("kernel", "shared", "ratio", "floor", "segs/op", "by ring")),
    ):
        table.add_column(name, justify="left" if where == "left" else "right", no_wrap=True)
    for case in results.cases:
        for number, row in enumerate(results.rows(case)):
            table.add_row(*_cells(results, row, first=number == 0), end_section=row.figure == case.figures[-1])
    out.print(table)
    line, call = results.floors["cache_line_ns"], results.floors["syscall_ns"]
    bounce = f"a cache line there and one back {line:.0f} ns" if line else "no second CPU to bounce a cache line with"
    out.print(f"Floors of this run: {bounce}; a system call {call:.0f} ns.")
    out.print(
        "ratio: above 1, shared is better. floor: p50 in cache-line round trips. segs/op: TCP segments of an operation that the kernel"
    )
    out.print("received while the shared side ran, least of the rounds. by ring: part of the bytes that went through shared memory.")


def _cells(results: Results, row: Row, *, first: bool) -> list[str]:
    proof = results.proof(row.case)
    silent = not (sum(s.local + s.kernel for s in results.samples(row.case, "shared")))
    segments = "-" if row.case.client[0] in ("idle", "call") else f"{proof.segments:.4f}"
    return [
        row.case.name if first else "",
        FIGURES[row.figure].title,
        _number(row.kernel),
        _number(row.shared),
        _ratio(row.ratio),
        _ratio(row.floors),
        segments if first else "",
        ("-" if silent else f"{proof.by_ring:.1%}") if first else "",
    ]


def _median(results: Results, name: str, figure: str, side: str) -> float | None:
    case = next((case for case in results.cases if case.name == name), None)
    return results.medians(case, side).get(figure) if case else None


def notes(out: Console, results: Results) -> None:
    """What no single row says."""
    few, many = (_median(results, name, "p50_us", "shared") for name in ("epoll_10", "epoll_10k"))
    if few and many:
        members = next(results.plan.connections(case) for case in results.cases if case.name == "epoll_10k")
        out.print(f"epoll: 1 active of {members:,} members takes {many / few:.2f} times what 1 of 10 takes (shared, p50).")
    plain, loaded = (_median(results, "call", "call_ns", side) for side in ("kernel", "shared"))
    if plain and loaded:
        out.print(f"The library adds {loaded - plain:+.1f} ns to a call on a socket that is not paired.")
    for case in results.cases:
        if case.name == "idle":
            out.print(f"idle: {results.plan.connections(case):,} connections, {results.plan.idle_seconds:g} s, all processes together.")
        elif results.proof(case).others:
            own = results.proof(case).own_segments
            out.print(f"{case.name}: others use TCP on this host; its own connections had {own:.4f} segments/op (TCP_INFO).")


def verdict(out: Console, results: Results) -> None:
    """Say what failed, and what was not accelerated."""
    for name, error in results.measured.failures.items():
        out.print(f"FAILED: {name}: {error}", markup=False)
    for case in results.slow():
        out.print(_slow(results, case), markup=False)
    must = [case for case in results.cases if case.must]
    if results.good() and must:
        out.print(f"Accelerated: all {len(must)} cases that must be; less than {ACCELERATED} TCP segments of an operation in the kernel.")


def _slow(results: Results, case: Case) -> str:
    proof = results.proof(case)
    return (
        f"NOT ACCELERATED: {case.name}: {proof.segments:.3f} TCP segments/op in the kernel ({proof.own_segments:.3f} on its connections, "
        f"expected less than {ACCELERATED}), {proof.by_ring:.1%} of the bytes by ring"
    )
