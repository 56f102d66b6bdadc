/*
 * Purpose: how long to spin for data. Where at least half of the last 8 waits got their data soon, a spin is worth its while; others
 * sleep at once, and now and then a burst of probing spins finds out whether that is still right. When data came is known from
 * the writer's own time stamp (direction.pub_ns), so that a slow wake-up of ours is not mistaken for a slow peer. Two peers that both
 * sleep see each other's slow wake-ups: a burst of one makes the other see quick answers, long enough for both to go over to spinning.
 * Who may call: the waiting thread; `gap` belongs to it. No locks, no system calls.
 */
#pragma once
#include "shm/stack.h"

/* What recent waits of one kind were like. */
struct shs_gap {
    uint32_t late;     /* a bit for each of the last 8 waits, the newest lowest: 1, the data came later than spin_gap_us */
    uint32_t later;    /* the same: later than doze_gap_us */
    uint32_t slow;     /* the same: so late that probing is of no use */
    uint32_t probes;   /* probing spins left in the present burst */
    uint32_t in_vain;  /* bursts of probes in a row after which nothing had changed */
    uint32_t held;     /* times that spinning was given up */
    uint32_t trusted;  /* waits soon over since then */
    uint32_t together; /* waits in a row, soon over, that began on the awaited peer's CPU */
    uint32_t moved;    /* times that we moved away from it in vain */
    bool spinning;     /* the last wait was spun through, or should have been, not as a probe */
    bool cheap;        /* a wait that is not spun through costs little (a nap) */
    uint64_t probe_at_ns;   /* when the next burst begins */
    uint64_t hold_until_ns; /* no spins but probes before */
    uint64_t move_at_ns;    /* not before */
};

struct shs_spin {
    struct shs_env *env;
    struct shs_gap *gap;
    uint64_t start_ns, until_ns;
    uint32_t looks;
    uint32_t pauses; /* between two looks */
    bool counted; /* in stack.spinners: only spins of some length are, the word is everybody's */
};

enum { SHS_SPIN_ON, SHS_SPIN_OVER };

/* Begin a wait at `now`; peer_cpu is where the awaited peer last ran (a spin there would keep it from running). */
void shs_spin_begin(struct shs_spin *spin, struct shs_env *env, struct shs_gap *gap, uint64_t now, uint32_t peer_cpu);
/* Pause; SHS_SPIN_OVER when the time is up. *now is refreshed now and then. */
int shs_spin_step(struct shs_spin *spin, uint64_t *now);
/* The spin ended; hit: there is data. */
void shs_spin_end(struct shs_spin *spin, bool hit);
/* Should a wait that was not spun through be dozed through, the rings staying open, rather than slept through in the kernel? Where data
 * comes seldom the kernel's own wake-up is the cheaper one. */
bool shs_gap_doze(const struct shs_env *env, const struct shs_gap *gap);
/* The whole wait ended with data that came at `came_ns` (0: just now). */
void shs_gap_note(struct shs_env *env, struct shs_gap *gap, uint64_t start_ns, uint64_t came_ns);
