"""Handlers that send, jump, fork or execute out of any call, and threads that are cancelled in them (tests/programs/leaving.c): on the kernel,
with the default options, and eager, asleep, spinning. The lines are the same, no lock is held afterwards, and nothing is left in the stack.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
from compat.fix_lab import Builder, Lab

from sharedstack.inspection import snapshot
from sharedstack.inspection.check import check_live

pytest_plugins = ["compat.fix_paths"]

PLAYED = 0.5
SCENES = ("sends", "sends_back", "jumps", "forks", "executes", "jumps_between", "sends_between", "cancelled", "cancelled_between")
WAYS: dict[str, tuple[str, dict[str, str]]] = {
    "default": ("default", {}),
    "eager": ("eager", {}),
    "asleep": ("eager", {"SHAREDSTACK_DOZE": "0"}),
    "spinning": ("eager", {"SHAREDSTACK_SPIN_ALWAYS": "1", "SHAREDSTACK_SPIN_US": "3000"}),
}


@pytest.fixture(scope="module")
def oracle(lab: Lab, build: Builder) -> Callable[[str], str]:
    """What a scene says on the kernel."""

    @functools.cache
    def said(scene: str) -> str:
        return lab.run([build("leaving"), scene], "kernel").ok().out

    return said


@pytest.mark.timeout(60)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scene", SCENES)
def test_leaving_a_call(lab: Lab, build: Builder, oracle: Callable[[str], str], scene: str, way: str) -> None:
    mode, env = WAYS[way]
    ran = lab.run([build("leaving"), scene], mode, env=env)
    assert (ran.out, ran.err, ran.status) == (oracle(scene), "", 0)
    assert ran.sent.local > 0
    assert lab.state().locks == []
    assert check_live(lambda: snapshot.take(lab.name, bulk=True)) == []
