"""What the plays did, at the end of the session."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    from differential.soak import reports

    if reports:
        terminalreporter.section("differential")
        for line in reports:
            terminalreporter.line(line)
