"""`sharedstack options`: what can be set, and which profiles set what."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from ..declare.options import OPTIONS, PROFILES


def options(as_json: bool = typer.Option(False, "--json", help="As JSON.")) -> None:
    """Show options and profiles."""
    if as_json:
        rows = [asdict(o) | {"env": o.env} for o in OPTIONS]
        typer.echo(json.dumps({"options": rows, "profiles": PROFILES}, ensure_ascii=False, indent=2))
        return
    width = max(len(o.env) for o in OPTIONS)
    typer.echo("Options, by environment variable:\n")
    for o in OPTIONS:
        bounds = f"{o.low} to {o.high}{' ' + o.unit if o.unit else ''}"
        typer.echo(f"  {o.env:{width}}  {o.default} ({bounds})\n  {'':{width}}  {o.meaning}")
    typer.echo("\nProfiles, by `sharedstack run -p NAME`:\n")
    for name, values in PROFILES.items():
        settings = ", ".join(f"{option}={value}" for option, value in values.items())
        typer.echo(f"  {name:{width}}  {settings or 'the defaults above'}")
