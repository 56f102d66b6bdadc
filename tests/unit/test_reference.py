"""The committed reference pages are what the declarations say, and the coverage table is complete."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sharedstack.cli.app import app
from sharedstack.declare import reference
from sharedstack.declare.counters import COUNTERS
from sharedstack.declare.intercepts import INTERCEPTS
from sharedstack.declare.layout import CONSTANTS, STRUCTS
from sharedstack.declare.options import OPTIONS, PROFILES
from sharedstack.declare.reasons import REASONS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "reference"


@pytest.mark.parametrize("name", reference.PAGES)
def test_page_is_current(name: str) -> None:
    found = (FOLDER / name).read_text(encoding="utf-8")
    assert found == reference.PAGES[name](), f"{name} is stale; run: python -m sharedstack.declare.reference docs/reference"


def test_no_other_page_is_there() -> None:
    assert {p.name for p in FOLDER.iterdir()} == set(reference.PAGES)


def test_each_command_has_a_page_that_the_index_links() -> None:
    commands = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    commands |= {str(group.name) for group in app.registered_groups} | {"sharedstack-helper"}
    assert {p.stem for p in (ROOT / "docs" / "commands").iterdir()} == commands
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for command in commands:
        assert f"[{command}](commands/{command}.md)" in index
        page = (ROOT / "docs" / "commands" / f"{command}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {'' if command == 'sharedstack-helper' else 'sharedstack '}{command}\n")
        assert "\n## Exit status\n" in page


@pytest.mark.parametrize("page", ["options", "sharedstack-helper"])
def test_pages_name_every_option_of_their_command(page: str) -> None:
    """And no other: what the help says is what the page says."""
    command = (
        [sys.executable, "-m", "sharedstack_helper"]
        if page == "sharedstack-helper"
        else [sys.executable, "-m", "sharedstack.cli.main", page]
    )
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True, timeout=30)
    text = (ROOT / "docs" / "commands" / f"{page}.md").read_text(encoding="utf-8")
    rows = "".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `-"))
    assert set(re.findall(r"--[a-z-]+", rows)) == set(re.findall(r"--[a-z-]+", done.stdout))


def test_tables_have_as_many_cells_as_their_head() -> None:
    for make in reference.PAGES.values():
        cells = 0
        for line in make().splitlines():
            if not line.startswith("|"):
                cells = 0
                continue
            count = line.replace("\\|", "").count("|")
            cells = cells or count
            assert count == cells, line


def test_everything_declared_is_shown() -> None:
    shown = {name: make() for name, make in reference.PAGES.items()}
    for o in OPTIONS:
        assert f"`{o.env}`" in shown["options.md"]
    for profile in PROFILES:
        assert f"`{profile}`" in shown["options.md"]
    for c in COUNTERS:
        assert f"`{c.name}`" in shown["counters.md"]
    for r in REASONS:
        assert f"`{r.name}`" in shown["reasons.md"]
    for i in INTERCEPTS:
        assert f"| `{i.name}` |" in shown["intercepts.md"]
    for s in STRUCTS:
        assert f"## {s.name}\n" in shown["layout.md"]
        for p in s.placed():
            assert f"| {p.offset} | `{p.field.name}` |" in shown["layout.md"]
    for name in CONSTANTS:
        assert f"| `{name}` |" in shown["layout.md"]


def test_what_is_not_intercepted_is_not_declared_too() -> None:
    taken = {i.name for i in INTERCEPTS}
    for missing in reference.NOT_INTERCEPTED:
        assert missing.consequence
        assert not taken & set(missing.names)


def test_what_is_said_of_functions_is_of_declared_ones() -> None:
    assert set(reference.DOES) <= {i.name for i in INTERCEPTS}
    assert {i.area for i in INTERCEPTS} <= set(reference.AREAS)


def test_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main(["reference"]) == 2
    assert "usage" in capsys.readouterr().err


def test_pages_are_written(tmp_path: Path) -> None:
    assert reference.main(["reference", str(tmp_path / "new")]) == 0
    assert {p.name for p in (tmp_path / "new").iterdir()} == set(reference.PAGES)
