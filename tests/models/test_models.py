"""Each model holds, and each mutant of it fails. The cases and the search are in run.py (which is quicker: two at a time)."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest

SPEC = importlib.util.spec_from_file_location("models_run", Path(__file__).with_name("run.py"))
assert SPEC is not None and SPEC.loader is not None
models_run = importlib.util.module_from_spec(SPEC)
sys.modules["models_run"] = models_run
SPEC.loader.exec_module(models_run)

CASES = list(models_run.cases())
MISSING = models_run.missing_tools()


@pytest.mark.skipif(bool(MISSING), reason=f"not found: {' and '.join(MISSING)} (apt-get install -y spin gcc)")
@pytest.mark.parametrize("case", CASES, ids=[f"{c.model}-{'mutant-' if c.mutant else ''}{c.name}" for c in CASES])
def test_model(case: Any) -> None:
    """One search of all states."""
    got = models_run.search(case)
    assert not got.broken, f"no complete search: {got.error}"
    if case.mutant:
        assert got.error, f"the mutant holds ({got.states} states): the model does not see what the step is for"
    else:
        assert not got.error, f"{got.error}; how to see the way to it: docs/internals/models.md"


def test_every_mutant_in_a_model_is_run() -> None:
    """A flag that a model reacts to (`#ifdef X`) is used by some case, and the other way round."""
    for model in models_run.MODELS:
        text = Path(__file__).with_name(f"{model}.pml").read_text()
        in_model = set(re.findall(r"^#if(?:n)?def (\w+)$", text, re.MULTILINE))
        in_cases = {flag.split("=")[0] for case in CASES if case.model == model for flag in case.flags}
        defaults = set(re.findall(r"^#ifndef (\w+)\n#define \1 ", text, re.MULTILINE))
        assert in_cases - in_model == set(), model
        assert in_model - defaults - in_cases == set(), model
    assert {p.stem for p in Path(__file__).parent.glob("*.pml")} == set(models_run.MODELS)
