/*
 * Purpose: what the library keeps of an epoll set of this process: which members' rings are open, and which changes of interest the
 * kernel has not been told yet. The kernel's set is the set: before a thread sleeps in it, the kernel knows everything.
 * Locks: set->lock (within the process, held for a few instructions, or for the system calls of a flush) guards the lists and the
 * sleepers: opening a member's ring and falling asleep exclude each other by it (tests/models/epoll-set.pml).
 *
 * A level-triggered member whose ring is open is wholly the library's to report while nobody sleeps in the set: readability from the
 * ring, writability as long as its kernel send queue is known to be empty. So changes of its interest are only noted (`dirty`), and
 * told to the kernel now and then, in one go, most of them having cancelled out by then.
 */
#pragma once
#include "preload/nested.h"
#include "preload/process.h"

/* The kernel keeps state of its own for members with one of these. */
#define SHS_KERNEL_EVENTS ((uint32_t)(EPOLLET | EPOLLONESHOT | EPOLLEXCLUSIVE | EPOLLWAKEUP))

struct shs_set {
    struct shs_nested lock;
    uint32_t sleepers;
    int caller;         /* eventfd in the kernel's set that calls sleepers back; -1: none yet */
    bool shared;        /* another process or another descriptor may wait on it: members' rings stay shut */
    bool inherited;     /* a parent's, and not waited on here yet */
    bool oneshot;       /* has, or had, one-shot members: the kernel disarms them when it reports them */
    uint32_t claims;    /* reports of one-shot members by their rings */
    bool urgent;        /* the next look at the kernel's set must not wait, and must find it up to date */
    uint32_t room;      /* of each list */
    uint32_t n_opened;
    int *opened;        /* members with open rings, or on the wire path, and some that were */
    uint32_t wires;     /* of them on the wire path, as far as was seen last */
    uint32_t n_dirty;
    int *dirty;         /* members of which the kernel knows something else than the program wants */
    uint32_t rotate;    /* where the next look begins */
    uint32_t peer_cpu;  /* where the last writer ran */
    uint32_t hits;      /* ring events since the kernel was looked at */
    uint64_t looked_ns, flushed_ns;
    struct shs_gap gap;
    struct shs_set *next_free;
};

/* The set of an epoll descriptor that was made or met. NULL: out of memory. */
struct shs_set *shs_set_of(int epfd);
void shs_set_lock(struct shs_set *set);
void shs_set_unlock(struct shs_set *set);
/* From now on somebody may wait on the set whom we do not see: rings of members stay shut, the kernel knows everything. */
void shs_set_shared(struct shs_set *set, int epfd);
/* Another number, or another process, is about to have the set: what is unread in members' rings is handed over first, since only the kernel can
 * report it there. */
void shs_set_pass(struct shs_set *set, int epfd);
/* It becomes a member of another set. What is in its rings still, of datagrams, the kernel is made to report once. */
void shs_set_nested(struct shs_set *set, int epfd);
/* Another process is about to have the sets of this one (all, or those that are not close-on-exec): the kernel knows everything. */
void shs_sets_told(bool inherited_only);
/* The process leaves its stack: no member has a ring any more, and the kernel knows everything. */
void shs_set_leave(struct shs_set *set, int epfd);
/* In a forked child: the parent's set. Before the first wait on it here: what is unread in members' rings is to be reported. */
void shs_set_inherited(struct shs_set *set);
void shs_set_adopt(struct shs_set *set, int epfd);
/* The epoll descriptor is closed. */
void shs_set_drop(struct shs_set *set, int epfd);
/* The member is closed: leave the lists, and the kernel's set if it should have left that. */
void shs_set_forget(struct shs_fd *f, int fd);

/* The member's ring is of no use any more: leave the lists; the kernel knows what is wanted of it. */
void shs_set_quit(struct shs_fd *f, int fd);

/*
 * The kernel reported these n events (or -errno) to a wait that began when `set->claims` was `since`: its one-shot members are disarmed now,
 * for us too. Calls to look again are taken out, and one-shot members that were reported by their rings meanwhile: returns how many events
 * are left. Of n > 0 none may be: then look again.
 */
int shs_set_reported(struct shs_set *set, int epfd, struct epoll_event *events, int n, uint32_t since);
/* Under the lock: one-shot, and about to be reported by its ring: the kernel must not report it too. */
void shs_set_claim(struct shs_set *set, struct shs_fd *f, int epfd, int fd);
/* Under the lock: call back whoever sleeps in the set, to look at the rings. */
void shs_set_call(struct shs_set *set, int epfd);
/* The set goes, or was a parent's: its caller is of no use any more. */
void shs_set_drop_caller(struct shs_set *set);
/* Under the lock: the calling thread is about to sleep in the set; it has come back. */
void shs_set_sleeps(struct shs_set *set);
void shs_set_wakes(struct shs_set *set);
/* Under the lock: shut every ring of the set. */
void shs_set_shut(struct shs_set *set);
/* Under the lock: tell the kernel what it does not know yet. */
void shs_set_flush(struct shs_set *set, int epfd);
/* Under the lock: a paired member was added, re-armed or met. An open ring is listed, or shut where somebody sleeps in the set already; if it holds
 * something, whoever sleeps looks again. */
void shs_set_list(struct shs_set *set, struct shs_fd *f, int epfd, int fd);
/* Under the lock: a member that is on the wire path was added or changed, or has just been lifted. There is room for it in the list. */
void shs_set_list_lifted(struct shs_set *set, struct shs_fd *f, int epfd, int fd);
/* The record of a registered connection says in whose sets it is: other processes that share it open no ring, which such a set's sleepers would miss. */
void shs_set_mark(struct shs_fd *f, bool member);
/* The set came over exec, or was taken from another process, should it be one: members with bytes in their rings are reported from now on. */
void shs_set_meet(int epfd);
/* The set of `epoll descriptor plus one`; NULL: none that is known. */
struct shs_set *shs_set_at(uint32_t epfd1);
/* Under the lock: to the list of open rings, and out of it. */
void shs_set_enlist(struct shs_set *set, struct shs_fd *f, int fd);
void shs_set_unlist(struct shs_set *set, struct shs_fd *f, int fd);
/* What of its interest the rings alone make ready now: EPOLLIN, EPOLLRDNORM, EPOLLOUT, EPOLLWRNORM. */
uint32_t shs_member_ready(struct shs_set *set, struct shs_fd *f, int epfd);
/* Is there anything to report of its rings? */
bool shs_set_ready(struct shs_set *set, int epfd);
