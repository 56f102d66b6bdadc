/*
 * Endpoint records and the flow table against a plain list: find, mate, stale records, exhaustion, rebuild; and the hash by fixed
 * values, worked out from sharedstack/inspection/flows.py, which states it a second time.
 */
#include "tcp.h"

#define MOST 3000

static struct {
    struct shs_flow flow;
    uint64_t cookie;
    uint32_t ep1; /* 0: not in use */
    bool paired;
} model[MOST];

static struct world world;

static struct shs_flow v4(uint32_t laddr, uint16_t lport, uint32_t raddr, uint16_t rport)
{
    struct shs_flow f = {.lport = lport, .rport = rport, .family = AF_INET};
    f.laddr[10] = f.laddr[11] = f.raddr[10] = f.raddr[11] = 0xff;
    for (int i = 0; i < 4; i++) {
        f.laddr[12 + i] = (uint8_t)(laddr >> (24 - 8 * i));
        f.raddr[12 + i] = (uint8_t)(raddr >> (24 - 8 * i));
    }
    return f;
}

static struct shs_flow mirror(const struct shs_flow *f)
{
    struct shs_flow m = {.lport = f->rport, .rport = f->lport, .family = f->family};
    memcpy(m.laddr, f->raddr, 16);
    memcpy(m.raddr, f->laddr, 16);
    return m;
}

static bool same(const struct shs_flow *a, const struct shs_flow *b)
{
    return a->lport == b->lport && a->rport == b->rport && a->family == b->family && !memcmp(a->laddr, b->laddr, 16) &&
           !memcmp(a->raddr, b->raddr, 16);
}

static void bucket_is(struct shs_flow f, uint32_t bucket)
{
    struct shs_flow m = mirror(&f);
    CHECK(shs_flow_bucket(&f), ==, bucket);
    CHECK(shs_flow_bucket(&m), ==, bucket);
}

static void fixed_values(void)
{
    struct shs_flow six = {.lport = 443, .rport = 51234, .family = AF_INET6}, all = {.lport = 258, .rport = 513, .family = AF_INET6};
    six.laddr[15] = six.raddr[15] = 1;
    for (int i = 0; i < 16; i++) {
        all.laddr[i] = (uint8_t)i;
        all.raddr[i] = (uint8_t)(16 + i);
    }
    bucket_is(v4(0x7f000001, 80, 0x7f000001, 40000), 16291);
    bucket_is(v4(0x0a010203, 65535, 0x0a010204, 1), 2837);
    bucket_is(six, 11085);
    bucket_is(all, 12761);
    bucket_is(v4(0x7f000001, 256, 0x7f000001, 1), 1549);
}

/* Few addresses and ports, so that much is shared, and no end is its own other end. */
static struct shs_flow random_flow(struct rng *r)
{
    struct shs_flow f;
    do {
        f = v4(0x7f000001 + (uint32_t)below(r, 2), (uint16_t)(1 + below(r, 20)), 0x7f000001 + (uint32_t)below(r, 2),
               (uint16_t)(1 + below(r, 20)));
        f.family = below(r, 4) ? AF_INET : AF_INET6;
    } while (f.lport == f.rport && !memcmp(f.laddr, f.raddr, 16));
    return f;
}

/* Every chain is as the records say: each live record once in its bucket, nothing else anywhere. */
static void check_table(uint32_t used)
{
    static uint8_t seen[SHS_N_ENDPOINTS + 1];
    uint32_t sum = 0;
    memset(seen, 0, sizeof seen);
    for (uint32_t b = 0; b < SHS_N_FLOW_BUCKETS; b++)
        for (uint32_t ep1 = *shs_bucket_at(world.stack, b); ep1; ep1 = shs_endpoint_at(world.stack, ep1)->flow_next) {
            CHECK(seen[ep1]++, ==, 0);
            CHECK(shs_endpoint_at(world.stack, ep1)->state, ==, SHS_EP_LIVE);
            struct shs_endpoint *ep = shs_endpoint_at(world.stack, ep1);
            struct shs_flow f = {.lport = ep->lport, .rport = ep->rport, .family = ep->family};
            memcpy(f.laddr, ep->laddr, 16);
            memcpy(f.raddr, ep->raddr, 16);
            CHECK(shs_flow_bucket(&f), ==, b);
            sum++;
        }
    CHECK(sum, ==, used);
    CHECK(world.stack->endpoints_used, ==, used);
}

