/*
 * Purpose: one end of a paired connection as its holder uses it, and the steps of the protocol: activate, send, receive, open, shut.
 * Who may call: a thread of a participant that holds the descriptor; each function takes the locks it needs (rlock or wlock of its
 * own end) and never blocks but on those. Waiting is the business of the layer above.
 * When the caller dies inside: see the repairs below, run by whoever takes its lock over.
 */
#pragma once
#include <sys/socket.h>

#include "ring/ring.h"

/*
 * tx and rx are what the pair was when somebody looked: it may have been given back since, and its block made another connection's. So
 * each function reads them once, and compares the cookie in the direction with its own: under the lock that it has just taken, and
 * after every look without a lock that would lead to an answer for the program. `ep`, `cookie` and `fd` do not change.
 */
struct shs_end {
    struct shs_endpoint *ep;
    struct shs_direction *tx, *rx;
    uint64_t cookie;
    int fd;
};

/* What functions on an end return when it is not paired any more, or not under count: nothing was done, and the kernel is to be used. */
#define SHS_STALE (-1100)

static inline struct shs_direction *shs_end_tx(const struct shs_end *end)
{
    return __atomic_load_n(&end->tx, __ATOMIC_RELAXED);
}

static inline struct shs_direction *shs_end_rx(const struct shs_end *end)
{
    return __atomic_load_n(&end->rx, __ATOMIC_RELAXED);
}

/* Does this end still write there (read from there)? */
static inline bool shs_end_writes(const struct shs_end *end, const struct shs_direction *dir)
{
    return shs_load64(&dir->wcookie) == end->cookie;
}

static inline bool shs_end_reads(const struct shs_end *end, const struct shs_direction *dir)
{
    return shs_load64(&dir->rcookie) == end->cookie;
}

/*
 * Does the end's ring hold something? Any thread, without a lock. Read index, write index, cookie, and the read index again: a block that
 * went to somebody else and came back meanwhile has another one, unless it was empty (indices go on, units.h).
 */
static inline bool shs_end_waiting(const struct shs_end *end)
{
    const struct shs_direction *dir = shs_end_rx(end);
    for (;;) {
        uint64_t rd = shs_load64(&dir->rd);
        if (shs_word_index(shs_load64(&dir->word)) == shs_rd_index(rd) || !shs_end_reads(end, dir))
            return false;
        if (SHS_LIKELY(shs_load64(&dir->rd) == rd))
            return true;
    }
}

/* A direction's tx_on and rx_on. */
enum {
    SHS_OFF = 0,     /* the kernel is used without counting */
    SHS_ON = 1,      /* counted, under lock */
    SHS_RECOUNT = 2, /* as ON, but someone died inside: the next holder of the lock reads the count from the kernel */
    SHS_ACTIVATING = 3, /* being brought under count: who sees it waits for the lock */
};

/* Is another thread inside a native call on fd in this direction (0 send, 1 receive)? Supplied by the preload library. */
typedef bool shs_in_flight_fn(int fd, int receive);

/*
 * Bring the sending (receiving) direction under count: 0, or -EAGAIN (another thread is inside the kernel, another process may be, or
 * counts differ): then the caller, whose own hazard is set, may go on natively. The state goes ACTIVATING before the hazards are looked at.
 */
int shs_activate(struct shs_env *env, const struct shs_who *who, struct shs_end *end, bool receive, shs_in_flight_fn *in_flight);

/* Send as a non-blocking sendmsg(2) does: bytes (cur is advanced by as many), -EAGAIN or another -errno. */
long shs_end_send(struct shs_env *env, const struct shs_who *who, struct shs_end *end, struct shs_cursor *cur, int flags);
/* Push into the ring what has room there: bytes, -EAGAIN when it is full, -EBUSY when it is shut but may be opened again, or 0: there is none
 * to push to, and shs_end_send says what is then. */
long shs_end_push(struct shs_env *env, const struct shs_who *who, struct shs_end *end, struct shs_cursor *cur);
/* Make a native call that puts bytes into the stream (control data, urgent data) under count: its result. It must not block. */
long shs_end_send_native(struct shs_env *env, const struct shs_who *who, struct shs_end *end, long (*call)(void *), void *arg);
/* Nothing is pushed by this end any more: its flags say so, and whoever was about to has done it. Its own residue is sent as far as that is
 * possible without waiting: 0, -EAGAIN, SHS_STALE or -errno. */
long shs_end_send_residue(struct shs_env *env, const struct shs_who *who, struct shs_end *end);
/* shutdown(2) of the sending direction, under count. */
long shs_end_shutdown(struct shs_env *env, const struct shs_who *who, struct shs_end *end, int how);

/* Answers may come by ring from now on, and acknowledge nothing: what Nagle's algorithm keeps back goes out. Under rlock. */
void shs_end_let_go(struct shs_env *env, const struct shs_who *who, struct shs_end *end);

