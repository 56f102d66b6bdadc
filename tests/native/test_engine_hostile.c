/*
 * Hostile packets: random ones, real ones with bytes changed, and ones that are nearly right, into connections that go on meanwhile.
 * Nothing crashes, the area agrees with itself after each, what was acknowledged or received is never taken back, and nothing but the one
 * right number resets. Then a hostile area: whatever its indices are, each call returns, and no memory outside is touched.
 */
#include "check.h"

#include "link/sim.h"

#define RUNS 60
#define PACKETS 400
#define BEGIN 5000000000ull

static uint8_t last[SHS_SIM_MOST];
static uint32_t last_len;
static struct shs_engine engine;
static uint8_t out[SHS_SIM_MOST];

static uint8_t *room(void *dev, uint32_t len)
{
    (void)dev;
    return len <= sizeof out ? out : NULL;
}

static void sent(void *dev, uint32_t len)
{
    (void)dev;
    memcpy(last, out, len);
    last_len = len;
}

static const struct shs_device device = {.room = room, .send = sent};
static const struct shs_engine_size size = {.n_tcp = 4, .n_udp = 2, .n_seg = 64, .n_buckets = 4};

static struct shs_tcp_image image(struct rng *r, uint32_t family)
{
    struct shs_tcp_image i = {
        .family = family,
        .state = SHS_TCP_ESTABLISHED,
        .flags = (uint32_t)below(r, 8),
        .lport = 80,
        .rport = 1000,
        .snd_una = (uint32_t)rng_next(r),
        .rcv_nxt = (uint32_t)rng_next(r),
        .snd_wnd = 20000,
        .rcv_wnd = 16384,
        .snd_scale = (uint32_t)below(r, 15),
        .rcv_scale = (uint32_t)below(r, 11),
        .mss = 1460,
        .mtu = 1500,
        .tx_off = 0,
        .rx_off = 16384,
        .tx_size = 16384,
        .rx_size = 16384,
    };
    i.snd_nxt = i.snd_una;
    i.snd_wl1 = i.rcv_wup = i.rcv_nxt;
    shs_sim_address(i.laddr, family, 0);
    shs_sim_address(i.raddr, family, 1);
    return i;
}

/* A segment of the peer, near what is acceptable, with options that may be nonsense. */
static uint32_t near_segment(struct rng *r, const struct shs_tcp *t, uint8_t *b)
{
    struct shs_packet p = {.family = t->family, .ecn = (uint32_t)below(r, 4)};
    struct shs_segment s = {
        .sport = t->rport,
        .dport = t->lport,
        .seq = t->rcv_nxt + (uint32_t)below(r, 6000) - 3000,
        .ack = below(r, 2) ? t->snd_una + (uint32_t)below(r, (uint64_t)shs_max32(t->snd_nxt - t->snd_una, 1) + 2) : (uint32_t)rng_next(r),
        .wnd = (uint32_t)below(r, 65536),
        .flags = below(r, 3) ? SHS_ACK : (uint32_t)below(r, 256),
        .ts = below(r, 2),
        .tsval = (uint32_t)rng_next(r),
        .tsecr = (uint32_t)rng_next(r),
        .sacks = (uint32_t)below(r, 4),
        .len = (uint32_t)below(r, 1400),
    };
    if (s.flags & SHS_RST && s.seq == t->rcv_nxt)
        s.seq++; /* the one number that resets, rightly */
    for (uint32_t i = 0; i < s.sacks; i++) {
        s.sack[i].from = t->snd_una + (uint32_t)below(r, 20000) - 3000;
        s.sack[i].to = s.sack[i].from + (uint32_t)below(r, 5000) - 100;
    }
    uint32_t head = shs_ip_header(p.family);
    memcpy(p.src, t->raddr, 16);
    memcpy(p.dst, t->laddr, 16);
    memset(b + head + SHS_TCP_HEADER + shs_tcp_options_size(&s), 'h', s.len);
    shs_tcp_build(b + head, &p, &s);
    if (s.ts && below(r, 2)) { /* options of any length */
        b[head + SHS_TCP_HEADER + below(r, 12)] = (uint8_t)rng_next(r);
        shs_put16(b + head + 16, 0);
        shs_put16(b + head + 16, (uint16_t)~shs_sum_fold(shs_sum(b + head, p.len, shs_sum_pseudo(&p, p.len))));
    }
    shs_ip_build(b, &p, 1);
    return head + p.len;
}

static uint32_t mangle(struct rng *r, uint8_t *b, uint32_t len)
{
    for (uint64_t n = below(r, 4); n; n--)
        b[below(r, len)] = (uint8_t)rng_next(r);
    if (b[0] >> 4 == 4 && len >= 20 && below(r, 2)) {
        shs_put16(b + 10, 0);
        shs_put16(b + 10, (uint16_t)~shs_sum_fold(shs_sum(b, 20, 0)));
    }
    return below(r, 3) ? len : (uint32_t)below(r, len) + 1;
}

