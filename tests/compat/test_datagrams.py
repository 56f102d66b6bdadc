"""Datagrams: what the calls mean is the kernel's, line by line; several senders and receivers under fire; and which way they went.

A scene (tests/programs/datagrams.c) is played on the kernel first, and through the library in three ways of waiting. A seed
(tests/programs/crossfire.c) decides families, calls, sizes and pauses; every datagram is checked for order, source and content.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
from compat.fix_lab import MODES, PROGRAMS, Builder, Lab

pytest_plugins = ["compat.fix_paths"]

WAYS: dict[str, dict[str, str]] = {
    "eager": {},
    "asleep": {"SHAREDSTACK_DOZE": "0"},
    "spinning": {"SHAREDSTACK_SPIN_ALWAYS": "1", "SHAREDSTACK_SPIN_US": "3000"},
}
AWAKE = ("eager", "spinning")
SHARE = 0.7  # of a scene's datagrams, by ring: all but the first few to each receiver

# by the kernel for the most part, by design
KERNEL = {
    "special_addresses": "broadcast",
    "one_for_each": "half of it goes to a socket that nobody has confirmed yet",
    "waiting_before": "a thread waits in the kernel all the time",
    "no_control_data": "a dozen datagrams",
}
SEEDS = (1, 2, 3, 4, 5, 6)
SENDERS, RECEIVERS, COUNT = 3, 2, 1200


def scenes() -> list[str]:
    """As the program declares them."""
    text = (PROGRAMS / "datagrams.c").read_text().rpartition("static const struct scene scenes[]")[2]
    return [part.partition('"')[0] for part in text.split('{"')[1:]]


@pytest.fixture(scope="module")
def oracle(lab: Lab, build: Builder) -> Callable[[str], str]:
    """What a scene says on the kernel."""

    @functools.cache
    def said(scene: str) -> str:
        return lab.run([build("datagrams"), scene], "kernel").ok().out

    return said


def by_path(lab: Lab) -> tuple[int, int]:
    """Datagrams sent by ring and by the kernel since the stack began."""
    counters = lab.state().counters
    return counters["tx_datagrams"], counters["tx_kernel_datagrams"]


def share_since(lab: Lab, before: tuple[int, int]) -> float:
    """Of all datagrams since then, those that went by ring."""
    ring, kernel = (now - then for now, then in zip(by_path(lab), before, strict=True))
    return ring / ((ring + kernel) or 1)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scene", scenes())
def test_same_as_the_kernel(lab: Lab, build: Builder, oracle: Callable[[str], str], scene: str, way: str) -> None:
    expected, before = oracle(scene), by_path(lab)
    ran = lab.run([build("datagrams"), scene], "eager", env=WAYS[way]).ok()
    assert ran.out == expected
    if way in AWAKE and scene not in KERNEL:
        assert share_since(lab, before) >= SHARE, f"{by_path(lab)} since {before}"


@pytest.mark.timeout(90)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", SEEDS)
def test_order_under_fire(lab: Lab, build: Builder, seed: int, mode: str) -> None:
    before = by_path(lab)
    argv = [build("crossfire"), str(seed), str(SENDERS), str(RECEIVERS), str(COUNT)]
    assert lab.run(argv, mode, timeout=60).ok().out == "ok\n"
    if mode == "eager":
        assert share_since(lab, before) > 0.3
    assert (by_path(lab) != before) == (mode != "kernel")


@pytest.mark.timeout(90)
@pytest.mark.parametrize("mode", ("default", "eager"))
@pytest.mark.parametrize("seed", SEEDS[:3])
def test_plain_peers_among_them(lab: Lab, build: Builder, seed: int, mode: str) -> None:
    before = by_path(lab)
    argv = [build("crossfire"), str(seed), str(SENDERS), str(RECEIVERS), str(COUNT), "plain"]
    assert lab.run(argv, mode, timeout=60).ok().out == "ok\n"
    ring, kernel = (now - then for now, then in zip(by_path(lab), before, strict=True))
    assert kernel > 0
    assert ring > 0 or mode == "default"


@pytest.mark.timeout(90)
@pytest.mark.parametrize("mode", ("default", "eager"))
@pytest.mark.parametrize("seed", SEEDS[:4])
def test_a_sender_is_killed(lab: Lab, build: Builder, seed: int, mode: str) -> None:
    argv = [build("crossfire"), str(seed), str(SENDERS), str(RECEIVERS), str(5 * COUNT), "kill"]
    assert lab.run(argv, mode, timeout=60).ok().out == "ok\n"


def test_the_kernel_saw_little_of_it(lab: Lab, build: Builder) -> None:
    """What the kernel counted itself agrees with what the participants say."""
    if not lab.namespace.own:
        pytest.skip("allowed: without root there is no network namespace of our own, and others' datagrams are counted too")
    argv = [build("datagrams"), "event_loop"]
    start = lab.namespace.datagrams()
    lab.run(argv, "kernel").ok()
    plain = lab.namespace.datagrams() - start
    lab.run(argv, "eager").ok()
    eager = lab.namespace.datagrams() - start - plain
    assert plain >= 6000
    assert eager < 100


def test_inspect_shows_datagram_sockets(lab: Lab) -> None:
    actor = lab.actor("eager")
    actor.do(
        "a, b, c = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3))\n"
        "a.bind(('127.0.0.1', 0)); b.bind(('127.0.0.1', 0)); c.bind(('127.0.0.1', 0))\n"
        "c.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)\n"
        "for _ in range(20): (a.sendto(b'x', b.getsockname()), b.recv(9), c.sendto(b'x', c.getsockname()), c.recv(9))\n"
    )
    found = {line["socket"].split()[1]: line for line in lab.why(actor.pid)}
    a, b, c = (f"127.0.0.1:{actor.do(f'{name}.getsockname()[1]')}" for name in "abc")
    assert found[a]["socket"].startswith("udp ")
    assert found[a]["tx"] == "none"
    assert found[b]["rx"] == "none"
    assert found[c]["tx"] != "none"
    done = lab.inspect()
    assert " udp" in done.stdout, done.stdout
    assert lab.inspect("--check").stdout == ""
    actor.end()


def test_nothing_is_left(lab: Lab) -> None:
    lab.assert_clean()
