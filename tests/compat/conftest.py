"""The option that plays a seed again, and the share of long modules that one run plays."""

from __future__ import annotations

import os
import random

import pytest
from differential.test_differential import first_seed


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, action="append", default=[], metavar="N", help="play this seed of the streams; may be repeated")


def seed_of(config: pytest.Config) -> int:
    return int((config.getoption("--seed", []) or [first_seed()])[0])


def pytest_report_header(config: pytest.Config) -> str:
    return f"compat: seed {seed_of(config)}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a module that says PLAYED, that share of its parametrized tests, chosen by the seed (the commit's number).

    All with COMPAT_ALL=1, and where tests are named.
    """
    if os.environ.get("COMPAT_ALL") or config.getoption("keyword") or any("::" in one for one in config.args):
        return
    dice = random.Random(seed_of(config))
    left = []
    for item in items:
        share = getattr(getattr(item, "module", None), "PLAYED", 1.0)
        if hasattr(item, "callspec") and dice.random() >= share:
            left.append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in set(left)]
