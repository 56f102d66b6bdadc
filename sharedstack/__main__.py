"""`python -m sharedstack app.py ARGUMENT…`: run a Python program with its sockets accelerated.

Also the `sharedstack` command where its script is not on the PATH: `python -m sharedstack inspect`.
"""

from __future__ import annotations

import sys

from .cli.main import main

COMMANDS = ("run", "inspect", "options", "bench")


def start(argv: list[str]) -> int:
    """A command's name, an option of ours or nothing goes to the command; all else is for the interpreter, as in `python …`."""
    if not argv or argv[0] in COMMANDS or argv[0] in ("--help", "--version"):
        return main(argv)
    return main(["run", "--", sys.executable, *argv])


if __name__ == "__main__":
    sys.exit(start(sys.argv[1:]))
