"""The option that plays a seed again."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, action="append", default=[], metavar="N", help="play this seed of the streams; may be repeated")
