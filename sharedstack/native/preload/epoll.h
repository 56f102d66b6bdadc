/*
 * Purpose: what the library keeps of an epoll set of this process: which members' rings are open. The kernel's set is the set.
 * Locks: set->lock (within the process, held for a few instructions) guards the list and the sleepers: opening a member's ring and
 * falling asleep exclude each other by it (tests/models/epoll-set.pml).
 */
#pragma once
#include "preload/process.h"

#define SHS_SET_BELLS 8

struct shs_set {
    uint32_t lock, sleepers;
    uint32_t n_bells, bells[SHS_SET_BELLS]; /* of the sleepers */
    bool shared;        /* another process or another descriptor may wait on it: members' rings stay shut */
    uint32_t n_opened, room;
    int *opened;        /* members with open rings */
    uint32_t rotate;    /* where the next look begins */
    uint32_t peer_cpu;  /* where the last writer ran */
    uint32_t hits;      /* ring events since the kernel was looked at */
    uint64_t looked_ns;
    struct shs_gap gap;
};

/* A set that was made or met: its entry. NULL: out of memory. */
struct shs_set *shs_set_of(int epfd);
void shs_set_shared(struct shs_set *set);
void shs_set_drop(struct shs_set *set);
/* The member is closed or removed. */
void shs_set_forget(struct shs_fd *f, int fd);
