/*
 * Deaths at chosen places, put together by hand: the lock words, counts and notes are those that a process killed there leaves behind.
 * A survivor of the same end goes on: the stream stays in order, and nothing is leaked once the dead is reaped. All cases are tried;
 * `test_repair SEED N` tries case N only.
 */
#include "repair.h"

static struct world world;
static struct shs_env envs[3], *env[2] = {&envs[0], &envs[1]};
static struct link l;
static uint64_t sent, got, looked;
static uint8_t buf[300000];

/* A participant that has died, as far as its slot says. */
static uint32_t dead_slot(void)
{
    uint32_t *slot1 = world_map(4096), is;
    pid_t pid = fork();
    if (pid == 0) {
        struct shs_env mine;
        check_child(10);
        world_join(&world, &mine);
        *slot1 = mine.slot1;
        kill(getpid(), SIGKILL);
    }
    waitpid(pid, NULL, 0);
    is = *slot1;
    munmap(slot1, 4096);
    CHECK(is, !=, 0);
    CHECK(shs_slot_alive(world.stack, is), ==, false);
    return is;
}

static long send_some(size_t len)
{
    struct shs_who who = world_who(env[0], 1);
    for (size_t i = 0; i < len; i++)
        buf[i] = byte_at(0, sent + i);
    long r = link_send(env[0], &who, &l.end[0], buf, len, MSG_DONTWAIT);
    if (r > 0)
        sent += (uint64_t)r;
    return r;
}

static long recv_some(size_t len)
{
    struct shs_who who = world_who(env[1], 1);
    looked = 0;
    long r = link_recv(env[1], &who, &l.end[1], buf, len, 0, &looked);
    for (long i = 0; i < r; i++)
        CHECK(buf[i], ==, byte_at(0, got + (uint64_t)i));
    if (r > 0)
        got += (uint64_t)r;
    return r;
}

static void recv_all(void)
{
    uint64_t limit = shs_now() + 3000000000ull;
    while (got < sent) {
        CHECK(shs_now(), <, limit);
        long r = recv_some(sizeof buf);
        if (r == -EAGAIN)
            usleep(200);
        else
            CHECK(r, >, 0);
    }
}

/* Ring records, then kernel bytes, then ring records again: whoever mistakes `taken` mixes them up. */
static void begin_mixed(void)
{
    sent = got = 0;
    link_make(&l, env, AF_INET, true);
    env[0]->opt.ring_max = SHS_UNIT_BYTES;
    CHECK(recv_some(100), ==, -EAGAIN);
    send_some(7000);
    send_some(7000);
    CHECK(send_some(7777), ==, 7777); /* does not fit: by the kernel */
    CHECK(l.end[0].ep->tx_kernel, ==, 7777);
    recv_some(10000);
    send_some(5000);
    CHECK(l.end[0].ep->tx_local, ==, 19000);
    CHECK(shs_word_pushable(l.end[0].tx->word), ==, true);
}

static void end_mixed(const char *what, uint32_t slot1)
{
    recv_all();
    if (slot1)
        reap(&world, slot1);
    fprintf(stderr, "%s: in order\n", what);
    link_drop(&l, env);
    CHECK(leaked_units(&world), ==, 0);
    CHECK(world.arena->units_used, ==, 0);
}

static void reader_died_inside(bool fin, bool reap_first)
{
    begin_mixed();
    CHECK(recv_some(4000), ==, 4000); /* the head record waits for kernel bytes now */
    uint32_t slot1 = dead_slot();
    CHECK(recv(l.fd[1], buf, 500, 0), ==, 500); /* it took some of these and did not come to count them */
    got += 500;
    if (fin) {
        struct shs_who who = world_who(env[0], 1);
        CHECK(shs_end_shutdown(env[0], &who, &l.end[0], SHUT_WR), ==, 0);
        usleep(2000);
    }
    l.end[1].rx->rlock = slot1 << SHS_LOCK_SLOT_SHIFT | 2;
    if (reap_first)
        reap(&world, slot1);
    end_mixed(fin ? "reader died inside, FIN under way" : "reader died inside", reap_first ? 0 : slot1);
}

static void writer_died_inside(bool reap_first)
{
    begin_mixed();
    uint32_t slot1 = dead_slot();
    /* it gave bytes to the kernel and did not come to count them */
    for (size_t i = 0; i < 3000; i++)
        buf[i] = byte_at(0, sent + i);
    CHECK(send(l.fd[0], buf, 3000, 0), ==, 3000);
    sent += 3000;
    l.end[0].tx->wlock = slot1 << SHS_LOCK_SLOT_SHIFT | 2;
    if (reap_first)
        reap(&world, slot1);
    send_some(1000);
    send_some(2000);
    CHECK(l.end[0].tx->ksent, ==, 10777);
    end_mixed("writer died inside", reap_first ? 0 : slot1);
}

