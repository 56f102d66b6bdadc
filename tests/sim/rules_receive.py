"""Rules of what arrives: each function plays the peer, and fails where the rule is not kept."""

from __future__ import annotations

import struct
from pathlib import Path

from sim.fix_engine import ACK, CWR, ECE, FIN, PSH, RST, SYN, URG, C, Conversation, Segment, Tap, address, checksum, ip, pseudo

DATA = bytes(range(256)) * 256


def acceptable_data_is_delivered_and_acknowledged(path: Path) -> None:
    for family in (4, 6):
        c = Conversation(path, family)
        c.give(0, 0, data=DATA[:700])
        c.give(700, 0, data=DATA[700:1400])
        assert c.recv() == DATA[:1400]
        assert [s.ack for s in c.later(50)] == [1400]


def outside_the_window_is_answered_not_taken(path: Path) -> None:
    c = Conversation(path)
    c.give(70000, 0, data=b"x")
    (s,) = c.got()
    assert (s.seq, s.ack, s.flags) == (0, 0, ACK)
    assert c.recv() == -11
    assert c.counter("out_of_window") == 1


def overlap_is_trimmed(path: Path) -> None:
    c = Conversation(path)
    c.give(0, 0, data=DATA[:1000])
    c.give(500, 0, data=DATA[500:1500])
    assert c.recv() == DATA[:1500]


def gaps_are_filled_in_order(path: Path) -> None:
    c = Conversation(path)
    c.give(1000, 0, data=DATA[1000:2000])
    assert [s.ack for s in c.got()] == [0]
    assert c.recv() == -11
    c.give(3000, 0, data=DATA[3000:4000])
    c.give(2000, 0, data=DATA[2000:3000])
    c.got()
    c.give(0, 0, data=DATA[:1000])
    assert [s.ack for s in c.got()] == [4000]
    assert c.recv() == DATA[:4000]


def text_without_ack_is_dropped(path: Path) -> None:
    c = Conversation(path)
    c.give(0, 0, flags=PSH, data=b"x")
    assert c.recv() == -11
    assert c.got() == []


def nothing_comes_after_a_fin(path: Path) -> None:
    c = Conversation(path)
    c.give(0, 0, flags=ACK | FIN)
    c.give(1, 0, data=b"x")
    assert c.recv() == b""


def data_behind_a_held_fin_is_cut_off(path: Path) -> None:
    c = Conversation(path)
    c.give(1000, 0, data=b"a" * 10, flags=ACK | FIN)
    c.give(1010, 0, data=b"b" * 50)
    c.give(0, 0, data=b"c" * 1000)
    assert c.recv() == b"c" * 1000 + b"a" * 10
    assert c.recv() == b""


def second_full_segment_is_acknowledged_at_once(path: Path) -> None:
    c = Conversation(path)
    c.give(0, 0, data=DATA[:1000])
    assert c.got() == []
    c.give(1000, 0, data=DATA[:1000])
    assert [s.ack for s in c.got()] == [2000]


def single_segment_is_acknowledged_within_delay(path: Path) -> None:
    c = Conversation(path)
    c.give(0, 0, data=b"x")
    assert c.later(39) == []
    assert [s.ack for s in c.later(5)] == [1]


def filling_a_gap_is_acknowledged_at_once(path: Path) -> None:
    c = Conversation(path)
    c.give(1000, 0, data=DATA[:300])
    c.got()
    c.give(0, 0, data=DATA[:600])
    assert [s.ack for s in c.got()] == [600]
    c.give(600, 0, data=DATA[:400])
    assert [s.ack for s in c.got()] == [1300]


def window_never_shrinks(path: Path) -> None:
    c = Conversation(path, rcv_scale=7)
    edge = 0
    for i in range(30):
        c.give(i * 999, 0, data=DATA[:999])
        for s in c.later(50):
            assert s.ack + (s.wnd << 7) > edge - (1 << 7)  # in its units: RFC 7323 section 2.4
            edge = max(edge, s.ack + (s.wnd << 7))


def window_closes_when_nobody_reads(path: Path) -> None:
    c = Conversation(path, rx_size=4096, rcv_wnd=4096)
    for i in range(4):
        c.give(i * 1024, 0, data=DATA[:1024])
    assert c.later(50)[-1].wnd == 0
    c.give(4096, 0, data=b"x")
    assert [s.ack for s in c.got()] == [4096]
    assert len(c.recv()) == 4096  # type: ignore[arg-type]
    assert c.recv() == -11


def silly_windows_are_not_offered(path: Path) -> None:
    c = Conversation(path, rx_size=4096, rcv_wnd=4096)
    for i in range(4):
        c.give(i * 1024, 0, data=DATA[:1024])
    c.later(50)
    assert len(c.recv(200)) == 200  # type: ignore[arg-type]
    c.give(4096, 0, data=b"x")
    assert [s.wnd for s in c.later(50)] == [0]
    c.recv(1900)
    (s,) = c.got()
    assert s.wnd == 2100


