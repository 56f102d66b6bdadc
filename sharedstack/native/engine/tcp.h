/*
 * Purpose: what the files of the engine know of each other. Each function has its rules and RFC sections in the file that is named.
 * Who may call: the engine only, under wire.lock.
 */
#pragma once
#include "engine/engine.h"

#define SHS_MS 1000000ull
#define SHS_SEC 1000000000ull
#define SHS_PAWS_IDLE (24ull * 24 * 3600 * SHS_SEC) /* RFC 7323 section 5.5 */

/* How a handler left its connection: a freed record must not be touched again. */
enum shs_fate { SHS_LIVES, SHS_FREED };

static inline void shs_wire_count(struct shs_engine *e, uint32_t counter)
{
    e->w->counters[counter]++;
}

static inline uint32_t shs_tcp_index(const struct shs_engine *e, const struct shs_tcp *t)
{
    return (uint32_t)(t - e->tcp);
}

static inline struct shs_tcp *shs_tcp_at(const struct shs_engine *e, uint32_t plus_one)
{
    return plus_one && plus_one <= e->n.n_tcp ? &e->tcp[plus_one - 1] : NULL;
}

static inline struct shs_txseg *shs_seg_at(const struct shs_engine *e, uint32_t plus_one)
{
    return plus_one && plus_one <= e->n.n_seg ? &e->seg[plus_one - 1] : NULL;
}

/* There is something new for the program. */
static inline void shs_wake(struct shs_engine *e, struct shs_tcp *t)
{
    t->wakes++;
    if (t->bell && e->woken)
        e->woken(e, t->bell);
}

/* The same, if it waits for room, and there is some: as much as the kernel wants to see, a third of the queue. */
static inline void shs_wake_room(struct shs_engine *e, struct shs_tcp *t)
{
    if (!shs_load32(&t->want_room) || (t->tx_end - t->snd_una) / 2 > t->tx_size / 3)
        return;
    shs_store32(&t->want_room, 0);
    shs_wake(e, t);
}

/* Divisors are read once, and are never zero: the area may be written by others while a call runs. */
static inline uint32_t shs_nonzero(uint32_t n)
{
    return n ? n : 1;
}

static inline uint32_t shs_flight(const struct shs_tcp *t)
{
    return t->snd_nxt - t->snd_una;
}

/* The peer's FIN is in order, and behind it nothing comes. */
static inline bool shs_fin_in(const struct shs_tcp *t)
{
    return t->flags & SHS_TF_FIN_HELD && shs_before(t->fin_seq, t->rcv_nxt);
}

static inline uint32_t shs_unread(const struct shs_tcp *t)
{
    return t->rcv_nxt - t->rx_read - (shs_fin_in(t) ? 1 : 0);
}

static inline bool shs_fin_sent(const struct shs_tcp *t)
{
    return t->flags & SHS_TF_FIN_QUEUED && shs_before(t->tx_end, t->snd_nxt);
}

static inline bool shs_fin_acked(const struct shs_tcp *t)
{
    return t->flags & SHS_TF_FIN_QUEUED && shs_before(t->tx_end, t->snd_una);
}

/* flow.c: records, and how they are found */
bool shs_flow_sane(struct shs_engine *e, struct shs_tcp *t);
struct shs_tcp *shs_flow_find(struct shs_engine *e, const struct shs_packet *p, uint16_t sport, uint16_t dport);
void shs_flow_link(struct shs_engine *e, struct shs_tcp *t);
void shs_flow_free(struct shs_engine *e, struct shs_tcp *t);
uint64_t shs_engine_random(struct shs_engine *e);
bool shs_queue_ok(const struct shs_engine *e, uint64_t off, uint32_t size);

/* timer.c */
void shs_timer_settle(struct shs_engine *e, struct shs_tcp *t);
void shs_timer_leave(struct shs_engine *e, struct shs_tcp *t);

