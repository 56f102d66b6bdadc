/*
 * Purpose: a conversation of two engines over a network that loses little, whose first driver may be killed at any step.
 * Who may call: test_kill_engine.c and test_kill_points.c, which decide what dies and where (kill_engine_step).
 * Both sides are in shared memory, so that a step can be taken by a child. All bytes are checked, and each is received once.
 */
#pragma once
#include "check.h"

#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "link/sim.h"

#define QUEUE 16384
#define TOTAL 30000
#define KEPT 64

struct side {
    struct shs_engine engine;
    struct shs_device device;
    uint64_t handle, sent, received;
    uint32_t count; /* packets that it has sent, not delivered yet */
    uint32_t len[KEPT];
    uint8_t packet[KEPT][SHS_SIM_MOST];
    uint8_t area[300000] __attribute__((aligned(64)));
    uint8_t queues[2 * QUEUE];
};

enum { INPUT, TIMERS, SEND, RECV, SHUT, KINDS };

static const struct shs_engine_size size = {.n_tcp = 4, .n_udp = 1, .n_seg = 256, .n_buckets = 4};
static struct side *side[2]; /* the first one's driver is killed; both in shared memory */
static uint64_t now;

static uint8_t *room(void *dev, uint32_t len)
{
    struct side *s = dev;
    return s->count < KEPT && len <= SHS_SIM_MOST ? s->packet[s->count] : NULL;
}

static void sent(void *dev, uint32_t len)
{
    struct side *s = dev;
    s->len[s->count] = len;
    shs_store32(&s->count, s->count + 1);
}

static uint8_t byte_at(uint32_t from, uint64_t at)
{
    return (uint8_t)(mix(at / 8 + from * 7919) >> at % 8 * 8);
}

static void make(uint32_t i, struct rng *r, uint32_t flags, uint32_t family, const uint32_t *iss)
{
    struct side *s = side[i];
    memset(s, 0, offsetof(struct side, packet));
    s->device = (struct shs_device){.room = room, .send = sent, .dev = s};
    CHECK(shs_engine_bytes(&size), <=, sizeof s->area);
    shs_engine_format(s->area, &size, rng_next(r), now);
    CHECK(shs_engine_attach(&s->engine, s->area, sizeof s->area, s->queues, sizeof s->queues, &s->device), ==, 0);
    s->engine.now = now;
    struct shs_tcp_image image = {
        .family = family,
        .state = SHS_TCP_ESTABLISHED,
        .flags = flags,
        .lport = (uint16_t)(1000 + i),
        .rport = (uint16_t)(1001 - i),
        .snd_una = iss[i],
        .snd_nxt = iss[i],
        .rcv_nxt = iss[!i],
        .snd_wl1 = iss[!i],
        .rcv_wup = iss[!i],
        .snd_wnd = QUEUE,
        .rcv_wnd = QUEUE,
        .mss = 1000,
        .mtu = 1500,
        .srtt_us = 2000,
        .rx_off = QUEUE,
        .tx_size = QUEUE,
        .rx_size = QUEUE,
    };
    shs_sim_address(image.laddr, family, i);
    shs_sim_address(image.raddr, family, !i);
    s->handle = shs_tcp_open(&s->engine, &image);
    CHECK(s->handle, !=, 0);
}

/* One step of a driver. */
static void step(uint32_t i, uint32_t kind, const uint8_t *packet, uint32_t len, uint32_t n)
{
    struct side *s = side[i];
    uint8_t buf[4096];
    s->engine.now = now;
    switch (kind) {
    case INPUT:
        shs_engine_input(&s->engine, packet, len);
        break;
    case TIMERS:
        shs_engine_timers(&s->engine);
        break;
    case SEND:
        for (uint32_t k = 0; k < n; k++)
            buf[k] = byte_at(i, s->sent + k);
        shs_tcp_send(&s->engine, s->handle, buf, n);
        break;
    case RECV:
        shs_tcp_recv(&s->engine, s->handle, buf, n);
        break;
    default:
        shs_tcp_shutdown(&s->engine, s->handle);
    }
}

/* Take the step in a child that is killed? false: it is to be taken as usual. */
static bool kill_engine_step(struct rng *r, uint32_t kind, const uint8_t *packet, uint32_t len, uint32_t n);

