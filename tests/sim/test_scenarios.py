"""Hypothesis chooses connections and networks, and makes small what fails."""

from __future__ import annotations

import os

from hypothesis import given, settings
from hypothesis import strategies as st
from sim.fix_network import run, verdict

from sharedstack.declare import sim, wire

EXAMPLES = int(os.environ.get("SIM_EXAMPLES", "300"))
C, S = wire.CONSTANTS, sim.CONSTANTS
QUEUES = [2**n for n in range(8, 18)]


def both(one: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(one, one)


def sequence_numbers() -> st.SearchStrategy[int]:
    """Anywhere, and most of all where they wrap."""
    return st.one_of(st.integers(0, 2**32 - 1), st.integers(2**32 - 40_000, 2**32 - 1), st.integers(2**31 - 40_000, 2**31))


@st.composite
def scenarios(draw: st.DrawFn) -> dict[str, int | tuple[int, int]]:
    flags = st.sets(st.sampled_from(["TF_SACK", "TF_TS", "TF_ECN", "TF_NODELAY"]))
    family = draw(st.sampled_from([4, 6]))
    pause = draw(both(st.sampled_from([0, 0, 100, 5_000, 400_000])))
    ending = draw(st.sampled_from([k for k in S if k.startswith("END_")]))
    read = draw(both(st.sampled_from([16, 256, 4096])))
    most = [min(30_000, r * 60) if p else 30_000 for r, p in zip(read, pause, strict=True)]
    sent = (draw(st.integers(0, most[1])), draw(st.integers(0, most[0])))
    if ending == "END_RESET":
        sent = (sent[0], max(sent[1], 500))
    return {
        "seed": draw(st.integers(0, 2**64 - 1)),
        "family": family,
        "flags": sum(C[name] for name in draw(flags)),
        "nodes": 2,
        "connections": draw(st.sampled_from([1, 1, 1, 3])),
        "ending": S[ending],
        "icmp": draw(st.integers(0, 1)),
        "scale": draw(both(st.integers(0, 14))),
        "mss": draw(both(st.sampled_from([64, 100, 536, 1220, 1460]))),
        "tx_size": draw(both(st.sampled_from(QUEUES))),
        "rx_size": draw(both(st.sampled_from(QUEUES))),
        "bytes": sent,
        "iss": draw(both(sequence_numbers())),
        "write": draw(both(st.sampled_from([1, 50, 1000, 4096]))),
        "read": read,
        "pause_us": pause,
        "delay_us": draw(both(st.sampled_from([1, 30, 1_000, 40_000, 300_000]))),
        "jitter_us": draw(both(st.sampled_from([0, 0, 500, 50_000]))),
        "loss": draw(both(st.integers(0, 150_000))),
        "reorder": draw(both(st.integers(0, 200_000))),
        "duplicate": draw(both(st.integers(0, 100_000))),
        "corrupt": draw(both(st.integers(0, 50_000))),
        "rate": draw(both(st.sampled_from([0, 0, 1_000, 50_000]))),
        "queue": draw(both(st.integers(3_000, 50_000))),
        "mtu": draw(both(st.sampled_from([1500, 1500, 1280, 900 if family == 4 else 1400]))),
        "busy": draw(st.sampled_from([0, 0, 100_000, 500_000])),
        "ecn_mark": draw(st.sampled_from([0, 20_000, 300_000])),
    }


@settings(max_examples=EXAMPLES, deadline=None)
@given(scenarios())
def test_every_scenario_ends_as_it_must(values: dict[str, int | tuple[int, int]]) -> None:
    result, _ = run(values)
    assert verdict(result) == "", dict(result.items())
    if values["ending"] not in (S["END_RESET"], S["END_UNREAD"]):
        assert result["hash_sent"] == result["hash_received"]
        assert result["sent"] == result["received"]
