/*
 * The ring against a queue of records: random sizes and pieces, partial reads, peeks, the order K, growth, wrap of the index, shut.
 * The n-th byte pushed is byte_at(0, n), so the model needs to keep only where records end and which K they bear.
 */
#include "tcp.h"

#define MOST 300000
#define N_RECORDS 131072

struct record_model {
    uint64_t end, k;
};

static struct {
    uint64_t pushed, pulled, taken;           /* stream positions; kernel bytes taken by the reader */
    struct record_model record[N_RECORDS];    /* not wholly pulled: first to last - 1, modulo N_RECORDS */
    uint32_t first, last;
} model;

static struct shs_env env;
static struct shs_direction *dir;
static uint32_t me;

/* Cut memory into up to 8 pieces, empty ones among them. */
static int pieces(struct rng *r, uint8_t *buf, size_t len, struct iovec iov[8])
{
    int n = 1 + (int)below(r, 8);
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
    size_t len = size_upto(r, MOST);
    uint8_t *buf = malloc(len);
    struct iovec iov[8];
    struct shs_cursor cur;
    for (size_t i = 0; i < len; i++)
        buf[i] = byte_at(0, model.pushed + i);
    shs_cursor_init(&cur, iov, pieces(r, buf, len, iov));
    CHECK(cur.left, ==, len);
    /* while the reader is still in the chunk before, what there is of room is the writer's own guess */
    bool one_chunk = shs_chunk_unit(dir->wchunk) == shs_chunk_unit(dir->rchunk);
    size_t used = (size_t)shs_index_diff(shs_word_index(dir->word), shs_rd_index(dir->rd));
    bool fits = one_chunk && shs_record_size(len) + 16 <= shs_chunk_bytes(dir->wchunk) - used;
    long n = shs_ring_push(&env, dir, &cur);
    if (n == SHS_RING_FULL) {
        CHECK(fits, ==, false);
        CHECK(cur.left, ==, len);
        if (below(r, 4) == 0)
            shs_ring_grow(&env, dir, me);
    } else {
        CHECK(n, >, 0);
        CHECK(cur.left, ==, len - (size_t)n);
        if (fits)
            CHECK(n, ==, len);
        model.pushed += (uint64_t)n;
        model.record[model.last++ % N_RECORDS] = (struct record_model){model.pushed, dir->ksent};
        CHECK(model.last - model.first, <, N_RECORDS);
    }
    free(buf);
}

/* Bytes that come no later than `taken`. */
static size_t ready(void)
{
    uint64_t end = model.pulled;
    for (uint32_t i = model.first; i != model.last && model.record[i % N_RECORDS].k <= model.taken; i++)
        end = model.record[i % N_RECORDS].end;
    return (size_t)(end - model.pulled);
}

static void pull(struct rng *r)
{
    size_t want = size_upto(r, MOST), can = ready(), len = want < can ? want : can;
    bool peek = below(r, 5) == 0, empty = model.pulled == model.pushed;
    uint8_t *buf = malloc(want);
    struct iovec iov[8];
    struct shs_cursor cur;
    uint64_t need = 0, rd = dir->rd, behind = empty ? 0 : model.record[model.first % N_RECORDS].k;
    shs_cursor_init(&cur, iov, pieces(r, buf, want, iov));
    long n = shs_ring_pull(&env, dir, &cur, model.taken, peek, me, &need);
    if (empty) {
        CHECK(n, ==, SHS_RING_EMPTY);
    } else if (can == 0) {
        CHECK(n, ==, SHS_RING_BEHIND);
        CHECK(need, ==, behind - model.taken);
        if (below(r, 2))
            model.taken += 1 + below(r, need);
    } else {
        CHECK(n, >, 0);
        CHECK(n, <=, len); /* a peek may end at a change of chunks */
        if (!peek)
            CHECK(n, ==, len);
        CHECK(cur.left, ==, want - (size_t)n);
        for (size_t i = 0; i < (size_t)n; i++)
            CHECK(buf[i], ==, byte_at(0, model.pulled + i));
    }
    if (peek && n > 0 && shs_chunk_unit(dir->wchunk) == shs_chunk_unit(dir->rchunk) &&
        shs_index_diff(shs_rd_index(dir->rd), shs_rd_index(rd)) == 0)
        CHECK(dir->rd, ==, rd);
    if (n > 0 && !peek)
        model.pulled += (uint64_t)n;
    while (model.first != model.last && model.record[model.first % N_RECORDS].end <= model.pulled)
        model.first++;
    free(buf);
}

