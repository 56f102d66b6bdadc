"""Every rule of the engine, with the test in the peer's place. What each is for, and what breaks it, is in mutants.py."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from sim import rules_receive, rules_send
from sim.fix_engine import library

Rule = Callable[[Path], None]


def _of(module: ModuleType) -> dict[str, Rule]:
    return {
        name: function
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and [*inspect.signature(function).parameters] == ["path"]
    }


RULES: dict[str, Rule] = {**_of(rules_receive), **_of(rules_send)}


@pytest.mark.parametrize("name", RULES)
def test_rule(name: str) -> None:
    RULES[name](library())
