/*
 * Purpose: this process and its threads as the library sees them, and the table of its descriptors.
 * Ownership: shs_proc is written at start, at attach and in a forked child; shs_self by its thread. A descriptor's entry is written by
 * whoever opens or closes it; its hot fields by the thread that is in a call on it.
 *
 * Hazards. Before a thread looks at an entry to act on it, it publishes the descriptor in shs_self.hazard, and clears that when it is done.
 * Who wants to change how the descriptor is used (activation, close) changes the state, makes all threads pass a barrier
 * (membarrier(2)) and looks whether any of them is inside: so the common path pays two plain stores.
 */
#pragma once
#include "endpoint/bell.h"
#include "endpoint/end.h"
#include "preload/types.h"
#include "wait/spin.h"

enum shs_fd_state {
    SHS_FD_UNKNOWN, /* not looked at yet */
    SHS_FD_KERNEL,  /* nothing to do with us */
    SHS_FD_NEW,     /* an internet stream socket, not connected by a call that we saw */
    SHS_FD_TCP,     /* connected, or a datagram socket; not registered yet */
    SHS_FD_BUSY,    /* being registered by a thread */
    SHS_FD_REG,     /* registered, not paired yet */
    SHS_FD_PAIRED,
    SHS_FD_WIRE, /* registered, and an engine's (wire.h) */
    SHS_FD_EPOLL,
};

/* In five lines of memory: every page of the table is copied by each fork. */
struct shs_fd {
    uint32_t state; /* enum shs_fd_state */
    uint32_t ops;   /* data calls so far */
    uint32_t ep1;
    uint32_t why;                    /* REASON_*: never register */
    struct shs_endpoint *registered; /* the record of ep1 */
    uint32_t set;                    /* epoll descriptor plus one that it is a member of */
    uint32_t events;                 /* as given to epoll_ctl */
    uint64_t data;                   /* as given to epoll_ctl */
    uint64_t edge_index;             /* write index that was last reported to an edge-triggered set */
    uint64_t looked_ns;              /* when the kernel's queue was last looked at */
    uint64_t looked_call;            /* ep->rx_calls then */
    uint64_t looked_report;          /* shs_proc.reported then */
    struct shs_end end;
    struct shs_gap gap;
    uint32_t got;    /* bytes of the last one */
    uint32_t takes;  /* receives since the last send: many of them, and it is a stream */
    uint32_t streak; /* dozes in a row that found more than one record */
    uint32_t listed; /* epoll descriptor plus one in whose list of open rings it is */
    uint32_t known;  /* epoll descriptor plus one in which the kernel has it */
    uint32_t known_events;
    uint64_t known_data;
    uint64_t drained; /* ksent plus one when the kernel's send queue was last seen empty */
    uint32_t claim;   /* set->claims when it was last reported by its ring, one-shot */
    bool dirty;       /* the kernel has to be told */
    bool copied;      /* has copies (dup(2)), or is in several sets: whoever waits for one number does not see the other's */
    bool udp;         /* a datagram socket: NEW and REG do not occur, PAIRED is recorded */
    bool told;        /* why it is not lifted, where no record says so (tell.h) */
    bool awaited;     /* eager: its peer has been waited for */
    bool greeted;     /* eager: and its first receive */
    uint32_t gave;    /* eager: how often a piece went by the kernel, where it stands, since no room came */
    uint64_t vain;    /* eager: the read index plus one behind which room was waited for in vain */
    uint64_t gave_at; /* eager: the same where that piece went */
    struct shs_set *epoll;
    struct shs_dgram *dgram;
    struct shs_kept *kept; /* what its ring held when the process left its stack; NULL: nothing (kept.h) */
    uint32_t wire;         /* the record's word when it was last lifted */
    uint32_t wire_calls;   /* data calls since it might have been; lifted, since their size was last looked at */
    uint64_t wire_bytes;   /* by the kernel up to there; lifted, in those calls */
    uint32_t wire_next;    /* so many, and it is tried */
    struct shs_pace {
        uint32_t calls, windows;
        uint32_t best[2];  /* ns of the shortest window, by the kernel and lifted; 0: not known */
        uint64_t since_ns; /* when the present window began; 0: none has */
    } pace;                /* wire_pace.h */
};

struct shs_mapping {
    void *at;
    size_t len;
};