struct shs_rx {
    uint64_t *looked_ns; /* when the kernel's queue was last looked at; 0: there is something to look at */
    bool must_look;      /* look at the kernel's queue even if that was a moment ago */
    /* Opening a ring and falling asleep in a set that holds its endpoint exclude each other. NULL: no set. `begin` says whether the
     * ring may be opened now, and then holds the set's lock until `done`. */
    bool (*begin)(void *set);
    void (*done)(void *set, bool opened);
    void *set;
    uint64_t look_gap_ns; /* otherwise it is looked at when the last look is so long ago */
};

/* Receive without waiting: bytes, 0 at the end of the stream, -EAGAIN (nothing there; the ring is open if it may be) or -errno. */
long shs_end_recv(struct shs_env *env, const struct shs_who *who, struct shs_end *end, struct shs_cursor *cur, int flags,
                  struct shs_rx *how);

/* Where a ring's bytes go when its process leaves the stack. */
struct shs_drain {
    bool (*room)(struct shs_drain *drain, struct iovec *iov); /* memory for more; false: none */
    void (*done)(struct shs_drain *drain);                    /* that is all: before any other thread receives again */
    size_t n;
    uint32_t error; /* errno that comes after them */
};

/*
 * Shut the ring for good and take what it holds, with the kernel's bytes that come before it: in one hold of rlock, so that no other thread
 * receives in between, and whoever comes next finds the direction OFF. A ring that other processes share stays under count.
 */
void shs_end_drain(struct shs_env *env, const struct shs_who *who, struct shs_end *end, struct shs_drain *drain);

/* A taker's note to itself: the pair may be given back while it sleeps, and then its count is gone. */
struct shs_take {
    struct shs_direction *dir; /* NULL: not counted */
    uint32_t gen;              /* of the pair */
    uint32_t epoch;            /* of the process's stack */
};

/* Count as a taker before a native wait or take: 1 counted; 0 the ring holds something (then nothing is counted); SHS_STALE; -EDEADLK. */
int shs_taker_enter(struct shs_env *env, const struct shs_who *who, const struct shs_end *end, struct shs_take *take);
/* The native call took n stream bytes (0: none). */
void shs_taker_leave(struct shs_env *env, const struct shs_who *who, const struct shs_take *take, uint64_t n);
/* The same, under rlock of a direction that is the end's own; false: the ring holds something. */
bool shs_taker_enter_locked(struct shs_env *env, struct shs_direction *dir);
void shs_taker_leave_locked(struct shs_env *env, struct shs_direction *dir, uint64_t n);
/* Is the bell rung for whatever may come next: nothing is left in the kernel, and all who may send there do it under count? A death is
 * not rung for, or later, by the helper. */
bool shs_end_rung_for(struct shs_env *env, const struct shs_end *end);
/* Bytes waiting in the ring of the end, for SIOCINQ. */
size_t shs_end_pending(struct shs_env *env, const struct shs_who *who, struct shs_end *end);
/* Under rlock, in a read call: let the writer push from now on, if that may be. `dir`: what the end reads from. */
void shs_ring_open(struct shs_env *env, const struct shs_who *who, struct shs_end *end, struct shs_direction *dir, struct shs_rx *how);
/* Take rlock of what the end reads from, with `taken` certain: 0, SHS_STALE or -EAGAIN (then it is not held). */
long shs_end_lock_rx(struct shs_env *env, const struct shs_who *who, struct shs_end *end, struct shs_direction *dir);
/* Nothing is pushed to the reader of this end any more (STICKY), if it is still paired; true if its ring holds something. */
bool shs_end_seal(struct shs_env *env, const struct shs_who *who, const struct shs_end *end);
/*
 * Shut the ring if it is open. Any thread of the opener, or whoever finds it dead. Without a lock, and so perhaps on what is another
 * connection's by now: that loses nothing, since a ring may be shut at any time; its reader opens it again.
 */
bool shs_ring_close(struct shs_direction *dir);

/* May the ring be opened: anything but the transient states? Fills in why_rx otherwise. */
bool shs_may_open(struct shs_env *env, const struct shs_end *end);

/*
 * Part of both repairs: it may have died between naming the chunk for the reader and for the writer, or between taking the two names away.
 * Nothing was written then, and both have the same one.
 */
static inline void shs_dir_mend_chunk(struct shs_direction *dir)
{
    uint64_t chunk = shs_load64(&dir->rchunk);
    if (chunk)
        shs_cas64(&dir->wchunk, 0, chunk);
}

/* Repairs, run under the lock that was taken over from the dead (declare/locks.py). */
void shs_dir_repair_writer(struct shs_direction *dir);
void shs_dir_repair_reader(struct shs_direction *dir);
