"""Real software in several processes, on the kernel and through sharedstack, compared: `make processes`.

python -m compat.processes.main [--only NAME]... [--mode MODE]... [--seconds N]

Each case runs on the plain kernel first, then with the library by default and eager (SHAREDSTACK_EAGER=1). It has to say what it says on
the kernel, no request may fail, nothing may be left behind, and when eager nine bytes of ten go by ring, or the case says why not.
Exit status 1 on any difference, or where a program is missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from compat.fix_lab import MODES
from compat.processes import databases, python, services, web
from compat.processes.play import Played, Theatre
from compat.processes.stage import Case, where
from rich.console import Console
from rich.table import Table

CASES: list[Case] = [*web.CASES, *databases.CASES, *services.CASES, *python.CASES]
SECONDS = 10.0


def missing(cases: Sequence[Case]) -> list[str]:
    """Programs that are not installed."""
    return sorted({name for case in cases for name in case.needs if where(name) is None})


def main() -> int:
    """The command; see `--help`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="cases whose name begins so")
    parser.add_argument("--mode", choices=MODES, action="append", help="only these modes, and the kernel")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long each load lasts (%(default)s); PostgreSQL's thrice")
    options = parser.parse_args()
    cases = [case for case in CASES if not options.only or any(case.name.startswith(name) for name in options.only)]
    modes = [mode for mode in MODES if mode == "kernel" or not options.mode or mode in options.mode]
    if lacking := missing(cases):
        print(f"not installed: {', '.join(lacking)}; `scripts/system-packages processes!` as root installs them", file=sys.stderr)
        return 1
    rows: list[tuple[Played, list[str]]] = []
    with Theatre(options.seconds) as theatre:
        for case in cases:
            kernel = theatre.play(case, "kernel")
            for mode in modes:
                played = kernel if mode == "kernel" else theatre.play(case, mode)
                rows.append((played, theatre.judge(played, kernel)))
                print(told(*rows[-1]), flush=True)
    Console(width=170).print(table(rows))
    different = sum(bool(found) for _, found in rows)
    print(f"{len(cases)} cases, {len(rows)} runs, {different} with differences")
    if different:
        print(f"logs of those: {theatre.folder}")
    return 1 if different else 0


def told(played: Played, found: Sequence[str]) -> str:
    """One line while it runs, and one for each difference."""
    head = f"{played.name}: {played.said.done} requests, {played.said.failed} failed, {played.share:.1%} by ring, {played.seconds:.1f} s"
    return "\n".join([head, *(f"  DIFFERENT {line}" for line in found)])


def reasons(played: Played) -> str:
    """Why bytes went by the kernel: bytes on connections under count, connections when looked at, and what the case says."""
    parts = [f"{name} {_size(n)}" for name, n in sorted(played.why.items(), key=lambda item: -item[1])]
    seen = ", ".join(f"{n} {name}" for name, n in played.seen.most_common(4))
    if seen:
        parts.append(f"sockets: {seen}")
    if played.mode == "eager" and played.case.exempt:
        parts.append(f"exempt: {played.case.exempt}")
    return "; ".join(parts)


def _size(n: int) -> str:
    for unit, one in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if n >= 10 * one:
            return f"{n // one} {unit}"
    return f"{n} B"


def table(rows: Sequence[tuple[Played, list[str]]]) -> Table:
    """All runs: what was asked, what failed, which way the bytes went, and why."""
    made = Table("case", "mode", "done", "failed", "by ring", "by kernel", "share", "why by the kernel, and notes", "result")
    for name in ("done", "failed", "by ring", "by kernel", "share"):
        next(c for c in made.columns if c.header == name).justify = "right"
    for p, found in rows:
        share = f"{p.share:.1%}" if p.mode != "kernel" else ""
        why = "; ".join(part for part in (reasons(p), p.said.note) if part)
        cells = (p.case.name, p.mode, f"{p.said.done:,}", str(p.said.failed), _size(p.local), _size(p.kernel), share, why)
        made.add_row(*cells, "DIFFERENT" if found else "same", end_section=p.mode == MODES[-1])
    return made


if __name__ == "__main__":
    sys.exit(main())
