/*
 * The ring's datagram variant against a queue: random sizes and pieces, empty ones, both kinds of source, too little room to receive, peeks,
 * growth, wrap of the index. A datagram is never cut, and what is not taken of it is gone.
 */
#include "world.h"

#define MOST 40000
#define N_QUEUE 131072

struct one {
    uint32_t len, kind;
    uint64_t tag, key;
};

static struct one queue[N_QUEUE];
static uint64_t first, last;
static struct shs_env env;
static struct shs_direction *dir;
static uint32_t me;

static uint8_t byte_of(uint64_t key, uint64_t i)
{
    return (uint8_t)mix(key + i / 8 * 0x9e3779b97f4a7c15u) + (uint8_t)(i % 8);
}

static int pieces(struct rng *r, uint8_t *buf, size_t len, struct iovec iov[8])
{
    int n = 1 + (int)below(r, 7);
    for (int i = 0; i < n; i++) {
        size_t here = i == n - 1 ? len : below(r, 3) ? (size_t)below(r, len + 1) : 0;
        iov[i] = (struct iovec){buf, here};
        buf += here;
        len -= here;
    }
    return n;
}

static void push(struct rng *r)
{
    struct one o = {(uint32_t)(below(r, 10) ? size_upto(r, MOST) : 0), below(r, 3) ? SHS_REC_DATAGRAM : SHS_REC_DATAGRAM6, 0, rng_next(r)};
    o.tag = (1 + below(r, 65535)) << 32 | (o.kind == SHS_REC_DATAGRAM ? below(r, 1u << 31) + 1 : 0);
    size_t prefix = o.kind == SHS_REC_DATAGRAM6 ? 16 : 0, len = o.len + prefix;
    uint8_t *buf = malloc(len + 1);
    struct iovec iov[8];
    struct shs_cursor cur;
    for (size_t i = 0; i < len; i++)
        buf[i] = byte_of(o.key, i);
    shs_cursor_init(&cur, iov, pieces(r, buf, len, iov));
    uint64_t word = dir->word;
    bool one_chunk = shs_chunk_unit(dir->wchunk) == shs_chunk_unit(dir->rchunk);
    size_t used = (size_t)shs_index_diff(shs_word_index(word), shs_rd_index(dir->rd));
    bool fits = one_chunk && shs_record_size(len) + 16 <= shs_chunk_bytes(dir->wchunk) - used;
    struct shs_cursor again = cur;
    long n = shs_ring_push_datagram(&env, dir, &cur, o.kind, o.tag, false);
    if (n == SHS_RING_FULL) {
        CHECK(fits, ==, false);
        CHECK(dir->word, ==, word);
        if (below(r, 3) == 0)
            n = shs_ring_grow_datagram(&env, dir, &again, o.kind, o.tag, me, false);
    }
    if (n == SHS_RING_FULL) {
        CHECK(dir->word, ==, word);
    } else {
        CHECK(n, ==, len); /* whole, or not at all */
        queue[last++ % N_QUEUE] = o;
        CHECK(last - first, <, N_QUEUE);
    }
    free(buf);
}

static void pull(struct rng *r)
{
    size_t room = below(r, 4) ? MOST : (size_t)below(r, 2000);
    bool peek = below(r, 5) == 0;
    uint8_t *buf = malloc(room + 1);
    struct iovec iov[8];
    struct shs_cursor cur;
    struct shs_arrived a;
    memset(buf, 0xee, room + 1);
    shs_cursor_init(&cur, iov, pieces(r, buf, room, iov));
    long n = shs_ring_pull_datagram(&env, dir, &cur, peek, me, &a);
    if (first == last) {
        CHECK(n, ==, SHS_RING_EMPTY);
    } else {
        struct one *o = &queue[first % N_QUEUE];
        size_t prefix = o->kind == SHS_REC_DATAGRAM6 ? 16 : 0, got = o->len < room ? o->len : room;
        CHECK(n, ==, 0);
        CHECK(a.full, ==, o->len);
        CHECK(a.kind, ==, o->kind);
        CHECK(a.tag, ==, o->tag);
        CHECK(cur.left, ==, room - got);
        for (size_t i = 0; i < prefix; i++)
            CHECK(a.addr[i], ==, byte_of(o->key, i));
        for (size_t i = 0; i < got; i++)
            CHECK(buf[i], ==, byte_of(o->key, prefix + i));
        CHECK(buf[got], ==, 0xee);
        first += !peek;
    }
    CHECK(shs_ring_waiting(dir), ==, first != last);
    free(buf);
}