def exact_reset_resets(path: Path) -> None:
    c = Conversation(path)
    c.give(0, 0, flags=RST)
    assert c.state() == "CLOSED"
    assert c.recv() == -104


def reset_in_the_window_is_challenged(path: Path) -> None:
    c = Conversation(path)
    c.give(100, 0, flags=RST)
    (s,) = c.got()
    assert (s.seq, s.ack, s.flags) == (0, 0, ACK)
    assert c.state() == "ESTABLISHED"


def reset_outside_the_window_is_dropped(path: Path) -> None:
    c = Conversation(path)
    c.give(70000, 0, flags=RST)
    assert c.got() == []
    assert c.state() == "ESTABLISHED"


def reset_with_the_number_of_the_fin_resets(path: Path) -> None:
    """Once the FIN has come, and not before, nor any other old number."""
    c = Conversation(path)
    c.give(0, 0, flags=ACK | FIN)
    c.give(-1, 0, flags=RST)
    assert c.state() == "CLOSE_WAIT"
    c.give(0, 0, flags=RST)
    assert c.state() == "CLOSED"
    c = Conversation(path)
    c.give(-1, 0, flags=RST)
    assert c.state() == "ESTABLISHED"


def syn_is_challenged(path: Path) -> None:
    c = Conversation(path)
    c.give(10, 0, flags=SYN)
    c.give(-20000, 0, flags=SYN)
    assert [(s.seq, s.ack, s.flags) for s in c.got()] == [(0, 0, ACK)] * 2
    assert c.counter("challenge_acks") == 2
    assert c.state() == "ESTABLISHED"


def ack_of_the_future_is_challenged(path: Path) -> None:
    c = Conversation(path)
    c.give(0, 5, data=b"x")
    assert len(c.got()) == 1
    assert c.counter("bad_ack") == 1
    assert c.recv() == -11


def ack_of_the_distant_past_is_challenged(path: Path) -> None:
    c = Conversation(path)
    c.give(0, -100_000, data=b"x")
    assert c.counter("bad_ack") == 1
    assert c.recv() == -11


def challenges_are_limited(path: Path) -> None:
    c = Conversation(path)
    sent = 0
    for _ in range(1200):
        c.give(100, 0, flags=RST)
        sent += len(c.got())
    assert 500 <= sent <= 1000
    assert c.counter("challenge_limited") == 1200 - sent


def strays_without_data_are_answered_seldom(path: Path) -> None:
    c = Conversation(path)
    for _ in range(20):
        c.give(-1, 0)
    assert len(c.got()) == 2


def old_timestamps_are_refused(path: Path) -> None:
    c = Conversation(path, ts=True)
    c.give(0, 0, data=b"a", ts=(c.peer_ts - 1, c.clock()))
    assert c.recv() == -11
    assert c.counter("paws") == 1
    assert len(c.got()) == 1
    c.give(0, 0, data=b"b", ts=(c.peer_ts + 1, c.clock()))
    assert c.recv() == b"b"


def unknown_timestamps_refuse_none(path: Path) -> None:
    """The kernel does not tell what it had last."""
    c = Conversation(path, ts=True, ts_recent=0)
    c.give(0, 0, data=b"a", ts=(0xF0000000, c.clock()))
    assert c.recv() == b"a"
    c.give(1, 0, data=b"b", ts=(0xEFFFFFFF, c.clock()))
    assert c.recv() == -11
    assert c.counter("paws") == 1


def resets_pass_paws(path: Path) -> None:
    c = Conversation(path, ts=True)
    c.give(0, 0, flags=RST, ts=(c.peer_ts - 1000, 0))
    assert c.state() == "CLOSED"


def timestamps_are_stale_after_24_days(path: Path) -> None:
    c = Conversation(path, ts=True)
    c.later(25 * 24 * 3600 * 1000)
    c.give(0, 0, data=b"a", ts=(c.peer_ts - 1, c.clock()))
    assert c.recv() == b"a"


def the_earliest_timestamp_is_echoed(path: Path) -> None:
    c = Conversation(path, ts=True)
    c.give(0, 0, data=b"a" * 100, ts=(c.peer_ts + 5, c.clock()))
    c.give(100, 0, data=b"a" * 100, ts=(c.peer_ts + 9, c.clock()))
    (s,) = c.later(50)
    assert s.ts is not None
    assert s.ts[1] == c.peer_ts + 5