struct shs_thread {
    struct shs_signal_mark {
        uint32_t all, breaking; /* without SA_RESTART */
    } handled;                  /* handlers of the program that ran in this thread */
    uint32_t handling;           /* in so many of them, or more: one may have been left by siglongjmp(3) */
    uintptr_t waits;             /* the descriptor of a call that waits now, or what it goes on with: see shs_wait_begin */
    uint32_t hazard;             /* (descriptor << 1 | receive) + 1 of the call in progress */
    const struct pollfd *polled; /* array of a native poll in progress; under threads_lock */
    nfds_t n_polled;
    bool vfork; /* we are a vfork child, on our parent's memory */
    struct shs_mapping lent; /* the environment of the program that such a child executes; at 0: none (follow.h) */
    bool listed, witness;
    bool ended; /* its thread-local objects are gone; only destructors of pthread keys may still call us */
    uint32_t slot1; /* for which `who` was made */
    struct shs_who who;
    struct shs_bell_own bell;
    uint32_t bell_epoch; /* env.epoch when it was made */
    struct shs_set *opening; /* whose lock is held while a member's ring is opened */
    struct shs_gap gap;      /* of poll and select */
    uint64_t looked_ns; /* poll and select looked at the kernel */
    uint32_t poll_peer_cpu; /* where the writer of the ring that they reported last ran: a spin there would keep it from running */
};

enum shs_attach_state { SHS_NOT_ATTACHED, SHS_ATTACHED, SHS_ATTACH_FAILED, SHS_LEAVING };

struct shs_process {
    bool resolved, off;
    bool quiet;              /* confined (seccomp): no system call but the program's own, ever again */
    uint32_t kept;           /* descriptors that may have kept bytes (kept.h) */
    bool uring;              /* io_uring was set up: no connection is lifted any more (aside.c) */
    bool wired;              /* some connection was lifted to the wire path */
    bool private;            /* there are epoll sets, or datagram sockets that were used: a forked child has to look for them */
    bool met;                /* what was inherited over exec has been looked at */
    uint32_t attach;         /* enum shs_attach_state */
    uint32_t attach_why;     /* REASON_* if it failed */
    uint64_t retry_ns;       /* when to try again */
    uint64_t reported;       /* native waits that reported something */
    bool unwitnessed;        /* the home thread of our slot ended: the next one to come is it */
    uint32_t forked;         /* a forked child that has no slot of its own yet */
    uint32_t threads;        /* listed threads */
    uint32_t forks;          /* two for each fork of ours, one when it has begun */
    char stack_name[SHS_MAX_STACK_NAME + 1];
    struct shs_env env;
};

extern struct shs_process shs_proc;
extern __thread struct shs_thread shs_self __attribute__((tls_model("initial-exec")));

#define SHS_FD_CHUNK 1024
#define SHS_FD_CHUNKS 1024
extern struct shs_fd *shs_fd_chunk[SHS_FD_CHUNKS];
/* Of each entry, stack->probes plus one when its record was last marked as shared: behind a chunk, since each fork looks at all of them. */
#define SHS_FD_CHUNK_BYTES (SHS_FD_CHUNK * (sizeof(struct shs_fd) + sizeof(uint32_t)))
static inline uint32_t *shs_fd_marks(struct shs_fd *chunk)
{
    return (uint32_t *)(void *)(chunk + SHS_FD_CHUNK);
}
extern uint32_t shs_fd_top; /* chunks from there on were never made: walks end there */

/* Is it registered, whatever path it is on? */
static inline bool shs_fd_registered(const struct shs_fd *f)
{
    return f->state == SHS_FD_REG || f->state == SHS_FD_PAIRED || f->state == SHS_FD_WIRE;
}

/* The record of a registered entry; of a stack that the process has left meanwhile: memory that means nothing, and stays. */
static inline struct shs_endpoint *shs_fd_record(const struct shs_fd *f)
{
    return f->udp ? f->end.ep : f->registered;
}

/* The entry of fd, or NULL if it has none: then it is the kernel's. */
static inline struct shs_fd *shs_fd_look(int fd)
{
    if (SHS_UNLIKELY((unsigned)fd >= SHS_FD_CHUNK * SHS_FD_CHUNKS))
        return NULL;
    struct shs_fd *chunk = __atomic_load_n(&shs_fd_chunk[fd / SHS_FD_CHUNK], __ATOMIC_ACQUIRE);
    return SHS_LIKELY(chunk != NULL) ? &chunk[fd % SHS_FD_CHUNK] : NULL;
}

/* The first entry there is from *fd on, whose number *fd is then; NULL: there is none. For a walk through the table:
 * for (int fd = 0; (f = shs_fd_next(&fd)); fd++) */
