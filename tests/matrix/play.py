"""Plays cases, and keeps count of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from differential.play import Difference, OracleError
from differential.worlds import NoAnswerError
from matrix.case import Case, WrongPathError
from matrix.cover import Pair, Row, pairs_of
from matrix.sockets import SOCKETS
from matrix.steps import STEPS, afterwards
from matrix.ways import WAYS
from matrix.worlds import AnyWorld

# What stays different, as docs/differences.md says: a case with values of each of these lists is played, and may differ.
KNOWN: dict[str, dict[str, tuple[str, ...]]] = {
    "an epoll set that is taken by pidfd_getfd, of a connection on the wire path": {
        "way": ("pidfd_getfd",),
        "socket": ("epoll set",),
        "step": ("read", "poll and epoll"),
        "path": ("wire",),
    },
}

PATHS = ("local", "wire", "kernel")
FACTORS = {"way": tuple(WAYS), "socket": tuple(SOCKETS), "step": tuple(STEPS), "path": PATHS}


@dataclass
class Played:
    """What came of the cases so far.

    `cases`: how many, by way and path. `paths`: which way the subject's bytes would go when the step was taken, by the path of the case.
    """

    cases: Counter[tuple[str, str]] = field(default_factory=Counter)
    pairs: set[Pair] = field(default_factory=set)
    failures: list[tuple[Row, str]] = field(default_factory=list)
    known: Counter[str] = field(default_factory=Counter)
    paths: Counter[tuple[str, str]] = field(default_factory=Counter)


def play(worlds: Sequence[AnyWorld], row: Row, played: Played) -> str:
    """One case; what was wrong, or nothing."""
    case = Case(worlds, row["path"])
    wrong = ""
    try:
        case.begin()
        _steps(case, row, played)
    except (Difference, OracleError, NoAnswerError) as error:
        wrong = f"{type(error).__name__}: {error}"
        case.hung = True
    try:
        case.end()
    except Difference as error:
        wrong = wrong or str(error)
    known = known_difference(row) if wrong else ""
    played.cases[row["way"], row["path"]] += 1
    played.pairs |= pairs_of(row)
    if known:
        played.known[known] += 1
    elif wrong:
        played.failures.append((row, wrong))
    return "" if known else wrong


def known_difference(row: Row) -> str:
    """Which one, if any, such a case may show."""
    return next((name for name, values in KNOWN.items() if all(row[factor] in some for factor, some in values.items())), "")


def _steps(case: Case, row: Row, played: Played) -> None:
    way = WAYS[row["way"]]
    case.both_read = way.both_read
    SOCKETS[row["socket"]](case)
    _look(case, row["path"], "before its way")
    way.go(case)
    if not case.subject.lost:
        lowers = way.lowers or (case.subject.group == "set" and way.copies)
        path = "kernel" if lowers else row["path"]
        on = _look(case, "" if row["path"] == "wire" and not way.wired else path, f"when its step ran, by {row['way']}")
        played.paths[row["path"], on] += 1
    STEPS[row["step"]](case)
    afterwards(case)


def _look(case: Case, path: str, when: str) -> str:
    """Is a connection of the eager world on that path ("": any)? Which it is on; "none": it is no connection."""
    if case.subject.group not in ("stream", "set") or case.subject.gone:
        return "none"
    found = case.paths("eager")
    on = found[0] if found else "kernel"
    if path and on != path and not case.subject.out.fin:
        raise WrongPathError(f"eager: on the path {on}, not {path}, {when} ({found})")
    return on
