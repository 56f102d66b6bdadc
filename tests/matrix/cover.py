"""Which cases are played: every pair of values of two factors at least once, in as few cases as a greedy choice finds; or all there are."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence

Row = dict[str, str]
Pair = tuple[tuple[str, str], tuple[str, str]]
_TRIES = 40  # rows that are made for one that is taken


def pairs_of(row: Mapping[str, str]) -> set[Pair]:
    """The pairs that a row covers."""
    return set(itertools.combinations(sorted(row.items()), 2))


def all_pairs(factors: Mapping[str, Sequence[str]]) -> set[Pair]:
    """What is to be covered."""
    named = [[(name, value) for value in values] for name, values in sorted(factors.items())]
    return {pair for a, b in itertools.combinations(named, 2) for pair in itertools.product(a, b)}


def pairwise(factors: Mapping[str, Sequence[str]], seed: int) -> list[Row]:
    """Rows that cover every pair, in an order and a choice of that seed."""
    dice = random.Random(seed)
    left, rows = all_pairs(factors), []
    order = sorted(left)
    dice.shuffle(order)
    for pair in order:
        if pair not in left:
            continue
        tries = [{name: dice.choice(values) for name, values in factors.items()} | dict(pair) for _ in range(_TRIES)]
        best = max(tries, key=lambda row: len(pairs_of(row) & left))
        left -= pairs_of(best)
        rows.append(best)
    return rows


def product(factors: Mapping[str, Sequence[str]], seed: int) -> list[Row]:
    """All of them, in an order of that seed."""
    rows = [dict(zip(factors, values, strict=True)) for values in itertools.product(*factors.values())]
    random.Random(seed).shuffle(rows)
    return rows