/* queue.c: bytes of queues, by sequence number */
bool shs_queue_put(struct shs_engine *e, uint64_t off, uint32_t size, uint32_t at, const void *from, uint32_t len);
bool shs_queue_get(struct shs_engine *e, uint64_t off, uint32_t size, uint32_t at, void *to, uint32_t len);

/* inflight.c: segments in flight */
struct shs_txseg *shs_seg_push(struct shs_engine *e, struct shs_tcp *t, uint32_t seq, uint32_t len);
bool shs_seg_split(struct shs_engine *e, struct shs_tcp *t, struct shs_txseg *s, uint32_t len);
void shs_seg_join(struct shs_engine *e, struct shs_tcp *t, struct shs_txseg *s, uint32_t most);
void shs_seg_pop(struct shs_engine *e, struct shs_tcp *t);
void shs_seg_trim(struct shs_tcp *t, struct shs_txseg *s, uint32_t by);
void shs_seg_flags(struct shs_tcp *t, struct shs_txseg *s, uint32_t set, uint32_t clear);
void shs_seg_drop_all(struct shs_engine *e, struct shs_tcp *t);
bool shs_seg_cover(struct shs_engine *e, struct shs_tcp *t);
uint32_t shs_pipe(const struct shs_tcp *t);

/* input.c */
enum shs_fate shs_tcp_input(struct shs_engine *e, struct shs_tcp *t, const struct shs_packet *p, const struct shs_segment *s);

/* ack.c */
enum shs_fate shs_ack_input(struct shs_engine *e, struct shs_tcp *t, const struct shs_segment *s);

/* What an acknowledgment told, for those who act on it. */
struct shs_acked {
    uint32_t bytes;      /* cumulatively acknowledged, new */
    uint32_t sacked;     /* newly marked SACKED */
    uint32_t flight;     /* before it */
    bool duplicate;      /* a duplicate acknowledgment (RFC 5681 section 2) */
    bool dsack;          /* it reports a duplicate */
    bool has_sack;
    uint64_t rtt;        /* of a segment that was sent once; 0: none */
    uint32_t dsack_from, dsack_to;
};

/* sack.c */
void shs_sack_input(struct shs_engine *e, struct shs_tcp *t, const struct shs_segment *s, struct shs_acked *a);
void shs_sack_mark_lost(struct shs_engine *e, struct shs_tcp *t);
uint32_t shs_sack_blocks(const struct shs_tcp *t, struct shs_segment *s, uint32_t most);

/* rack.c */
void shs_rack_delivered(struct shs_engine *e, struct shs_tcp *t, const struct shs_txseg *s);
void shs_rack_detect(struct shs_engine *e, struct shs_tcp *t, const struct shs_acked *a);
void shs_rack_leave_recovery(struct shs_tcp *t);
void shs_tlp_arm(struct shs_engine *e, struct shs_tcp *t);
void shs_tlp_fire(struct shs_engine *e, struct shs_tcp *t);
void shs_tlp_ack(struct shs_engine *e, struct shs_tcp *t, const struct shs_segment *s, const struct shs_acked *a);

/* recovery.c */
void shs_recovery_ack(struct shs_engine *e, struct shs_tcp *t, const struct shs_acked *a);
void shs_recovery_reduce(struct shs_engine *e, struct shs_tcp *t, uint32_t ca);

/* rto.c */
void shs_rtt_sample(struct shs_tcp *t, uint64_t rtt);
uint64_t shs_rto_now(const struct shs_tcp *t);
void shs_rto_arm(struct shs_engine *e, struct shs_tcp *t);
enum shs_fate shs_rto_fire(struct shs_engine *e, struct shs_tcp *t);
bool shs_overdue(const struct shs_engine *e, const struct shs_tcp *t, uint32_t tries);

/* cubic.c */
uint32_t shs_cubic_ssthresh(struct shs_tcp *t);
void shs_cubic_grow(struct shs_engine *e, struct shs_tcp *t, uint32_t acked);
void shs_cubic_timeout(struct shs_tcp *t);

