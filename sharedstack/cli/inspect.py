"""`sharedstack inspect`: look at a stack, check it, say why a socket is not accelerated, dump it."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Any

import typer

from ..declare.names import DEFAULT_STACK


class Format(StrEnum):
    """How to print."""

    table = "table"
    json = "json"
    msgpack = "msgpack"


def inspect(
    stack: str = typer.Option(DEFAULT_STACK, envvar="SHAREDSTACK_STACK", help="Name of the stack."),
    uid: int = typer.Option(-1, help="User whose stack it is.", show_default="you"),
    output: Format = typer.Option(Format.table, "--format", help="How to print."),
    why: bool = typer.Option(False, "--why", help="For each socket: is it accelerated, and if not, why."),
    check: bool = typer.Option(False, "--check", help="Check every invariant of the stack; exit 1 if one is broken."),
    memory: bool = typer.Option(False, "--memory", help="Show the memory."),
    counters: bool = typer.Option(False, "--counters", help="Show the counters, summed."),
    locks: bool = typer.Option(False, "--locks", help="Show who holds which lock."),
    links: bool = typer.Option(False, "--links", help="Show the interfaces that are lent to the stack, and what their engines count."),
    everything: bool = typer.Option(False, "--all", help="Show all sections; with --why, other sockets than internet ones too."),
    write: Path | None = typer.Option(None, "-w", metavar="FILE", help="Write a snapshot (no program's data is in it)."),
    read: Path | None = typer.Option(None, "-r", metavar="FILE", help="Read a snapshot instead of live memory."),
) -> None:
    """Look at a stack, without its helper and without its locks."""
    from ..inspection import dumpfile, snapshot

    uid = os.getuid() if uid < 0 else uid
    if why and (read or check):
        raise typer.BadParameter("--why looks at running processes: it does not go with -r or --check")
    try:
        if why:
            _why(stack, uid, output, everything)
        elif check:
            raise typer.Exit(_check(stack, uid, output, read))
        else:
            shot = dumpfile.read(read) if read else snapshot.take(snapshot.find(uid, stack), bulk=write is not None)
            if write:
                dumpfile.write(shot, write)
            else:
                _show(shot, output, {"memory": memory, "counters": counters, "locks": locks, "links": links}, everything, live=read is None)
    except (snapshot.NoStackError, snapshot.LayoutError, dumpfile.DumpError) as e:
        typer.echo(f"sharedstack: {e}", err=True)
        raise typer.Exit(1) from e
    except OSError as e:
        typer.echo(f"sharedstack: {e.filename or write or read}: {e.strerror}", err=True)
        raise typer.Exit(1) from e


def _show(shot: Any, output: Format, sections: dict[str, bool], everything: bool, *, live: bool) -> None:
    from ..inspection.state import decode

    state = decode(shot, live=live)
    if output is not Format.table:
        emit(asdict(state), output)
        return
    from ..inspection import render

    chosen = {name for name, wanted in sections.items() if wanted or everything}
    render.show(state, chosen if chosen else {"participants", "endpoints"}, everything)


def _check(stack: str, uid: int, output: Format, read: Path | None) -> int:
    """1 if there is a finding."""
    from ..inspection import dumpfile, snapshot
    from ..inspection.check import check, check_live

    if read:
        findings = check(dumpfile.read(read))
    else:
        name = snapshot.find(uid, stack)
        findings = check_live(lambda: snapshot.take(name, bulk=True))
    if output is not Format.table:
        emit({"findings": [asdict(f) for f in findings]}, output)
    for finding in findings if output is Format.table else ():
        typer.echo(str(finding))
    return 1 if findings else 0


def _why(stack: str, uid: int, output: Format, everything: bool) -> None:
    from ..inspection import snapshot
    from ..inspection.state import decode
    from ..inspection.why import Stack, lines

    try:
        known = Stack(decode(snapshot.take(snapshot.find(uid, stack)), live=True), uid=uid)
    except snapshot.NoStackError:
        known = Stack(None, "no_helper", uid)
    except snapshot.LayoutError:
        known = Stack(None, "layout_mismatch", uid)
    found = lines(known, all_sockets=everything)
    if output is not Format.table:
        emit({"sockets": [asdict(line) | {"text": line.text} for line in found]}, output)
        return
    for line in found:
        reasons = line.tx if line.tx == line.rx else f"tx {line.tx}, rx {line.rx}"
        fds = ",".join(map(str, line.fds))
        typer.echo(f"{line.pid} {line.comm} fd {fds} {line.socket}: {reasons}: {line.text}")


def emit(content: dict[str, Any], output: Format) -> None:
    """Print as JSON, or write msgpack to standard output."""
    if output is Format.json:
        typer.echo(json.dumps(content, ensure_ascii=False, indent=2))
        return
    import msgpack

    sys.stdout.buffer.write(msgpack.packb(content))
    sys.stdout.buffer.flush()
