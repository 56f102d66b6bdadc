"""Signal handlers that use the sockets whose waits they interrupt (tests/programs/handlers.c)."""

from __future__ import annotations

import pytest
from compat.fix_lab import MODES, Builder, Lab

pytest_plugins = ["compat.fix_paths"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("mode", MODES)
def test_handlers_that_use_the_set(lab: Lab, build: Builder, mode: str) -> None:
    ran = lab.run([build("handlers")], mode, apart="with signals all the time").ok()
    assert ran.out == "ok\n"
    assert (ran.sent.local > 0) == (mode != "kernel")
