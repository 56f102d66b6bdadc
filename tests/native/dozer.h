/*
 * Purpose: a blocking receive as preload/recv.c does it (try; doze behind a bell; or sleep in the kernel), without the spinning.
 * Who may call: one thread for each dozer. A native sleep over 5 s is a failure (SO_RCVTIMEO); dozes have no time-out on purpose.
 */
#pragma once
#include "tcp.h"

#include "endpoint/bell.h"

struct dozer {
    struct shs_env *env;
    struct shs_end *end;
    struct shs_who who;
    struct shs_bell_own bell;
    bool alone; /* no other thread or process reads here */
    uint64_t looked_ns, dozes, sleeps;
};

static inline void dozer_make(struct dozer *d, struct shs_env *env, struct shs_end *end, uint32_t tag, bool alone)
{
    struct timeval limit = {5, 0};
    *d = (struct dozer){.env = env, .end = end, .who = world_who(env, tag), .alone = alone};
    setsockopt(end->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    CHECK(shs_bell_make(env, tag, &d->bell), ==, 0);
}

static inline bool dozer_open(const struct dozer *d)
{
    return shs_load64(&d->end->rx->word) & SHS_WORD_OPEN;
}

/* 0: look again; -EBUSY: somebody else dozes here. */
static inline long dozer_doze(struct dozer *d)
{
    long r = 0;
    shs_bell_arm(&d->bell, false);
    bool claimed = shs_bell_claim(d->env, d->who.lock_word, d->end, &d->bell, d->alone);
    shs_fence();
    if (!claimed) {
        r = -EBUSY;
    } else if (!shs_ring_waiting(d->end->rx) && dozer_open(d)) {
        struct pollfd fds[2] = {{.fd = d->end->fd, .events = POLLIN}, {.fd = d->bell.fd, .events = POLLIN}};
        d->dozes++;
        int n = ppoll(fds, 2, NULL, NULL);
        if (n > 0 && fds[1].revents)
            shs_bell_drain(&d->bell);
        if (n > 0 && fds[0].revents)
            d->looked_ns = 0;
    }
    shs_bell_disarm(&d->bell);
    return r;
}

static inline long dozer_sleep(struct dozer *d, void *buf, size_t len, bool *again)
{
    struct shs_take take;
    *again = shs_taker_enter(d->env, &d->who, d->end, &take) != 1;
    if (*again)
        return 0;
    d->sleeps++;
    long r = SHS_SYS(recv(d->end->fd, buf, len, 0));
    shs_taker_leave(d->env, &d->who, &take, r > 0 ? (uint64_t)r : 0);
    CHECK(r, !=, -EAGAIN);
    return r;
}

static inline long dozer_recv(struct dozer *d, void *buf, size_t len)
{
    for (;;) {
        long r = link_recv(d->env, &d->who, d->end, buf, len, 0, &d->looked_ns);
        if (r != -EAGAIN)
            return r;
        r = dozer_open(d) ? dozer_doze(d) : -EBUSY;
        if (r == -EBUSY) {
            bool again;
            r = dozer_sleep(d, buf, len, &again);
            if (!again)
                return r;
        }
    }
}