static inline struct shs_fd *shs_fd_next(int *fd)
{
    int end = SHS_FD_CHUNK * (int)__atomic_load_n(&shs_fd_top, __ATOMIC_ACQUIRE);
    for (struct shs_fd *f; *fd < end; *fd += SHS_FD_CHUNK - *fd % SHS_FD_CHUNK)
        if ((f = shs_fd_look(*fd)))
            return f;
    return NULL;
}

/* Where an entry's mark is; NULL: it is an orphan. */
uint32_t *shs_fd_mark_of(const struct shs_fd *f);
/* The entry has another record from now on, or none. */
void shs_fd_unmark(const struct shs_fd *f);
/* As shs_fd_look, but make the entry. */
struct shs_fd *shs_fd_make(int fd);
/* fd is a new descriptor, or closed: forget what was known of its number. */
void shs_fd_reset(int fd);
/* fd is about to be closed or replaced: leave its set and its endpoint. */
void shs_fd_closing(int fd);
/* A call of ours on a paired entry found no socket there, or none at all. Was the number closed, and perhaps taken, unseen? Then the entry is forgotten
 * (true): what was asked for is to be asked of the kernel. */
bool shs_fd_lost(struct shs_fd *f);
#define SHS_LOST (-1101) /* what a call on a ring returns then */
static inline bool shs_is_lost(struct shs_fd *f, long r)
{
    return SHS_UNLIKELY(r == -ENOTSOCK || r == -EBADF) && shs_fd_lost(f);
}
/* The connection of fd is about to be dissolved: its entry, and those of its copies, are as new ones. */
void shs_fd_dissolve(int fd);
/* `to` is a copy of `from` (dup(2)): returns `to`. */
int shs_fd_copied(int from, int to);
/* References of this process's descriptors to an endpoint: add n, return the new number. */
int shs_ep_refs(uint32_t ep1, int n);
void shs_ep_refs_none(void);
/* Call `visit` for each listed thread; nothing of it goes away meanwhile. */
void shs_each_thread(void (*visit)(struct shs_thread *t, void *arg), void *arg);

/*
 * A descriptor may be closed, and its number be another's at once, while a thread waits in a call on it. The kernel's call goes on with the
 * socket; so does ours. Between begin and end the thread may be handed an entry of its own for it, an orphan, by whoever closes the
 * number: end returns that, or NULL. The thread gives it back when the call is over.
 */
static inline uintptr_t shs_wait_begin(int fd)
{
    return __atomic_exchange_n(&shs_self.waits, (uintptr_t)fd << 1 | 1, __ATOMIC_SEQ_CST);
}

/* `outer`: what begin returned; a signal handler may have interrupted another wait. */
static inline struct shs_fd *shs_wait_end(uintptr_t outer)
{
    uintptr_t now = __atomic_exchange_n(&shs_self.waits, outer, __ATOMIC_SEQ_CST);
    return SHS_LIKELY(now & 1) ? NULL : (struct shs_fd *)now;
}

/* Between begin and end, after a sleep: has the thread been handed an orphan? Then the entry is another descriptor's, or none's. */
static inline bool shs_wait_moved(void)
{
    return SHS_UNLIKELY(!(__atomic_load_n(&shs_self.waits, __ATOMIC_SEQ_CST) & 1));
}

void shs_orphan_drop(struct shs_fd *orphan);

/* Resolve libc's functions and read the options; in the constructor, or in the first call before it. */
void shs_start(void);
/* The calling thread's identity for locks; lists it for hazards. Needs an attached process. NULL: no slot can be had. */
const struct shs_who *shs_who(void);
/* List the calling thread, so that its hazard is seen; false: there are too many. */
bool shs_list_thread(void);
/* The calling thread is about to poll natively descriptors that are not under count yet; or has come back (NULL). */
void shs_polling(const struct pollfd *fds, nfds_t n);
/* The calling thread's bell; NULL: none to be had. */
struct shs_bell_own *shs_bell(void);
/* `call` makes a child process, with a copy of our memory, by a system call of the program's: 0 in the child, which is as after fork. */
long shs_fork_by(long (*call)(const void *), const void *arg);
/* A thread's bell with the number `from` has the number `to` now; false: no thread has it. */
bool shs_bell_moved(int from, int to);
/* Is another thread inside a native call on fd in this direction, or in a native poll of it (receive)? receive < 0: in any. */
bool shs_in_flight(int fd, int receive);
void shs_log(const char *what, int fd, uint32_t why);
