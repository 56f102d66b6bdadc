"""`sharedstack doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from .form import Form

if TYPE_CHECKING:
    from ..doctor.checks import Finding

_WIDE = 200


def doctor(
    interfaces: list[str] = typer.Argument(None, metavar="[IFNAME]...", help="Interfaces to be lent; all of Ethernet by default."),
    form: Form = typer.Option(Form.TABLE, "--format", help="How to print."),
) -> None:
    """Say what the wire path needs, what is there, and what to do. Exit status 1 if something is missing."""
    from ..doctor import checks
    from ..doctor import interface as of_interface

    found = checks.host()
    for name in interfaces or of_interface.candidates():
        found += of_interface.interface(name)
    if form is Form.JSON:
        typer.echo(json.dumps([asdict(one) for one in found], indent=2))
    else:
        _show(found)
    if any(one.state == checks.FAIL for one in found):
        raise typer.Exit(1)


def _show(found: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDE)
    table = Table("", "what", "found", "what to do", box=None, header_style="bold", pad_edge=False)
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    for one in found:
        table.add_row(f"[{colours[one.state]}]{one.state}[/]", one.what, one.found, one.advice)
    console.print(table)