static void cannot_push(long why)
{
    uint8_t byte = 0;
    struct iovec iov = {&byte, 1};
    struct shs_cursor cur;
    uint64_t word = dir->word;
    shs_cursor_init(&cur, &iov, 1);
    CHECK(shs_ring_push(&env, dir, &cur), ==, why);
    CHECK(cur.left, ==, 1);
    CHECK(dir->word, ==, word);
}

static void shut_and_dead(struct world *w)
{
    CHECK(shs_ring_close(dir), ==, true);
    CHECK(shs_ring_close(dir), ==, false);
    cannot_push(SHS_RING_SHUT);
    CHECK(shs_ring_grow(&env, dir, me), ==, false);
    dir->word |= SHS_WORD_OPEN;
    dir->word += SHS_WORD_TAKER;
    cannot_push(SHS_RING_SHUT);
    dir->word -= SHS_WORD_TAKER;
    dir->word |= SHS_WORD_STICKY;
    cannot_push(SHS_RING_SHUT);
    dir->word &= ~SHS_WORD_STICKY;
    struct shs_env other;
    world_join(w, &other);
    dir->opener = other.slot1;
    world_leave(&other);
    cannot_push(SHS_RING_DEAD);
    dir->opener = env.slot1;
}

/* A fresh direction whose chunk begins at `base` and whose next record comes at `index`. */
static uint32_t begin(struct world *w, uint64_t base, uint64_t index)
{
    uint32_t pair1 = shs_pair_take(w->arena);
    struct shs_pair *pair = shs_pair_at(w->arena, pair1);
    pair->state = SHS_PAIR_LIVE;
    dir = &pair->dir[0];
    dir->rchunk = dir->wchunk = shs_chunk_pack((uint32_t)shs_units_take(&env, 0), 0, base);
    dir->word = (index & SHS_INDEX_MASK) | SHS_WORD_OPEN;
    dir->rd = shs_rd_pack(index & SHS_INDEX_MASK, 0);
    dir->opener = env.slot1;
    memset(&model, 0, sizeof model);
    return pair1;
}

static void run(struct world *w, struct rng *r, uint64_t base, uint64_t index, uint64_t ring_max, uint64_t until)
{
    env.opt.ring_max = ring_max;
    uint32_t pair1 = begin(w, base, index);
    uint64_t wrapped = 0, before = index;
    for (uint64_t step = 0; step < 200 || (model.pushed < until && step < 200000); step++) {
        uint64_t lean = step / 64 % 3; /* phases: mostly writing, mostly reading, both */
        uint64_t dice = below(r, 10);
        if (dice < (lean == 0 ? 7 : lean == 1 ? 2 : 5))
            push(r);
        else
            pull(r);
        if (below(r, 8) == 0)
            shs_store64(&dir->ksent, dir->ksent + below(r, 5000));
        if (below(r, 6) == 0)
            model.taken += below(r, dir->ksent - model.taken + 1);
        if (below(r, 20) == 0)
            CHECK(shs_ring_pending(&env, dir), ==, model.pushed - model.pulled);
        if (below(r, 100) == 0)
            shut_and_dead(w);
        wrapped += shs_word_index(dir->word) < before;
        before = shs_word_index(dir->word);
    }
    model.taken = dir->ksent;
    while (model.pulled < model.pushed)
        pull(r);
    CHECK(shs_ring_pending(&env, dir), ==, 0);
    if (index > SHS_INDEX_MASK - (1u << 20) && until > 4u << 20)
        CHECK(wrapped, ==, 1);
    if (ring_max == 1u << 20 && until > 4u << 20)
        CHECK(shs_chunk_log(dir->wchunk), ==, 6);
    if (ring_max == SHS_UNIT_BYTES)
        CHECK(shs_chunk_log(dir->wchunk), ==, 0);
    world_check_arena(w);
    shs_pair_drop(w->arena, pair1);
    CHECK(w->arena->units_used, ==, 0);
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
    const uint64_t end = SHS_INDEX_MASK + 1, far = 1ull << 40, many = 8u << 20;
    static const uint64_t largest[] = {16384, 65536, 262144, 1048576};
    for (size_t i = 0; i < sizeof largest / sizeof *largest; i++) {
        run(&w, &r, 0, 0, largest[i], many);
        run(&w, &r, end - 40000 / 16 * 16, end - 32768, largest[i], many);
        run(&w, &r, 4096, 4096 + far - 65536, largest[i], many);
        run(&w, &r, end - far + 16, 0, largest[i], many); /* both: the base far behind, across the wrap */
    }
    for (int i = 0; i < 40; i++)
        run(&w, &r, below(&r, end) & ~15ull, (end - below(&r, 1 << 17)) & ~15ull, largest[below(&r, 4)], below(&r, 1 << 20));
    world_leave(&env);
    world_drop(&w);
    return 0;
}
