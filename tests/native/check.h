/*
 * Purpose: what every native test begins with: a check that prints both values, a seed that replays a run, a time limit.
 * Who may call: the programs of tests/native; each is one process (and its forked children) with one seed.
 */
#pragma once
#include "common.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

static struct {
    uint64_t seed;
    const char *program;
} check_run;

static inline void check_failed(const char *file, int line, const char *text, long long got, long long other)
{
    fprintf(stderr, "%s:%d: %s: %lld (%#llx) and %lld (%#llx); replay: SEED=%llu %s\n", file, line, text, got, (unsigned long long)got,
            other, (unsigned long long)other, (unsigned long long)check_run.seed, check_run.program);
    abort();
}

/* CHECK(sent, ==, taken): both sides are evaluated once, and printed if the comparison does not hold. */
#define CHECK(left, op, right)                                                         \
    do {                                                                               \
        long long left_ = (long long)(left), right_ = (long long)(right);              \
        if (!(left_ op right_))                                                        \
            check_failed(__FILE__, __LINE__, #left " " #op " " #right, left_, right_); \
    } while (0)

static inline void check_time_is_up(int sig)
{
    static const char text[] = "time limit: something waits for ever; the seed is above\n";
    (void)sig;
    if (write(2, text, sizeof text - 1) < 0)
        _exit(3);
    abort();
}

/* The seed is the first argument, or $SEED, or new; `limit` in seconds. */
static inline void check_begin(int argc, char **argv, unsigned limit)
{
    const char *given = argc > 1 ? argv[1] : getenv("SEED");
    check_run.seed = given ? strtoull(given, NULL, 0) : (shs_now() ^ (uint64_t)getpid() << 40) & 0xffffffffffu;
    check_run.program = argv[0];
    fprintf(stderr, "SEED=%llu %s\n", (unsigned long long)check_run.seed, argv[0]);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGALRM, check_time_is_up);
    alarm(limit);
}

/* In a forked child: end with the parent, however that ends; alarms are not inherited. */
static inline void check_child(unsigned limit)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(limit);
}

/* splitmix64: a stream of its own for each seed. */
struct rng {
    uint64_t state;
};

static inline struct rng rng_of(uint64_t stream)
{
    return (struct rng){check_run.seed * 0x9e3779b97f4a7c15u + stream * 0xd1b54a32d192ed03u};
}

static inline uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static inline uint64_t rng_next(struct rng *r)
{
    return mix(r->state += 0x9e3779b97f4a7c15u);
}

/* A number below n. */
static inline uint64_t below(struct rng *r, uint64_t n)
{
    return rng_next(r) % n;
}

/* Mostly small, seldom as large as `most`: 1 … most. */
static inline size_t size_upto(struct rng *r, size_t most)
{
    size_t n = 1 + (size_t)below(r, most);
    return 1 + (size_t)below(r, below(r, 4) ? (n >> below(r, 12)) + 1 : n);
}

/* Turn for some hundreds of nanoseconds at most; now and then let others run. */
static inline void dither(struct rng *r)
{
    for (uint64_t i = below(r, 200); i; i--)
        shs_pause();
    if (below(r, 50) == 0)
        usleep((useconds_t)below(r, 200));
}
