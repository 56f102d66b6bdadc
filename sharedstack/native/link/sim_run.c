/*
 * One scenario from beginning to end: connections are there (the kernel would have opened them), programs at both ends send, receive and
 * close as the scenario says, until every record has been given back. Each byte is compared with what it must be when it is received.
 */
#include "link/sim.h"

#define LEAST_UNITS 16 /* that the largest window has */
#define MOST_STEPS 3000000
#define CHUNK 4096

struct end {
    struct shs_sim *sim;
    uint64_t handle, hash_sent, hash_received, sent, received, to_send, to_receive, next_read, pattern_out, pattern_in;
    uint32_t node, side, write, read, wakes;
    uint64_t pause;
    bool shut, ended, failed, wrong, closed;
};

struct run {
    struct shs_sim *sim;
    const struct shs_sim_scenario *s;
    struct end end[SHS_SIM_CONNECTIONS][2];
};

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static void pattern(uint64_t key, uint64_t at, uint8_t *to, uint32_t len)
{
    for (uint32_t i = 0; i < len;) {
        uint64_t word = mix(key + (at + i) / 8);
        for (uint32_t k = (at + i) % 8; k < 8 && i < len; k++)
            to[i++] = (uint8_t)(word >> k * 8);
    }
}

static uint64_t fnv(uint64_t hash, const uint8_t *bytes, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

static bool send_some(struct end *end)
{
    struct shs_engine *e = &end->sim->engine[end->node];
    uint8_t buf[CHUNK];
    bool any = false;
    while (end->sent < end->to_send && !end->failed) {
        uint32_t n = (uint32_t)shs_min64(1 + shs_sim_random(end->sim) % end->write, end->to_send - end->sent);
        pattern(end->pattern_out, end->sent, buf, n);
        long took = shs_tcp_send(e, end->handle, buf, n);
        if (took == -EAGAIN)
            break;
        if (took < 0) {
            end->failed = true;
            break;
        }
        end->hash_sent = fnv(end->hash_sent, buf, (uint32_t)took);
        end->sent += (uint64_t)took;
        any = true;
    }
    return any;
}

static bool receive_some(struct end *end)
{
    struct shs_engine *e = &end->sim->engine[end->node];
    uint8_t buf[CHUNK], want[CHUNK];
    if (end->ended || end->sim->now < end->next_read)
        return false;
    bool any = false;
    for (;;) {
        uint32_t n = 1 + (uint32_t)(shs_sim_random(end->sim) % end->read);
        long got = shs_tcp_recv(e, end->handle, buf, n);
        if (got == -EAGAIN)
            return any;
        if (got <= 0) {
            end->ended = true;
            end->failed = end->failed || got < 0;
            return true;
        }
        pattern(end->pattern_in, end->received, want, (uint32_t)got);
        end->wrong = end->wrong || memcmp(buf, want, (size_t)got);
        end->hash_received = fnv(end->hash_received, buf, (uint32_t)got);
        end->received += (uint64_t)got;
        any = true;
        if (end->pause) {
            end->next_read = end->sim->now + end->pause;
            return true;
        }
    }
}

static bool close_end(struct end *end)
{
    struct shs_engine *e = &end->sim->engine[end->node];
    shs_tcp_close(e, end->handle);
    end->closed = true;
    return true;
}

/* When this end says that it will send no more. */
static bool may_shut(const struct run *r, const struct end *end)
{
    if (end->sent < end->to_send)
        return false;
    if (end->side == 0 && (r->s->ending == SHS_END_RESET || r->s->ending == SHS_END_UNREAD))
        return end->ended && r->s->ending == SHS_END_UNREAD;
    return r->s->ending != SHS_END_FIRST || end->side == 0 || end->ended; /* END_FIRST: the second one when it has seen the first's FIN */
}

/* One look of a program at its connection. */
static bool act(struct run *r, struct end *end)
{
    struct shs_engine *e = &end->sim->engine[end->node];
    if (end->closed)
        return false;
    struct shs_tcp *t = shs_tcp_of(e, end->handle);
    if (t)
        end->wakes = t->wakes;
    bool any = receive_some(end);
    bool breaks = (r->s->ending == SHS_END_RESET || r->s->ending == SHS_END_UNREAD) && end->side == 0 && end->sent >= end->to_send / 2;
    if (breaks && r->s->ending == SHS_END_RESET) {
        shs_tcp_abort(e, end->handle);
        end->closed = true;
        return true;
    }
    if (breaks && shs_tcp_readable(e, end->handle)) /* closes with bytes unread: a reset (END_UNREAD) */
        return close_end(end);
    any |= send_some(end);
    if (end->failed)
        return close_end(end);
    if (!end->shut && may_shut(r, end)) {
        shs_tcp_shutdown(e, end->handle);
        end->shut = any = true;
    }
    if (end->shut && end->ended)
        return close_end(end);
    return any;
}

static uint32_t seq_of(const struct shs_sim_scenario *s, uint32_t side, uint32_t connection)
{
    return s->iss[side] + connection * 77777;
}

/* A kernel chooses its scale by its buffer: a unit of the window is a small part of that. */
static uint32_t scale(const struct shs_sim_scenario *s, uint32_t side)
{
    uint32_t shift = s->scale[side];
    while (shift && s->rx_size[side] >> shift < LEAST_UNITS)
        shift--;
    return shift;
}

static void open_end(struct run *r, uint32_t c, uint32_t side, uint32_t node, uint32_t peer)
{
    const struct shs_sim_scenario *s = r->s;
    struct shs_sim *sim = r->sim;
    struct end *end = &r->end[c][side];
    uint64_t off = (uint64_t)(c * 2 + side) * 2 * SHS_SIM_QUEUE;
    uint32_t clock = (uint32_t)(sim->now / 1000000);
    struct shs_tcp_image i = {
        .family = s->family,
        .state = SHS_TCP_ESTABLISHED,
        .flags = s->flags & (SHS_TF_SACK | SHS_TF_TS | SHS_TF_ECN | SHS_TF_NODELAY),
        .lport = (uint16_t)(side ? 80 : 40000 + c),
        .rport = (uint16_t)(side ? 40000 + c : 80),
        .snd_una = seq_of(s, side, c),
        .snd_nxt = seq_of(s, side, c),
        .rcv_nxt = seq_of(s, !side, c),
        .snd_wl1 = seq_of(s, !side, c),
        .rcv_wup = seq_of(s, !side, c),
        .snd_wnd = shs_min32(s->rx_size[!side], 65535u << scale(s, !side)),
        .rcv_wnd = shs_min32(s->rx_size[side], 65535u << scale(s, side)),
        .snd_scale = scale(s, !side),
        .rcv_scale = scale(s, side),
        .mss = s->mss[!side],
        .mtu = 1500,
        .ts_off = seq_of(s, side, c) * 3,
        .ts_recent = clock + seq_of(s, !side, c) * 3,
        .tx_off = off,
        .rx_off = off + SHS_SIM_QUEUE,
        .tx_size = s->tx_size[side],
        .rx_size = s->rx_size[side],
    };
    shs_sim_address(i.laddr, s->family, node);
    shs_sim_address(i.raddr, s->family, peer);
    *end = (struct end){
        .sim = sim,
        .handle = shs_tcp_open(&sim->engine[node], &i),
        .hash_sent = 0xcbf29ce484222325u,
        .hash_received = 0xcbf29ce484222325u,
        .to_send = s->bytes[side],
        .to_receive = s->bytes[!side],
        .node = node,
        .side = side,
        .write = shs_min32(s->write[side] ? s->write[side] : 1, CHUNK),
        .read = shs_min32(s->read[side] ? s->read[side] : 1, CHUNK),
        .pause = s->pause_us[side] * 1000ull,
        .pattern_out = mix(s->seed + c * 2 + side),
        .pattern_in = mix(s->seed + c * 2 + !side),
    };
    /* A reset may be lost: then only who asks hears of it. */
    if (side && (s->ending == SHS_END_RESET || s->ending == SHS_END_UNREAD))
        shs_tcp_keepalive(&sim->engine[node], end->handle, 10000, 1000, 9);
}

static void set_ways(struct shs_sim *sim, const struct shs_sim_scenario *s)
{
    for (uint32_t from = 0; from < s->nodes; from++)
        for (uint32_t to = 0; to < s->nodes; to++) {
            uint32_t k = from > to; /* the way from the lower number is that of the openers */
            sim->way[from][to] = (struct shs_sim_way){
                .loss = s->loss[k],
                .reorder = s->reorder[k],
                .duplicate = s->duplicate[k],
                .corrupt = s->corrupt[k],
                .ecn_mark = s->ecn_mark,
                .delay = s->delay_us[k] * 1000ull,
                .jitter = s->jitter_us[k] * 1000ull,
                .rate = s->rate[k] * 1000ull,
                .queue = s->queue[k],
                .mtu = s->mtu[k],
            };
        }
    sim->busy = s->busy;
    sim->icmp = s->icmp;
}

static bool all_over(struct run *r)
{
    for (uint32_t i = 0; i < r->s->nodes; i++)
        if (r->sim->engine[i].w->tcp_used)
            return false;
    return true;
}

/* Lets programs look until none of them does anything; when the next one wants to look by itself. */
static uint64_t act_all(struct run *r)
{
    uint64_t next = UINT64_MAX;
    for (uint32_t c = 0; c < r->s->connections; c++)
        for (uint32_t side = 0; side < 2; side++) {
            struct end *end = &r->end[c][side];
            struct shs_tcp *t = end->closed ? NULL : shs_tcp_of(&r->sim->engine[end->node], end->handle);
            if (end->closed)
                continue;
            bool woken = !t || t->wakes != end->wakes || r->sim->now >= end->next_read;
            for (uint32_t n = 0; woken && n < 64 && act(r, end); n++)
                ;
            if (!end->closed && end->next_read > r->sim->now)
                next = shs_min64(next, end->next_read);
        }
    return next;
}

static void judge(struct run *r, struct shs_sim_result *result)
{
    bool must_reset = r->s->ending == SHS_END_RESET || r->s->ending == SHS_END_UNREAD;
    for (uint32_t c = 0; c < r->s->connections; c++)
        for (uint32_t side = 0; side < 2; side++) {
            const struct end *end = &r->end[c][side];
            result->sent[side] += end->sent;
            result->received[!side] += end->received;
            result->hash_sent[side] ^= end->hash_sent;
            result->hash_received[!side] ^= end->hash_received;
            result->resets += end->failed;
            if (end->wrong)
                result->verdict |= SHS_SIM_BYTES;
            if (end->failed && !must_reset)
                result->verdict |= SHS_SIM_ERROR;
            if (!must_reset && (end->sent != end->to_send || end->received != end->to_receive || !end->ended))
                result->verdict |= SHS_SIM_INCOMPLETE;
            if (end->received > end->to_receive)
                result->verdict |= SHS_SIM_BYTES;
        }
    if (!must_reset && memcmp(result->hash_sent, result->hash_received, sizeof result->hash_sent))
        result->verdict |= SHS_SIM_BYTES;
    if (r->s->ending == SHS_END_RESET && result->resets < r->s->connections)
        result->verdict |= SHS_SIM_NO_RESET;
    for (uint32_t i = 0; i < r->s->nodes; i++) {
        const struct shs_wire *w = r->sim->engine[i].w;
        result->retransmits += w->counters[SHS_WCTR_RETRANSMITS];
        result->timeouts += w->counters[SHS_WCTR_RTO];
        uint64_t busy = 0;
        for (uint32_t k = 0; k < SHS_WHEEL_BUCKETS / 64; k++)
            busy |= w->busy[k];
        if (w->tcp_used || w->seg_used || busy)
            result->verdict |= SHS_SIM_LEAK;
    }
    if (r->sim->n_heap || r->sim->n_free != SHS_SIM_PACKETS)
        result->verdict |= SHS_SIM_LEAK;
}

uint32_t shs_sim_run(struct shs_sim *sim, const struct shs_sim_scenario *s, struct shs_sim_result *result)
{
    struct run r = {.sim = sim, .s = s};
    uint8_t *capture = sim->capture;
    uint64_t room = sim->capture_room, begun, next_look = 0;
    uint32_t verdict = 0;
    shs_sim_begin(sim, s->nodes, s->seed);
    sim->capture = capture;
    sim->capture_room = room;
    set_ways(sim, s);
    begun = sim->now;
    for (uint32_t c = 0; c < s->connections; c++) {
        uint32_t a = c % s->nodes, b = (c + 1) % s->nodes;
        open_end(&r, c, 0, a < b ? a : b, a < b ? b : a);
        open_end(&r, c, 1, a < b ? b : a, a < b ? a : b);
    }
    for (; !(all_over(&r) && !sim->n_heap); sim->result.events++) {
        if (sim->result.events >= MOST_STEPS) {
            verdict |= SHS_SIM_STUCK;
            break;
        }
        next_look = act_all(&r);
        uint64_t next = shs_min64(shs_sim_next(sim), next_look);
        if (next == UINT64_MAX && !all_over(&r)) {
            verdict |= SHS_SIM_STUCK;
            break;
        }
        if (next != UINT64_MAX)
            shs_sim_until(sim, next);
        int line = sim->result.events % 32 ? 0 : shs_sim_check(sim);
        if (line) {
            sim->result.line = (uint32_t)line;
            verdict |= SHS_SIM_CHECK;
            break;
        }
    }
    sim->result.verdict = verdict;
    sim->result.elapsed_ns = sim->now - begun;
    judge(&r, &sim->result);
    *result = sim->result;
    return result->verdict;
}