/* timestamp.c */
uint32_t shs_ts_now(const struct shs_engine *e, const struct shs_tcp *t);
bool shs_paws_rejects(const struct shs_engine *e, const struct shs_tcp *t, const struct shs_segment *s);
void shs_ts_note(struct shs_engine *e, struct shs_tcp *t, const struct shs_segment *s);
uint64_t shs_ts_rtt(const struct shs_engine *e, const struct shs_tcp *t, const struct shs_segment *s);

/* receive.c */
void shs_receive(struct shs_engine *e, struct shs_tcp *t, const struct shs_segment *s);
uint32_t shs_receive_window(struct shs_tcp *t);
uint32_t shs_receive_offered(const struct shs_tcp *t);
bool shs_receive_wants_update(const struct shs_tcp *t);
void shs_receive_tune(struct shs_engine *e, struct shs_tcp *t, uint32_t read);

/* output.c */
void shs_tcp_output(struct shs_engine *e, struct shs_tcp *t);
bool shs_retransmit(struct shs_engine *e, struct shs_tcp *t, struct shs_txseg *s);
bool shs_send_new(struct shs_engine *e, struct shs_tcp *t, bool probe);

/* emit.c */
bool shs_emit(struct shs_engine *e, struct shs_tcp *t, uint32_t seq, uint32_t len, uint32_t flags, bool again);
bool shs_emit_ack(struct shs_engine *e, struct shs_tcp *t);
void shs_emit_reset(struct shs_engine *e, struct shs_tcp *t, uint32_t seq);

/* challenge.c */
void shs_challenge(struct shs_engine *e, struct shs_tcp *t);
void shs_answer_stray(struct shs_engine *e, struct shs_tcp *t, const struct shs_segment *s);

/* probe.c: zero windows, keepalive */
void shs_persist_arm(struct shs_engine *e, struct shs_tcp *t);
enum shs_fate shs_persist_fire(struct shs_engine *e, struct shs_tcp *t);
void shs_keep_arm(struct shs_engine *e, struct shs_tcp *t);
enum shs_fate shs_keep_fire(struct shs_engine *e, struct shs_tcp *t);

/* ecn.c */
void shs_ecn_receive(struct shs_engine *e, struct shs_tcp *t, const struct shs_packet *p, const struct shs_segment *s);
void shs_ecn_ack(struct shs_engine *e, struct shs_tcp *t, const struct shs_segment *s);
uint32_t shs_ecn_send(struct shs_tcp *t, struct shs_segment *s, bool again);

/* close.c: states */
enum shs_fate shs_peer_fin(struct shs_engine *e, struct shs_tcp *t);
enum shs_fate shs_own_fin_acked(struct shs_engine *e, struct shs_tcp *t);
enum shs_fate shs_tcp_end(struct shs_engine *e, struct shs_tcp *t, uint32_t error);
void shs_time_wait(struct shs_engine *e, struct shs_tcp *t);
void shs_state_fix(struct shs_tcp *t);

/* pmtu.c, icmp.c */
void shs_pmtu_set(struct shs_engine *e, struct shs_tcp *t, uint32_t mtu);
void shs_pmtu_blackhole(struct shs_engine *e, struct shs_tcp *t);
bool shs_pmtu_may_probe(const struct shs_engine *e, const struct shs_tcp *t);
void shs_pmtu_probed(struct shs_engine *e, struct shs_tcp *t);
void shs_pmtu_arrived(struct shs_engine *e, struct shs_tcp *t, const struct shs_txseg *s);
uint32_t shs_mss_of_mtu(const struct shs_tcp *t, uint32_t mtu);
void shs_icmp_input(struct shs_engine *e, const struct shs_packet *p);

/* udp.c */
void shs_udp_input(struct shs_engine *e, struct shs_packet *p);
void shs_udp_rebuild(struct shs_engine *e);
