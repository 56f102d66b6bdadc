"""Each behaviour of the conformance set is the same through the library as on the kernel, or is declared to differ.

Lifted connections were on the local path, both directions, when their scene got them. `make conformance` prints the whole as a table.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from compat.fix_lab import Lab, Namespace
from compat.sockets.play import load
from compat.sockets.stage import KINDS, SCENES
from compat.sockets.table import DIFFERENCES, TEXT, Played, all_played, side_by_side, unexpected

pytest_plugins = ["compat.fix_paths"]

load()
CASES = [(name, kind) for name, scene in SCENES.items() for kind in KINDS if kind == "fresh" or scene.lifts]
# lifted by other means than `ends`, or too many to be looked at one by one
UNSEEN = {"every_socket_option", "every_tcp_option", "every_ip_option", "both_at_once", "to_oneself"}


@pytest.fixture(scope="module")
def conformance(namespace: Namespace) -> Iterator[dict[str, Played]]:
    """All scenes in all modes."""
    with Lab(namespace, "conformance") as lab:
        yield all_played(lab)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", ["default", "eager"])
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_same_as_the_kernel(conformance: dict[str, Played], name: str, kind: str, mode: str) -> None:
    kernel, ours = conformance["kernel"][name, kind], conformance[mode][name, kind]
    assert kernel.lines and kernel.lines[-1][0] not in ("died", "failed"), kernel.lines
    rows = [(label, said) for label, said, equal in side_by_side(kernel, ours) if not equal]
    wrong = unexpected(name, kind, [label for label, _ in rows])
    assert not wrong, "\n".join(f"{label}: kernel {said[0]}, ours {said[1]}" for label, said in rows)
    if kind == "lifted" and name not in UNSEEN:
        assert ours.path == "local"


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_difference_is_in_the_documentation_and_is_there(conformance: dict[str, Played], name: str) -> None:
    assert DIFFERENCES[name].text in " ".join(TEXT.read_text().split())
    different = {
        label
        for mode in ("default", "eager")
        for label, _, equal in side_by_side(conformance["kernel"][name, "lifted"], conformance[mode][name, "lifted"])
        if not equal
    }
    assert different, "nothing differs any more: remove the entry"
