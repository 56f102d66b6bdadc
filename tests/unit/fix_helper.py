"""Fixtures: a helper of its own for a test, and participants to kill. Used as a plugin; the classes are in fix_helper_daemon."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from unit.fix_helper_daemon import Daemon, Participant


@pytest.fixture
def stopped() -> Iterator[Daemon]:
    """A helper that has not been started."""
    daemon = Daemon()
    yield daemon
    daemon.clean()


@pytest.fixture
def daemon(stopped: Daemon) -> Daemon:
    """A helper that runs."""
    return stopped.start()


@pytest.fixture
def participants(daemon: Daemon) -> Iterator[Callable[..., Participant]]:
    """Makes participants of `daemon`."""
    with contextlib.ExitStack() as cleanup:

        def make(how: str = "ask", pass_fds: tuple[int, ...] = ()) -> Participant:
            made = Participant(daemon, how, pass_fds)
            cleanup.callback(made.kill)
            return made

        yield make
