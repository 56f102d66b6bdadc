"""The `sharedstack` command apart from `run`: help, version, options, exit codes; and `python -m sharedstack`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from sharedstack import __main__, __version__
from sharedstack.cli.main import main
from sharedstack.declare.options import OPTIONS, PROFILES


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sharedstack {__version__}\n"


@pytest.mark.parametrize("argv", [["--help"], *([command, "--help"] for command in ("inspect", "options", "run", "lower"))])
def test_help(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    assert "sage: sharedstack" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["nonsense"], ["--nonsense"], ["options", "--nonsense"], ["lower", "--nonsense"], ["lower", "all"]])
def test_bad_usage_is_2(argv: list[str]) -> None:
    assert main(argv) == 2


@pytest.mark.parametrize(("module", "heavy"), [("lower", "typer rich pydantic pyroute2 hdrh"), ("app", "rich pydantic pyroute2 hdrh")])
def test_what_takes_long_to_import_is_imported_where_it_is_used(module: str, heavy: str) -> None:
    """`lower` has half a second for ten thousand connections, its start included."""
    code = f"import sys, sharedstack.cli.{module}; print(*set({heavy.split()}) & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30).stdout == "\n"


def test_options_and_profiles_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["options"]) == 0
    out = capsys.readouterr().out
    assert all(o.env in out and o.meaning in out for o in OPTIONS)
    assert all(name in out for name in PROFILES)
    assert main(["options", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["profiles"] == PROFILES
    assert [o["env"] for o in content["options"]] == [o.env for o in OPTIONS]


def test_python_m_runs_programs_and_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(__main__, "main", lambda argv: called.append(argv) or 0)
    for argv in (["app.py", "-x"], ["-m", "http.server"], ["inspect", "--why"], []):
        assert __main__.start(argv) == 0
    python = ["run", "--", sys.executable]
    assert called == [[*python, "app.py", "-x"], [*python, "-m", "http.server"], ["inspect", "--why"], []]
