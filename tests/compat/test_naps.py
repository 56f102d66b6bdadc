"""Blocking receivers that sleep behind their doorbell alone are woken by whatever a stream may bring.

The kernel is the oracle, as in test_semantics; the scenes print whether waits were as long as they should be. A nap that nobody ended would
be a second long here (SHAREDSTACK_NAP_MS), two hundred times as long as the silence in the scenes.
"""

from __future__ import annotations

import pytest
from compat.fix_lab import PROGRAMS, Builder, Lab

pytest_plugins = ["compat.fix_paths"]

SCENES = [
    part.partition('"')[0]
    for part in (PROGRAMS / "naps.c").read_text().rpartition("static const struct scene scenes[]")[2].partition("};")[0].split('{"')[1:]
]


# what nobody rings for ends with the nap
UNRUNG = ("child_sends",)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("mode", ["default", "eager"])
@pytest.mark.parametrize("call", [(), ("poll",)], ids=["recv", "poll"])
@pytest.mark.parametrize("scene", SCENES)
def test_woken_as_by_the_kernel(lab: Lab, build: Builder, scene: str, call: tuple[str, ...], mode: str) -> None:
    command = [build("naps"), scene, *call]
    wanted = lab.run(command, "kernel").ok().out
    before = lab.state().counters["naps"]
    ran = lab.run(command, mode, env={} if scene in UNRUNG else {"SHAREDSTACK_NAP_MS": "1000"})
    assert (ran.out, ran.err, ran.status) == (wanted, "", 0)
    assert lab.state().counters["naps"] - before >= 50


def test_none_if_not_wanted(lab: Lab, build: Builder) -> None:
    """nap_ms 0: everybody sleeps where the kernel sees it."""
    before = lab.state().counters["naps"]
    wanted = lab.run([build("naps"), "sent"], "kernel").ok().out
    assert lab.run([build("naps"), "sent"], "eager", env={"SHAREDSTACK_NAP_MS": "0"}).ok().out == wanted
    assert lab.state().counters["naps"] == before
