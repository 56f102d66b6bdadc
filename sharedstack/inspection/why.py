"""`inspect --why`: for each socket of each preloaded process, which path its bytes take, and why.

What has an endpoint record says it itself. For what has none, the reason is derived from outside: from /proc and from what the
other sockets of the namespace are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..declare import layout
from ..declare.layout import CONSTANTS as C
from ..declare.reasons import REASONS
from . import processes
from .processes import ESTABLISHED, InetSocket
from .state import Endpoint, State

_BY_NAME = {r.name: r for r in REASONS}
_LAST_STANDARD_STREAM = 2
OWN_DESCRIPTORS = 2


@dataclass(frozen=True)
class Line:
    """One socket of one process; `tx` and `rx` are reasons' names, "none" on the local path.

    `option` names the option where one of them is `option`, `rule` what
    keeps it in the kernel where that is a rule; empty else.
    """

    pid: int
    comm: str
    fds: list[int]
    socket: str
    tx: str
    rx: str
    option: str = ""
    rule: str = ""

    @property
    def text(self) -> str:
        """The reasons in words, with what can be done about them."""
        parts = []
        for name in dict.fromkeys((self.tx, self.rx)):
            r = _BY_NAME.get(name)
            text = name if r is None else f"{r.text} ({r.advice})" if r.advice else r.text
            detail = self.option if name == "option" else self.rule if name in ("lowered_rule", "lo_rules") else ""
            parts.append(f"{text}: {detail}" if detail else text)
        return "; ".join(parts)


@dataclass(frozen=True)
class Stack:
    """What is known of the stack: decoded, or why there is none (`no_helper`, `layout_mismatch`)."""

    state: State | None
    missing: str = "no_helper"
    uid: int = 0


@dataclass(frozen=True)
class _Process:
    pid: int
    comm: str
    uid: int
    netns: int
    disabled: bool


def lines(stack: Stack, *, all_sockets: bool = False) -> list[Line]:
    """One line per socket; other than internet sockets only with `all_sockets`."""
    participants = {p.pid for p in stack.state.participants if p.pid and p.alive and not p.helper} if stack.state else set()
    helpers = {p.pid for p in stack.state.participants if p.helper} if stack.state else set()
    others = set(processes.pids()) - helpers - participants
    mine = participants | {p for p in others if processes.uid(p) == stack.uid and processes.preloaded(p)}
    return [line for pid in sorted(mine) for line in _of_process(stack, pid, mine, all_sockets)]


def _of_process(stack: Stack, pid: int, preloaded: set[int], all_sockets: bool) -> list[Line]:
    disabled = processes.environ(pid).get("SHAREDSTACK_ENABLE") == "0"
    who = _Process(pid, processes.comm(pid), processes.uid(pid), processes.namespace(pid, "net"), disabled)
    table = processes.inet_sockets(pid)
    records = {e.inode: e for e in stack.state.endpoints} if stack.state else {}
    found = []
    for inode, fds in sorted(processes.sockets(pid).items(), key=lambda item: item[1]):
        record, one = records.get(inode), table.get(inode)
        blank = Line(pid, who.comm, fds, "", "", "")
        if record:
            tx, rx = record.tx, record.rx
            line = replace(blank, socket=_shown(record), tx=tx.why, rx=rx.why)
            found.append(replace(line, option=tx.option or rx.option, rule=tx.rule or rx.rule))
        elif one:
            told = {n: r for p in (stack.state.participants if stack.state else ()) if p.pid == pid for n, r in p.told.items()}
            why = explain(stack, who, one, fds, table, preloaded)
            if why == "short_lived":  # what cannot be seen from outside, the process has said, if it could
                why = told.get(inode, "exhausted" if kept_out(stack, pid) else why)
            found.append(replace(blank, socket=describe(one), tx=why, rx=why))
        elif all_sockets:
            found.append(replace(blank, socket=f"socket:[{inode}]", tx="not_inet", rx="not_inet"))
    return found


def _shown(record: Endpoint) -> str:
    return f"{record.proto} {record.local} {record.remote}"


def describe(one: InetSocket) -> str:
    """Protocol and addresses."""
    return f"{one.proto.rstrip('6')} {processes.printable(one.laddr, one.lport)} {processes.printable(one.raddr, one.rport)}"


def explain(stack: Stack, who: _Process, one: InetSocket, fds: list[int], table: dict[int, InetSocket], preloaded: set[int]) -> str:
    """Why an internet socket without an endpoint record has none; the first that holds."""
    if who.disabled:
        return "disabled"
    if stack.state is None:
        return stack.missing
    if who.netns != processes.namespace("self", "net"):
        return "other_netns"
    if one.proto.startswith("udp"):
        return "standard_stream" if fds[0] <= _LAST_STANDARD_STREAM else "short_lived"
    if not one.proto.startswith("tcp") or one.state != ESTABLISHED:
        return "not_established"
    if fds[0] <= _LAST_STANDARD_STREAM:
        return "standard_stream"
    mate = mate_of(one, table)
    if mate is None:
        return "peer_unknown"
    if mate.uid != who.uid:
        return "other_uid"
    if not any(mate.inode in processes.sockets(pid) for pid in preloaded):
        return "peer_unknown"
    return "short_lived"


def kept_out(stack: Stack, pid: int) -> bool:
    """Can a preloaded process have no part in the stack: no slot is left, or it may not map the segments, or open more?"""
    if stack.state is None or any(p.pid == pid for p in stack.state.participants):
        return False
    if len(stack.state.participants) >= stack.state.memory["slots"]:
        return True
    size, most = processes.address_space(pid)
    count, most_fds = processes.descriptors(pid)
    return size + layout.STACK_BYTES + layout.ARENA_BYTES > most or most_fds < max(count + OWN_DESCRIPTORS, C["FEWEST_DESCRIPTORS"])


def mate_of(one: InetSocket, table: dict[int, InetSocket]) -> InetSocket | None:
    """The other end of a connection, where it is in the same namespace."""
    turned = (one.raddr, one.rport, one.laddr, one.lport)
    return next((o for o in table.values() if (o.laddr, o.lport, o.raddr, o.rport) == turned and o.proto.startswith("tcp")), None)