def future_gap_does_not_move_the_timestamp(path: Path) -> None:
    c = Conversation(path, ts=True)
    c.give(500, 0, data=b"a" * 100, ts=(c.peer_ts + 50, c.clock()))
    (s,) = c.got()
    assert s.ts is not None
    assert s.ts[1] == c.peer_ts


def sack_blocks_begin_with_the_latest(path: Path) -> None:
    c = Conversation(path, sack=True)
    c.give(1000, 0, data=b"a" * 100)
    c.give(3000, 0, data=b"a" * 100)
    c.give(2000, 0, data=b"a" * 100)
    assert [s.sack[0] for s in c.got()] == [(1000, 1100), (3000, 3100), (2000, 2100)]
    c.give(2100, 0, data=b"a" * 100)
    (s,) = c.got()
    assert s.sack[0] == (2000, 2200)
    assert set(s.sack) == {(1000, 1100), (2000, 2200), (3000, 3100)}


def duplicates_are_reported(path: Path) -> None:
    c = Conversation(path, sack=True)
    c.give(0, 0, data=b"a" * 1000)
    c.later(50)
    c.give(0, 0, data=b"a" * 1000)
    (s,) = c.got()
    assert s.ack == 1000
    assert s.sack == ((0, 1000),)
    c.give(2000, 0, data=b"a" * 100)
    c.got()
    c.give(2000, 0, data=b"a" * 100)
    (s,) = c.got()
    assert s.sack == ((2000, 2100), (2000, 2100))


def partly_duplicate_data_is_reported(path: Path) -> None:
    c = Conversation(path, sack=True)
    c.give(0, 0, data=b"a" * 1000)
    c.later(50)
    c.give(600, 0, data=b"a" * 1000)
    (s,) = c.got()
    assert s.ack == 1600
    assert s.sack == ((600, 1000),)


def congestion_is_echoed_until_reduced(path: Path) -> None:
    c = Conversation(path, ecn=True)
    c.give(0, 0, data=b"a", ecn=3)
    assert [s.flags & ECE for s in c.got()] == [ECE]
    c.give(1, 0, data=b"a" * 3000, ecn=2)
    assert [s.flags & ECE for s in c.later(50)] == [ECE]
    c.give(3001, 0, data=b"a" * 3000, ecn=2, flags=ACK | CWR)
    assert [s.flags & ECE for s in c.later(50)] == [0]


def bad_checksums_are_dropped(path: Path) -> None:
    for family in (4, 6):
        c = Conversation(path, family)
        good = Segment(c.rcv, c.una, data=b"hello", ports=(1000, 80)).bytes(family, address(family, 2), address(family, 1))
        for i in range(len(good)):
            if family == 6 and i in (0, 1, 2, 3, 7):  # what nothing covers: traffic class, flow label, hop limit
                continue
            bad = bytearray(good)
            bad[i] ^= 0x10
            c.tap.input(bytes(bad))
        assert c.recv() == -11
        c.tap.input(good)
        assert c.recv() == b"hello"


def half_checksums_pass_on_virtual_links_only(path: Path) -> None:
    for virtual in (False, True):
        t = Tap(path, virtual=virtual)
        src, dst = address(4, 2), address(4, 1)
        handle = t.lib.shs_test_tap_udp_open(t.tap, dst, bytes(16), 53 << 16, 0, 4096)
        body = struct.pack(">HHHH", 9, 53, 13, 0) + b"hello"
        partial = ~checksum(pseudo(4, src, dst, 17, len(body))) & 0xFFFF
        body = body[:6] + struct.pack(">H", partial) + body[8:]
        t.input(ip(4, src, dst, 17, body))
        assert udp_recv(t, handle) == ((b"hello", 9) if virtual else None)
        assert t.counter("in_partial_sum" if virtual else "in_bad_sum") == 1


def udp_recv(t: Tap, handle: int) -> tuple[bytes, int] | None:
    import ctypes

    data, src, port = ctypes.create_string_buffer(2048), ctypes.create_string_buffer(16), ctypes.c_uint16()
    n = t.lib.shs_test_tap_udp_recv(t.tap, handle, data, 2048, src, ctypes.addressof(port))
    return None if n < 0 else (data.raw[:n], port.value)


