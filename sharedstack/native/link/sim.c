/*
 * 1  an engine's output goes to the way towards its destination: dropped for its size, by chance, or because the queue is full; changed,
 *    marked, doubled, delayed
 * 2  packets on their way are in a heap, by time
 * 3  time jumps to the next packet or timer
 */
#include "link/sim.h"

static const struct shs_engine_size size = {.n_tcp = 16, .n_udp = 4, .n_seg = 2048, .n_buckets = 16};

static uint64_t queue_bytes(void)
{
    return (uint64_t)SHS_SIM_CONNECTIONS * 2 * 2 * SHS_SIM_QUEUE;
}

static uint64_t rounded(uint64_t n)
{
    return (n + 4095) & ~4095ull;
}

uint64_t shs_sim_bytes(void)
{
    return rounded(sizeof(struct shs_sim)) + SHS_SIM_NODES * (rounded(shs_engine_bytes(&size)) + rounded(queue_bytes()));
}

uint64_t shs_sim_random(struct shs_sim *sim)
{
    uint64_t x = sim->random += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

bool shs_sim_chance(struct shs_sim *sim, uint32_t millionths)
{
    return millionths && shs_sim_random(sim) % 1000000 < millionths;
}

void shs_sim_address(uint8_t to[16], uint32_t family, uint32_t node)
{
    memset(to, 0, 16);
    if (family == 4) {
        memcpy(to + 10, (const uint8_t[]){0xff, 0xff, 10, 0, 0, (uint8_t)(node + 1)}, 6);
        return;
    }
    to[0] = 0xfd;
    to[15] = (uint8_t)(node + 1);
}

/* The heap. */

static bool sooner(const struct shs_sim *sim, uint32_t a, uint32_t b)
{
    const struct shs_sim_packet *x = &sim->packet[sim->heap[a]], *y = &sim->packet[sim->heap[b]];
    return x->at != y->at ? x->at < y->at : x->order < y->order;
}

static void swap(struct shs_sim *sim, uint32_t a, uint32_t b)
{
    uint16_t x = sim->heap[a];
    sim->heap[a] = sim->heap[b];
    sim->heap[b] = x;
}

static void push(struct shs_sim *sim, uint16_t packet)
{
    uint32_t i = sim->n_heap++;
    sim->heap[i] = packet;
    for (; i && sooner(sim, i, (i - 1) / 2); i = (i - 1) / 2)
        swap(sim, i, (i - 1) / 2);
}

static uint16_t pop(struct shs_sim *sim)
{
    uint16_t first = sim->heap[0];
    sim->heap[0] = sim->heap[--sim->n_heap];
    for (uint32_t i = 0;;) {
        uint32_t next = 2 * i + 1;
        if (next >= sim->n_heap)
            return first;
        if (next + 1 < sim->n_heap && sooner(sim, next + 1, next))
            next++;
        if (!sooner(sim, next, i))
            return first;
        swap(sim, i, next);
        i = next;
    }
}

/* The network. */

static void enqueue(struct shs_sim *sim, uint32_t to, uint64_t at, const uint8_t *bytes, uint32_t len)
{
    if (!sim->n_free) {
        sim->result.lost++;
        return;
    }
    uint16_t i = sim->free[--sim->n_free];
    struct shs_sim_packet *p = &sim->packet[i];
    p->at = at;
    p->order = sim->order++;
    p->to = to;
    p->len = len;
    memcpy(p->bytes, bytes, len);
    push(sim, i);
}

/* "Too big" (RFC 1191 section 4, RFC 4443 section 3.2), from node `at`, about a packet of `from`. */
static void too_big(struct shs_sim *sim, uint32_t from, uint32_t at, const uint8_t *bytes, uint32_t len, uint32_t mtu)
{
    uint8_t out[SHS_SIM_MOST];
    bool four = bytes[0] >> 4 == 4;
    struct shs_packet p = {.family = four ? 4 : 6, .proto = four ? SHS_PROTO_ICMP : SHS_PROTO_ICMP6};
    uint32_t head = shs_ip_header(p.family), quote = shs_min32(len, four ? 28 : 120);
    uint8_t *b = out + head;
    shs_sim_address(p.src, p.family, at);
    shs_sim_address(p.dst, p.family, from);
    memset(b, 0, 8);
    b[0] = four ? 3 : 2;
    b[1] = four ? 4 : 0;
    shs_put32(b + 4, mtu);
    memcpy(b + 8, bytes, quote);
    p.len = 8 + quote;
    shs_put16(b + 2, (uint16_t)~shs_sum_fold(shs_sum(b, p.len, four ? 0 : shs_sum_pseudo(&p, p.len))));
    shs_ip_build(out, &p, 0);
    enqueue(sim, from, sim->now + sim->way[at][from].delay, out, head + p.len);
}

static void corrupt(struct shs_sim *sim, uint8_t *bytes, uint32_t len)
{
    uint64_t r = shs_sim_random(sim);
    bytes[r % len] ^= (uint8_t)(1u << (r >> 32) % 8);
    sim->result.corrupted++;
}

/* Congestion Experienced (RFC 3168 section 5), for packets that may be marked. */
static void mark(uint8_t *b)
{
    if (b[0] >> 4 == 4 && b[1] & 3) {
        uint32_t sum = shs_get16(b + 10) ^ 0xffffu;
        sum += 0xffffu - shs_get16(b);
        b[1] |= 3;
        shs_put16(b + 10, (uint16_t)~shs_sum_fold(sum + shs_get16(b)));
    } else if (b[0] >> 4 == 6 && b[1] & 0x30) {
        b[1] |= 0x30;
    }
}

static void note(struct shs_sim *sim, uint32_t from, const uint8_t *bytes, uint32_t len)
{
    uint64_t need = 16 + len;
    if (sim->capture_room - sim->capture_used < need)
        return;
    uint8_t *to = sim->capture + sim->capture_used;
    memcpy(to, &sim->now, 8);
    memcpy(to + 8, &from, 4);
    memcpy(to + 12, &len, 4);
    memcpy(to + 16, bytes, len);
    sim->capture_used += need;
}

void shs_sim_send(struct shs_sim *sim, uint32_t from, const uint8_t *bytes, uint32_t len)
{
    uint8_t copy[SHS_SIM_MOST];
    uint32_t to = (bytes[0] >> 4 == 4 ? bytes[19] : bytes[39]) - 1u;
    sim->result.packets++;
    note(sim, from, bytes, len);
    if (to >= sim->nodes)
        return;
    struct shs_sim_way *way = &sim->way[from][to];
    if (way->mtu && len > way->mtu) {
        sim->result.lost++;
        if (sim->icmp)
            too_big(sim, from, to, bytes, len, way->mtu);
        return;
    }
    uint64_t begin = sim->now > way->free_at ? sim->now : way->free_at;
    if (way->rate) {
        if ((begin - sim->now) * way->rate / 8000000000ull + len > way->queue) {
            sim->result.lost++;
            return;
        }
        begin += len * 8000000000ull / way->rate;
        way->free_at = begin;
    }
    if (shs_sim_chance(sim, way->loss)) {
        sim->result.lost++;
        return;
    }
    memcpy(copy, bytes, len);
    if (shs_sim_chance(sim, way->ecn_mark))
        mark(copy);
    if (shs_sim_chance(sim, way->corrupt))
        corrupt(sim, copy, len);
    uint64_t at = begin + way->delay + (way->jitter ? shs_sim_random(sim) % way->jitter : 0);
    if (shs_sim_chance(sim, way->reorder))
        at += way->delay + 1;
    enqueue(sim, to, at, copy, len);
    if (shs_sim_chance(sim, way->duplicate)) {
        sim->result.duplicated++;
        enqueue(sim, to, at + shs_sim_random(sim) % (way->delay + 1), copy, len);
    }
}

static uint8_t *room(void *dev, uint32_t len)
{
    struct shs_sim_port *port = dev;
    if (len > SHS_SIM_MOST || shs_sim_chance(port->sim, port->sim->busy))
        return NULL;
    return port->out;
}

static void send(void *dev, uint32_t len)
{
    struct shs_sim_port *port = dev;
    shs_sim_send(port->sim, port->node, port->out, len);
}

/* What the kernel of a node does with a segment of no connection (RFC 9293 section 3.10.7.1). */
static void answer_stray(struct shs_sim *sim, uint32_t node, const struct shs_sim_packet *packet)
{
    struct shs_packet p, back;
    struct shs_segment s, reset = {.flags = SHS_RST};
    uint8_t out[128];
    if (shs_ip_parse(packet->bytes, packet->len, &p) != SHS_PARSED || p.proto != SHS_PROTO_TCP ||
        shs_tcp_parse(&p, false, &s) != SHS_PARSED || s.flags & SHS_RST)
        return;
    back = (struct shs_packet){.family = p.family};
    memcpy(back.src, p.dst, 16);
    memcpy(back.dst, p.src, 16);
    reset.sport = s.dport;
    reset.dport = s.sport;
    reset.seq = s.ack;
    uint32_t head = shs_ip_header(p.family);
    shs_tcp_build(out + head, &back, &reset);
    shs_ip_build(out, &back, 0);
    shs_sim_send(sim, node, out, head + back.len);
}

static void deliver(struct shs_sim *sim, const struct shs_sim_packet *p)
{
    struct shs_engine *e = &sim->engine[p->to];
    uint64_t strays = e->w->counters[SHS_WCTR_IN_NO_FLOW];
    shs_engine_input(e, p->bytes, p->len);
    if (e->w->counters[SHS_WCTR_IN_NO_FLOW] != strays)
        answer_stray(sim, p->to, p);
}

/* Time. */

void shs_sim_begin(struct shs_sim *sim, uint32_t nodes, uint64_t seed)
{
    uint8_t *at = (uint8_t *)sim + rounded(sizeof *sim);
    memset(sim, 0, offsetof(struct shs_sim, packet));
    sim->random = seed;
    sim->nodes = nodes;
    sim->now = 1000000000ull + shs_sim_random(sim) % 1000000000ull;
    for (uint32_t i = 0; i < SHS_SIM_PACKETS; i++)
        sim->free[sim->n_free++] = (uint16_t)(SHS_SIM_PACKETS - 1 - i);
    for (uint32_t i = 0; i < nodes; i++) {
        struct shs_sim_port *port = &sim->port[i];
        sim->area[i] = at;
        sim->queues[i] = at + rounded(shs_engine_bytes(&size));
        at = sim->queues[i] + rounded(queue_bytes());
        port->sim = sim;
        port->node = i;
        port->device = (struct shs_device){.room = room, .send = send, .dev = port};
        shs_engine_format(sim->area[i], &size, shs_sim_random(sim), sim->now);
        shs_engine_attach(&sim->engine[i], sim->area[i], shs_engine_bytes(&size), sim->queues[i], queue_bytes(), &port->device);
        sim->engine[i].now = sim->now;
    }
}

uint64_t shs_sim_next(const struct shs_sim *sim)
{
    uint64_t next = sim->n_heap ? sim->packet[sim->heap[0]].at : UINT64_MAX;
    for (uint32_t i = 0; i < sim->nodes; i++)
        next = shs_min64(next, shs_engine_next(&sim->engine[i]));
    return next;
}

void shs_sim_until(struct shs_sim *sim, uint64_t now)
{
    sim->now = shs_max64(sim->now, now);
    for (uint32_t i = 0; i < sim->nodes; i++)
        sim->engine[i].now = sim->now;
    while (sim->n_heap && sim->packet[sim->heap[0]].at <= sim->now) {
        uint16_t i = pop(sim);
        deliver(sim, &sim->packet[i]);
        sim->free[sim->n_free++] = i;
    }
    for (uint32_t i = 0; i < sim->nodes; i++)
        if (shs_engine_next(&sim->engine[i]) <= sim->now)
            shs_engine_timers(&sim->engine[i]);
}

int shs_sim_check(struct shs_sim *sim)
{
    for (uint32_t i = 0; i < sim->nodes; i++) {
        int line = shs_engine_check(&sim->engine[i]);
        if (line)
            return line;
    }
    return 0;
}
