/*
 * Purpose: push records into and pull them out of a direction's ring. Memory only: no system call, no lock taken but the
 * arena's when a chunk is changed.
 * Who may call: push and grow by the holder of wlock, pull by the holder of rlock. Killed at any instruction: a record is published
 * by one compare-and-swap and consumed by one store; half-changed chunks are recognised by their base (see ring.c).
 */
#pragma once
#include <sys/uio.h>

#include "ring/word.h"
#include "shm/stack.h"

/* A position in the program's buffers. */
struct shs_cursor {
    const struct iovec *iov;
    int count;   /* iovecs left, the current one included */
    size_t off;  /* bytes done of the current one */
    size_t left; /* bytes left in all */
};

enum {
    SHS_RING_EMPTY = -1000, /* nothing to pull */
    SHS_RING_BEHIND,        /* the head record comes after kernel bytes that were not taken yet */
    SHS_RING_SHUT,          /* not pushable */
    SHS_RING_DEAD,          /* open, but its opener has died */
    SHS_RING_FULL,          /* no room */
    SHS_RING_UNMAPPED,      /* its memory cannot be mapped here (RLIMIT_AS) */
    SHS_RING_BROKEN,        /* what the other end wrote makes no sense: leave the ring alone for good */
};

#define SHS_CURSOR_MOST ((size_t)0x7ffff000) /* what the kernel takes of a call at most; more is cut to this */
void shs_cursor_init(struct shs_cursor *cur, const struct iovec *iov, int count);
void shs_cursor_advance(struct shs_cursor *cur, size_t n);
/* Copy to where it is, and go on behind that: false: a bad pointer. */
bool shs_cursor_put(struct shs_cursor *cur, const uint8_t *bytes, size_t len);
#define SHS_CURSOR_PIECES 64
/* What is left, as an array for a system call: at most `limit` bytes in SHS_CURSOR_PIECES pieces, none empty. Returns bytes; *n: pieces. */
size_t shs_cursor_rest(const struct shs_cursor *cur, struct iovec iov[SHS_CURSOR_PIECES], size_t limit, size_t *n);

/* Push what fits of cur (all of it, or, when it is large, a good part): bytes pushed and cur advanced, or SHS_RING_*,
 * or -EFAULT: a bad pointer in cur. */
long shs_ring_push(struct shs_env *env, struct shs_direction *dir, struct shs_cursor *cur);
/* Look at what is there without consuming it: records, and between and behind them, where the order of the stream has them, `n` bytes that are
 * first in the kernel's queue. Returns bytes. Under rlock. */
size_t shs_ring_peek(struct shs_env *env, struct shs_direction *dir, struct shs_cursor *cur, uint64_t taken, const uint8_t *kernel,
                     size_t n);
/* Give the direction a larger chunk if it may have one and the reader has come to the present one. */
bool shs_ring_grow(struct shs_env *env, struct shs_direction *dir, uint32_t me);
/* Pull all whole and partial records that come no later than stream position `taken`: bytes, or SHS_RING_EMPTY, -EFAULT, or
 * SHS_RING_BEHIND with *need = kernel bytes to take first. `peek`: consume nothing. */
long shs_ring_pull(struct shs_env *env, struct shs_direction *dir, struct shs_cursor *cur, uint64_t taken, bool peek, uint32_t me,
                   uint64_t *need);
/* Push a datagram, whole, as a record of `kind` (REC_DATAGRAM or REC_DATAGRAM6) and `tag`: its length, SHS_RING_* or -EFAULT. `shut`: also where
 * the ring is shut, but has memory: the kernel does not get these datagrams. */
long shs_ring_push_datagram(struct shs_env *env, struct shs_direction *dir, struct shs_cursor *cur, uint32_t kind, uint64_t tag, bool shut);
/* Give the direction a larger chunk, if it may have one and the reader has come to the present one, and push the datagram there: its length,
 * SHS_RING_FULL or -EFAULT. */
long shs_ring_grow_datagram(struct shs_env *env, struct shs_direction *dir, struct shs_cursor *cur, uint32_t kind, uint64_t tag,
                            uint32_t me, bool shut);
/* What the head record of a ring of datagrams says. */
struct shs_arrived {
    uint64_t tag;
    size_t full; /* bytes of the datagram, of which there may have been room for fewer */
    uint32_t kind;
    uint8_t addr[16]; /* of REC_DATAGRAM6 */
};
/* Pull the datagram at the head, as much of it as there is room for: 0, -EFAULT (a bad pointer in cur; it is consumed all the same) or
 * SHS_RING_*. `peek`: it stays. */
long shs_ring_pull_datagram(struct shs_env *env, struct shs_direction *dir, struct shs_cursor *cur, bool peek, uint32_t me,
                            struct shs_arrived *arrived);
/* A look through the ring that consumes nothing, from `index` and `off` to `end`; under the lock of whoever else might consume. */
struct shs_walk {
    uint64_t index, end, chunk;
    uint32_t off;
};
/* The bytes that the walk is at, up to where they wrap: 1 and where they are, how many, and how many kernel bytes come before them; 0: no
 * more; or SHS_RING_BROKEN. The caller steps over them by adding to `off`. */
int shs_ring_walk(struct shs_env *env, struct shs_walk *walk, uint8_t **at, size_t *len, uint64_t *ksent);
/* Bytes waiting in the ring, for SIOCINQ. Under rlock. */
size_t shs_ring_pending(struct shs_env *env, struct shs_direction *dir);

/* Does the ring hold something? Two loads; any thread. */
static inline bool shs_ring_waiting(const struct shs_direction *dir)
{
    return shs_word_index(shs_load64(&dir->word)) != shs_rd_index(shs_load64(&dir->rd));
}