/* In a child that waits for its first single step. */
static inline pid_t begin_step(uint32_t kind, const uint8_t *packet, uint32_t len, uint32_t n)
{
    int status;
    pid_t child = fork();
    CHECK(child, >=, 0);
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        step(0, kind, packet, len, n);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0), ==, child);
    CHECK(WIFSTOPPED(status), !=, 0);
    return child;
}

/* One instruction; false: the child has ended, by itself and well. */
static inline bool one_instruction(pid_t child)
{
    int status;
    CHECK(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL), ==, 0);
    CHECK(waitpid(child, &status, 0), ==, child);
    if (WIFSTOPPED(status))
        return true;
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, ==, 1);
    return false;
}

static inline void end_step(pid_t child)
{
    int status;
    kill(child, SIGKILL);
    CHECK(waitpid(child, &status, 0), ==, child);
}

/* What whoever takes the lock over from the dead does. */
static inline void take_over(void)
{
    side[0]->engine.now = now;
    shs_engine_rebuild(&side[0]->engine);
    CHECK(shs_engine_check(&side[0]->engine), ==, 0);
}

static void act(struct rng *r, uint32_t i, uint32_t kind, const uint8_t *packet, uint32_t len, uint32_t n)
{
    struct side *s = side[i];
    struct shs_tcp *t = shs_tcp_of(&s->engine, s->handle);
    uint32_t end = t ? t->tx_end : 0, read = t ? t->rx_read : 0;
    if (i || !kill_engine_step(r, kind, packet, len, n))
        step(i, kind, packet, len, n);
    t = shs_tcp_of(&s->engine, s->handle);
    CHECK(t == NULL, ==, 0);
    s->sent += t->tx_end - end;
    /* What was taken out of the queue is still there to be looked at: nothing has come since. */
    for (uint32_t k = read; k != t->rx_read; k++) {
        CHECK(s->queues[QUEUE + ((k + t->rx_bias) & (QUEUE - 1))], ==, byte_at(!i, s->received));
        s->received++;
    }
    CHECK(t->error, ==, 0);
}

static bool over(uint32_t i)
{
    const struct side *s = side[i];
    struct shs_tcp *t = shs_tcp_of(&side[i]->engine, s->handle);
    return s->sent == TOTAL && s->received == TOTAL && (t->state == SHS_TCP_TIME_WAIT || t->state == SHS_TCP_CLOSED);
}

static inline void conversation(struct rng *r)
{
    uint32_t iss[2] = {(uint32_t)rng_next(r), (uint32_t)-1 - (uint32_t)below(r, TOTAL)};
    uint32_t flags = (uint32_t)below(r, 2) * SHS_TF_SACK | (uint32_t)below(r, 2) * SHS_TF_TS, family = below(r, 2) ? 4 : 6;
    uint8_t packet[SHS_SIM_MOST];
    make(0, r, flags, family, iss);
    make(1, r, flags, family, iss);
    for (uint32_t n = 0; !(over(0) && over(1)); n++) {
        CHECK(n, <, 200000);
        for (uint32_t i = 0; i < 2; i++) {
            struct side *s = side[i], *other = side[!i];
            while (other->count) { /* the first of what the other one has sent; few are lost */
                uint32_t len = other->len[0];
                memcpy(packet, other->packet[0], len);
                other->count--;
                memmove(other->len, other->len + 1, other->count * sizeof other->len[0]);
                memmove(other->packet, other->packet + 1, other->count * sizeof other->packet[0]);
                if (below(r, 50))
                    act(r, i, INPUT, packet, len, 0);
            }
            if (s->sent < TOTAL)
                act(r, i, SEND, NULL, 0, (uint32_t)shs_min64(1 + below(r, 3000), TOTAL - s->sent));
            else
                act(r, i, SHUT, NULL, 0, 0);
            act(r, i, RECV, NULL, 0, 1 + (uint32_t)below(r, 4000));
            act(r, i, TIMERS, NULL, 0, 0);
        }
        now += below(r, 10) ? 1000000 : 300000000;
    }
}

static inline void map_sides(void)
{
    for (uint32_t i = 0; i < 2; i++)
        side[i] = mmap(NULL, sizeof *side[i], PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}
