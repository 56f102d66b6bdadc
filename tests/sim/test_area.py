"""What of the area is derived can be made anew: after a death at any point the connection goes on, and no byte is wrong."""

from __future__ import annotations

import random

import pytest
from sim.fix_engine import ACK, FIN, Conversation, Tap, library

from sharedstack.declare import wire


def test_rebuilding_changes_nothing_that_matters() -> None:
    data = random.Random(1).randbytes(40_000)
    c = Conversation(library(), sack=True)
    c.send(data)
    c.give(0, 3000, sack=[(5000, 6000)])
    c.give(2000, 3000, data=b"z" * 100)
    c.give(0, 3000, data=b"y" * 500)
    before = {name: c.tcp[name] for name in ("snd_una", "tx_end", "rcv_nxt", "rx_read", "state")}
    may_be_sent = min(c.tcp["tx_end"], c.tcp["snd_una"] + c.tcp["snd_wnd"])
    assert c.tcp["snd_nxt"] < may_be_sent
    c.tap.lib.shs_test_tap_rebuild(c.tap.tap)
    c.tap.check()
    assert {name: c.tcp[name] for name in before} == before
    assert (c.tcp["n_ooo"], c.tcp["sacked"]) == (0, 0)
    assert c.tcp["snd_nxt"] == may_be_sent
    assert c.tcp["lost"] == c.tcp["snd_nxt"] - c.tcp["snd_una"]
    assert c.recv() == b"y" * 500


DERIVED = [p.field.name for p in wire.TCP.placed() if p.field.derived and p.field.count == 1]


@pytest.mark.parametrize("seed", range(20))
def test_derived_state_may_be_garbage(seed: int) -> None:
    """Derived fields overwritten at random, then rebuilt, again and again while bytes flow."""
    r = random.Random(seed)
    c = Conversation(library(), sack=seed % 2 == 0, ts=seed % 3 == 0)
    data, got, sent = r.randbytes(30_000), bytearray(), 0
    for _ in range(4000):
        sent += max(c.send(data[sent : sent + r.randrange(1, 3000)]), 0)
        for s in c.later(r.choice([1, 5, 300])):
            if s.seq <= len(got):
                got[s.seq :] = bytes(got[s.seq :]) if s.seq + len(s.data) <= len(got) else s.data
            if s.data and r.random() < 0.7:
                c.give(0, len(got))
        if r.random() < 0.05:
            for name in r.sample(DERIVED, 4):
                c.tcp[name] = r.randrange(2**32)
            for name in ("tcp_free", "seg_free", "seg_used", "tcp_used"):
                c.tap.wire[name] = r.randrange(2**32)
            c.tap.lib.shs_test_tap_rebuild(c.tap.tap)
            c.tap.check()
        if len(got) == len(data):
            break
    assert bytes(got) == data


def test_states_follow_from_sequence_numbers() -> None:
    """Whoever died had stored the fact, not yet the state that follows from it."""
    before = {
        "ESTABLISHED": "ESTABLISHED",
        "FIN_WAIT_1": "ESTABLISHED",
        "FIN_WAIT_2": "FIN_WAIT_1",
        "CLOSE_WAIT": "ESTABLISHED",
        "CLOSING": "FIN_WAIT_1",
        "LAST_ACK": "CLOSE_WAIT",
    }
    for state, was in before.items():
        c = Conversation(library())
        if state in ("FIN_WAIT_1", "FIN_WAIT_2", "CLOSING"):
            c.shutdown()
        if state == "FIN_WAIT_2":
            c.give(0, 1)
        if state in ("CLOSE_WAIT", "CLOSING", "LAST_ACK"):
            c.give(0, 0, flags=ACK | FIN)
        if state == "LAST_ACK":
            c.shutdown()
        assert c.state() == state
        c.tcp["state"] = wire.CONSTANTS[f"TCP_{was}"]
        c.tap.lib.shs_test_tap_rebuild(c.tap.tap)
        c.tap.check()
        assert c.state() == state


def test_a_full_link_is_tried_again() -> None:
    c = Conversation(library())
    c.tap.lib.shs_test_tap_full(c.tap.tap, 1)
    c.send(b"x" * 100)
    assert c.got() == []
    assert c.counter("out_no_room") == 1
    c.tap.lib.shs_test_tap_full(c.tap.tap, 0)
    assert [s.data for s in c.later(2)] == [b"x" * 100]


def test_handles_of_the_past_are_refused() -> None:
    c = Conversation(library())
    c.abort()
    assert c.send(b"x") == -9
    assert c.recv() == -9


def test_no_more_than_there_is_room_for() -> None:
    tap = Tap(library())
    assert tap.lib.shs_test_tap_next(tap.tap) == 2**64 - 1
    assert tap.wire["n_tcp"] == 4
