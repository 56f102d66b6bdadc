"""The helper's configuration file: what it may say, what it may not, and that the command line wins."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from unit.fix_helper_daemon import COMMAND

from sharedstack_helper import main
from sharedstack_helper.environment import HelperError
from sharedstack_helper.settings import Settings, read, usual_file

GOOD = """
links = ["eth0"]
cool_every = 2
busy_poll = 20

[stack.trading]
links = ["eth1", "eth2"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "helper.toml"


@pytest.mark.parametrize(
    ("stack", "settings"),
    [("main", Settings(("eth0",), 2.0, 20)), ("trading", Settings(("eth1", "eth2"), 2.0, 20))],
)
def test_a_stack_has_what_is_said_of_it(file: Path, stack: str, settings: Settings) -> None:
    file.write_text(GOOD)
    assert read(stack, file) == settings


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("links = [", "is no TOML"),
        ("link = ['eth0']", "link is no setting"),
        ("links = 'eth0'", "links is for names of interfaces"),
        ("links = ['eth0', 'eth0']", "links is for names of interfaces"),
        ("links = ['a name that is longer than any']", "links is for names of interfaces"),
        ("cool_every = 0", "cool_every is for a number of seconds above 0"),
        ("cool_every = true", "cool_every is for a number of seconds above 0"),
        ("cool_every = nan", "cool_every is for a number of seconds above 0"),
        ("busy_poll = -1", "busy_poll is for a number of microseconds, 10000 at most"),
        ("busy_poll = 0.5", "busy_poll is for a number of microseconds"),
        ("stack = 1", "stack is for tables"),
        ("[stack]\nmain = 1", "stack is for tables"),
        ("[stack.other]\nspeed = 1", "stack.other.speed is no setting"),
    ],
)
def test_a_mistake_is_told_with_the_files_name(file: Path, text: str, told: str) -> None:
    file.write_text(text)
    with pytest.raises(HelperError, match=told) as caught:
        read("main", file)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HelperError, match="no such file"):
        read("main", file)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(file.parent))
    assert read("main") == Settings()


def test_whose_it_is() -> None:
    assert usual_file({"XDG_CONFIG_HOME": "/x", "HOME": "/home/u"}) == Path("/x/sharedstack/helper.toml")
    assert usual_file({"HOME": "/home/u"}) == Path("/home/u/.config/sharedstack/helper.toml")
    assert usual_file({}) is None


def test_the_helper_reads_it(tmp_path: Path) -> None:
    """An interface that is not there is an error, wherever it was named; with a mistake in the file nothing starts."""
    file = tmp_path / "sharedstack" / "helper.toml"
    file.parent.mkdir()
    for text, told in (('links = ["nowhere0"]', "nowhere0"), ("lonks = 1", "lonks is no setting")):
        file.write_text(text)
        done = subprocess.run(
            [*COMMAND, "--stack", f"settings{os.getpid()}"],
            env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert done.returncode == 1
        assert told in done.stderr


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ([], Settings(("eth0",), 2.0, 20)),
        (["--link", "eth7", "--link", "eth8"], Settings(("eth7", "eth8"), 2.0, 20)),
        (["--cool-every", "0.5", "--stack", "trading"], Settings(("eth1", "eth2"), 0.5, 20)),
        (["--busy-poll", "0"], Settings(("eth0",), 2.0)),
    ],
)
def test_the_command_line_wins(file: Path, arguments: list[str], settings: Settings) -> None:
    file.write_text(GOOD)
    assert main.settings_of(main.parser().parse_args(["--config", str(file), *arguments])) == settings