def datagrams_go_to_the_nearest_socket(path: Path) -> None:
    for family in (4, 6):
        t = Tap(path)
        src, dst, other = address(family, 2), address(family, 1), address(family, 3)
        wide = t.lib.shs_test_tap_udp_open(t.tap, bytes(16), bytes(16), 53 << 16, 0, 4096)
        near = t.lib.shs_test_tap_udp_open(t.tap, dst, src, 53 << 16 | 9, 4096, 4096)
        for sender in (src, other):
            body = struct.pack(">HHHH", 9, 53, 12, 0) + bytes([sender[15]]) * 4
            total = checksum(pseudo(family, sender, dst, 17, 12) + body)
            t.input(ip(family, sender, dst, 17, body[:6] + struct.pack(">H", total) + body[8:]))
        assert udp_recv(t, near) == (b"\x02" * 4, 9)
        assert udp_recv(t, wide) == (b"\x03" * 4, 9)
        assert udp_recv(t, near) is udp_recv(t, wide) is None
        assert t.lib.shs_test_tap_udp_send(t.tap, near, dst, src, 9, b"answer", 6) == 6
        (packet,) = t.packets()
        assert packet[-14:] == struct.pack(">HHH", 53, 9, 14) + packet[-8:-6] + b"answer"
        assert t.lib.shs_test_tap_udp_close(t.tap, near) == 0


def datagrams_without_checksum_need_ipv4(path: Path) -> None:
    for family in (4, 6):
        t = Tap(path)
        handle = t.lib.shs_test_tap_udp_open(t.tap, bytes(16), bytes(16), 53 << 16, 0, 4096)
        t.input(ip(family, address(family, 2), address(family, 1), 17, struct.pack(">HHHH", 9, 53, 9, 0) + b"x"))
        assert udp_recv(t, handle) == ((b"x", 9) if family == 4 else None)


def fragments_are_left_alone(path: Path) -> None:
    c = Conversation(path)
    whole = bytearray(Segment(c.rcv, c.una, data=b"x", ports=(1000, 80)).bytes(4, address(4, 2), address(4, 1)))
    whole[6] = 0x20
    whole[10:12] = b"\0\0"
    whole[10:12] = struct.pack(">H", checksum(bytes(whole[:20])))
    c.tap.input(bytes(whole))
    assert c.recv() == -11
    assert c.counter("in_fragment") == 1


def illegal_options_do_no_harm(path: Path) -> None:
    for options in (b"\x08\x00\x00\x00", b"\x05\x01\x01\x01", b"\x01\x01\x01\x08", b"\x08\x28\x00\x00", b"\x05\x12" + bytes(6)):
        c = Conversation(path, sack=True, ts=True)
        c.give(0, 0, data=b"x", options=options)
        assert c.counter("in_bad_option") == 1
        assert c.recv() == -11
    c = Conversation(path)
    c.give(0, 0, data=b"x", options=b"\xfd\x04\x12\x34\x00\xff\xff\xff")
    assert c.recv() == b"x"


def data_for_a_closed_reader_is_reset(path: Path) -> None:
    c = Conversation(path)
    c.close()
    c.got()
    c.give(0, 0, data=b"x")
    (s,) = c.got()
    assert s.flags & RST
    assert c.tap.wire["tcp_used"] == 0


def the_window_grows_with_reading(path: Path) -> None:
    c = Conversation(path, rx_size=131072, rcv_wnd=60000, rcv_scale=2)
    at = 0
    for _ in range(40):
        for _ in range(40):
            c.give(at, 0, data=DATA[:1000])
            at += 1000
        c.recv()
        c.later(15)
    c.give(at, 0, data=DATA[:1000])
    c.give(at + 1000, 0, data=DATA[:1000])
    assert c.counter("rx_tuned") == 1
    assert c.tcp["rx_limit"] == 131072


def three_blocks_fit_beside_a_timestamp(path: Path) -> None:
    for ts, most in ((True, 3), (False, 4)):
        c = Conversation(path, sack=True, ts=ts)
        for i in range(6):
            c.give(1000 + i * 200, 0, data=b"x" * 100)
        assert len(c.got()[-1].sack) == most


def data_leaves_room_for_blocks(path: Path) -> None:
    c = Conversation(path, sack=True, ts=True, mss=1012)
    c.give(1000, 0, data=b"x" * 100)
    c.got()
    c.send(DATA[:5000])
    sent = c.got()
    assert all(s.sack for s in sent)
    assert max(len(s.data) for s in sent) == 1000 - 12


def urgent_data_is_left_to_the_kernel(path: Path) -> None:
    c = Conversation(path)
    c.give(0, 0, data=b"!", flags=ACK | PSH | URG)
    assert c.got() == []  # not acknowledged: it comes again, when the kernel has the connection
    assert c.recv() == -11
    assert int(c.tcp["flags"]) & C["TF_URGENT"]


def what_was_offered_is_taken(path: Path) -> None:
    c = Conversation(path, rx_size=65536, rcv_wnd=20000, rcv_scale=10)
    edge, at, acked = 20000, 0, 0
    while at < edge:
        data = (bytes(range(256)) * 2)[: min(333, edge - at)]
        c.give(at, 0, data=data)
        at += len(data)
        for s in c.later(50):
            edge, acked = max(edge, s.ack + (s.wnd << 10)), s.ack
    assert 60000 < acked == at
