/*
 * Datagrams: asks with few under way, each of which is sent back. Their content follows from the flow and the number; none may come twice. One that does not come back is lost, which is for the driver to
 * judge: the kernel says how many it dropped.
 */
#pragma once
#include "chaos_sharing.h"

#define FLOWS_MOST 3
#define UNDER_WAY 4
#define KNOWN 512 /* flows whose last 64 numbers are remembered */

enum { ASK, ECHO };

struct datagram {
    uint32_t magic, flow, kind, from;
    uint64_t number;
};

struct flow {
    uint32_t id, target, generation; /* of the target's socket */
    uint64_t next, pause_ns;
    struct wait {
        uint64_t number, sent_ns; /* 0: free */
        uint64_t there, here;     /* `emptied` of the target when it was sent; of ours when the target had surely sent it back, or 0 */
    } waits[UNDER_WAY];
};

static struct flow flow[FLOWS_MOST];
static struct {
    uint32_t flow, kind;
    uint64_t highest, seen; /* bit i: highest - i */
} known[KNOWN];

static struct sockaddr_in address_of(uint32_t number);

/* False: it came before. */
static int first_time(const struct datagram *d)
{
    uint32_t at = (d->flow * 2 + d->kind) % KNOWN;
    if (known[at].flow != d->flow || known[at].kind != d->kind) {
        known[at].flow = d->flow;
        known[at].kind = d->kind;
        known[at].highest = d->number;
        known[at].seen = 1;
        return 1;
    }
    if (d->number > known[at].highest) {
        uint64_t by = d->number - known[at].highest;
        known[at].seen = by < 64 ? known[at].seen << by | 1 : 1;
        known[at].highest = d->number;
        return 1;
    }
    uint64_t back = known[at].highest - d->number;
    int first = back < 64 && !(known[at].seen >> back & 1);
    known[at].seen |= back < 64 ? (uint64_t)1 << back : 0;
    return first || back >= 64;
}

static uint64_t datagram_key(const struct datagram *d)
{
    return key_of(d->flow ^ 1u << 31, d->kind) + d->number * 4096;
}

static size_t datagram_bytes(const struct datagram *d)
{
    return sizeof *d + mix(datagram_key(d)) % 300;
}

static int send_datagram(const struct datagram *d)
{
    uint32_t to = d->kind == ASK ? flow[d->from % FLOWS_MOST].target : d->from / FLOWS_MOST;
    struct sockaddr_in name = address_of(to);
    size_t n = datagram_bytes(d);
    memcpy(buffer, d, sizeof *d);
    fill(buffer + sizeof *d, datagram_key(d), 0, n - sizeof *d);
    if (sendto(self.fd[DATAGRAMS], buffer, n, MSG_DONTWAIT, (struct sockaddr *)&name, sizeof name) != (ssize_t)n)
        return 0;
    count(DATAGRAMS_SENT, 1);
    count(DATAGRAM_BYTES, n);
    return 1;
}

static enum count losses(void)
{
    return me->group == me->targets ? DATAGRAMS_LOST : WIRE_DATAGRAMS_LOST;
}

/* Something came back, perhaps after it was given up for lost: its receiver had to wait for a CPU. */
static void answered(const struct datagram *d)
{
    struct flow *f = &flow[d->from % FLOWS_MOST];
    if (f->id != d->flow)
        return;
    for (int i = 0; i < UNDER_WAY; i++)
        if (f->waits[i].sent_ns && f->waits[i].number == d->number) {
            f->waits[i].sent_ns = 0;
            return;
        }
    count(losses(), (uint64_t)-1);
}

static void receive_datagrams(void)
{
    for (int i = 0; i < 32; i++) {
        ssize_t r = recv(self.fd[DATAGRAMS], buffer, sizeof buffer, MSG_DONTWAIT);
        struct datagram d;
        if (r < 0) {
            atomic_fetch_add(&me->emptied, 1);
            return;
        }
        memcpy(&d, buffer, sizeof d);
        size_t n = (size_t)r;
        if (n < sizeof d || d.magic != MAGIC || d.kind > ECHO || n != datagram_bytes(&d) ||
            wrong_at(buffer + sizeof d, datagram_key(&d), 0, n - sizeof d) != n - sizeof d) {
            count(CORRUPT, 1);
            finding("corrupt: a datagram of %zd bytes: flow %u kind %u number %llu", r, d.flow, d.kind, (unsigned long long)d.number);
            return;
        }
        if (!first_time(&d)) {
            count(CORRUPT, 1);
            finding("a datagram came twice: flow %u kind %u number %llu", d.flow, d.kind, (unsigned long long)d.number);
        }
        count(DATAGRAMS_RECEIVED, 1);
        if (d.kind == ECHO)
            answered(&d);
        else {
            d.kind = ECHO;
            if (!send_datagram(&d))
                count(DATAGRAMS_REFUSED, 1);
        }
    }
}

static void begin_flow(struct flow *f, uint32_t target)
{
    *f = (struct flow){.target = target, .generation = ledger->process[target].generation, .id = 1 + atomic_fetch_add(&ledger->flows, 1)};
}

/*
 * One that is not answered, though both sockets are still the same, was lost. On one host that is known when its receiver has found nothing
 * more to receive since, and then we: the second time, since the first look may have begun before. Between hosts it is supposed after a while.
 */
static void look_for_losses(struct flow *f)
{
    uint64_t now = now_ns(), there = atomic_load(&ledger->process[f->target].emptied), here = atomic_load(&me->emptied);
    int near = me->group == me->targets;
    if (f->generation != ledger->process[f->target].generation)
        return;
    for (int i = 0; i < UNDER_WAY; i++) {
        struct wait *w = &f->waits[i];
        if (near && w->sent_ns && !w->here && there >= w->there + 2)
            w->here = here;
        else if (w->sent_ns && (near ? w->here && here >= w->here + 2 : now - w->sent_ns > ledger->patience_ns / 2)) {
            count(losses(), 1);
            w->sent_ns = 0;
        }
    }
}

static void ask_some(struct flow *f)
{
    if (f->generation != ledger->process[f->target].generation) {
        f->id = 0;
        return;
    }
    for (int i = 0; i < UNDER_WAY && f->pause_ns <= now_ns(); i++)
        if (!f->waits[i].sent_ns) {
            struct datagram d = {MAGIC, f->id, ASK, self.number * FLOWS_MOST + (uint32_t)(f - flow), f->next};
            if (!send_datagram(&d))
                return;
            f->waits[i] = (struct wait){f->next++, now_ns(), atomic_load(&ledger->process[f->target].emptied), 0};
            if (roll(&self.dice, 4) == 0)
                f->pause_ns = now_ns() + roll(&self.dice, 200000000);
        }
}

/* Our own socket is another one: nothing of what is under way comes back. */
static void forget_flows(void)
{
    memset(flow, 0, sizeof flow);
    memset(known, 0, sizeof known);
    atomic_fetch_add(&me->generation, 1);
}

static void serve_datagrams(uint32_t (*some_target)(void))
{
    alive("datagrams", 0);
    receive_datagrams();
    for (struct flow *f = flow; f < flow + FLOWS_MOST; f++) {
        if (!f->id) {
            uint32_t target = some_target();
            if (target != self.number)
                begin_flow(f, target);
        }
        if (f->id) {
            look_for_losses(f);
            ask_some(f);
        }
    }
}
