"""The policy on the wire path: what it denies is not lifted, what it denies by now is lowered, and what it allows again lifted."""

from __future__ import annotations

from pathlib import Path

import pytest
from wire.fix_datagrams import ask as ask_datagrams
from wire.fix_datagrams import reasons, wired
from wire.fix_datagrams import serve as serve_datagrams
from wire.fix_veth import INTERFACE
from wire.fix_world import BIN, Side, wait_for
from wire.test_reasons import PORT, PYTHON, TALK, serve, shows

DENY = "[[rule]]\nname = 'not there'\naction = 'deny'\nremote_address = '{}'\n"


@pytest.fixture
def file(tmp_path: Path, fresh_sides: tuple[Side, Side]) -> Path:
    """The policy of the first host's helper."""
    made = tmp_path / "policy.toml"
    made.write_text("")
    fresh_sides[0].stop_helper()
    fresh_sides[0].start_helper("--link", INTERFACE, "--policy", str(made))
    return made


def reload(side: Side) -> None:
    side.run(str(BIN / "sharedstack"), "policy", "reload", "--stack", side.stack, ours=False)


def test_connections(fresh_sides: tuple[Side, Side], file: Path) -> None:
    here, there = fresh_sides
    serve(there, ours=False)
    asking = here.start(PYTHON, TALK, "keep", there.address, str(PORT), "blocking", "1", "20000", "50")
    for _ in range(2):
        shows(here, "wire", "none")
        file.write_text(DENY.format(there.address))
        reload(here)
        assert here.paths() == [("kernel", "lowered_rule")]
        assert here.inspect()["endpoints"][0]["tx"]["rule"] == "not there"
        wire, segments = here.bytes_by_path()["wire"], here.tcp_counts()["InSegs"]
        wait_for(lambda segments=segments: here.tcp_counts()["InSegs"] > segments + 100)  # type: ignore[misc]
        assert here.bytes_by_path()["wire"] == wire
        file.write_text(DENY.format("10.99.0.0/16"))
        reload(here)
    shows(here, "wire", "none")
    assert asking.communicate(timeout=60)[0] and asking.returncode == 0


def test_datagrams(fresh_sides: tuple[Side, Side], file: Path) -> None:
    here, there = fresh_sides
    _, port = serve_datagrams(here, "epoll")
    ask_datagrams(there, here.address, port, n=200)
    assert wired(here)
    file.write_text(DENY.format(there.address))
    reload(here)
    assert not wired(here) and reasons(here) == {"lowered_rule"}
    assert ask_datagrams(there, here.address, port, n=200)["lost"] == 0
    assert not wired(here)
    file.write_text("")
    reload(here)
    assert ask_datagrams(there, here.address, port, n=2000)["lost"] == 0
    assert wired(here)
