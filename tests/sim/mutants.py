"""What makes each rule fail: a change of the engine's code without which, in effect, the rule is not there.

`old` stands exactly once in the file; with `new` in its place the named rule must fail (test_mutants.py).
"""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """One change: what is taken away, where, and the rule that must notice."""

    about: str
    file: str
    old: str
    new: str
    rule: str


MUTANTS: tuple[Mutant, ...] = (
    # packets
    Mutant(
        "RFC 9293 3.1 MUST-3: checksum of TCP", "segment.c", "if (!sum_right(p, 16, partial_ok))", "if (0)", "bad_checksums_are_dropped"
    ),
    Mutant("RFC 1122 3.2.1.2: checksum of IPv4", "ip.c", "!= 0xffff) /* RFC 1122", "== 7) /* RFC 1122", "bad_checksums_are_dropped"),
    Mutant("RFC 8200 8.1: pseudo-header", "checksum.c", "(len & 0xffff) + p->proto", "(len & 0xffff)", "bad_checksums_are_dropped"),
    Mutant(
        "half checksums: virtual links only",
        "segment.c",
        "p->partial = partial_ok && ",
        "p->partial = ",
        "half_checksums_pass_on_virtual_links_only",
    ),
    Mutant(
        "RFC 8200 8.1: UDP over IPv6 needs a checksum", "segment.c", "? p->family == 6 :", "? 0 :", "datagrams_without_checksum_need_ipv4"
    ),
    Mutant("RFC 768: none is allowed in IPv4", "segment.c", "? p->family == 6 :", "? 1 :", "datagrams_without_checksum_need_ipv4"),
    Mutant("RFC 768: checksum of UDP", "udp.c", "how == SHS_PARSE_SUM ?", "0 ?", "half_checksums_pass_on_virtual_links_only"),
    Mutant("fragments are the kernel's", "ip.c", "& 0x3fff)", "& 0)", "fragments_are_left_alone"),
    Mutant("RFC 9293 3.1 MUST-7: illegal option lengths", "segment.c", "return SHS_PARSE_OPTION;", "break;", "illegal_options_do_no_harm"),
    Mutant(
        "connected datagram sockets first",
        "udp.c",
        "takes(u, p, sport, dport, true)",
        "takes(u, p, 0, dport, true)",
        "datagrams_go_to_the_nearest_socket",
    ),
    # acceptance
    Mutant(
        "RFC 9293 3.10.7.4: acceptability",
        "input.c",
        "if (!acceptable(t, s, wnd)) {",
        "if (0) {",
        "outside_the_window_is_answered_not_taken",
    ),
    Mutant("RFC 9293 3.10.7.4: a segment without ACK", "input.c", "if (!(s->flags & SHS_ACK))", "if (0)", "text_without_ack_is_dropped"),
    Mutant("RFC 5961 3.2: exact number", "input.c", "if (s->seq == t->rcv_nxt)\n", "if (1)\n", "reset_in_the_window_is_challenged"),
    Mutant("RFC 5961 3.2: the exact one resets", "input.c", "if (s->seq == t->rcv_nxt)\n", "if (0)\n", "exact_reset_resets"),
    Mutant(
        "RFC 9293 3.10.7.4: RST outside",
        "input.c",
        "        if (s->flags & SHS_RST)\n            return SHS_LIVES;",
        "",
        "reset_outside_the_window_is_dropped",
    ),
    Mutant(
        "RFC 7323 2.4",
        "receive.c",
        "return shs_min32(shs_receive_offered(t) >> (t->rcv_scale & 15), 65535);",
        "return shs_min32((shs_receive_offered(t) + (1u << t->rcv_scale) - 1) >> (t->rcv_scale & 15), 65535);",
        "what_was_offered_is_taken",
    ),
    Mutant("RFC 9293 3.8.5", "input.c", "if (s->flags & SHS_URG) {", "if (0) {", "urgent_data_is_left_to_the_kernel"),
    Mutant("resets by the FIN's number", "input.c", "if (late_reset(t, s))", "if (0)", "reset_with_the_number_of_the_fin_resets"),
    Mutant(
        "resets by the FIN's number: after it",
        "input.c",
        "& SHS_RST && ended &&",
        "& SHS_RST &&",
        "reset_with_the_number_of_the_fin_resets",
    ),
    Mutant("RFC 5961 4.2: SYN in the window", "input.c", "if (s->flags & SHS_SYN) { /*", "if (0) { /*", "syn_is_challenged"),
    Mutant("RFC 5961 4.2: SYN outside", "input.c", "if (s->flags & SHS_SYN)\n", "if (0)\n", "syn_is_challenged"),
    Mutant("RFC 5961 5.2: acknowledgments", "input.c", "if (!ack_sensible(t, s)) {", "if (0) {", "ack_of_the_distant_past_is_challenged"),
    Mutant(
        "RFC 5961 5.2: of the future", "input.c", "<= t->max_wnd + shs_flight(t)", "<= t->max_wnd + 99", "ack_of_the_future_is_challenged"
    ),
    Mutant("RFC 5961 7: throttling", "challenge.c", "if (w->challenges >= CHALLENGES_A_SECOND) {", "if (0) {", "challenges_are_limited"),
    Mutant("answers to strays", "challenge.c", "t->ack_limit >= 2", "t->ack_limit >= 999", "strays_without_data_are_answered_seldom"),
    Mutant(
        "reader gone",
        "input.c",
        "s->len && t->flags & SHS_TF_RX_CLOSED",
        "0 && t->flags & SHS_TF_RX_CLOSED",
        "data_for_a_closed_reader_is_reset",
    ),
    # timestamps
    Mutant(
        "RFC 7323 5.3 R1: PAWS",
        "timestamp.c",
        "return e->now - t->ts_recent_ns < SHS_PAWS_IDLE; /*",
        "return false; /*",
        "old_timestamps_are_refused",
    ),
    Mutant(
        "timestamps: unknown",
        "flow.c",
        "i->ts_recent ? e->now : e->now - SHS_PAWS_IDLE",
        "e->now",
        "unknown_timestamps_refuse_none",
    ),
    Mutant("RFC 7323 5.3: RST passes", "input.c", "!(s->flags & SHS_RST) && shs_paws", "shs_paws", "resets_pass_paws"),
    Mutant(
        "RFC 7323 5.5: 24 days",
        "timestamp.c",
        "return e->now - t->ts_recent_ns < SHS_PAWS_IDLE; /*",
        "return true; /*",
        "timestamps_are_stale_after_24_days",
    ),
    Mutant(
        "RFC 7323 4.3 (2)",
        "timestamp.c",
        "!shs_upto(s->seq, t->acked_to)",
        "!shs_upto(s->seq, t->rcv_nxt)",
        "the_earliest_timestamp_is_echoed",
    ),
    Mutant(
        "RFC 7323 4.3 (2): not from a gap", "timestamp.c", "|| !shs_upto(s->seq, t->acked_to)", "", "future_gap_does_not_move_the_timestamp"
    ),
    Mutant("RFC 7323 4.1: RTTM", "ack.c", "a->rtt ? a->rtt : shs_ts_rtt(e, t, seg)", "a->rtt", "timestamps_measure_repeated_segments"),
    # receiving
    Mutant("delivery", "receive.c", "t->rcv_nxt + len); /*", "t->rcv_nxt + len - 1); /*", "acceptable_data_is_delivered_and_acknowledged"),
    Mutant("overlap", "receive.c", "        data += old;\n", "", "overlap_is_trimmed"),
    Mutant("reassembly", "receive.c", "            take_ranges(t);\n", "            t->n_ooo = 0;\n", "gaps_are_filled_in_order"),
    Mutant(
        "RFC 9293 3.10.7.4: behind a FIN", "receive.c", "most = shs_earlier(most, t->fin_seq);", "", "data_behind_a_held_fin_is_cut_off"
    ),
    Mutant("behind a FIN in order", "receive.c", "most = shs_earlier(most, t->fin_seq);", "", "nothing_comes_after_a_fin"),
    Mutant(
        "RFC 5681 4.2: every second",
        "receive.c",
        "t->unacked >= 2 * t->rx_seen",
        "t->unacked >= 9 * t->rx_seen",
        "second_full_segment_is_acknowledged_at_once",
    ),
    Mutant(
        "RFC 9293 3.8.6.3: delayed ACK",
        "receive.c",
        "t->timer[SHS_T_DELACK] = e->now + DELAYED_ACK;",
        "t->timer[SHS_T_DELACK] = e->now + 20 * DELAYED_ACK;",
        "single_segment_is_acknowledged_within_delay",
    ),
    Mutant(
        "RFC 5681 4.2: a gap is filled",
        "receive.c",
        "            t->flags |= SHS_TF_ACK_NOW; /* RFC 5681 section 4.2: it",
        "            t->flags |= 0; /* RFC 5681 section 4.2: it",
        "filling_a_gap_is_acknowledged_at_once",
    ),
    Mutant(
        "RFC 5681 4.2: a gap opens",
        "receive.c",
        "t->flags |= SHS_TF_ACK_NOW; /* RFC 5681 section 4.2: at once",
        "t->flags |= 0; /* RFC 5681 section 4.2: at once",
        "gaps_are_filled_in_order",
    ),
    Mutant(
        "RFC 9293 3.8.6: no shrinking",
        "receive.c",
        "if (shs_before(t->rcv_adv, to) && to - t->rcv_adv >=",
        "t->rcv_adv = to - 700 * (t->rcv_nxt & 1);\n    if (0 && to - t->rcv_adv >=",
        "window_never_shrinks",
    ),
    Mutant(
        "RFC 9293 3.8.6.2.2: silly windows",
        "receive.c",
        "to - t->rcv_adv >= shs_min32(limit(t) / 2, t->rx_seen)",
        "to - t->rcv_adv >= 1",
        "silly_windows_are_not_offered",
    ),
    Mutant(
        "window updates",
        "receive.c",
        "return to - t->rcv_adv >= shs_min32(limit(t) / 2, shs_max32",
        "return to - t->rcv_adv >= 999999 + shs_min32(limit(t) / 2, shs_max32",
        "silly_windows_are_not_offered",
    ),
    Mutant(
        "a full queue", "receive.c", "uint32_t unread = shs_unread(t), room", "uint32_t unread = 0, room", "window_closes_when_nobody_reads"
    ),
    Mutant("auto-tuning", "receive.c", "t->rx_limit = shs_min32(t->rx_size, t->rx_limit * 2);", "", "the_window_grows_with_reading"),
    Mutant("RFC 2018 4: the latest first", "sack.c", "(t->ooo_last + i) % ranges", "i", "sack_blocks_begin_with_the_latest"),
    Mutant(
        "RFC 2883 4: whole duplicates", "challenge.c", "t->dsack_from = s->seq;", "t->dsack_from = t->dsack_to;", "duplicates_are_reported"
    ),
    Mutant(
        "RFC 2883 4: inside a gap",
        "receive.c",
        "        duplicate(e, t, seq, seq + len);\n        return;",
        "        return;",
        "duplicates_are_reported",
    ),
    Mutant(
        "RFC 2883 4: in part",
        "receive.c",
        "duplicate(e, t, seq, seq + old);",
        "t->flags |= SHS_TF_ACK_NOW;",
        "partly_duplicate_data_is_reported",
    ),
    Mutant("RFC 3168 6.1.3: echo", "ecn.c", "t->flags |= SHS_TF_ECE | SHS_TF_ACK_NOW;", "s++;", "congestion_is_echoed_until_reduced"),
    Mutant("RFC 3168 6.1.3: until CWR", "ecn.c", "t->flags &= ~SHS_TF_ECE;", "s += 0;", "congestion_is_echoed_until_reduced"),
    # sending
    Mutant("segment size", "output.c", "shs_min32(shs_min32(avail, mss), space)", "shs_min32(avail, space)", "data_is_cut_into_segments"),
    Mutant("RFC 9293 3.7.4: Nagle", "output.c", "(!small_out(t) || t->flags & SHS_TF_NODELAY)", "1", "nagle_holds_small_segments_back"),
    Mutant("Nagle, Minshall", "output.c", "!small_out(t) ||", "!shs_flight(t) ||", "nagle_counts_small_segments_alone"),
    Mutant("TCP_NODELAY", "output.c", "(!small_out(t) || t->flags & SHS_TF_NODELAY)", "!small_out(t)", "nodelay_sends_at_once"),
    Mutant("TCP_CORK", "output.c", "if (all && !(t->flags & SHS_TF_CORK) &&", "if (all &&", "cork_waits_for_full_segments_or_its_limit"),
    Mutant("RFC 9293 3.8.6.2.1: override", "probe.c", "t->flags |= SHS_TF_FORCE;", "", "cork_waits_for_full_segments_or_its_limit"),
    Mutant(
        "RFC 9293 3.9.1.2: PSH",
        "output.c",
        "        flags |= SHS_PSH;\n    if (!shs_emit(e, t, t->snd_nxt",
        "        flags |= 0;\n    if (!shs_emit(e, t, t->snd_nxt",
        "push_marks_the_end_of_a_send",
    ),
    Mutant(
        "the peer's window",
        "output.c",
        "return shs_before(t->snd_nxt, edge) ? edge - t->snd_nxt : 0;",
        "return edge ? 65535 : 0;",
        "the_peers_window_is_kept",
    ),
    Mutant(
        "RFC 9293 3.10.7.4: window updates",
        "ack.c",
        "        t->snd_wl1 = s->seq;\n",
        "        t->snd_wnd = 3000;\n",
        "windows_of_older_segments_do_not_count",
    ),
    Mutant(
        "RFC 9293 3.8.6.2.1: silly segments",
        "output.c",
        "return !all && len >= t->max_wnd / 2;",
        "return true || len;",
        "silly_segments_are_not_sent",
    ),
    Mutant(
        "RFC 6298 5.4: again",
        "rto.c",
        "shs_seg_flags(t, s, SHS_SEG_LOST, SHS_SEG_RETX_OUT);",
        "shs_seg_flags(t, s, 0, SHS_SEG_RETX_OUT);",
        "lost_segments_are_sent_again_after_rto",
    ),
    Mutant("RFC 6298 5.5: back-off", "rto.c", "t->rto << shs_min32(t->backoff, 10)", "t->rto", "lost_segments_are_sent_again_after_rto"),
    Mutant("RFC 6298 2.2", "rto.c", "t->rttvar = rtt / 2;", "t->rttvar = rtt;", "rto_follows_the_round_trip"),
    Mutant("RFC 6298 2.3", "rto.c", "t->srtt - t->srtt / 8 + rtt / 8", "t->srtt - t->srtt / 4 + rtt / 4", "rto_follows_the_round_trip"),
    Mutant(
        "RFC 6298 3: Karn",
        "ack.c",
        "    if (!once)\n        a->rtt = 0;\n",
        "    a->rtt = 1;\n",
        "round_trips_of_repeated_segments_do_not_count",
    ),
    Mutant("RFC 6298 5.3: restart", "ack.c", "    if (a.bytes)\n        shs_rto_arm(e, t);", "", "progress_restarts_the_timer"),
    Mutant("RFC 5681 3.1: loss window", "rto.c", "t->cwnd = t->mss; /*", "t->cwnd += 0; /*", "a_timeout_shuts_the_window_to_one_segment"),
    Mutant("RFC 9438 4.6: β", "cubic.c", "cwnd * 7ull / 10", "cwnd * 9ull / 10", "a_timeout_shuts_the_window_to_one_segment"),
    Mutant("RFC 9293 3.8.3: R2", "rto.c", "#define TRIES 15", "#define TRIES 99", "connections_are_given_up"),
    Mutant(
        "RFC 5681 3.2: three duplicates",
        "recovery.c",
        "t->dup_acks >= DUP_THRESH",
        "t->dup_acks >= 2",
        "three_duplicates_begin_fast_retransmit",
    ),
    Mutant(
        "RFC 5681 2: duplicates have the same window", "ack.c", ": t->snd_wnd == old_wnd)", ": true)", "other_windows_are_no_duplicates"
    ),
    Mutant(
        "RFC 6582 3.2 step 3",
        "recovery.c",
        "        mark_head(e, t);\n        return true;",
        "        return true;",
        "partial_acknowledgments_repair_the_next_hole",
    ),
    Mutant(
        "RFC 6582 3.2 step 2",
        "recovery.c",
        "&& shs_before(t->recover, t->snd_una);",
        ";",
        "duplicates_after_a_timeout_do_not_begin_recovery",
    ),
    Mutant(
        "RFC 2018 5: the scoreboard",
        "sack.c",
        "shs_seg_flags(t, s, SHS_SEG_SACKED, SHS_SEG_LOST | SHS_SEG_RETX_OUT);",
        "",
        "sacked_segments_are_not_sent_again",
    ),
    Mutant(
        "RFC 6675 4: IsLost",
        "sack.c",
        "            shs_seg_flags(t, s, SHS_SEG_LOST, 0);",
        "            ;",
        "two_segments_sacked_above_are_not_enough",
    ),
    Mutant(
        "RFC 6675 4: not with less",
        "sack.c",
        "t->sacked - below <= (DUP_THRESH - 1) * t->mss",
        "t->sacked - below <= t->mss",
        "two_segments_sacked_above_are_not_enough",
    ),
    Mutant("blocks beyond what was sent", "sack.c", "|| shs_before(t->snd_nxt, to) ", "", "sack_blocks_of_nonsense_are_ignored"),
    Mutant(
        "blocks that cut segments",
        "sack.c",
        "if (!shs_seg_split(e, t, s, from - s->seq))\n                return;\n",
        "",
        "segments_are_split_where_sack_says",
    ),
    Mutant(
        "RFC 2018 8: reneging",
        "rto.c",
        "        if (reneged)\n            shs_seg_flags(t, s, 0, SHS_SEG_SACKED);\n",
        "",
        "taken_back_sacks_are_not_believed",
    ),
    Mutant("RFC 8985 6.2 step 5", "rack.c", "if (due <= e->now) {", "if (0) {", "a_round_trip_later_is_lost"),
    Mutant("RFC 8985 6.3: its timer", "rack.c", "    t->timer[SHS_T_REO] = wait;", "", "a_round_trip_later_is_lost"),
    Mutant(
        "RFC 8985 6.2: the window",
        "rack.c",
        "return shs_min64(t->reo_mult * (t->min_rtt / 4), t->srtt);",
        "return 0;",
        "a_round_trip_later_is_lost",
    ),
    Mutant("RFC 8985 6.2 step 3", "rack.c", "t->flags |= SHS_TF_REORDERED;", ";", "overtaking_makes_loss_a_matter_of_time"),
    Mutant(
        "RFC 8985 6.2 step 4: duplicates",
        "rack.c",
        "t->reo_mult = shs_min32(t->reo_mult + 1, 64);",
        "",
        "duplicates_widen_the_reordering_window",
    ),
    Mutant("RFC 2883 4: the sender", "sack.c", "if (shs_upto(s->sack[0].to, s->ack))", "if (0)", "duplicates_widen_the_reordering_window"),
    Mutant(
        "RFC 8985 6.2: what was sent again",
        "rack.c",
        "SHS_SEG_LOST && !(s->flags & SHS_SEG_RETX_OUT)",
        "SHS_SEG_LOST",
        "lost_retransmissions_are_noticed",
    ),
    Mutant("RFC 8985 7.2: PTO", "rack.c", "    t->timer[SHS_T_PTO] = at;", "", "the_tail_is_probed"),
    Mutant("RFC 8985 7.2: two round trips", "rack.c", "pto = 2 * t->srtt", "pto = t->srtt", "the_tail_is_probed"),
    Mutant(
        "RFC 8985 7.3: new data first", "rack.c", "if (!shs_send_new(e, t, true)) {", "if (1) {", "a_probe_takes_new_data_if_there_is_some"
    ),
    Mutant("RFC 8985 7.4 step 2", "rack.c", "        shs_recovery_reduce(e, t, SHS_CA_CWR);", "", "a_repaired_tail_reduces_the_window"),
    Mutant("RFC 8985 7.4: duplicates", "rack.c", "(a->dsack && a->dsack_to == t->tlp_seq)", "0", "an_unneeded_probe_does_not"),
    Mutant("RFC 5681 3.1: slow start", "cubic.c", "t->cwnd += shs_min32(acked, 2 * t->mss);", "t->cwnd += 1;", "slow_start_doubles"),
    Mutant("RFC 7661: unused windows", "cubic.c", "if (!(t->flags & SHS_TF_CWND_LIMITED))", "if (0)", "an_unused_window_does_not_grow"),
    Mutant("RFC 9438 4.2: K", "cubic.c", "* 2500000000ull /", "* 250000000ull /", "cubic_returns_to_where_it_was"),
    Mutant(
        "RFC 9438 4.2: the cubic",
        "cubic.c",
        "int64_t w = off + t->w_max",
        "int64_t w = off / 2 + t->w_max",
        "cubic_returns_to_where_it_was",
    ),
    Mutant("RFC 9438 4.3: Reno", "cubic.c", "if (to < t->w_est) {", "if (0) {", "cubic_is_not_slower_than_reno"),
    Mutant(
        "RFC 5681 4.1: idle",
        "output.c",
        "t->cwnd = shs_min32(t->cwnd, shs_max32(10",
        "t->cwnd = shs_max32(t->cwnd, shs_max32(10",
        "a_pause_shuts_the_window",
    ),
    Mutant("RFC 3168 6.1.2: reduction", "ecn.c", "    shs_recovery_reduce(e, t, SHS_CA_CWR);", "", "ecn_halves_once_in_a_window"),
    Mutant("RFC 3168 6.1.2: CWR", "ecn.c", "s->flags |= SHS_CWR;", "", "ecn_halves_once_in_a_window"),
    Mutant("RFC 3168 6.1.5", "ecn.c", "if (!s->len || again)", "if (!s->len)", "what_is_sent_again_is_not_ecn_capable"),
    Mutant("RFC 9293 3.8.6.1: probes", "output.c", "        shs_persist_arm(e, t);", "        ;", "zero_windows_are_probed"),
    Mutant("RFC 9293 3.8.6.1 SHLD-30", "probe.c", "t->backoff = shs_min32(t->backoff + 1, 30); /*", "/*", "zero_windows_are_probed"),
    Mutant("RFC 9293 3.8.6.1 MUST-36", "ack.c", "t->probes = 0; /*", "/*", "a_peer_that_answers_probes_is_not_given_up"),
    Mutant(
        "RFC 9293 3.8.4: keepalive",
        "probe.c",
        "t->timer[SHS_T_KEEP] = t->keep_idle ?",
        "t->timer[SHS_T_KEEP] = 0 ?",
        "idle_peers_are_asked",
    ),
    Mutant("RFC 5482: user time-out", "rto.c", "if (t->user_timeout) /*", "if (0) /*", "the_user_timeout_ends"),
    Mutant("RFC 5482: on time", "rto.c", "if (t->user_timeout && t->first_ns)", "if (0)", "the_user_timeout_ends"),
    Mutant("RFC 1191, RFC 8201", "pmtu.c", "    t->mss = mss;\n", "", "icmp_lowers_the_mtu"),
    Mutant(
        "RFC 1191 6.5: sent again",
        "pmtu.c",
        "            shs_seg_flags(t, s, SHS_SEG_LOST, SHS_SEG_RETX_OUT);",
        "            ;",
        "icmp_lowers_the_mtu",
    ),
    Mutant("RFC 5927 4.1", "icmp.c", "|| seq - t->snd_una >= shs_flight(t))", ")", "icmp_about_what_is_not_in_flight_is_ignored"),
    Mutant("least MTU", "pmtu.c", "#define LEAST_MTU4 552", "#define LEAST_MTU4 100", "icmp_cannot_make_segments_tiny"),
    Mutant(
        "RFC 5927 5.2",
        "icmp.c",
        "        t->soft_error = v->error;\n",
        "        shs_tcp_end(e, t, v->error);\n",
        "unreachable_is_only_a_reason",
    ),
    Mutant("the reason of a time-out", "icmp.c", "        t->soft_error = v->error;\n", "", "unreachable_is_only_a_reason"),
    Mutant("RFC 4821, RFC 8899: black holes", "rto.c", "        shs_pmtu_blackhole(e, t);", "        ;", "black_holes_are_found"),
    Mutant("RFC 8899 5.3: probes", "pmtu.c", "return t->mss_goal > t->mss &&", "return 0 &&", "sizes_are_raised_again"),
    Mutant("RFC 8899 5.3: what arrived counts", "pmtu.c", "    t->mss = t->mss_goal;\n", "", "sizes_are_raised_again"),
    Mutant("RFC 6928 2: ten segments", "flow.c", "shs_min32(10 * t->mss,", "shs_min32(4 * t->mss,", "the_first_window_is_ten_segments"),
    Mutant(
        "RFC 6675 5 (4.3)", "recovery.c", "        t->flags |= SHS_TF_FORCE;", "        ;", "the_first_lost_goes_out_whatever_the_window"
    ),
    Mutant(
        "RFC 9438 4.7: fast convergence",
        "cubic.c",
        "cwnd < t->w_max ? (uint32_t)(cwnd * 17ull / 20) : cwnd",
        "cwnd",
        "losses_in_a_row_give_way",
    ),
    Mutant(
        "RFC 8985 7.4 step 3",
        "rack.c",
        "} else if (!a->bytes && !a->has_sack && !s->len) {",
        "} else if (0) {",
        "a_probe_of_which_both_copies_arrived_is_done",
    ),
    Mutant("RFC 8985 6.2 step 4: persistence", "rack.c", "        t->reo_mult = 1;", "        ;", "the_reordering_window_shrinks_again"),
    Mutant("RFC 8985 6.2 step 2", "rack.c", "if (rtt < t->min_rtt)", "if (0)", "answers_to_the_first_copy_do_not_count_for_the_second"),
    Mutant(
        "RFC 6582 3.2 step 3, full",
        "recovery.c",
        "t->cwnd = shs_min32(t->ssthresh, shs_max32(shs_flight(t), t->mss) + t->mss);",
        "",
        "a_full_acknowledgment_makes_no_burst",
    ),
    Mutant("RFC 3168 6.1.4", "ecn.c", "if (!s->len || again)", "if (again)", "acknowledgments_are_not_ecn_capable"),
    Mutant(
        "RFC 6298 2.5",
        "rto.c",
        "return shs_min64(RTO_MOST, t->rto <<",
        "return shs_min64(9 * RTO_MOST, t->rto <<",
        "time_outs_are_two_minutes_apart_at_most",
    ),
    Mutant("RFC 2018 3: room", "emit.c", "SHS_TF_TS ? 3 : 4", "SHS_TF_TS ? 2 : 4", "three_blocks_fit_beside_a_timestamp"),
    Mutant(
        "room for SACK blocks",
        "output.c",
        "return t->mss - (4 + 8 * shs_min32(ranges, 3));",
        "return t->mss;",
        "data_leaves_room_for_blocks",
    ),
    # ends
    Mutant("FIN", "output.c", "fin = fin && len == avail && space > len;", "fin = false;", "fin_follows_the_data"),
    Mutant("FIN-WAIT-2", "close.c", "        t->state = SHS_TCP_FIN_WAIT_2;", "        ;", "fin_follows_the_data"),
    Mutant(
        "TIME-WAIT",
        "close.c",
        "    case SHS_TCP_FIN_WAIT_2:\n        shs_time_wait(e, t);",
        "    case SHS_TCP_FIN_WAIT_2:\n        return shs_tcp_end(e, t, 0);",
        "fin_follows_the_data",
    ),
    Mutant("CLOSE-WAIT", "close.c", "        t->state = SHS_TCP_CLOSE_WAIT;", "        ;", "the_peer_may_close_first"),
    Mutant(
        "LAST-ACK",
        "close.c",
        "    case SHS_TCP_LAST_ACK:\n        return shs_tcp_end(e, t, 0);",
        "    case SHS_TCP_LAST_ACK:\n        break;",
        "the_peer_may_close_first",
    ),
    Mutant("CLOSING", "close.c", "        t->state = SHS_TCP_CLOSING;", "        t->state = SHS_TCP_LAST_ACK;", "both_may_close_at_once"),
    Mutant(
        "RFC 9293 3.10.7.4: FIN in TIME-WAIT", "input.c", "t->timer[SHS_T_WAIT] = e->now + 60 * SHS_SEC;", "", "time_wait_answers_and_ends"
    ),
    Mutant(
        "2 MSL",
        "close.c",
        "t->timer[SHS_T_WAIT] = e->now + TIME_WAIT;",
        "t->timer[SHS_T_WAIT] = e->now + 9 * TIME_WAIT;",
        "time_wait_answers_and_ends",
    ),
    Mutant("RFC 9293 3.6.1 SHLD-3", "app.c", "    if (shs_unread(t)) /*", "    if (0) /*", "closing_with_unread_bytes_resets"),
    Mutant(
        "orphans",
        "close.c",
        "            t->timer[SHS_T_WAIT] = e->now + t->linger * SHS_MS;",
        "            ;",
        "an_orphan_does_not_wait_for_ever",
    ),
    Mutant(
        "RFC 6298 5.1: a FIN too",
        "output.c",
        "    if (!t->timer[SHS_T_RTO])\n        shs_rto_arm(e, t); /*",
        "    if (len && !t->timer[SHS_T_RTO])\n        shs_rto_arm(e, t); /*",
        "lost_fins_are_sent_again",
    ),
    # our own
    Mutant(
        "lost ones are joined",
        "output.c",
        "        shs_seg_join(e, t, s, effective_mss(t));\n",
        "",
        "what_is_acknowledged_late_is_sent_once",
    ),
    Mutant("tiny ones are limited", "output.c", "|| too_many(t))", ")", "tiny_segments_are_limited_too"),
    Mutant(
        "images: what is in flight counts as lost",
        "inflight.c",
        "shs_seg_flags(t, s, SHS_SEG_LOST | SHS_SEG_RETRANS |",
        "shs_seg_flags(t, s, 0 * (SHS_SEG_LOST | SHS_SEG_RETRANS) |",
        "an_image_goes_on_where_it_was",
    ),
)
