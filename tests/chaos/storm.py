"""The course of a run: a calm crowd for comparison, the storm, the end of all that is open, and what is left of it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chaos.cast import Cast
from chaos.places import Place
from chaos.whereabouts import where
from compat.fix_lab import program

CALM = 2.0
# of the storm: the last helper lives so long, and is then compared with the one of the calm crowd
SPARED = 0.15
LONGEST_STOP = 0.5
HELPER_EVERY = 1.0
CLEAN_WITHIN = 20.0


@dataclass(frozen=True)
class Pace:
    """How rough it is: kills and stops a second, after how many seconds a wait counts as a hang, and whether helpers are killed: those
    without and those with a link."""

    kills: float
    stops: float
    patience: float
    helpers: tuple[bool, bool] = (True, True)


@dataclass(frozen=True)
class Footprint:
    """What a place takes when nobody is there: its helper's memory and descriptors, and what /dev/shm has allocated for it.

    Of the memory what is its own: pages of the stack that it has touched are counted as resident, too.
    """

    rss: int
    fds: int
    shm: int

    @staticmethod
    def of(place: Place) -> Footprint:
        assert place.serving
        folder = Path(f"/proc/{place.serving.pid}")
        rss = next(int(line.split()[1]) << 10 for line in (folder / "status").read_text().splitlines() if line.startswith("RssAnon"))
        shm = sum(os.stat(path).st_blocks * 512 for path in Path("/dev/shm").glob(f"{place.segments}.*"))
        # an engine's connection that was closed while there was no helper keeps its socket as long as the kernel would its record
        waiting = sum(link.states.get("time_wait", 0) for link in place.state(live=True).links)
        return Footprint(rss, len(list((folder / "fd").iterdir())) - waiting, shm)

    @staticmethod
    def after(place: Place, before: Footprint) -> Footprint:
        """The same at the end; the helper looks once a second for connections that it may close."""
        until = time.monotonic() + CLEAN_WITHIN
        while (now := Footprint.of(place)).fds > before.fds and time.monotonic() < until:
            time.sleep(0.1)
        return now


def storm(cast: Cast, seconds: float, pace: Pace) -> list[str]:
    """Kill and stop for so many seconds; what was found wrong, if anything."""
    dice, began = cast.dice, time.monotonic()
    until, next_kill, next_stop, next_look = began + seconds, began, began, began
    while (now := time.monotonic()) < until:
        cast.go_on()
        cast.replace(cast.reap())
        for place in cast.places:
            came = place.came()
            if place.serving is None:
                place.launch()
            elif came and pace.helpers[bool(place.link)] and now - place.killed_at >= HELPER_EVERY and until - now > SPARED * seconds:
                place.kill_helper()
        if now >= next_kill:
            cast.kill_one()
            next_kill = now + dice.expovariate(pace.kills)
        if now >= next_stop:
            cast.stop_one(LONGEST_STOP)
            next_stop = now + dice.expovariate(pace.stops)
        if now >= next_look:
            if wrong := found(cast, pace):
                return wrong
            next_look = now + 0.2
        time.sleep(0.01)
    return []


def calm(cast: Cast, seconds: float, pace: Pace) -> list[str]:
    """Let them talk, and nothing else."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        cast.replace(cast.reap())
        if wrong := found(cast, pace):
            return wrong
        time.sleep(0.05)
    return []


def finish(cast: Cast, pace: Pace) -> list[str]:
    """Everybody shuts down what is open, reads it to the end, and goes."""
    cast.go_on(everybody=True)
    for place in cast.places:
        place.wait_for_helper()
    cast.ledger.head.stop = 1
    until = time.monotonic() + pace.patience
    while cast.actors or cast.ledger.living():
        cast.reap()
        wrong = found(cast, pace)
        if time.monotonic() > until:
            wrong += [f"hang: process {row.pid} ({row.number}) does not end: `{row.doing.decode()}`" for _, row in cast.ledger.living()]
        if wrong:
            return wrong
        time.sleep(0.01)
    cast.ledger.head.stop = 0
    return found(cast, pace)


def found(cast: Cast, pace: Pace) -> list[str]:
    """What processes found wrong, who hangs, and who ended as nobody should."""
    return cast.ledger.findings() + cast.hung(pace.patience) + cast.bad


def leaks(place: Place) -> list[str]:
    """What is left in use, and what `inspect --check` finds, some seconds after all processes have gone."""
    until = time.monotonic() + CLEAN_WITHIN
    while (left := place.left()) and time.monotonic() < until:
        time.sleep(0.05)
    found = [f"leak in {place.name}: {left}"] if left else []
    return found + ([f"{place.name}: {wrong}"] if (wrong := place.check()) else [])


def evidence(cast: Cast, folder: Path, name: str, wrong: list[str]) -> None:
    """Of what went wrong: the stacks, who was killed when, and where those are that hang."""
    now = time.monotonic()
    for place in cast.places:
        snapshot = str(folder / f"{name}-{place.name}.stack")
        subprocess.run(place.command(program("sharedstack"), "inspect", "--stack", place.stack, "-w", snapshot), check=False)
    lines = [f"{now - when:.3f} s ago: {pid}" for pid, when in cast.killed.items()]
    (folder / f"{name}-killed").write_text("\n".join(lines) + "\n")
    with (folder / f"{name}-where").open("w") as file:
        for place in cast.places:
            print(place.name, place.helpers(), place.sockets(), file=file)
        for _, row in cast.ledger.living():
            if any(f"process {row.pid} " in one or f" {row.pid}, port" in one for one in wrong):
                for line in where(row.pid):
                    print(line, file=file)
    print(f"evidence is in {folder}/{name}-*")


@contextmanager
def ended(cast: Cast) -> Iterator[None]:
    """Whatever happens, nobody stays."""
    try:
        yield
    finally:
        cast.end_all()
