"""Chaos: processes that talk, fork, execute themselves and pass their sockets on, while they and the helper are killed and stopped.

python -m chaos.main [--seed N] [--seconds S] [--processes P] [--mode default|eager] [--no-wire]
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from chaos.cast import Cast
from chaos.ledger import Ledger
from chaos.places import Place, places
from compat.fix_lab import Builder, program


def storm(cast: Cast, asked: argparse.Namespace) -> list[str]:
    """Kill and stop for so many seconds; what was found wrong, if anything."""
    dice, ledger = cast.dice, cast.ledger
    now = time.monotonic()
    until, next_kill, next_stop, next_look = now + asked.seconds, now, now, now
    while (now := time.monotonic()) < until:
        cast.go_on()
        cast.replace(cast.reap())
        for place in cast.places:
            if place.came() and now - max(place.since, place.killed_at + 0.8) > 0.2:
                place.kill_helper()
            elif place.helper is None:
                place.launch()
        if now >= next_kill:
            cast.kill_one()
            next_kill = now + dice.expovariate(asked.kills)
        if now >= next_stop:
            cast.stop_one(0.5)
            next_stop = now + dice.expovariate(asked.stops)
        if now >= next_look:
            if wrong := ledger.findings() + cast.hung(asked.patience) + cast.bad:
                return wrong
            next_look = now + 0.2
        time.sleep(0.005)
    return []


def finish(cast: Cast, asked: argparse.Namespace) -> list[str]:
    """Everybody shuts down what is open, reads it to the end, and goes."""
    cast.go_on(everybody=True)
    for place in cast.places:
        place.wait_for_helper()
    cast.ledger.head.stop = 1
    until = time.monotonic() + asked.patience
    while cast.actors or cast.ledger.living():
        cast.reap()
        wrong = cast.ledger.findings() + cast.hung(asked.patience) + cast.bad
        if time.monotonic() > until:
            wrong += [f"hang: process {row.pid} ({row.number}) does not end: `{row.doing.decode()}`" for _, row in cast.ledger.living()]
        if wrong:
            return wrong
        time.sleep(0.01)
    return cast.ledger.findings()


def leaks(place: Place, seconds: float = 10) -> list[str]:
    """What is left in use, and what `inspect --check` finds."""
    until = time.monotonic() + seconds
    while (left := place.left()) and time.monotonic() < until:
        time.sleep(0.05)
    found = [f"leak in {place.name}: {left}"] if left else []
    return found + ([f"{place.name}: {wrong}"] if (wrong := place.check()) else [])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.main", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=int(time.time()) // 86400)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--processes", type=int, default=100)
    parser.add_argument("--mode", choices=("default", "eager"), default="eager")
    parser.add_argument("--no-wire", dest="wire", action="store_false")
    parser.add_argument("--kills", type=float, default=10, help="a second")
    parser.add_argument("--stops", type=float, default=10, help="a second")
    parser.add_argument("--patience", type=float, default=20, help="seconds after which a wait counts as a hang")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.chmod(0o755)
    actor = Builder(folder)("chaos")
    with places(folder, asked.wire) as made:
        ledger = Ledger(folder / "ledger", asked.seed, asked.processes, asked.patience)
        for number in range(asked.processes):
            place = made[number % len(made)] if number < 0 else made[0 if number % 10 < 7 or len(made) == 1 else 1 + number % 2]
            ledger.place(number, place.group, place.targets, place.address)
            place.numbers.append(number)
        for place in made:
            ledger.head.most[place.group] = place.most
        before = {p.name: p.kernel_bytes() for p in made}
        cast = Cast(ledger, actor, asked.mode, made, random.Random(asked.seed))
        began = time.monotonic()
        try:
            cast.begin_all()
            wrong = storm(cast, asked) or finish(cast, asked)
        finally:
            cast.end_all()
        for place in made:
            wrong += leaks(place) + place.complaints()
            counters = place.state().counters
            print(place.name, {k: v for k, v in counters.items() if v and k.startswith(("tx", "shut", "open", "shared", "exh", "residue", "recall"))}, before[place.name], place.kernel_bytes(), place.dropped())
        print(ledger.counts())
        print(f"begun {cast.begun} kills {cast.kills} stops {cast.stops} helper kills {[p.killed for p in made]} refused {[p.refused for p in made]}")
        print(f"{time.monotonic() - began:.0f} s, seed {asked.seed}")
        print(*wrong, sep="\n")
        if wrong:
            for place in made:
                state = place.state(live=True)
                print(*state.participants, *state.locks, state.memory, state.stack, sep="\n")
                subprocess.run(place.command(program("sharedstack"), "inspect", "--stack", place.stack, "-w", f"/tmp/chaos-{place.name}.dump"))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
