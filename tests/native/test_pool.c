/*
 * An engine whose records of segments in flight are all held by what its connections send: acknowledgments that come are processed, and give them
 * back; data that comes is taken and acknowledged meanwhile; every connection comes to its end, however few records there are and whatever is lost
 * under way. The peer has many, or as few.
 */
#include "check.h"

#include "link/sim.h"

#define CONNECTIONS 8
#define QUEUE 16384
#define TOTAL 20000
#define KEPT 512

struct side {
    struct shs_engine engine;
    struct shs_device device;
    uint64_t handle[CONNECTIONS], sent[CONNECTIONS], received[CONNECTIONS];
    uint32_t first, count; /* packets that it has sent, not delivered yet: a ring */
    uint32_t len[KEPT];
    uint8_t packet[KEPT][SHS_SIM_MOST];
    uint8_t area[400000] __attribute__((aligned(64)));
    uint8_t queues[CONNECTIONS * 2 * QUEUE];
};

static struct side side[2];
static uint64_t now = 5000000000ull;

static uint8_t *room(void *dev, uint32_t len)
{
    struct side *s = dev;
    return s->count < KEPT && len <= SHS_SIM_MOST ? s->packet[(s->first + s->count) % KEPT] : NULL;
}

static void sent(void *dev, uint32_t len)
{
    struct side *s = dev;
    s->len[(s->first + s->count++) % KEPT] = len;
}

static uint8_t byte_at(uint32_t from, uint32_t c, uint64_t at)
{
    return (uint8_t)(mix(at / 8 + from * 7919 + c * 104729) >> at % 8 * 8);
}

static void open_side(uint32_t i, struct rng *r, uint32_t n_seg, uint32_t flags, uint32_t iss[2][CONNECTIONS])
{
    struct side *s = &side[i];
    const struct shs_engine_size size = {.n_tcp = CONNECTIONS, .n_udp = 1, .n_seg = n_seg, .n_buckets = 8};
    memset(s, 0, sizeof *s);
    s->device = (struct shs_device){.room = room, .send = sent, .dev = s};
    CHECK(shs_engine_bytes(&size), <=, sizeof s->area);
    shs_engine_format(s->area, &size, rng_next(r), now);
    CHECK(shs_engine_attach(&s->engine, s->area, sizeof s->area, s->queues, sizeof s->queues, &s->device), ==, 0);
    s->engine.now = now;
    for (uint32_t c = 0; c < CONNECTIONS; c++) {
        struct shs_tcp_image image = {
            .family = 4,
            .state = SHS_TCP_ESTABLISHED,
            .flags = flags,
            .lport = (uint16_t)(1000 + c + 100 * i),
            .rport = (uint16_t)(1000 + c + 100 * !i),
            .snd_una = iss[i][c],
            .snd_nxt = iss[i][c],
            .rcv_nxt = iss[!i][c],
            .snd_wl1 = iss[!i][c],
            .rcv_wup = iss[!i][c],
            .snd_wnd = QUEUE,
            .rcv_wnd = QUEUE,
            .mss = 1000,
            .mtu = 1500,
            .srtt_us = 2000,
            .tx_off = (uint64_t)c * 2 * QUEUE,
            .rx_off = (uint64_t)(c * 2 + 1) * QUEUE,
            .tx_size = QUEUE,
            .rx_size = QUEUE,
        };
        shs_sim_address(image.laddr, 4, i);
        shs_sim_address(image.raddr, 4, !i);
        s->handle[c] = shs_tcp_open(&s->engine, &image);
        CHECK(s->handle[c], !=, 0);
    }
}

static void drive(uint32_t i)
{
    struct side *s = &side[i];
    uint8_t buf[512];
    for (uint32_t c = 0; c < CONNECTIONS; c++) {
        uint32_t n = (uint32_t)shs_min64(sizeof buf, TOTAL - s->sent[c]);
        for (uint32_t k = 0; k < n; k++)
            buf[k] = byte_at(i, c, s->sent[c] + k);
        long took = n ? shs_tcp_send(&s->engine, s->handle[c], buf, n) : 0;
        CHECK(took >= 0 || took == -EAGAIN, ==, true);
        s->sent[c] += took > 0 ? (uint64_t)took : 0;
        long got = shs_tcp_recv(&s->engine, s->handle[c], buf, sizeof buf);
        CHECK(got > 0 || got == -EAGAIN, ==, true);
        for (long k = 0; k < got; k++)
            CHECK(buf[k], ==, byte_at(!i, c, s->received[c] + (uint64_t)k));
        s->received[c] += got > 0 ? (uint64_t)got : 0;
    }
}

static bool over(void)
{
    for (uint32_t c = 0; c < CONNECTIONS; c++)
        if (side[0].received[c] < TOTAL || side[1].received[c] < TOTAL)
            return false;
    return true;
}

/* `lost`: of 100 packets. */
static void conversation(struct rng *r, uint32_t n_seg, uint32_t flags, uint32_t lost)
{
    uint32_t iss[2][CONNECTIONS];
    for (uint32_t c = 0; c < 2 * CONNECTIONS; c++)
        iss[c / CONNECTIONS][c % CONNECTIONS] = (uint32_t)rng_next(r);
    open_side(0, r, n_seg, flags, iss);
    open_side(1, r, below(r, 2) ? 512 : n_seg, flags, iss);
    uint64_t began = now, until = now + 600000000000ull;
    while (!over()) {
        CHECK(now, <, until);
        for (uint32_t i = 0; i < 2; i++) {
            struct side *s = &side[i], *other = &side[!i];
            s->engine.now = now;
            while (other->count) {
                uint32_t at = other->first;
                other->first = (other->first + 1) % KEPT;
                other->count--;
                if (below(r, 100) >= lost)
                    shs_engine_input(&s->engine, other->packet[at], other->len[at]);
            }
            drive(i);
            shs_engine_timers(&s->engine);
            CHECK(shs_engine_check(&s->engine), ==, 0);
        }
        uint64_t next = shs_min64(shs_engine_next(&side[0].engine), shs_engine_next(&side[1].engine));
        now = side[0].count || side[1].count || next <= now ? now + 500000 : shs_min64(next, now + 40000000);
    }
    fprintf(stderr, "%u records, %u of 100 lost: %.1f s\n", n_seg, lost, (double)(now - began) / 1e9);
    CHECK(side[0].engine.w->counters[SHS_WCTR_NO_TXSEG], >, 0);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv, 60);
    struct rng r = rng_of(1);
    static const uint32_t sizes[] = {1, 2, 3, 5, 7};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (uint32_t lost = 0; lost <= 10; lost += 5)
            conversation(&r, sizes[i], below(&r, 2) ? SHS_TF_SACK | SHS_TF_TS : 0, lost);
    return 0;
}
