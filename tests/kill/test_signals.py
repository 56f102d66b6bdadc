"""Handlers that send, jump, fork or execute out of any call, and cancelled threads (tests/programs: leaving.c, cancelled.c).

On the kernel, with the default options, and eager, asleep, spinning: the lines are the same, no lock is held afterwards, and nothing is
left in the stack.
"""

from __future__ import annotations

import functools
import os
import time
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


def program_of(scene: str) -> str:
    return "cancelled" if scene.startswith("cancelled") else "leaving"


@pytest.fixture(scope="module")
def oracle(lab: Lab, build: Builder) -> Callable[[str], str]:
    """What a scene says on the kernel."""

    @functools.cache
    def said(scene: str) -> str:
        return lab.run([build(program_of(scene)), scene], "kernel").ok().out

    return said


@pytest.mark.timeout(60)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scene", SCENES)
def test_leaving_a_call(lab: Lab, build: Builder, oracle: Callable[[str], str], scene: str, way: str) -> None:
    mode, env = WAYS[way]
    ran = lab.run([build(program_of(scene)), scene], mode, env=env)
    assert (ran.out, ran.err, ran.status) == (oracle(scene), "", 0)
    assert ran.sent.local > 0
    assert lab.state().locks == []
    assert check_live(lambda: snapshot.take(lab.name, bulk=True)) == []


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", ["kernel", "default", "eager"])
def test_no_signal_is_lost(lab: Lab, build: Builder, mode: str) -> None:
    """Real-time signals under load: SIGNALS of them, 10 million by `make soak`."""
    count = int(os.environ.get("SIGNALS", "70_000"))
    began = time.monotonic()
    ran = lab.run([build("storm"), str(count)], mode, apart="with a storm of signals", timeout=3000).ok()
    assert ran.out == f"signals: {count // 2} and {count // 2}, wrong: 0, wrong messages: 0, status: 0\n"
    assert (ran.sent.local > 0) == (mode != "kernel")
    print(f"\n{mode}: {count} signals in {time.monotonic() - began:.1f} s, {ran.err.strip()}, by ring {ran.sent.local} bytes")
    if mode != "kernel":
        assert check_live(lambda: snapshot.take(lab.name, bulk=True)) == []
