/*
 * What the other end may write into a ring: indices, records and switches that make no sense. Each case runs in a child: whatever it
 * returns, it must return soon, and touch no memory but the bulk windows (which stand between pages that nobody may touch).
 * All cases are tried; those that fail are named.
 */
#include "tcp.h"

#define LAST_UNIT (SHS_WINDOW_BYTES / SHS_UNIT_BYTES - 1) /* of the first window */

static struct world world;
static struct shs_env env;
static struct shs_direction *dir;
static uint32_t me;

static struct shs_record *record(uint64_t at)
{
    return (struct shs_record *)(shs_unit_memory(&env, shs_chunk_unit(dir->rchunk)) + at);
}

static void set_index(uint64_t index)
{
    dir->word = (index & SHS_INDEX_MASK) | SHS_WORD_OPEN;
}

/* As a reader that meets all this: until the ring says that it is empty or broken, at most some times. */
static void read_all(void)
{
    uint8_t *buf = malloc(100000);
    struct iovec iov = {buf, 100000};
    for (int i = 0; i < 50; i++) {
        struct shs_cursor cur;
        uint64_t need = 0;
        shs_cursor_init(&cur, &iov, 1);
        long n = shs_ring_pull(&env, dir, &cur, 0, i % 4 == 0, me, &need);
        CHECK(n, <=, 100000);
        if (n == SHS_RING_BROKEN || n == SHS_RING_EMPTY || n == SHS_RING_BEHIND)
            break;
    }
    free(buf);
}

/* SIOCINQ, and what waits for its answer. */
static void ask_pending(void)
{
    CHECK(shs_ring_pending(&env, dir), <=, 64 << 20);
}

static void write_some(void)
{
    uint8_t *buf = calloc(1, 40000);
    struct iovec iov = {buf, 40000};
    for (int i = 0; i < 50; i++) {
        struct shs_cursor cur;
        shs_cursor_init(&cur, &iov, 1);
        if (shs_ring_push(&env, dir, &cur) == SHS_RING_BROKEN)
            break;
        shs_ring_grow(&env, dir, me);
    }
    free(buf);
}

static void length_beyond_ring(void)
{
    *record(0) = (struct shs_record){.len = 0xfffffff0u, .kind = SHS_REC_DATA};
    set_index(64);
}

static void length_beyond_index(void)
{
    *record(0) = (struct shs_record){.len = 16000, .kind = SHS_REC_DATA};
    set_index(64);
}

/* A ring full of nothing: the index claims more records than a ring can have. */
static void index_far_ahead(void)
{
    set_index(1ull << 44);
}

static void index_half_way_round(void)
{
    set_index(1ull << 45);
}

static void index_unaligned(void)
{
    set_index(40);
}

static void index_behind(void)
{
    dir->rd = shs_rd_pack(4096, 0);
    set_index(1024);
}

/* A chunk that begins in the window and ends beyond it. */
static void switch_across_window(void)
{
    uint64_t next = shs_chunk_pack(LAST_UNIT, 6, 16);
    *record(0) = (struct shs_record){.kind = SHS_REC_SWITCH, .ksent = next};
    struct shs_record *there = (struct shs_record *)shs_unit_memory(&env, LAST_UNIT);
    *there = (struct shs_record){.len = 90000, .kind = SHS_REC_DATA};
    set_index(16 + 90016);
}

static void switch_to_huge(void)
{
    *record(0) = (struct shs_record){.kind = SHS_REC_SWITCH, .ksent = shs_chunk_pack(0, 15, 16)};
    set_index(1 << 28);
}

static void switch_to_itself(void)
{
    *record(0) = (struct shs_record){.kind = SHS_REC_SWITCH, .ksent = dir->rchunk};
    set_index(64);
}

static void switch_to_nothing(void)
{
    *record(0) = (struct shs_record){.kind = SHS_REC_SWITCH, .ksent = 0};
    set_index(64);
}

/* Two chunks that name each other for ever. */
static void switch_in_circles(void)
{
    *record(0) = (struct shs_record){.kind = SHS_REC_SWITCH, .ksent = shs_chunk_pack(7, 0, 16)};
    struct shs_record *there = (struct shs_record *)shs_unit_memory(&env, 7);
    *there = (struct shs_record){.kind = SHS_REC_SWITCH, .ksent = dir->rchunk};
    set_index(64);
}

/* A chunk that begins 2^44 bytes ago, full of empty records. */
static void switch_far_back(void)
{
    *record(0) = (struct shs_record){.kind = SHS_REC_SWITCH, .ksent = shs_chunk_pack(8, 2, SHS_INDEX_MASK + 1 - (1ull << 44))};
    memset(shs_unit_memory(&env, 8), 0, 4 * SHS_UNIT_BYTES);
    set_index(64);
}

