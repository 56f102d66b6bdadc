"""Fixtures: labs, programs, and the bytes by path of each suite at the end of the session. Used as a plugin; classes are in fix_lab."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.fix_lab import Builder, Lab, Namespace, tallies


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not tallies:
        return
    terminalreporter.section("bytes by path")
    for (suite, mode), t in sorted(tallies.items()):
        why = ", ".join(f"{name} {count >> 10} KiB" for name, count in t.why.most_common(6))
        by_path = f"local {t.local >> 10} KiB, kernel {t.kernel >> 10} KiB ({t.share:.1%} local)" if mode != "kernel" else "kernel's own"
        terminalreporter.line(f"{suite} {mode}: {t.runs} runs, {by_path}, {t.segments} segments{f'; by the kernel: {why}' if why else ''}")


def suite_of(request: pytest.FixtureRequest) -> str:
    return Path(str(request.node.path)).stem.removeprefix("test_")


@pytest.fixture(scope="session")
def namespace() -> Iterator[Namespace]:
    """The network namespace of this session's labs."""
    made = Namespace()
    yield made
    made.close()


@pytest.fixture(scope="module")
def lab(namespace: Namespace, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """One helper for all tests of a module, with the HELPER options that it names."""
    with Lab(namespace, suite_of(request), *getattr(request.module, "HELPER", ())) as made:
        yield made


@pytest.fixture
def own_lab(namespace: Namespace, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A helper for one test, that may be killed or spoilt; with the HELPER options that its module names."""
    with Lab(namespace, suite_of(request), *getattr(request.module, "HELPER", ())) as made:
        yield made


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """Compiles programs, each once."""
    return Builder(tmp_path_factory.mktemp("programs"))
