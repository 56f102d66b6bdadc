"""`sharedstack lower`: make connections the kernel's again, for now."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import msgpack
import typer

from ..declare.messages import MAX_MESSAGE, PROTOCOL_VERSION
from ..declare.names import DEFAULT_STACK, control_socket
from ..declare.reasons import REASONS
from ..inspection import snapshot
from ..inspection.state import Endpoint, decode, lifted, registered
from .doctor import Form

_PATIENCE = 10.0  # seconds for an answer
_AT_A_TIME = 32  # requests on their way: neither side waits for the other at each


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


def lower(
    endpoint: int | None = typer.Argument(None, metavar="[ENDPOINT]", help="Its number, as inspect shows it; all by default."),
    stack: str = typer.Option(DEFAULT_STACK, envvar="SHAREDSTACK_STACK", help="Name of the stack."),
    uid: int = typer.Option(-1, help="User whose stack it is.", show_default="you"),
    pid: int | None = typer.Option(None, help="Only what this process holds."),
    form: Form = typer.Option(Form.TABLE, "--format", help="How to print."),
) -> None:
    """Make what is lifted the kernel's again, every holder at once, and say what was done. It is lifted anew when that pays."""
    uid = os.getuid() if uid < 0 else uid
    try:
        shot = snapshot.take(snapshot.find(uid, stack))
        everything = endpoint is None and pid is None
        ends = lifted(shot) if everything else _chosen(decode(shot, live=True).endpoints, endpoint, pid)
        count = registered(shot) if everything else len(ends)
        with _helper(uid, stack) as helper:
            found = [one for one in _lower(helper, ends) if one.rings or one.wire]
    except (snapshot.NoStackError, snapshot.LayoutError, RefusedError) as e:
        typer.echo(f"sharedstack: {e}", err=True)
        raise typer.Exit(1) from e
    if form is Form.JSON:
        typer.echo(json.dumps({"lowered": [asdict(one) for one in found]}, indent=2))
    else:
        for one in found:
            typer.echo(one.text)
        typer.echo(f"{len(found)} of {count} lowered" if count else "nothing is registered there")
    if any(one.why for one in found):
        raise typer.Exit(1)


def _chosen(ends: list[Endpoint], endpoint: int | None, pid: int | None) -> list[Endpoint]:
    if endpoint is not None and all(end.index != endpoint for end in ends):
        raise RefusedError(f"there is no endpoint {endpoint}: see `sharedstack inspect`")
    return [end for end in ends if endpoint in (None, end.index) and (pid is None or any(p["pid"] == pid for p in end.processes))]


@contextmanager
def _helper(uid: int, stack: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as helper:
        helper.settimeout(_PATIENCE)
        try:
            helper.connect(control_socket(uid, stack))
        except OSError as e:
            raise RefusedError(f"stack {stack} has no helper, which would have to do it: {e.strerror}") from e
        yield helper


def _lower(helper: socket.socket, ends: list[Endpoint]) -> Iterator[Lowered]:
    for at in range(0, len(ends), _AT_A_TIME):
        some = ends[at : at + _AT_A_TIME]
        for end in some:
            _ask(helper, {"v": PROTOCOL_VERSION, "t": "unlift", "endpoint": end.index, "cookie": end.cookie})
        for end in some:
            reply = _answer(helper)
            why = REASONS[reply["why"]].text if reply["why"] else ""
            names = [f"{p['comm']} {p['pid']}" for p in end.processes]
            yield Lowered(end.index, end.local, end.remote, names, reply["rings"], reply["wire"], why)


def _ask(helper: socket.socket, message: dict[str, Any]) -> None:
    try:
        helper.send(msgpack.packb(message))
    except OSError as e:
        raise RefusedError(f"the helper does not answer: {e}") from e


def _answer(helper: socket.socket) -> dict[str, Any]:
    try:
        reply: dict[str, Any] = msgpack.unpackb(helper.recv(MAX_MESSAGE))
    except (OSError, ValueError) as e:
        raise RefusedError(f"the helper does not answer: {e}") from e
    if reply.get("t") != "unlifted":
        raise RefusedError(str(reply.get("text", "the helper hung up")))
    return reply