static void begin(struct world *w, uint64_t base, uint64_t index, uint32_t *pair1)
{
    *pair1 = shs_pair_take(w->arena);
    struct shs_pair *pair = shs_pair_at(w->arena, *pair1);
    pair->state = SHS_PAIR_LIVE;
    dir = &pair->dir[0];
    dir->rchunk = dir->wchunk = shs_chunk_pack((uint32_t)shs_units_take(&env, 0), 0, base);
    dir->word = (index & SHS_INDEX_MASK) | SHS_WORD_OPEN;
    dir->rd = shs_rd_pack(index & SHS_INDEX_MASK, 0);
    dir->wr_seen = index & SHS_INDEX_MASK;
    dir->opener = env.slot1;
    first = last = 0;
}

static void run(struct world *w, struct rng *r, uint64_t base, uint64_t index, uint64_t ring_max)
{
    uint32_t pair1;
    env.opt.ring_max = ring_max;
    begin(w, base, index, &pair1);
    for (uint64_t step = 0; step < 6000; step++) {
        uint64_t lean = step / 64 % 3;
        if (below(r, 10) < (lean == 0 ? 7 : lean == 1 ? 2 : 5))
            push(r);
        else
            pull(r);
    }
    while (first < last)
        pull(r);
    world_check_arena(w);
    shs_pair_drop(w->arena, pair1);
    CHECK(w->arena->units_used, ==, 0);
}

/* What another process may have written makes no sense: nothing is read beyond the ring. */
static void hostile(struct world *w, struct rng *r)
{
    uint32_t pair1;
    env.opt.ring_max = 1 << 20;
    for (int i = 0; i < 3000; i++) {
        begin(w, 0, 0, &pair1);
        for (int k = 0; k < 5; k++)
            push(r);
        uint8_t *ring = shs_unit_memory(&env, shs_chunk_unit(dir->rchunk));
        struct shs_record *rec = (struct shs_record *)ring;
        if (below(r, 2))
            rec->len = (uint32_t)rng_next(r) >> below(r, 32);
        if (below(r, 2))
            rec->kind = (uint32_t)below(r, 6);
        if (below(r, 3) == 0)
            dir->word = (rng_next(r) & SHS_INDEX_MASK) | SHS_WORD_OPEN;
        if (below(r, 3) == 0)
            dir->wr_seen = rng_next(r) & SHS_INDEX_MASK;
        for (int k = 0; k < 8; k++) {
            uint8_t buf[64];
            struct iovec iov = {buf, sizeof buf};
            struct shs_cursor cur;
            struct shs_arrived a;
            shs_cursor_init(&cur, &iov, 1);
            long n = shs_ring_pull_datagram(&env, dir, &cur, false, me, &a);
            CHECK(n == 0 || n == SHS_RING_EMPTY || n == SHS_RING_BROKEN, ==, true);
        }
        shs_pair_drop(w->arena, pair1);
    }
}

int main(int argc, char **argv)
{
    struct world w;
    check_begin(argc, argv, 60);
    world_make(&w, SHS_N_UNITS);
    world_join(&w, &env);
    world_guard(&env);
    me = world_who(&env, 1).lock_word;
    struct rng r = rng_of(1);
    const uint64_t end = SHS_INDEX_MASK + 1, far = 1ull << 40;
    static const uint64_t largest[] = {16384, 65536, 262144, 1048576};
    for (size_t i = 0; i < sizeof largest / sizeof *largest; i++) {
        run(&w, &r, 0, 0, largest[i]);
        run(&w, &r, end - 40000 / 16 * 16, end - 32768, largest[i]);
        run(&w, &r, 4096, 4096 + far - 65536, largest[i]);
    }
    hostile(&w, &r);
    world_leave(&env);
    world_drop(&w);
    return 0;
}
