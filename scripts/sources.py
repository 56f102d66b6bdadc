#!/usr/bin/env python3
"""What there is to build, for meson.build: new files are taken in when the build is configured, with nothing to edit.

sources.py version           the version of the package
sources.py python            one line per installed file: SOURCE:DIRECTORY, the latter below site-packages
sources.py c core            C files of the layers, as opposed to the preload library and the bench programs
sources.py c FOLDER          C and assembler files of sharedstack/native/FOLDER
sources.py c tests           C files of tests/native
sources.py declare           the declarations, from which headers are generated
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NATIVE = ROOT / "sharedstack" / "native"
NOT_CORE = ("preload", "bench")
PACKAGES = (ROOT / "sharedstack", ROOT / "helper" / "sharedstack_helper")


def version() -> Iterator[str]:
    """`__version__` of the package, read without importing it."""
    found = re.search(r'^__version__ = "([^"]+)"', (ROOT / "sharedstack" / "__init__.py").read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit("sharedstack/__init__.py: no __version__")
    yield found[1]


def python() -> Iterator[str]:
    """Python files of both packages and their py.typed, with the folder where each is installed."""
    for package in PACKAGES:
        for path in sorted([*package.rglob("*.py"), *package.rglob("py.typed")]):
            yield f"{path.relative_to(ROOT)}:{path.parent.relative_to(package.parent)}"


def c(folder: str) -> Iterator[str]:
    """C files (and assembler, where there is any) of a part of the native code."""
    if folder == "tests":
        found = (ROOT / "tests" / "native").glob("*.c")
    elif folder == "core":
        found = (p for p in NATIVE.rglob("*.c") if p.relative_to(NATIVE).parts[0] not in NOT_CORE and not p.name.endswith(".bpf.c"))
    else:
        found = (p for p in (NATIVE / folder).glob("*.[cS]"))
    yield from sorted(str(p.relative_to(ROOT)) for p in found)


def declare() -> Iterator[str]:
    """Files on which everything generated depends."""
    yield from sorted(str(p.relative_to(ROOT)) for p in (ROOT / "sharedstack" / "declare").glob("*.py"))


def main(argv: list[str]) -> int:
    """Print the list that is asked for, one entry a line."""
    match argv[1:]:
        case ["version"]:
            lines = version()
        case ["python"]:
            lines = python()
        case ["c", folder]:
            lines = c(folder)
        case ["declare"]:
            lines = declare()
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    for line in lines:
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
