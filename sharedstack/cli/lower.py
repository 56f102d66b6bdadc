"""`sharedstack lower`: make connections the kernel's again, for now."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .. import ask
from ..declare.messages import MOST_ENDS
from ..declare.names import DEFAULT_STACK
from ..declare.reasons import REASONS
from ..inspection import snapshot, state
from ..inspection.state import End

_DESCRIPTION = "Make what is lifted the kernel's again, every holder at once, and say what was done. It is lifted anew when that pays."


@dataclass(frozen=True)
class Lowered:
    """What was done to one end: open rings that were shut, and whether it was on the wire path; `why`: it is that still."""

    endpoint: int
    local: str
    remote: str
    processes: list[str]
    rings: int
    wire: bool
    why: str

    @property
    def text(self) -> str:
        """In one line."""
        done = [f"{self.rings} ring{'s' * (self.rings != 1)} shut"] if self.rings else []
        if self.wire:
            done.append(f"stays on the wire path: {self.why}" if self.why else "taken back from the wire path")
        return f"endpoint {self.endpoint} {self.local} - {self.remote} ({', '.join(self.processes) or 'no process'}): {', '.join(done)}"


class RefusedError(Exception):
    """There is no helper, or it does not do it; the text says why."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sharedstack lower", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("endpoint", nargs="?", type=int, metavar="ENDPOINT", help="its number, as inspect shows it; all by default")
    parser.add_argument("--stack", default=os.environ.get("SHAREDSTACK_STACK") or DEFAULT_STACK, metavar="NAME", help="name of the stack")
    parser.add_argument("--uid", type=int, metavar="N", help="user whose stack it is (you)")
    parser.add_argument("--pid", type=int, help="only what this process holds")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="how to print (table)")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command line `argv` (without the program's name); returns the exit status."""
    try:
        wanted = _parser().parse_args(list(argv))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2
    uid = os.getuid() if wanted.uid is None else wanted.uid
    try:
        ends, count = _ends(snapshot.take(snapshot.find(uid, wanted.stack)), wanted.endpoint, wanted.pid)
        with ask.connected(wanted.stack, uid, RefusedError) as helper:
            found = [one for one in lower(helper, ends) if one.rings or one.wire]
    except (snapshot.NoStackError, snapshot.LayoutError, RefusedError) as e:
        print(f"sharedstack: {e}", file=sys.stderr)
        return 1
    if wanted.format == "json":
        print(json.dumps({"lowered": [vars(one) for one in found]}, indent=2))
    else:
        last = f"{len(found)} of {count} lowered" if count else "nothing is registered there"
        print("\n".join([*(one.text for one in found), last]))
    return int(any(one.why for one in found))


def _ends(shot: snapshot.Snapshot, endpoint: int | None, pid: int | None) -> tuple[list[End], int]:
    """Those to ask for, and how many they are chosen from."""
    used = state.used(shot)
    if endpoint is None and pid is None:
        return state.ends(shot, state.lifted(shot)), len(used)
    if endpoint is not None and endpoint not in used:
        raise RefusedError(f"there is no endpoint {endpoint}: see `sharedstack inspect`")
    chosen = state.ends(shot, used if endpoint is None else [endpoint])
    chosen = [end for end in chosen if pid is None or any(p["pid"] == pid for p in end.processes)]
    return chosen, len(chosen)


def lower(helper: ask.Helper, ends: list[End]) -> Iterator[Lowered]:
    """Have the helper lower them, as many at a time as it takes."""
    for at in range(0, len(ends), MOST_ENDS):
        some = ends[at : at + MOST_ENDS]
        results = helper.ask("unlift", ends=[(end.index, end.cookie) for end in some])["results"]
        for end, (rings, wire, why) in zip(some, results, strict=True):
            names = [f"{p['comm']} {p['pid']}" for p in end.processes]
            yield Lowered(end.index, end.local, end.remote, names, rings, wire, REASONS[why].text if why else "")