/* Written by the reader, believed by the writer. */
static void reader_chunk_across_window(void)
{
    dir->wchunk = dir->rchunk = shs_chunk_pack(LAST_UNIT, 6, 0);
    set_index(16384 * 3);
    dir->rd = shs_rd_pack(16384 * 3, 0);
}

static void reader_chunk_huge(void)
{
    dir->wchunk = shs_chunk_pack(0, 0, 1024); /* ahead of the index: rchunk is believed */
    dir->rchunk = shs_chunk_pack(LAST_UNIT, 15, 0);
}

static void reader_ahead(void)
{
    dir->rd = shs_rd_pack(1ull << 40, 77);
}

static void random_ring(void (*use)(void))
{
    struct rng r = rng_of(1);
    uint8_t *ring = (uint8_t *)record(0);
    for (int n = 0; n < 200; n++) {
        uint64_t at = 0;
        while (at < 4096) {
            struct shs_record *rec = (struct shs_record *)(ring + at);
            *rec = (struct shs_record){(uint32_t)below(&r, below(&r, 4) ? 300 : 1ull << 32), (uint32_t)below(&r, 40) == 0,
                                       below(&r, 8) ? 0 : rng_next(&r)};
            if (rec->kind == SHS_REC_SWITCH && below(&r, 2))
                rec->ksent = shs_chunk_pack((uint32_t)below(&r, 600), (unsigned)below(&r, 3) * 2, at + 16);
            at += shs_record_size(rec->len) < 4096 ? shs_record_size(rec->len) : 16;
        }
        dir->rd = shs_rd_pack(0, (uint32_t)(below(&r, 3) ? 0 : below(&r, 400)));
        dir->rchunk = dir->wchunk = shs_chunk_pack(0, 0, 0);
        set_index(below(&r, 2) ? at : below(&r, 8192));
        use();
    }
}

static void random_pull(void)
{
    random_ring(read_all);
}

static void random_pending(void)
{
    random_ring(ask_pending);
}

struct hostile {
    const char *name;
    void (*write)(void), (*use)(void);
};

#define READER(name)                         \
    {#name ", pull", name, read_all},        \
    {                                        \
        #name ", pending", name, ask_pending \
    }
#define WRITER(name) {#name ", push", name, write_some}

static void nothing(void)
{
}

static const struct hostile cases[] = {
    READER(length_beyond_ring),
    READER(length_beyond_index),
    READER(index_far_ahead),
    READER(index_half_way_round),
    READER(index_unaligned),
    READER(index_behind),
    READER(switch_across_window),
    READER(switch_to_huge),
    READER(switch_to_itself),
    READER(switch_to_nothing),
    READER(switch_in_circles),
    WRITER(reader_chunk_across_window),
    WRITER(reader_chunk_huge),
    WRITER(reader_ahead),
    WRITER(index_unaligned),
    {"switch_far_back, pending", switch_far_back, ask_pending},
    {"random records, pull", random_pull, nothing},
    {"random records, pending", random_pending, nothing},
};

int main(int argc, char **argv)
{
    int bad = 0;
    check_begin(argc, argv, 100);
    world_make(&world, SHS_N_UNITS);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pid_t pid = fork();
        CHECK(pid, >=, 0);
        if (pid == 0) {
            signal(SIGALRM, SIG_DFL);
            check_child(1);
            world_join(&world, &env);
            world_guard(&env);
            me = world_who(&env, 1).lock_word;
            struct shs_pair *pair = shs_pair_at(world.arena, shs_pair_take(world.arena));
            pair->state = SHS_PAIR_LIVE;
            dir = &pair->dir[0];
            dir->rchunk = dir->wchunk = shs_chunk_pack(0, 0, 0);
            dir->opener = env.slot1;
            memset(record(0), 0, SHS_UNIT_BYTES);
            set_index(0);
            cases[i].write();
            cases[i].use();
            _exit(0);
        }
        int status = 0;
        CHECK(waitpid(pid, &status, 0), ==, pid);
        world.arena->lock = 0; /* of a child that was stopped inside */
        if (status == 0)
            continue;
        bad++;
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
            fprintf(stderr, "%s: does not come to an end\n", cases[i].name);
        else
            fprintf(stderr, "%s: ended with wait status %#x\n", cases[i].name, (unsigned)status);
    }
    CHECK(bad, ==, 0);
    return 0;
}
