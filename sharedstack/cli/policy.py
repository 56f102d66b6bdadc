"""`sharedstack policy`: try a policy's file, and have the helper read it again."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..declare.names import DEFAULT_STACK

if TYPE_CHECKING:
    from sharedstack_helper.policy.rules import Participant, Policy
    from sharedstack_helper.policy.table import End

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="Which connections stay in the kernel.")
_FILE = typer.Argument(None, metavar="[FILE]", help="The policy's file.", show_default="the one that your helper reads")


class RefusedError(Exception):
    """The helper does not do it; the text says why."""


@contextmanager
def _told() -> Iterator[None]:
    """Errors are one line, and status 1."""
    from sharedstack_helper.environment import HelperError

    try:
        yield
    except (HelperError, RefusedError) as error:
        typer.echo(f"sharedstack: {error}", err=True)
        raise typer.Exit(1) from error


@app.command()
def check(file: Path | None = _FILE) -> None:
    """Say whether a policy can be understood, and what is in it. Status 1 if it cannot."""
    from sharedstack_helper.policy.enforce import describe

    with _told():
        policy = _read(file)
    typer.echo(describe(policy))
    for number, rule in enumerate(policy.rules, 1):
        typer.echo(f"{number:3} {'deny ' if rule.deny else 'allow'} {rule.name}")


@app.command("try")
def try_(
    local: str = typer.Argument(..., metavar="ADDRESS:PORT", help="The end of a connection whose process is judged."),
    remote: str = typer.Argument(..., metavar="ADDRESS:PORT", help="The other end."),
    file: Path | None = _FILE,
    pid: int | None = typer.Option(None, "--pid", help="Judge this process; else --uid, --gid and --program say who."),
    uid: str = typer.Option("0", "--uid", help="User, by name or number."),
    gid: list[str] = typer.Option([], "--gid", help="Group, by name or number; repeatable."),
    program: str = typer.Option("/", "--program", help="Path of the executable."),
) -> None:
    """Say what a policy does to a connection. Status 1 if it stays in the kernel."""
    from sharedstack_helper.policy.table import Table

    with _told():
        table = Table(_read(file))
    who = _who(pid, uid, gid, program)
    verdict = table.verdict(table.policy.concerning(who), _end(local), _end(remote))
    typer.echo(f"denied by {table.explain(verdict)}" if verdict else "allowed, as far as this end is concerned")
    if verdict:
        raise typer.Exit(1)


@app.command()
def reload(
    stack: str = typer.Option(DEFAULT_STACK, envvar="SHAREDSTACK_STACK", help="Name of the stack."),
    uid: int = typer.Option(-1, help="User whose stack it is.", show_default="you"),
) -> None:
    """Have the helper read its policy again. Status 1, and nothing has changed, where it cannot be understood."""
    from .. import ask

    with _told(), ask.connected(stack, None if uid < 0 else uid, RefusedError) as helper:
        typer.echo(helper.ask("reload")["policy"])


def _read(path: Path | None) -> Policy:
    from sharedstack_helper import settings
    from sharedstack_helper.policy.enforce import Source

    return Source.of(path or settings.read(DEFAULT_STACK).policy).read()


def _end(text: str) -> End:
    address, _, port = text.rpartition(":")
    try:
        if not 0 <= int(port) < 1 << 16:
            raise ValueError(port)
        return ipaddress.ip_address(address.strip("[]")), int(port)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no ADDRESS:PORT, as in 127.0.0.1:80 or [::1]:80") from None


def _who(pid: int | None, uid: str, gids: list[str], program: str) -> Participant:
    import grp
    import pwd

    from sharedstack_helper.policy import people
    from sharedstack_helper.policy.rules import Participant

    if pid is not None:
        return people.who(pid, 0)
    try:
        user = int(uid) if uid.isdigit() else pwd.getpwnam(uid).pw_uid
        groups = frozenset(int(gid) if gid.isdigit() else grp.getgrnam(gid).gr_gid for gid in gids)
    except KeyError as error:
        raise typer.BadParameter(f"there is no such user or group: {error}") from error
    return Participant(user, groups, program)
