/*
 * Purpose: datagram sockets at the boundary: which calls go by rings, where to, and waiting for what comes (docs/internals/datagrams.md).
 * Who may call: the interceptors, inside a gate whose `dgram` is set, or with the descriptor's entry where a function says so.
 * Ownership: struct shs_dgram belongs to one descriptor of this process; its lock guards the destinations, within the process.
 */
#pragma once
#include "endpoint/dgram.h"
#include "preload/gate.h"
#include "preload/nested.h"

#define SHS_N_DESTS 64 /* destinations of one socket that can be on the local path at once */

enum shs_dest_state {
    SHS_DEST_FREE,
    SHS_DEST_COUNTING, /* too few datagrams yet */
    SHS_DEST_LINKED,   /* has a link */
    SHS_DEST_KERNEL,   /* not of this host, or no link to be had */
};

/* Somebody to whom this socket sends. */
struct shs_dest {
    struct shs_where to;
    uint16_t state; /* enum shs_dest_state */
    uint32_t sends;
    uint32_t link1;
    struct shs_way way;
    uint32_t skip;    /* datagrams to be sent before the next wait for the receiver to catch up */
    uint32_t in_vain; /* how many, the next time */
    uint64_t seen; /* looks of the receiver that were begun when the last datagram went by the kernel: one later has to find it gone */
    uint32_t talks;      /* datagrams to and from there by the kernel, since the wire path was last tried */
    uint32_t wire_next;  /* so many, and it is tried; 0: wire_after */
    uint32_t wire_link1; /* link plus one whose engine has it; 0: none */
    bool by_kernel;      /* something went there by the kernel since it is the engine's */
    uint64_t wire_handle; /* the engine's record of socket and peer */
};

struct shs_dgram {
    struct shs_nested lock;
    int domain;
    bool any_address; /* bound to all addresses */
    bool orig_dst;    /* the kernel is asked for the destination address of each datagram */
    struct shs_shown shown;
    uint64_t error_ns; /* when the kernel was last asked for an error of what an engine sent */
    bool leaving;     /* bound or connected anew: what is in the ring is still read, then the record goes */
    bool peer_known;
    struct shs_where peer; /* connected to; port 0: not connected */
    struct shs_dest dest[SHS_N_DESTS];
};

/* An entry whose socket was used often enough: record it. */
void shs_dgram_begin(struct shs_fd *f, int fd);
/* Under the lock: the entry of a destination, made if there is none. */
struct shs_dest *shs_dest_of(struct shs_dgram *d, const struct shs_where *to);
/* As sendmsg(2) and recvmsg(2). */
long shs_dgram_sendmsg(struct shs_gate *g, int fd, const struct msghdr *msg, int flags);
long shs_dgram_recvmsg(struct shs_gate *g, int fd, struct msghdr *msg, int flags);
/* As recvfrom(2). */
long shs_dgram_recvfrom(struct shs_gate *g, int fd, void *buf, size_t len, int flags, struct sockaddr *addr, socklen_t *addrlen);
long shs_dgram_readv(struct shs_gate *g, int fd, const struct iovec *iov, int count);
/* Bytes in all, 0 where the count makes no sense. */
size_t shs_dgram_room(const struct iovec *iov, int count);
int shs_dgram_recvmmsg(int fd, struct mmsghdr *vec, unsigned vlen, int flags, struct timespec *timeout);
/* From now on by the kernel alone: REASON_*. For any entry. */
void shs_dgram_lower(struct shs_fd *f, uint32_t why);
/* As that, before the socket goes, or may go, to a holder who does not have its ring: what is unread there is given to the kernel. `fd` is a number of it.
 * `keep`: what cannot be sent again stays, to be received here. 0; -EPIPE: some is left; -EAGAIN, -ENOMEM: all is. */
long shs_dgram_hand_over(struct shs_fd *f, int fd, uint32_t why, bool keep);
/* A descriptor that this process took from another one, which does not hear of it. */
void shs_dgram_taken(int fd);
/* The socket was, or is about to be, bound or connected: what was known of it is forgotten. For any entry. */
void shs_dgram_moved(struct shs_fd *f, int fd);
/* The record goes if the ring is empty and nobody is inside; true: it is gone. */
bool shs_dgram_leave(struct shs_fd *f, int fd);
/* Other sockets may receive otherwise than before: the local port of fd was bound or connected. */
void shs_dgram_port_changed(int fd);
/* FIONREAD: bytes of the next datagram; -1: the kernel knows. */
int shs_dgram_next_size(struct shs_fd *f);
