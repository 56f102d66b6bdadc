"""The demo's two tables and its verdict. Without a terminal they are plain text of a fixed width."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from .rounds import SIDES, Results
from .workload import CASES, Case, Workload

ACCELERATED = 0.05  # TCP segments of a request, fewer than this
PLAIN_WIDTH = 110


def console() -> Console:
    """Where to print: a terminal's own width and colours, else plain text."""
    out = Console(highlight=False, soft_wrap=True)
    return out if out.is_terminal else Console(highlight=False, soft_wrap=True, width=PLAIN_WIDTH, color_system=None)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.ASCII2)
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number == 0 else "right", no_wrap=True)
    return table


def _rate(value: float) -> str:
    return f"{value:,.0f}"


def _micro(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds * 1e3:,.0f}"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def show(out: Console, workload: Workload, results: Results) -> None:
    """Print both tables."""
    rates = _table(
        "Rates and latency, medians of the rounds",
        *("\nload", *(f"requests/s\n{side}" for side in SIDES), "\nratio"),
        *(f"{which} µs\n{side}" for which in ("p50", "p99") for side in SIDES),
    )
    for case in CASES:
        for operation in workload.operations:
            kernel, shared = (results.rate(side, case, operation) for side in SIDES)
            latencies = [_micro(results.latency(side, case, operation, which)) for which in ("p50", "p99") for side in SIDES]
            rates.add_row(f"{operation} {case.name}", _rate(kernel), _rate(shared), f"{shared / kernel:.1f}x", *latencies)
    out.print(rates)
    proof = _table(
        "Cost and proof",
        "\n\nload",
        *(f"server CPU\nµs/request\n{side}" for side in SIDES),
        *(f"TCP segments\n/request\n{side}" for side in SIDES),
        *(f"shared side:\nbytes by\n{path}" for path in ("ring", "kernel")),
    )
    for case in CASES:
        by_path = results.by_path[case]
        proof.add_row(
            case.name,
            *(f"{results.cpu(side, case):.2f}" for side in SIDES),
            *(f"{results.segments(side, case):.4f}" for side in SIDES),
            *(_size(count) for count in (by_path.local, by_path.kernel)),
        )
    out.print(proof)


def slow_cases(results: Results) -> list[Case]:
    """The cases whose bytes went through the kernel."""
    return [case for case in CASES if results.segments("shared", case) >= ACCELERATED]


def verdict(out: Console, results: Results) -> int:
    """Say whether the shared side was accelerated, and if not, why; the exit status."""
    slow = slow_cases(results)
    for case in slow:
        out.print(
            f"NOT ACCELERATED: {case.name}: {results.segments('shared', case):.3f} TCP segments/request in the kernel, "
            f"expected less than {ACCELERATED}. `sharedstack inspect --why` says:",
        )
        out.print(results.why[case].rstrip(), markup=False)
    if not slow:
        out.print(
            f"Accelerated: on the shared side the kernel saw less than {ACCELERATED} TCP segments per request; "
            "the bytes went through shared memory.",
        )
    return 1 if slow else 0
