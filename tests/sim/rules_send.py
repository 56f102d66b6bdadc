"""Rules of what is sent: segments, losses, windows, timers, ends. Each function fails where the rule is not kept."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

from sim.fix_engine import ACK, CWR, ECE, FIN, PSH, RST, Conversation, address, checksum, ip, pseudo

from sharedstack.declare import wire

C = wire.CONSTANTS
DATA = bytes(range(256)) * 256


def numbers(segments: list[object]) -> list[tuple[int, int]]:
    return [(s.seq, len(s.data)) for s in segments]  # type: ignore[attr-defined]


def data_is_cut_into_segments(path: Path) -> None:
    for family in (4, 6):
        c = Conversation(path, family)
        assert c.send(DATA[:3500]) == 3500
        sent = c.got()
        assert numbers(sent) == [(0, 1000), (1000, 1000), (2000, 1000), (3000, 500)]
        assert b"".join(s.data for s in sent) == DATA[:3500]


def nagle_holds_small_segments_back(path: Path) -> None:
    c = Conversation(path)
    c.send(b"a" * 10)
    c.send(b"b" * 10)
    assert numbers(c.got()) == [(0, 10)]
    c.give(0, 10)
    assert numbers(c.got()) == [(10, 10)]


def nagle_counts_small_segments_alone(path: Path) -> None:
    c = Conversation(path)
    c.send(DATA[:1500])
    assert numbers(c.got()) == [(0, 1000), (1000, 500)]
    c.send(DATA[:300])
    assert c.got() == []
    c.give(0, 1000)
    assert c.got() == []
    c.give(0, 1500)
    assert numbers(c.got()) == [(1500, 300)]


def nodelay_sends_at_once(path: Path) -> None:
    c = Conversation(path, nodelay=True)
    c.send(b"a" * 10)
    c.send(b"b" * 10)
    assert numbers(c.got()) == [(0, 10), (10, 10)]


def cork_waits_for_full_segments_or_its_limit(path: Path) -> None:
    c = Conversation(path)
    c.option("TF_CORK", True)
    c.send(b"a" * 10)
    assert c.later(150) == []
    assert numbers(c.later(100)) == [(0, 10)]
    c.give(0, 10)
    c.send(b"b" * 10)
    c.option("TF_CORK", False)
    assert numbers(c.got()) == [(10, 10)]


def push_marks_the_end_of_a_send(path: Path) -> None:
    c = Conversation(path)
    c.send(DATA[:2000])
    assert [bool(s.flags & PSH) for s in c.got()] == [False, True]


def the_peers_window_is_kept(path: Path) -> None:
    c = Conversation(path, snd_wnd=2500)
    c.send(DATA[:9000])
    assert sum(len(s.data) for s in c.got()) <= 2500
    c.give(0, 2000, wnd=4000)
    assert max(s.seq + len(s.data) for s in c.got()) <= 6000


def windows_of_older_segments_do_not_count(path: Path) -> None:
    c = Conversation(path, snd_wnd=3000)
    c.send(DATA[:1000])
    c.give(0, 0, data=b"a" * 100, wnd=5000)
    assert c.tcp["snd_wnd"] == 5000
    c.give(0, 0, wnd=100)  # an older one, still acceptable? no: before rcv_nxt
    c.give(100, 0, data=b"b" * 100, wnd=6000)
    assert c.tcp["snd_wnd"] == 6000


def silly_segments_are_not_sent(path: Path) -> None:
    c = Conversation(path, snd_wnd=1000)
    c.send(DATA[:5000])
    c.got()
    c.give(0, 1000, wnd=300)
    assert numbers(c.got()) == []
    assert numbers(c.later(250)) == [(1000, 300)]


def lost_segments_are_sent_again_after_rto(path: Path) -> None:
    c = Conversation(path, srtt_us=0)
    c.send(DATA[:500])
    c.got()
    assert c.later(990) == []
    assert numbers(c.later(20)) == [(0, 500)]
    assert c.later(1900) == []
    assert numbers(c.later(200)) == [(0, 500)]


def rto_follows_the_round_trip(path: Path) -> None:
    c = Conversation(path, srtt_us=0)
    c.send(DATA[:1000])
    c.later(300)
    c.give(0, 1000)
    assert c.tcp["srtt"] == 300_000_000
    assert c.tcp["rto"] == 900_000_000
    c.send(DATA[:1000])
    c.later(380)
    c.give(0, 2000)
    assert c.tcp["srtt"] == 310_000_000
    assert c.tcp["rttvar"] == 150_000_000 * 3 // 4 + 20_000_000


def round_trips_of_repeated_segments_do_not_count(path: Path) -> None:
    c = Conversation(path, srtt_us=0)
    c.send(DATA[:1000])
    c.later(1100)
    c.give(0, 1000)
    assert c.tcp["srtt"] == 0


def timestamps_measure_repeated_segments(path: Path) -> None:
    c = Conversation(path, ts=True, srtt_us=0, mss=1012)
    c.send(DATA[:1000])
    c.later(1050)
    again = c.clock()
    c.later(30)
    c.give(0, 1000, ts=(c.peer_ts, again))
    assert 30_000_000 <= c.tcp["srtt"] <= 31_000_000


def progress_restarts_the_timer(path: Path) -> None:
    c = Conversation(path, srtt_us=0)
    c.send(DATA[:2000])
    c.later(900)
    c.give(0, 1000)
    c.got()
    rto = c.tcp["rto"] // 1_000_000
    assert c.later(rto - 20) == []
    assert numbers(c.later(40)) == [(1000, 1000)]


def a_timeout_shuts_the_window_to_one_segment(path: Path) -> None:
    c = Conversation(path)
    c.send(DATA[:8000])
    c.got()
    assert numbers(c.later(300)) == [(0, 1000)]
    assert c.tcp["cwnd"] == 1000
    assert c.tcp["ssthresh"] == 7000
    c.give(0, 1000)
    assert len(c.got()) == 2  # slow start


def connections_are_given_up(path: Path) -> None:
    c = Conversation(path)
    c.send(b"x")
    c.later(2_000_000)
    assert c.state() == "CLOSED"
    assert c.recv() == -110
    assert c.counter("rto") == 15


def three_duplicates_begin_fast_retransmit(path: Path) -> None:
    c = Conversation(path)
    c.send(DATA[:8000])
    c.got()
    c.give(0, 1000)
    c.got()
    for expected in ([], [], [(1000, 1000)]):
        c.give(0, 1000)
        assert [s for s in numbers(c.got()) if s[0] == 1000] == expected
    assert c.tcp["ca"] == C["CA_RECOVERY"]
    assert c.tcp["cwnd"] == c.tcp["ssthresh"] < 10_000


def other_windows_are_no_duplicates(path: Path) -> None:
    c = Conversation(path)
    c.send(DATA[:8000])
    c.give(0, 1000)
    c.got()
    for i in range(5):
        c.give(0, 1000, wnd=60001 + i)
    assert c.counter("dup_acks") == 0


def partial_acknowledgments_repair_the_next_hole(path: Path) -> None:
    c = Conversation(path)
    c.send(DATA[:9000])
    c.give(0, 1000)
    for _ in range(3):
        c.give(0, 1000)
    c.got()
    c.give(0, 4000)
    assert (4000, 1000) in numbers(c.got())
    assert c.tcp["ca"] == C["CA_RECOVERY"]
    c.give(0, 9000)
    assert c.tcp["ca"] == C["CA_OPEN"]


def duplicates_after_a_timeout_do_not_begin_recovery(path: Path) -> None:
    c = Conversation(path)
    c.send(DATA[:8000])
    c.later(250)
    c.give(0, 8000)
    c.send(DATA[:4000])
    c.got()
    for _ in range(4):
        c.give(0, 8000)
    assert c.tcp["ca"] == C["CA_OPEN"]


def sacked_segments_are_not_sent_again(path: Path) -> None:
    c = Conversation(path, sack=True)
    c.send(DATA[:8000])
    c.got()
    c.give(0, 0, sack=[(1000, 4000)])
    assert (0, 1000) in numbers(c.got())
    c.give(0, 1000, sack=[(5000, 8000), (1000, 4000)])
    c.give(0, 4000, sack=[(5000, 8000)])
    sent = numbers(c.later(5))
    assert (4000, 1000) in sent
    assert not any(1000 <= seq < 4000 for seq, _ in sent)


def two_segments_sacked_above_are_not_enough(path: Path) -> None:
    c = Conversation(path, sack=True)
    c.send(DATA[:8000])
    c.got()
    c.give(0, 0, sack=[(1000, 3000)])
    assert not [s for s in numbers(c.got()) if s[0] == 0]
    c.give(0, 0, sack=[(1000, 3001)])
    assert (0, 1000) in numbers(c.got())


def sack_blocks_of_nonsense_are_ignored(path: Path) -> None:
    c = Conversation(path, sack=True)
    c.send(DATA[:4000])
    c.got()
    c.give(0, 0, sack=[(1000, 9000)])
    c.give(0, 0, sack=[(3000, 2000)])
    assert c.counter("sack_bad") == 2
    assert c.tcp["sacked"] == 0


def segments_are_split_where_sack_says(path: Path) -> None:
    c = Conversation(path, sack=True)
    c.send(DATA[:4000])
    c.got()
    c.give(0, 0, sack=[(1500, 2500)])
    assert c.tcp["sacked"] == 1000
    assert c.tcp["segs"] == 6


def taken_back_sacks_are_not_believed(path: Path) -> None:
    c = Conversation(path, sack=True)
    c.send(DATA[:3000])
    c.got()
    c.give(0, 0, sack=[(1000, 3000)])
    c.got()
    c.give(0, 1000)  # and where are the others now?
    c.later(400)
    assert c.tcp["sacked"] == 0
    assert c.counter("retransmits") >= 1


def a_round_trip_later_is_lost(path: Path) -> None:
    c = Conversation(path, sack=True)
    c.send(DATA[:1000])
    c.later(20)
    c.give(0, 1000)
    c.send(DATA[:2000])
    c.got()
    c.later(20)
    c.give(0, 1000, sack=[(2000, 3000)])
    assert c.got() == []  # one above: it may have been overtaken
    assert numbers(c.later(10)) == [(1000, 1000)]
    assert c.counter("rack_lost") == 1


def overtaking_makes_loss_a_matter_of_time(path: Path) -> None:
    c = Conversation(path, sack=True)
    c.send(DATA[:6000])
    c.got()
    c.later(20)
    c.give(0, 0, sack=[(2000, 3000)])
    c.give(0, 0, sack=[(1000, 3000)])  # the second after the third
    c.give(0, 0, sack=[(1000, 5000)])
    assert not [s for s in numbers(c.got()) if s[0] == 0]
    assert numbers(c.later(10))[0] == (0, 1000)


def duplicates_widen_the_reordering_window(path: Path) -> None:
    c = Conversation(path, sack=True)
    c.send(DATA[:2000])
    c.later(20)
    c.give(0, 2000, sack=[(0, 1000)])
    assert c.counter("dsack_in") == 1
    assert c.tcp["reo_mult"] == 2


def lost_retransmissions_are_noticed(path: Path) -> None:
    c = Conversation(path, sack=True)
    c.send(DATA[:5000])
    c.later(20)
    c.give(0, 0, sack=[(1000, 4000)])
    assert (0, 1000) in numbers(c.got())
    c.send(DATA[:3000])
    assert c.got()
    c.later(21)
    c.give(0, 0, sack=[(5000, 8000), (1000, 4000)])
    assert (0, 1000) in numbers(c.later(1))


def the_tail_is_probed(path: Path) -> None:
    c = Conversation(path, sack=True)
    c.send(DATA[:2000])
    c.got()
    assert c.later(35) == []
    assert numbers(c.later(15)) == [(1000, 1000)]
    assert c.counter("tlp") == 1
    assert c.counter("rto") == 0


def a_probe_takes_new_data_if_there_is_some(path: Path) -> None:
    c = Conversation(path, sack=True, cwnd=2000)
    c.send(DATA[:4000])
    assert len(c.got()) == 2
    assert numbers(c.later(50)) == [(2000, 1000)]


def a_repaired_tail_reduces_the_window(path: Path) -> None:
    c = Conversation(path, sack=True)
    c.send(DATA[:2000])
    c.later(60)
    c.send(DATA[:1000])
    cwnd = c.tcp["cwnd"]
    c.give(0, 3000)
    assert c.tcp["cwnd"] == cwnd * 7 // 10


def an_unneeded_probe_does_not(path: Path) -> None:
    c = Conversation(path, sack=True)
    c.send(DATA[:2000])
    c.later(60)
    cwnd = c.tcp["cwnd"]
    c.give(0, 2000, sack=[(1000, 2000)])
    assert c.tcp["cwnd"] >= cwnd
    assert c.tcp["tlp_out"] == 0


def slow_start_doubles(path: Path) -> None:
    c = Conversation(path, cwnd=4000)
    c.send(DATA[:40000])
    assert len(c.got()) == 4
    for i in range(4):
        c.give(0, 1000 * (i + 1))
    assert c.tcp["cwnd"] == 8000
    assert len(c.got()) == 8


def an_unused_window_does_not_grow(path: Path) -> None:
    c = Conversation(path, cwnd=20000)
    for i in range(10):
        c.send(DATA[:1000])
        c.give(0, 1000 * (i + 1))
    assert c.tcp["cwnd"] == 20000


LARGE: dict[str, int] = {"snd_wnd": 128_000, "snd_scale": 2, "tx_size": 524_288, "rx_off": 524_288}


def fill_windows(c: Conversation, rtt: int, acked: int, rounds: int) -> list[int]:
    """Every window is filled, and acknowledged a round trip later, two segments at a time; the window after each."""
    windows = []
    for _ in range(rounds):
        c.later(rtt)
        flight = (c.tcp["snd_nxt"] - c.tcp["snd_una"]) & 0xFFFFFFFF
        end = acked + flight
        while acked < end:
            acked = min(acked + 2000, end)
            c.give(0, acked, wnd=32000)
            c.send(DATA[:2000])
        c.got()
        windows.append(int(c.tcp["cwnd"]))
    return windows


def loss_of_a_window(c: Conversation, segments: int, rtt: int) -> None:
    c.send(DATA * 4)
    c.later(rtt)
    c.give(0, 0, sack=[(1000, 5000)], wnd=32000)
    c.later(1)
    c.give(0, segments * 1000, wnd=32000)


def cubic_returns_to_where_it_was(path: Path) -> None:
    c = Conversation(path, sack=True, cwnd=100_000, srtt_us=200_000, **LARGE)
    loss_of_a_window(c, 100, 200)
    assert c.tcp["w_max"] == 100_000
    assert c.tcp["ssthresh"] == 70_000
    windows = fill_windows(c, 200, 100_000, 24)
    assert 4150 < c.tcp["cubic_k"] < 4550  # cbrt(30 segments / 0.4) seconds, a little more for what slow start has not filled
    half, whole = windows[11], windows[21]  # what W_cubic has at K / 2 and K
    assert 93_000 < half < 97_500, windows
    assert 98_500 < whole < 101_500, windows


def cubic_is_not_slower_than_reno(path: Path) -> None:
    c = Conversation(path, sack=True, cwnd=20_000, **LARGE)
    loss_of_a_window(c, 20, 20)
    windows = fill_windows(c, 20, 20_000, 14)
    assert windows[-1] >= 18_500, windows  # nine seventeenths of a segment each round; the cubic alone would need 120 of them


def ecn_halves_once_in_a_window(path: Path) -> None:
    c = Conversation(path, ecn=True, cwnd=10000)
    c.send(DATA[:9000])
    sent = c.got()
    assert all(s.ecn == 2 for s in sent)
    c.give(0, 1000, flags=ACK | ECE)
    c.give(0, 2000, flags=ACK | ECE)
    assert c.tcp["cwnd"] == 7000
    c.give(0, 9000, flags=ACK | ECE)
    c.send(DATA[:2000])
    assert [bool(s.flags & CWR) for s in c.got()] == [True, False]


def what_is_sent_again_is_not_ecn_capable(path: Path) -> None:
    c = Conversation(path, ecn=True)
    c.send(DATA[:1000])
    c.got()
    (s,) = c.later(250)
    assert s.ecn == 0


def zero_windows_are_probed(path: Path) -> None:
    c = Conversation(path)
    c.send(DATA[:1000])
    c.give(0, 1000, wnd=0)
    c.send(b"x" * 10)
    c.got()
    times, last = [], c.tap.now
    for _ in range(4000):
        if c.later(5):
            times.append((c.tap.now - last) // 1_000_000)
            last = c.tap.now
    assert len(times) >= 5
    assert all(1.7 < b / a < 2.3 for a, b in itertools.pairwise(times[1:]))
    c.give(0, 1000, wnd=5000)
    assert numbers(c.got()) == [(1000, 10)]


def a_peer_that_answers_probes_is_not_given_up(path: Path) -> None:
    c = Conversation(path)
    c.give(0, 0, wnd=0)
    c.send(b"x")
    for _ in range(40):
        if c.later(125_000):
            c.give(0, 0, wnd=0)
    assert c.state() == "ESTABLISHED"
    c.later(3_000_000)
    assert c.state() == "CLOSED"
    assert c.recv() == -110


def idle_peers_are_asked(path: Path) -> None:
    c = Conversation(path)
    c.keepalive(10_000, 1_000, 3)
    assert c.later(9_900) == []
    (s,) = c.later(200)
    assert (s.seq, len(s.data)) == (0xFFFFFFFF, 0)
    c.give(0, 0)
    assert c.later(9_000) == []
    assert len(c.later(1_100 + 2_000)) == 3
    assert [bool(s.flags & RST) for s in c.later(1_100)] == [True]
    assert c.recv() == -110


def the_user_timeout_ends(path: Path) -> None:
    c = Conversation(path)
    c.user_timeout(1_500)
    c.send(b"x")
    c.later(1_450)
    assert c.state() == "ESTABLISHED"
    c.later(51)
    assert c.state() == "CLOSED"
    assert c.recv() == -110


def too_big(c: Conversation, mtu: int, seq: int) -> None:
    family = c.family
    quoted = struct.pack(">HHI", 80, 1000, (c.una + seq) & 0xFFFFFFFF)
    us, them, router = address(family, 1), address(family, 2), address(family, 9)
    packet = ip(family, us, them, 6, quoted + bytes(1000))[: 28 if family == 4 else 100]
    if family == 4:
        body = struct.pack(">BBHHH", 3, 4, 0, 0, mtu) + packet
        total = checksum(body)
    else:
        body = struct.pack(">BBHI", 2, 0, 0, mtu) + packet
        total = checksum(pseudo(6, router, us, 58, len(body)) + body)
    c.tap.input(ip(family, router, us, 1 if family == 4 else 58, body[:2] + struct.pack(">H", total) + body[4:]))


def icmp_lowers_the_mtu(path: Path) -> None:
    for family, mss in ((4, 660), (6, 1240)):
        c = Conversation(path, family, mss=1400, cwnd=20000)
        c.send(DATA[:2800])
        assert numbers(c.got()) == [(0, 1400), (1400, 1400)]
        cwnd = c.tcp["cwnd"]
        too_big(c, 700 if family == 4 else 1300, 1400)
        sent = c.got()
        assert max(len(s.data) for s in sent) == mss
        assert b"".join(s.data for s in sent) == DATA[:2800]
        assert c.tcp["cwnd"] == cwnd


def icmp_about_what_is_not_in_flight_is_ignored(path: Path) -> None:
    c = Conversation(path)
    c.send(DATA[:1000])
    c.got()
    for seq in (-1, 1000, 50000):
        too_big(c, 700, seq)
    assert c.counter("icmp_bad") == 3
    assert c.tcp["mss"] == 1000


def icmp_cannot_make_segments_tiny(path: Path) -> None:
    c = Conversation(path)
    c.send(DATA[:1000])
    too_big(c, 68, 0)
    assert c.tcp["mss"] == 512


def unreachable_is_only_a_reason(path: Path) -> None:
    c = Conversation(path)
    c.send(DATA[:1000])
    quoted = ip(4, address(4, 1), address(4, 2), 6, struct.pack(">HHI", 80, 1000, c.una) + bytes(12))[:28]
    body = struct.pack(">BBHI", 3, 1, 0, 0) + quoted
    c.tap.input(ip(4, address(4, 9), address(4, 1), 1, body[:2] + struct.pack(">H", checksum(body)) + body[4:]))
    assert c.state() == "ESTABLISHED"
    c.later(2_000_000)
    assert c.recv() == -113


def black_holes_are_found(path: Path) -> None:
    c = Conversation(path, mss=1460)
    c.send(DATA[:1460])
    c.got()
    sizes = {len(s.data) for _ in range(40) for s in c.later(100)}
    assert sizes >= {1460, 1160, 536}
    assert c.counter("pmtu_blackhole") == 2


def sizes_are_raised_again(path: Path) -> None:
    c = Conversation(path, mss=1460, cwnd=30_000)
    c.send(DATA[:1460])
    c.later(700)
    c.give(0, 1460)
    assert c.tcp["mss"] == 1160
    c.send(DATA[:20_000])
    for _ in range(8):
        assert max((len(s.data) for s in c.later(1)), default=0) <= 1160
        c.give(0, (c.tcp["snd_nxt"] - c.una) & 0xFFFFFFFF)
    assert c.tcp["snd_una"] == c.tcp["tx_end"]
    c.later(11_000)
    c.send(DATA[:5_000])
    sizes = [len(s.data) for s in c.got()]
    assert sizes[:3] == [1460, 1160, 1160]
    c.give(0, (c.tcp["snd_nxt"] - c.una) & 0xFFFFFFFF)
    assert c.tcp["mss"] == 1460
    assert c.counter("pmtu_raised") == 1


def fin_follows_the_data(path: Path) -> None:
    c = Conversation(path)
    c.send(DATA[:500])
    c.send(DATA[500:700])
    c.shutdown()
    sent = c.got()
    assert numbers(sent) == [(0, 500), (500, 200)]
    assert sent[-1].flags & FIN
    assert c.send(b"x") == -32
    assert c.state() == "FIN_WAIT_1"
    c.give(0, 701)
    assert c.state() == "FIN_WAIT_2"
    c.give(0, 701, data=b"more", flags=ACK | FIN)
    assert c.state() == "TIME_WAIT"
    assert c.recv() == b"more"
    assert c.recv() == b""
    assert [s.ack for s in c.got()] == [5]


def the_peer_may_close_first(path: Path) -> None:
    c = Conversation(path)
    c.give(0, 0, flags=ACK | FIN)
    assert c.state() == "CLOSE_WAIT"
    assert c.recv() == b""
    c.send(b"late")
    c.close()
    assert c.later(1)[-1].flags & FIN
    c.give(1, 5)
    assert c.tap.wire["tcp_used"] == 0


def both_may_close_at_once(path: Path) -> None:
    c = Conversation(path)
    c.shutdown()
    c.give(0, 0, flags=ACK | FIN)
    assert c.state() == "CLOSING"
    c.give(1, 1)
    assert c.state() == "TIME_WAIT"


def lost_fins_are_sent_again(path: Path) -> None:
    c = Conversation(path)
    c.shutdown()
    assert [s.flags & FIN for s in c.got()] == [FIN]
    assert [s.flags & FIN for s in c.later(250)] == [FIN]


def time_wait_answers_and_ends(path: Path) -> None:
    c = Conversation(path)
    c.shutdown()
    c.give(0, 1, flags=ACK | FIN)
    c.got()
    c.later(50_000)
    c.give(0, 1, flags=ACK | FIN)
    assert [s.ack for s in c.got()] == [1]
    c.later(50_000)
    assert c.state() == "TIME_WAIT"
    c.later(11_000)
    assert c.state() == "CLOSED"
    c.close()
    assert c.tap.wire["tcp_used"] == 0
    c = Conversation(path)
    c.shutdown()
    c.give(0, 1, flags=ACK | FIN)
    c.later(59_900)
    assert c.state() == "TIME_WAIT"
    c.later(200)
    assert c.state() == "CLOSED"


def closing_with_unread_bytes_resets(path: Path) -> None:
    c = Conversation(path)
    c.give(0, 0, data=b"unread")
    c.close()
    (s,) = c.got()
    assert (s.seq, s.flags) == (0, RST | ACK)
    assert c.tap.wire["tcp_used"] == 0


def an_orphan_does_not_wait_for_ever(path: Path) -> None:
    c = Conversation(path)
    c.close()
    c.give(0, 1)
    assert c.state() == "FIN_WAIT_2"
    c.later(61_000)
    assert c.tap.wire["tcp_used"] == 0


def what_is_acknowledged_late_is_sent_once(path: Path) -> None:
    c = Conversation(path, nodelay=True)
    for _ in range(8):
        c.send(b"x" * 100)
    assert len(c.got()) == 8
    assert numbers(c.later(250)) == [(0, 800)]  # what was eight is one


def tiny_segments_are_limited_too(path: Path) -> None:
    c = Conversation(path, nodelay=True, cwnd=10000)
    for _ in range(200):
        c.send(b"x")
    assert len(c.got()) <= 41


def a_pause_shuts_the_window(path: Path) -> None:
    c = Conversation(path, cwnd=50000)
    c.send(DATA[:1000])
    c.later(10)
    c.give(0, 1000)
    c.later(5_000)
    c.send(DATA[:40000])
    assert len(c.got()) == 10


def an_image_goes_on_where_it_was(path: Path) -> None:
    c = Conversation(path, sack=True, tx_len=0)
    c.send(DATA[:5000])
    c.got()
    c.give(0, 1000, data=b"unread")
    image = c.export()
    assert (image["snd_una"] - c.una, image["tx_len"], image["rx_len"]) == (1000, image["snd_nxt"] - image["snd_una"], 6)
    assert c.unsent() == DATA[1000:5000]
    later = Conversation(
        path,
        sack=True,
        una=int(image["snd_una"]),
        rcv=int(image["rcv_nxt"]),
        snd_nxt=image["snd_nxt"],
        tx_len=image["tx_len"],
        fill=DATA[1000:5000],
    )
    sent = later.later(1000)
    assert sent[0].data == DATA[1000:2000]


def the_first_window_is_ten_segments(path: Path) -> None:
    c = Conversation(path)
    c.send(DATA[:30_000])
    assert len(c.got()) == 10


def the_first_lost_goes_out_whatever_the_window(path: Path) -> None:
    for sack in (False, True):
        c = Conversation(path, sack=sack, cwnd=30_000)
        c.send(DATA[:60_000])
        c.give(0, 1000)
        assert len(c.got()) == 32
        for i in range(3):
            c.give(0, 1000, sack=[(2000, 3000 + i * 1000)] if sack else [])
            sent = numbers(c.got())
        assert sent == [(1000, 1000)]  # 30 in flight, 21 allowed


def losses_in_a_row_give_way(path: Path) -> None:
    c = Conversation(path, sack=True, cwnd=20_000)
    loss_of_a_window(c, 20, 20)
    assert (c.tcp["w_max"], c.tcp["cwnd"]) == (20_000, 14_000)
    una = c.tcp["snd_una"] - c.una
    c.got()
    c.later(20)
    c.give(0, una, sack=[(una + 1000, una + 5000)])
    assert c.tcp["w_max"] == 14_000 * 17 // 20


def a_probe_of_which_both_copies_arrived_is_done(path: Path) -> None:
    c = Conversation(path, sack=True)
    c.send(DATA[:2000])
    c.later(60)
    cwnd = c.tcp["cwnd"]
    c.give(0, 2000)
    assert c.tcp["tlp_out"] == 1
    c.give(0, 2000)
    assert c.tcp["tlp_out"] == 0
    assert c.tcp["cwnd"] == cwnd


def the_reordering_window_shrinks_again(path: Path) -> None:
    c = Conversation(path, sack=True)
    c.send(DATA[:2000])
    c.later(20)
    c.give(0, 2000, sack=[(0, 1000)])
    assert (c.tcp["reo_mult"], c.tcp["reo_persist"]) == (2, 16)
    at = 2000
    for _ in range(16):
        assert c.tcp["reo_mult"] == 2
        c.send(DATA[:6000])
        c.later(20)
        end = (c.tcp["snd_nxt"] - c.una) & 0xFFFFFFFF
        c.give(0, at, sack=[(at + 1000, end)])
        c.later(20)
        while at < (c.tcp["tx_end"] - c.una) & 0xFFFFFFFF:
            at = (c.tcp["snd_nxt"] - c.una) & 0xFFFFFFFF
            c.give(0, at)
            c.later(1)
    assert c.tcp["reo_mult"] == 1


def answers_to_the_first_copy_do_not_count_for_the_second(path: Path) -> None:
    c = Conversation(path, sack=True, srtt_us=0)
    c.send(DATA[:1000])
    c.later(50)
    c.give(0, 1000)
    c.send(DATA[:3000])
    sent = c.tap.now
    c.later(110)
    assert c.counter("retransmits") == 1  # the tail
    c.later(5)
    c.give(0, 1000, sack=[(3000, 4000)])
    assert c.tcp["rack_ns"] < sent + 1_000_000


def a_full_acknowledgment_makes_no_burst(path: Path) -> None:
    c = Conversation(path, cwnd=20_000)
    c.send(DATA[:20_000])
    c.give(0, 1000)
    for _ in range(3):
        c.give(0, 1000)
    c.got()
    c.send(DATA[:40_000])
    c.got()
    c.give(0, (c.tcp["recover"] - c.una) & 0xFFFFFFFF)
    assert c.tcp["ca"] == C["CA_OPEN"]
    assert len(c.got()) <= 4


def acknowledgments_are_not_ecn_capable(path: Path) -> None:
    c = Conversation(path, ecn=True)
    c.give(0, 0, data=b"x" * 2000)
    assert [s.ecn for s in c.later(50)] == [0]


def time_outs_are_two_minutes_apart_at_most(path: Path) -> None:
    c = Conversation(path, srtt_us=0)
    c.send(b"x")
    last, apart = c.tap.now, []
    while c.state() == "ESTABLISHED" and len(apart) < 12:
        if c.later(500):
            apart.append((c.tap.now - last) // 1_000_000_000)
            last = c.tap.now
    assert max(apart) == 120