/* It had named the larger chunk, and did not come to publish the switch. */
static void writer_died_growing(bool goes_on)
{
    begin_mixed();
    uint32_t slot1 = dead_slot();
    struct shs_direction *dir = l.end[0].tx;
    int unit = shs_units_take(env[0], 2);
    CHECK(unit, >=, 0);
    dir->wchunk = shs_chunk_pack((uint32_t)unit, 2, shs_index_add(shs_word_index(dir->word), sizeof(struct shs_record)));
    dir->wlock = slot1 << SHS_LOCK_SLOT_SHIFT | 2;
    if (goes_on)
        send_some(500);
    reap(&world, slot1);
    send_some(500);
    CHECK(leaked_units(&world), ==, 0);
    end_mixed("writer died growing", 0);
}

/* It had gone over to the larger chunk, and did not come to give the old one back; the survivor took its lock over before the reap. */
static void reader_died_switching(bool goes_on)
{
    sent = got = 0;
    link_make(&l, env, AF_INET, true);
    struct shs_who who = world_who(env[0], 1);
    CHECK(recv_some(100), ==, -EAGAIN);
    send_some(1000);
    env[0]->opt.ring_max = 1 << 20;
    CHECK(shs_ring_grow(env[0], l.end[0].tx, who.lock_word), ==, true);
    send_some(2000);
    recv_some(1000);
    struct shs_direction *dir = l.end[1].rx;
    uint32_t slot1 = dead_slot();
    dir->rchunk = dir->wchunk;
    dir->rlock = slot1 << SHS_LOCK_SLOT_SHIFT | 2;
    if (goes_on)
        recv_some(10);
    reap(&world, slot1);
    CHECK(leaked_units(&world), ==, 0);
    end_mixed("reader died switching", 0);
}

/* Counted as a taker, and it took some bytes; before or after its note and its count were one. */
static void taker_died(int noted, int counted)
{
    begin_mixed();
    recv_all();
    struct shs_direction *dir = l.end[1].rx;
    uint32_t slot1 = dead_slot(), handle = (l.end[1].ep->pair - 1) * 2 + (uint32_t)(l.end[0].ep->side) + 1;
    shs_slot_at(world.stack, slot1 - 1)->takes[5] = noted ? handle : 0;
    dir->word += counted ? SHS_WORD_TAKER : 0;
    send_some(4000); /* by the kernel */
    if (counted) {
        CHECK(recv(l.fd[1], buf, 1500, 0), ==, 1500);
        got += 1500;
    }
    reap(&world, slot1);
    CHECK(shs_word_takers(dir->word), ==, 0);
    recv_all();
    CHECK(recv_some(1), ==, -EAGAIN);
    uint64_t local = l.end[0].ep->tx_local;
    send_some(300);
    CHECK(l.end[0].ep->tx_local, ==, local + 300);
    end_mixed("taker died", 0);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv, 60);
    const char *only = argc > 2 ? argv[2] : "";
    world_make(&world, SHS_N_UNITS);
    for (int i = 0; i < 3; i++)
        world_join(&world, &envs[i]);
    world.stack->helper = envs[2].slot1;
    int bad = 0;
    for (int i = 0; i < 16; i++) {
        if (*only && atoi(only) != i)
            continue;
        /* each case in a child of its own: the list goes on where one fails */
        pid_t pid = fork();
        if (pid == 0) {
            check_child(10);
            for (int n = 0; n < 3; n++) {
                shs_slot_release(world.stack, envs[n].slot1 - 1);
                world_join(&world, &envs[n]);
            }
            world.stack->helper = envs[2].slot1;
            switch (i) {
            case 0 ... 3:
                reader_died_inside(i & 1, i & 2);
                break;
            case 4 ... 5:
                writer_died_inside(i & 1);
                break;
            case 6 ... 7:
                writer_died_growing(i & 1);
                break;
            case 8 ... 9:
                reader_died_switching(i & 1);
                break;
            case 10 ... 12:
                taker_died(i > 10, i > 11);
                break;
            default:
                break;
            }
            _exit(0);
        }
        int status;
        waitpid(pid, &status, 0);
        if (status) {
            fprintf(stderr, "case %d failed\n", i);
            bad++;
            world_drop(&world);
            world_make(&world, SHS_N_UNITS);
            for (int n = 0; n < 3; n++)
                world_join(&world, &envs[n]);
        }
    }
    CHECK(bad, ==, 0);
    return 0;
}
