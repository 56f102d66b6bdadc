"""The commands other than `run`, by typer."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from .. import __version__
from . import fdstore, policy
from .doctor import doctor
from .inspect import inspect
from .options import options

app = typer.Typer(name="sharedstack", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command()(inspect)
app.command()(doctor)
app.command()(options)
app.add_typer(fdstore.app, name="fdstore")
app.add_typer(policy.app, name="policy")

_REST = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sharedstack {__version__}")
        raise typer.Exit


@app.callback()
def common(version: bool = typer.Option(False, "--version", is_eager=True, callback=_show_version, help="Show the version.")) -> None:
    """Low-latency sockets in shared memory for unmodified programs."""


@app.command(context_settings=_REST)
def run(context: typer.Context) -> None:
    """Run a program with its sockets accelerated (see: sharedstack run --help)."""
    from .run import main as start

    raise typer.Exit(start(context.args))


@app.command(context_settings=_REST)
def lower(context: typer.Context) -> None:
    """Make connections the kernel's again, for now (see: sharedstack lower --help)."""
    from .lower import main as start

    raise typer.Exit(start(context.args))


@app.command(context_settings=_REST)
def bench(context: typer.Context) -> None:
    """Compare with the kernel (see: sharedstack bench --help)."""
    from importlib import import_module

    try:
        start = import_module("sharedstack.bench.cli").main
    except ModuleNotFoundError as e:
        typer.echo(f"sharedstack: bench is not installed: {e}", err=True)
        raise typer.Exit(2) from e
    raise typer.Exit(start(context.args))


def main(argv: Sequence[str]) -> int:
    """Run the command line; returns 0 ok, 1 finding, 2 usage."""
    try:
        app(args=list(argv), prog_name="sharedstack")
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else 0
    return 0
