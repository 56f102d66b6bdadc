"""What holds for all tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def _lifted_stays_lifted() -> Iterator[None]:
    """Whatever its pace: a busy machine may slow it down while a test looks at it. test_reasons.py has the policy itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHAREDSTACK_WIRE_GAIN", "0")
        yield
