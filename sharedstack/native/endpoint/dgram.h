/*
 * Purpose: datagram sockets on the local path (docs/internals/datagrams.md): a receiver's ring, which many senders share, and the links
 * that allow them to push to it. The kernel's socket stays open to everybody beside it.
 * Who may call: a thread of a participant that holds the descriptor; each function takes the locks that it needs. None waits for a
 * sender or receiver that was stopped: what cannot be done at once is left to the kernel.
 * When the caller dies inside: wlock and rlock guard nothing but the ring, which repairs itself; permissions are one word each.
 */
#pragma once
#include <netinet/in.h>

#include "endpoint/end.h"
#include "shm/flow.h"
#include "shm/link.h"

/* A socket address of the internet families. */
union shs_name {
    struct sockaddr sa;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_storage any;
};

/* One receive: where to, and what came. */
/*
 * Which datagram of the kernel's queue MSG_PEEK has shown: it is the next one, whatever has come by the ring meanwhile. Told by counting, because a
 * thread that shows one may be late to note it, when another thread has taken it.
 */
struct shs_shown {
    uint64_t taken; /* datagrams taken from the kernel; counted under rlock, or before the taker leaves */
    uint64_t at;    /* `taken` plus one before the last one was shown; 0: never */
    bool older; /* an engine brings its peers' datagrams from now on: what the kernel has is older; cleared when its queue is seen empty */
};

static inline bool shs_shown_next(const struct shs_shown *shown)
{
    return shs_load64(&shown->at) == shs_load64(&shown->taken) + 1;
}

/* What a receive of a datagram by the kernel returned; `taken` as it was before. */
static inline void shs_shown_note(struct shs_shown *shown, uint64_t taken, int flags, long r)
{
    if (flags & MSG_PEEK) {
        if (r >= 0)
            shs_store64(&shown->at, taken + 1);
    } else if (r >= 0 || r == -EFAULT) { /* what cannot be copied is lost */
        __atomic_fetch_add(&shown->taken, 1, __ATOMIC_SEQ_CST);
    }
}

struct shs_dgram_io {
    const struct iovec *iov;
    size_t count;
    int flags; /* MSG_PEEK */
    int domain; /* of the socket: AF_INET or AF_INET6 */
    bool orig_dst; /* the socket is told to say which destination address a datagram had */
    struct shs_shown *shown;
    bool by_kernel; /* that is how it came */
    long full; /* bytes of the datagram */
    union shs_name name;
    socklen_t name_len;
};

/* What a sender knows of a link, and under which word it is true. */
struct shs_way {
    struct shs_endpoint *ep; /* the sender's */
    struct shs_link *link;
    struct shs_pair *pair;
    uint64_t word;
    uint64_t tag; /* of its datagrams' records */
    uint32_t pair_gen;
};

static inline bool shs_is_datagram(const struct shs_endpoint *ep)
{
    return ep->family & SHS_FAMILY_DATAGRAM;
}

/* Are datagrams of some of its peers an engine's, or about to be? They come to its ring, whatever the state of that. */
static inline bool shs_dgram_wired(const struct shs_endpoint *ep)
{
    return shs_load32(&ep->wire) & SHS_WIRE_STATE_MASK;
}

static inline bool shs_any_address(const uint8_t addr[16])
{
    static const uint8_t zero[16], v4[16] = {[10] = 0xff, [11] = 0xff};
    return !memcmp(addr, zero, 16) || !memcmp(addr, v4, 16);
}

/* What a record says of who sent it. */
static inline uint64_t shs_tag_of(const uint8_t addr[16], uint16_t port)
{
    uint32_t four = 0;
    if (shs_is_four(addr))
        memcpy(&four, addr + 12, 4);
    return (uint64_t)port << 32 | four;
}

/* The pair whose dir[0] this is. */
static inline struct shs_pair *shs_inbox_of(struct shs_direction *dir)
{
    return (struct shs_pair *)((uint8_t *)dir - offsetof(struct shs_pair, dir));
}

