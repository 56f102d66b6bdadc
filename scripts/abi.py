#!/usr/bin/env python3
"""abi.py LIBRARY…: check what the libraries ask of the system and what they export; exit 1 with a list where something is wrong.

No symbol version of glibc newer than 2.28 (Debian 10, RHEL 8), no library needed but libc and the loader, and exported are only
the names of exports.map (the preload library) or shs_native_* and shs_test_* (the one for ctypes).
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

NEWEST = (2, 28)
# On glibc before 2.34 these are libraries of their own; the dynamic loader's may always be named.
LIBC = re.compile(r"^(libc\.so|ld-linux|libdl\.so|libpthread\.so)")


def _objdump(option: str, path: Path) -> list[str]:
    return subprocess.run(["objdump", option, str(path)], check=True, capture_output=True, text=True).stdout.splitlines()


def _allowed(path: Path) -> re.Pattern[str]:
    """What the library may export."""
    exports = next((folder / "exports.map" for folder in path.parents if (folder / "exports.map").exists()), path.parent / "exports.map")
    if path.name != "libsharedstack.so":
        return re.compile(r"shs_(native|test)_\w+")
    public = exports.read_text().split("local:")[0]
    return re.compile("|".join(re.escape(name) for name in re.findall(r"^\s+(\w+);", public, re.MULTILINE)))


def findings(path: Path) -> list[str]:
    """What is wrong with one library."""
    wrong = []
    allowed = _allowed(path)
    for line in _objdump("-T", path):
        version = re.search(r"GLIBC_(\d+)\.(\d+)", line)
        fields = line.split()
        if version and (int(version[1]), int(version[2])) > NEWEST:
            wrong.append(f"{path.name}: {fields[-1]} wants GLIBC_{version[1]}.{version[2]}, newest allowed is {NEWEST[0]}.{NEWEST[1]}")
        exported = bool(re.match(r"^[0-9a-f]{8,16} [gwu]", line)) and "*UND*" not in line and "*ABS*" not in line
        if exported and not allowed.fullmatch(fields[-1]):
            wrong.append(f"{path.name}: exports {fields[-1]}, which is not declared")
    for line in _objdump("-p", path):
        needed = re.match(r"\s+NEEDED\s+(\S+)", line)
        if needed and not LIBC.match(needed[1]):
            wrong.append(f"{path.name}: needs {needed[1]}, but may need libc only")
    return wrong


def main(argv: list[str]) -> int:
    """Check each library named on the command line."""
    if len(argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    wrong = []
    for path in map(Path, argv[1:]):
        found = findings(path)
        print(f"{path.name}: {'as it should be' if not found else f'{len(found)} findings'}")
        wrong += found
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
