"""What holds for all tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from wire.fix_veth import need_root
from wire.fix_world import Side, world


@pytest.fixture(scope="module", autouse=True)
def _lifted_stays_lifted() -> Iterator[None]:
    """Whatever its pace: a busy machine may slow it down while a test looks at it. test_reasons.py has the policy itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHAREDSTACK_WIRE_GAIN", "0")
        yield


@pytest.fixture(scope="module")
def _world() -> Iterator[tuple[Side, Side]]:
    need_root()
    with world() as both:
        yield both


@pytest.fixture
def sides(_world: tuple[Side, Side]) -> Iterator[tuple[Side, Side]]:
    """Two hosts, the same for a module's tests; each leaves no program."""
    yield _world
    for side in _world:
        side.end_programs()


@pytest.fixture
def fresh_sides() -> Iterator[tuple[Side, Side]]:
    """Two hosts of a test's own."""
    need_root()
    with world() as both:
        yield both