/* Take a lock without waiting for long: as shs_lock_try. */
int shs_dgram_try_lock(struct shs_env *env, uint32_t *word, uint32_t me);
/* Record a bound UDP socket, with a ring to receive by: endpoint plus one; 0 to try again later; or -REASON_*. */
int shs_dgram_register(struct shs_env *env, const struct shs_who *who, int fd);
/* Under ctl and the arena's lock: free the record, its ring and its links. */
void shs_dgram_release(struct shs_env *env, const struct shs_who *who, uint32_t ep1);
/* Under the arena's lock: a parked inbox gives its memory back, unless somebody is inside. */
void shs_inbox_empty(struct shs_env *env, struct shs_direction *dir, uint32_t me);
/* The helper's look at a parked inbox: somebody was inside when it was given up, and it kept its memory. */
void shs_inbox_sweep(struct shs_env *env, uint32_t pair1, uint32_t me);
/* Bring the receiving side under the library's eyes, as shs_activate does: 0 or -EAGAIN. */
int shs_dgram_activate(struct shs_env *env, const struct shs_who *who, struct shs_end *end, shs_in_flight_fn *in_flight);

/* The socket goes where its ring does not: what is unread there is given to the kernel, each datagram from its source and in order, and nothing is
 * pushed any more. The end is flagged KERNEL_ONLY. `shown`: what the holder knows of the kernel's queue, or NULL. `keep`: a datagram that cannot be
 * sent again stays in the ring, with all behind it, and the answer is -EPIPE; else it is lost, and counted. How many were lost; -EAGAIN or -ENOMEM: all are
 * where they were. */
long shs_dgram_recall(struct shs_env *env, const struct shs_who *who, const struct shs_end *end, const struct shs_shown *shown, bool keep);
/* A recall is about to shut the ring: senders wait for its end, which comes in any case, before they use the kernel. */
void shs_dgram_recall_soon(const struct shs_end *end);
/* A sender found the ring shut. */
void shs_dgram_await_recall(const struct shs_pair *pair);

/* Receive one datagram without waiting: 0, -EAGAIN (the ring is open if it may be), SHS_STALE (the record has gone) or -errno. */
long shs_dgram_recv(struct shs_env *env, const struct shs_who *who, struct shs_end *end, uint32_t ep1, struct shs_dgram_io *io,
                    struct shs_rx *how);
/* Push one datagram: its length, or SHS_RING_* or -EFAULT, and then the kernel has to carry or refuse it. */
long shs_dgram_push(struct shs_env *env, const struct shs_who *who, const struct shs_way *way, const struct iovec *iov, size_t count,
                    size_t len, bool wait);
/* A datagram that came from another host by an engine: into the ring of the socket with this cookie, open or shut, since the kernel does not get
 * it. false: it is lost, because there is no room, or another writer has the lock. `*bell`: to be rung; 0: nobody waits. */
bool shs_dgram_put(struct shs_env *env, uint32_t me, struct shs_endpoint *ep, uint64_t cookie, const uint8_t from[16], uint16_t port,
                   const void *bytes, size_t len, uint32_t *bell);

/* Endpoint ep1 asks to push to `to`, a socket address: link plus one; 0: not now; -REASON_*: never. */
int shs_link_want(struct shs_env *env, const struct shs_who *who, uint32_t ep1, int domain, const struct shs_where *to);
/* The kernel delivered a datagram from `from` to the end's socket, endpoint ep1, which was sent to `to` (NULL: not known): links that wait for
 * it are allowed. `fresh_ns`: its inbox's empty_ns before the kernel was asked for that datagram. */
bool shs_link_meet(struct shs_env *env, const struct shs_who *who, const struct shs_end *end, uint32_t ep1, uint64_t fresh_ns,
                   const struct shs_where *from, const struct shs_where *to);
/* A socket address of that family: its length. */
socklen_t shs_name_of(union shs_name *name, int domain, const uint8_t addr[16], uint16_t port);
/* From which address would `from`, any or bound, send to `to`? It is put into `from`; false: nowhere. */
bool shs_source_for(int domain, struct shs_where *from, const struct shs_where *to);
/* Is it an address of this host? */
bool shs_is_own_address(int domain, const uint8_t addr[16]);
/* What a sender may do now by the link: fills in `way`; false: it has to go by the kernel. */
bool shs_link_way(struct shs_env *env, uint32_t ep1, uint32_t link1, struct shs_way *way);
/* Sockets with this local port may receive otherwise than before: the kernel decides anew. port 0: links older than `age_ns`. */
void shs_links_doubt(struct shs_env *env, uint16_t port, uint64_t age_ns);
/* Have the kernel say with each datagram of fd's where it was sent to, or no more (ip(7), IP_RECVORIGDSTADDR). `domain`: the socket's. */
void shs_ask_destinations(int fd, int domain, bool ask);
/* The destination that a control message of `msg` names; false: none. */
bool shs_original_destination(struct msghdr *msg, struct shs_where *to);