static void look_up(struct rng *r)
{
    struct shs_flow f = random_flow(r), m = mirror(&f);
    uint64_t cookie = 1 + below(r, 500);
    uint32_t n_stale = 0, n_mate = 0, stale = 0;
    uint32_t mate = shs_endpoint_mate(world.stack, &f, cookie, &stale), found = shs_endpoint_find(world.stack, &f, cookie), want = 0;
    for (uint32_t i = 0; i < MOST; i++) {
        if (!model[i].ep1)
            continue;
        if (model[i].cookie == cookie) {
            want = same(&model[i].flow, &f) || same(&model[i].flow, &m) ? model[i].ep1 : want;
            continue;
        }
        n_stale += same(&model[i].flow, &f);
        n_mate += same(&model[i].flow, &m) && !model[i].paired;
        if (model[i].ep1 == stale)
            CHECK(same(&model[i].flow, &f), ==, true);
        if (model[i].ep1 == mate)
            CHECK(same(&model[i].flow, &m) && !model[i].paired, ==, true);
    }
    CHECK(stale != 0, ==, n_stale != 0);
    CHECK(mate != 0, ==, n_mate != 0);
    if (want || found) /* another flow of the bucket may bear the cookie in this test, never in the kernel */
        CHECK(found != 0, ==, true);
}

static uint32_t take(struct rng *r, uint32_t i, uint64_t cookie)
{
    model[i].flow = random_flow(r);
    model[i].cookie = cookie;
    model[i].paired = below(r, 3) == 0;
    uint32_t ep1 = shs_endpoint_take(world.stack, &model[i].flow);
    struct shs_endpoint *ep = shs_endpoint_at(world.stack, ep1);
    CHECK(ep->state, ==, SHS_EP_FREE);
    CHECK(ep->gen, >, 0);
    CHECK(ep->flags | ep->pair | ep->why_rx | (uint32_t)ep->rx_local, ==, 0);
    ep->cookie = cookie;
    ep->pair = model[i].paired;
    shs_store32(&ep->state, SHS_EP_LIVE);
    return model[i].ep1 = ep1;
}

int main(int argc, char **argv)
{
    check_begin(argc, argv, 60);
    fixed_values();
    world_make(&world, 64);
    struct rng r = rng_of(1);
    uint32_t used = 0;
    for (int step = 0; step < 12000; step++) {
        uint32_t i = (uint32_t)below(&r, step < 4000 ? 200 : MOST);
        if (!model[i].ep1) {
            take(&r, i, 1 + below(&r, 500));
            used++;
        } else if (below(&r, 3)) {
            shs_endpoint_drop(world.stack, model[i].ep1);
            shs_endpoint_drop(world.stack, model[i].ep1); /* free already */
            model[i].ep1 = 0;
            used--;
        }
        if (step % 8 == 0)
            look_up(&r);
        if (step % 500 == 0) {
            check_table(used);
            shs_stack_rebuild(world.stack);
            check_table(used);
        }
    }
    for (; used < SHS_N_ENDPOINTS; used++) {
        uint32_t ep1 = take(&r, MOST - 1, used + 1000);
        CHECK(ep1, !=, 0);
        CHECK(shs_endpoint_find(world.stack, &model[MOST - 1].flow, used + 1000), ==, ep1);
    }
    CHECK(shs_endpoint_take(world.stack, &model[0].flow), ==, 0);
    check_table(used);
    shs_endpoint_drop(world.stack, 777);
    CHECK(shs_endpoint_take(world.stack, &model[0].flow), ==, 777);
    CHECK(shs_endpoint_at(world.stack, 0) == NULL, ==, true);
    CHECK(shs_endpoint_at(world.stack, SHS_N_ENDPOINTS + 1) == NULL, ==, true);
    world_drop(&world);
    return 0;
}
