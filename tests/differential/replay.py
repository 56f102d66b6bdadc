"""Play a script again: `cd tests && ../.venv/bin/python -m differential.replay [--shrink] [--times N] FILE`.

A script is a file of steps, one line of JSON each, as a failed play prints it. `--shrink` takes away steps as long as it fails the same way
within so many times, and writes FILE.small.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from compat.fix_lab import MODES, Builder
from differential.datagrams import Play
from differential.play import Difference, OracleError, Step
from differential.worlds import World


def play_script(worlds: Sequence[World], steps: Sequence[Step], playing: type[Play] = Play) -> str:
    """What was wrong, or nothing."""
    play, wrong = playing(worlds), ""
    play.begin()
    try:
        for step in steps:
            play.do(step)
    except (Difference, OracleError) as error:
        wrong = f"{type(error).__name__}: {error}"
    try:
        play.end()
    except Difference as error:
        wrong = wrong or f"{error}"
    return wrong


def fails(worlds: Sequence[World], steps: Sequence[Step], times: int, playing: type[Play] = Play) -> str:
    for _ in range(times):
        if wrong := play_script(worlds, steps, playing):
            return wrong
    return ""


def shrink(worlds: Sequence[World], steps: list[Step], times: int) -> list[Step]:
    """Without steps that it does not take to fail."""
    size = max(1, len(steps) // 2)
    while True:
        at = 0
        while at < len(steps):
            fewer = steps[:at] + steps[at + size :]
            if fails(worlds, fewer, times):
                steps = fewer
            else:
                at += size
        if size == 1:
            return steps
        size = max(1, size // 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--shrink", action="store_true")
    parser.add_argument("--modes", default=",".join(MODES))
    asked = parser.parse_args()
    steps = [json.loads(line) for line in asked.file.read_text().splitlines() if line.startswith("{")]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        build = Builder(Path(folder))
        worlds = [stack.enter_context(World(mode, build)) for mode in asked.modes.split(",")]
        wrong = fails(worlds, steps, asked.times)
        print(wrong or f"no difference in {asked.times} times")
        if wrong and asked.shrink:
            steps = shrink(worlds, steps, asked.times)
            print(fails(worlds, steps, 10 * asked.times))
            small = asked.file.with_suffix(".small")
            small.write_text("".join(json.dumps(step) + "\n" for step in steps))
            print(small.read_text(), end="")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
