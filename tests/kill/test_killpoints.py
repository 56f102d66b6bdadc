"""A sample of the kill points (`make killpoints` has all), and of the mutants that they must notice."""

from __future__ import annotations

import os

import pytest
from compat.conftest import seed_of
from compat.fix_lab import Builder, Lab, Namespace
from kill.main import ALL, AnyOperation, Player
from kill.mutants.main import noticed
from kill.mutants.table import ENGINE, MUTANTS, Mutant

pytest_plugins = ["compat.fix_paths"]

KILLS = 8
QUICK = [m for m in MUTANTS if m.operations != ENGINE]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A third of the operations, chosen by the seed, and one mutant; all of them with COMPAT_ALL=1."""
    seed, every = seed_of(metafunc.config), bool(os.environ.get("COMPAT_ALL"))
    if "operation" in metafunc.fixturenames:
        chosen = [o for i, o in enumerate(ALL) if every or i % 3 == seed % 3]
        metafunc.parametrize("operation", chosen, ids=[o.name for o in chosen])
    if "mutant" in metafunc.fixturenames:
        some = QUICK if every else [QUICK[seed % len(QUICK)]]
        metafunc.parametrize("mutant", some, ids=[m.name.replace(" ", "-") for m in some])


@pytest.mark.timeout(110)
def test_all_is_well_behind_each(lab: Lab, build: Builder, operation: AnyOperation, request: pytest.FixtureRequest) -> None:
    seed = seed_of(request.config)
    player = Player(lab, build)
    tally = player.play(operation, seed, KILLS, 1.0, most=KILLS)
    print(tally)
    assert tally.wrong == {}
    assert tally.at_stores + tally.elsewhere >= KILLS - 2  # a run may be shorter than the one that was looked at


@pytest.mark.timeout(110)
def test_a_mutant_is_noticed(namespace: Namespace, build: Builder, mutant: Mutant, request: pytest.FixtureRequest) -> None:
    assert noticed(mutant, namespace, build, seed_of(request.config))
