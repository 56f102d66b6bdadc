"""Tables of a decoded stack for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from ..declare.counters import COUNTERS
from ..declare.options import OPTIONS
from .held import HeldLock
from .state import Endpoint, Path, State

_WIDE = 200


def show(state: State, sections: set[str], everything: bool) -> None:
    """Print the chosen sections (participants, endpoints, memory, counters, locks), or everything."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDE)
    _head(console, state)
    if everything or "participants" in sections:
        _participants(console, state)
    if everything or "endpoints" in sections:
        _endpoints(console, state)
    if everything or "locks" in sections:
        _locks(console, state)
    if everything or "memory" in sections:
        _memory(console, state)
    if state.links and (everything or "links" in sections):
        _links(console, state)
    if everything or "counters" in sections:
        rows = [(c.name, str(state.counters[c.name]), c.unit, c.meaning) for c in COUNTERS]
        _rows(console, ("counter", "value", "unit", "meaning"), rows)
    if everything:
        _rows(console, ("option", "value", "unit", "meaning"), [(o.name, str(state.options[o.name]), o.unit, o.meaning) for o in OPTIONS])


def _rows(console: Console, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    table = Table(*head, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print()


def _head(console: Console, state: State) -> None:
    s, m = state.stack, state.memory
    helper = f"helper {s['helper']}" if s["helper"] else "no helper"
    console.print(
        f"stack {s['name']}: {s['state']}, {helper}, {len(state.participants)} participants, {len(state.endpoints)} endpoints, "
        f"{m['pairs_used']} pairs, ring memory {m['units_used'] * m['unit_bytes'] >> 10} of {m['units'] * m['unit_bytes'] >> 10} KiB\n"
    )


def _participants(console: Console, state: State) -> None:
    rows = []
    for p in state.participants:
        note = "helper" if p.helper else ""
        pid = str(p.pid) if p.pid else f"({p.own_pid} in its namespace)"
        alive = p.state if p.alive else "dead"
        by_path = [size(sum(p.counters[f"{way}_{path}_bytes"] for way in ("tx", "rx"))) for path in ("local", "wire", "kernel")]
        rows.append((str(p.slot), pid, p.comm, str(p.bits), alive, str(p.spinning), *by_path, note))
    _rows(console, ("slot", "pid", "program", "bits", "state", "spinning", "local", "wire", "kernel", ""), rows)


def _endpoints(console: Console, state: State) -> None:
    rows = [
        (f"{e.index} {e.proto}", e.local, e.remote, e.state, _way(e.tx), _way(e.rx), _bytes(e.tx), _bytes(e.rx), _holders(e), str(e.cookie))
        for e in state.endpoints
    ]
    head = ("endpoint", "local address", "remote address", "state", "sends", "receives", "sent", "received", "held by", "cookie")
    _rows(console, head, rows)


def _way(path: Path) -> str:
    if path.path in ("local", "wire"):
        return path.path
    return f"{path.path}: {path.why} {path.option}".rstrip()


def _bytes(path: Path) -> str:
    return f"{size(path.local_bytes)} + {size(path.wire_bytes)} + {size(path.kernel_bytes)}"


def _holders(e: Endpoint) -> str:
    return ", ".join(f"{h['comm']} ({h['pid']})" for h in e.processes)


def _locks(console: Console, state: State) -> None:
    if not state.locks:
        console.print("no lock is held\n")
        return
    rows = [(held.lock, held.owner, str(held.thread), _awaited(held)) for held in state.locks]
    _rows(console, ("lock", "held by", "thread", "waited for"), rows)


def _awaited(held: HeldLock) -> str:
    if held.awaited_ns is None:
        return "yes" if held.waiters else ""
    return f"for {held.awaited_ns / 1e9:.3f} s"


def _memory(console: Console, state: State) -> None:
    m = state.memory
    rings = ", ".join(f"{count} of {size(int(n))}" for n, count in m["rings"].items()) or "none"
    rows = [
        ("ring memory", f"{m['units_used']} of {m['units']} units of {size(m['unit_bytes'])} ({m['bulk']})"),
        ("rings", rings),
        ("pairs", f"{m['pairs_used']} of {m['pairs']}"),
        ("endpoints", f"{m['endpoints_used']} of {m['endpoints']}"),
        ("links", f"{m['links_used']} of {m['links']}"),
        ("slots ever used", f"{m['slots_top']} of {m['slots']}"),
    ]
    _rows(console, ("memory", ""), rows)


def _links(console: Console, state: State) -> None:
    rows = []
    for one in state.links:
        packets = f"{sum(q.rx for q in one.queues)} in, {sum(q.tx for q in one.queues)} out"
        kind = f"{'virtual, ' if one.virtual else ''}{'zero copy' if any(q.zero_copy for q in one.queues) else 'copying'}"
        notes = ", ".join(f"{name} {value}" for name, value in one.counters.items() if name not in ("in_packets", "out_packets"))
        connections = ", ".join(f"{count} {name}" for name, count in one.states.items()) or str(one.connections)
        rows.append((one.name, "up" if one.up else "down", kind, str(one.mtu), str(len(one.queues)), connections, packets, notes))
    _rows(console, ("link", "state", "kind", "MTU", "queues", "connections", "packets", "counted"), rows)


def size(count: int) -> str:
    """Bytes, short: 512, 16K, 1.5M."""
    value = float(count)
    for unit in ("", "K", "M", "G"):
        if value < 1024:
            return f"{value:.0f}{unit}" if value == int(value) or not unit else f"{value:.1f}{unit}"
        value /= 1024
    return f"{value:.1f}T"
