"""`sharedstack fdstore`: sockets that are stored with the helper, for services that restart without closing a port."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import typer

from .. import fdstore as store
from ..declare.names import DEFAULT_STACK, notify_socket
from .form import Form

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="Sockets stored with the helper, by name.")
_STACK = typer.Option(DEFAULT_STACK, envvar="SHAREDSTACK_STACK", help="Name of the stack.")
_FIRST = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)
_PIDFD_GETFD = 438


@contextmanager
def _told() -> Iterator[None]:
    """Errors are one line, and status 1."""
    try:
        yield
    except (store.FdStoreError, OSError) as error:
        typer.echo(f"sharedstack: {error.strerror if isinstance(error, OSError) and error.strerror else error}", err=True)
        raise typer.Exit(1) from error


@app.command()
def put(
    name: str,
    fd: int | None = typer.Option(None, "--fd", help="A descriptor: of this command, or with --pid of that process."),
    pid: int | None = typer.Option(None, "--pid", help="Take it from this process (pidfd_getfd: it must be yours)."),
    listen: str | None = typer.Option(None, "--listen", metavar="ADDRESS:PORT", help="Store a new listening TCP socket of that address."),
    seconds: int = typer.Option(0, min=0, help="Close it after so long, if nobody took it."),
    stack: str = _STACK,
) -> None:
    """Store a copy of a descriptor under NAME."""
    if (fd is None) == (listen is None) or (pid is not None and fd is None):
        raise typer.BadParameter("one of --fd and --listen is needed, and --pid goes with --fd")
    with _told(), store.connected(stack) as client:
        if listen is not None:
            with _listener(listen) as made:
                client.put(name, made.fileno(), seconds)
        elif fd is not None and pid is not None:
            copy = _of_process(pid, fd)
            client.put(name, copy, seconds)
            os.close(copy)
        elif fd is not None:
            client.put(name, fd, seconds)


@app.command(context_settings={"ignore_unknown_options": False})
def get(
    names: list[str] = typer.Argument(..., metavar="NAME... -- CMD..."),
    keep: bool = typer.Option(False, "--keep", help="They stay stored, too."),
    stack: str = _STACK,
) -> None:
    """Run CMD with the descriptors of NAME..., as by systemd's socket activation: from 3 on, LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PID."""
    wanted, command = _divided(names)
    with _told():
        with store.connected(stack) as client:
            found = [(name, fd) for name in wanted for fd in client.take_all(name, keep)]
        environment = {
            **os.environ,
            "LISTEN_FDS": str(len(found)),
            "LISTEN_FDNAMES": ":".join(name for name, _ in found),
            "LISTEN_PID": str(os.getpid()),
            "NOTIFY_SOCKET": "@" + notify_socket(os.getuid(), stack)[1:].decode(),
        }
        try:
            _place([fd for _, fd in found])
            os.execvpe(command[0], command, environment)
        except OSError as error:
            if not keep:
                _put_back(stack, [name for name, _ in found])
            raise store.FdStoreError(f"cannot run {command[0]}: {error.strerror}") from error


@app.command("list")
def list_(form: Form = typer.Option(Form.TABLE, "--format", help="How to print."), stack: str = _STACK) -> None:
    """Say what is stored."""
    with _told(), store.connected(stack) as client:
        found = client.list()
    if form is Form.JSON:
        typer.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    for one in found:
        end = f", for {one.left} s more" if one.left else ""
        typer.echo(f"{one.name}: {one.what}, stored by process {one.pid} {one.age} s ago{end}")


@app.command()
def rm(names: list[str] = typer.Argument(..., metavar="NAME..."), stack: str = _STACK) -> None:
    """Close what is stored under NAME...; status 1 where nothing is."""
    with _told(), store.connected(stack) as client:
        missing = [name for name in names if not client.remove(name)]
    for name in missing:
        typer.echo(f"sharedstack: nothing is stored under {name!r}", err=True)
    if missing:
        raise typer.Exit(1)


@app.command()
def transfer(
    name: str,
    to: str | None = typer.Option(None, "--to", metavar="NAME", help="The new name; the same if not given."),
    to_stack: str | None = typer.Option(
        None, "--to-stack", metavar="STACK", help="The stack to whose helper they go; the same if not given."
    ),
    seconds: int = typer.Option(0, min=0, help="Close them there after so long, if nobody took them."),
    stack: str = _STACK,
) -> None:
    """Store what is stored under NAME under another name, or with another helper; it is gone here when it is there."""
    if to in (None, name) and to_stack in (None, stack):
        raise typer.BadParameter("it needs --to or --to-stack")
    with _told(), store.connected(stack) as here, store.connected(to_stack or stack) as there:
        fds = here.take_all(name, keep=True)
        for fd in fds:
            there.put(to or name, fd, seconds)
            os.close(fd)
        for _ in fds:
            os.close(here.take(name)[0])


def _divided(words: list[str]) -> tuple[list[str], list[str]]:
    """Names, and the command behind them: click takes the -- away, so the process's own arguments are looked at."""
    with open("/proc/self/cmdline", "rb") as file:
        said = [word.decode(errors="surrogateescape") for word in file.read().split(b"\0")[:-1]]
    command = said[said.index("--") + 1 :] if "--" in said else []
    names = words[: len(words) - len(command)]
    if not names or not command:
        raise typer.BadParameter("names, then --, then a command are needed")
    return names, command


def _place(fds: list[int]) -> None:
    """To 3, 4, …, and inherited."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST + len(fds)) for fd in fds]
    for number, fd in enumerate(high, _FIRST):
        os.dup2(fd, number)


def _put_back(stack: str, names: list[str]) -> None:
    """The command could not be run: nothing is lost."""
    with store.connected(stack) as client:
        for number, name in enumerate(names, _FIRST):
            client.put(name, number)


def _listener(where: str) -> socket.socket:
    address, _, port = where.rpartition(":")
    if not port.isdigit():
        raise typer.BadParameter(f"{where!r} is no ADDRESS:PORT")
    address = address.strip("[]")
    try:
        return socket.create_server((address, int(port)), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    except OSError as error:
        raise store.FdStoreError(f"cannot listen on {where}: {error.strerror}") from error


def _of_process(pid: int, fd: int) -> int:
    import ctypes

    pidfd = os.pidfd_open(pid)
    try:
        copy = int(ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, pidfd, fd, 0))
    finally:
        os.close(pidfd)
    if copy < 0:
        number = ctypes.get_errno()
        raise store.FdStoreError(f"cannot take descriptor {fd} of process {pid}: {os.strerror(number)}")
    return copy