static void one_run(struct rng *r, uint8_t *area, uint8_t *queues)
{
    uint8_t b[SHS_SIM_MOST], buf[4096];
    uint32_t family = below(r, 2) ? 4 : 6;
    shs_engine_format(area, &size, rng_next(r), BEGIN);
    CHECK(shs_engine_attach(&engine, area, shs_engine_bytes(&size), queues, 32768, &device), ==, 0);
    engine.now = BEGIN;
    struct shs_tcp_image i = image(r, family);
    uint64_t handle = shs_tcp_open(&engine, &i);
    CHECK(handle, !=, 0);
    for (uint32_t n = 0; n < PACKETS; n++) {
        struct shs_tcp *t = shs_tcp_of(&engine, handle);
        if (!t || t->state == SHS_TCP_CLOSED)
            break;
        uint32_t len;
        memset(buf, 's', sizeof buf);
        if (below(r, 3) == 0)
            shs_tcp_send(&engine, handle, buf, (uint32_t)below(r, 4096));
        switch (below(r, 4)) {
        case 0:
            len = 1 + (uint32_t)below(r, 200);
            for (uint32_t k = 0; k < len; k++)
                b[k] = (uint8_t)rng_next(r);
            b[0] = below(r, 2) ? 0x45 : 0x60;
            break;
        case 1:
            len = last_len ? last_len : 1;
            memcpy(b, last, len);
            len = mangle(r, b, len);
            break;
        case 2:
            len = mangle(r, b, near_segment(r, t, b));
            break;
        default:
            len = near_segment(r, t, b);
        }
        uint8_t *exact = malloc(len); /* what is read behind its end is seen by the sanitizer */
        memcpy(exact, b, len);
        uint32_t una = t->snd_una, rcv = t->rcv_nxt;
        shs_engine_input(&engine, exact, len);
        free(exact);
        CHECK(shs_engine_check(&engine), ==, 0);
        t = shs_tcp_of(&engine, handle);
        CHECK(t == NULL, ==, 0);
        CHECK((int32_t)(t->snd_una - una), >=, 0);
        CHECK((int32_t)(t->rcv_nxt - rcv), >=, 0);
        engine.now += below(r, 300) * 1000000;
        shs_engine_timers(&engine);
        CHECK(shs_engine_check(&engine), ==, 0);
        long got = shs_tcp_recv(&engine, handle, buf, (uint32_t)below(r, 4096) + 1);
        CHECK(got, <=, (long)sizeof buf);
    }
    shs_tcp_abort(&engine, handle);
    CHECK(shs_engine_check(&engine), ==, 0);
    CHECK(engine.w->tcp_used + engine.w->seg_used, ==, 0);
}

/* Each call returns, and the sanitizer sees what it touches; what it does with nonsense does not matter. */
static void hostile_area(struct rng *r, uint8_t *area, uint8_t *queues)
{
    uint8_t b[SHS_SIM_MOST], buf[512];
    shs_engine_format(area, &size, rng_next(r), BEGIN);
    CHECK(shs_engine_attach(&engine, area, shs_engine_bytes(&size), queues, 32768, &device), ==, 0);
    engine.now = BEGIN;
    struct shs_tcp_image i = image(r, 4);
    uint64_t handle = shs_tcp_open(&engine, &i);
    memset(buf, 1, sizeof buf);
    for (uint32_t n = 0; n < 60; n++) {
        struct shs_tcp *t = &engine.tcp[(uint32_t)handle - 1];
        uint32_t len = near_segment(r, t, b);
        uint32_t *words = below(r, 2) ? (uint32_t *)(void *)t : (uint32_t *)(void *)area;
        uint64_t room_words = words == (uint32_t *)(void *)t ? sizeof *t / 4 : shs_engine_bytes(&size) / 4;
        words[below(r, room_words)] = below(r, 2) ? (uint32_t)below(r, 200) : (uint32_t)rng_next(r);
        t->family = below(r, 2) ? 4 : 6;
        if (below(r, 20) == 0)
            t->snd_nxt = t->snd_una - (uint32_t)below(r, 4); /* crossed: seldom come upon by chance */
        shs_engine_input(&engine, b, len);
        shs_tcp_send(&engine, handle, buf, sizeof buf);
        shs_tcp_recv(&engine, handle, buf, sizeof buf);
        engine.now += below(r, 400) * 1000000;
        shs_engine_timers(&engine);
        shs_engine_next(&engine);
    }
    shs_engine_rebuild(&engine);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv, 100);
    struct rng r = rng_of(1);
    uint8_t *area = malloc(shs_engine_bytes(&size)), *queues = calloc(1, 32768);
    for (uint32_t i = 0; i < RUNS * 10; i++)
        one_run(&r, area, queues);
    for (uint32_t i = 0; i < RUNS * 20; i++)
        hostile_area(&r, area, queues);
    free(area);
    free(queues);
    return 0;
}
