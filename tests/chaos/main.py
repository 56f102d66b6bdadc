"""Chaos: processes that talk, fork, execute themselves and pass their sockets on, while they and the helper are killed and stopped.

python -m chaos.main [--seed N] [--seconds S] [--processes P] [--mode default|eager] [--no-wire]

Content, sums and the ends of streams are checked by whoever receives (tests/programs/chaos.c). The exit status is 1 at any hang, corrupt
byte, leak, or finding of `inspect --check`, and in the eager mode if less than 90 % of the bytes went by local or wire.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from chaos.cast import Cast
from chaos.ledger import Ledger
from chaos.places import Place, places
from chaos.report import Kernel, Report, Side
from chaos.sanitizers import RUNTIMES, Sanitizer
from chaos.storm import CALM, Footprint, Pace, calm, ended, evidence, finish, leaks, storm
from compat.fix_lab import Builder

WIRE_SHARE = 0.3


def seat(ledger: Ledger, made: list[Place], processes: int) -> None:
    """Which actor is where: where there are two more hosts, so many of them have WIRE_SHARE."""
    for number in range(processes):
        wire = len(made) > 1 and number % 10 < WIRE_SHARE * 10
        place = made[1 + number % 2] if wire else made[0]
        ledger.place(number, place.group, place.targets, place.address)
        place.numbers.append(number)
    for place in made:
        ledger.head.most[place.group] = place.most


def play(asked: argparse.Namespace, folder: Path) -> Report:
    """One run."""
    sanitizer = Sanitizer(asked.sanitizer, folder) if asked.sanitizer else None
    if sanitizer:
        sanitizer.build()
    actor = Builder(folder)("chaos", *(sanitizer.flags if sanitizer else ()))
    pace = Pace(asked.kills, asked.stops, asked.patience, (True, not asked.spare_linked))
    report = Report(asked.seed, asked.mode, asked.seconds)
    with places(folder, asked.wire) as made:
        ledger = Ledger(folder / "ledger", asked.seed, asked.processes, asked.patience)
        seat(ledger, made, asked.processes)
        cast = Cast(ledger, actor, asked.mode, made, random.Random(asked.seed), sanitizer)
        kernel = [Kernel.of(place) for place in made]
        footprints = []
        with ended(cast):
            cast.begin_all()
            report.wrong = calm(cast, CALM, pace) or finish(cast, pace)
            if not report.wrong:
                report.wrong = [one for place in made for one in leaks(place)]
                footprints = [Footprint.of(place) for place in made]
                cast.begin_all()
                report.wrong += storm(cast, asked.seconds, pace) or finish(cast, pace)
            if report.wrong:
                evidence(cast, folder, "wrong", report.wrong)
        for place in made:
            place.wait_for_helper()
            left = leaks(place)
            if left:
                evidence(cast, folder, "left", [])
            report.wrong += left + place.complaints()
        report.footprints = [(p.name, before, Footprint.after(p, before)) for p, before in zip(made, footprints, strict=False)]
        report.sides = [Side(p.name, p.state().counters, before, Kernel.of(p)) for p, before in zip(made, kernel, strict=True)]
        report.counts = ledger.counts()
        report.begun, report.kills, report.stops = cast.begun, cast.kills, cast.stops
        report.helper_kills = sum(place.killed for place in made)
    report.wrong += [f"leak in {place.name}: /dev/shm/{name}" for place in made for name in place.remains]
    report.wrong += sanitizer.said() if sanitizer else []
    report.judge()
    return report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.main", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--seed", type=int, default=int(time.time()) // 86400, help="decides who does what, and who is killed (%(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=60, help="of the storm (%(default)s)")
    parser.add_argument("--processes", type=int, default=100, help="at a time, without those that they fork (%(default)s)")
    parser.add_argument("--mode", choices=("default", "eager"), default="eager", help="%(default)s")
    parser.add_argument("--no-wire", dest="wire", action="store_false", help="on one host only")
    parser.add_argument("--sanitizer", choices=RUNTIMES, help="with the library, and the programs, built under it")
    parser.add_argument("--spare-linked", action="store_true", help="do not kill helpers that lend an interface")
    parser.add_argument("--kills", type=float, default=5, help="of processes, a second (%(default)s)")
    parser.add_argument("--stops", type=float, default=10, help="of processes, a second, each for half a second at most (%(default)s)")
    parser.add_argument("--patience", type=float, default=20, help="seconds after which a wait counts as a hang (%(default)s)")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.chmod(0o755)
    report = play(asked, folder)
    print(*report.lines(), sep="\n")
    return int(bool(report.wrong))


if __name__ == "__main__":
    sys.exit(main())
