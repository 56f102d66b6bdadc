"""Entry point: `run` and `lower` without importing anything heavy, every other command by typer, which is slow to start.

Exit codes: `run` those of env(1) (125 own failure, 126 cannot execute, 127 not found, else the program's); others 0 ok,
1 finding, 2 usage.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program's name); returns the exit code, or never where `run` succeeds."""
    args = list(sys.argv[1:] if argv is None else argv)
    if args[:1] == ["run"]:
        from .run import main as run

        return run(args[1:])
    if args[:1] == ["lower"]:
        from .lower import main as lower

        return lower(args[1:])
    from .app import main as app

    return app(args)


if __name__ == "__main__":
    sys.exit(main())
