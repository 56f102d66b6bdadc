/*
 * Purpose: the engine of the wire path: moves data of synchronised TCP connections and of datagram sockets. The flow of events is
 * outlined in docs/internals/engine.md.
 * Who may call: whoever holds wire.lock; every function needs it. Time is passed in as `now` of the engine, randomness as the seed of the
 * area, packets by shs_engine_input; what goes out goes through the link. No system calls, no memory of its own.
 * When the caller dies here: the next owner of the lock runs shs_engine_rebuild. What was in flight then counts as lost, and is sent again.
 * What is found in the area is not trusted: an index is checked where it is used, and a record that makes no sense ends its connection.
 */
#pragma once
#include "engine/packet.h"

/* A packet device. Packets begin with their IP header; what is below is the device's. */
struct shs_device {
    /* Where to write a packet of at most `len` bytes; NULL: full, the engine tries again later. */
    uint8_t *(*room)(void *dev, uint32_t len);
    /* What room gave last is a packet of `len` bytes now. */
    void (*send)(void *dev, uint32_t len);
    void *dev;
    bool is_virtual; /* packets with a checksum of the pseudo-header alone come from it */
};

struct shs_engine_size {
    uint32_t n_tcp, n_udp, n_seg, n_buckets;
};

/* One process's view of an area; numbers of records are as attached, whatever the area says later. */
struct shs_engine {
    struct shs_wire *w;
    struct shs_tcp *tcp;
    struct shs_udp *udp;
    struct shs_txseg *seg;
    uint32_t *bucket;
    uint8_t *queues;
    uint64_t queue_bytes;
    struct shs_engine_size n;
    const struct shs_device *link;
    uint64_t now; /* ns; never goes back */
    /* There is something new for the program of a connection that names a bell; NULL: nobody is told. */
    void (*woken)(struct shs_engine *e, uint32_t bell);
    /* A datagram for a record that names an endpoint: false where it is lost. NULL: all are. */
    bool (*deliver)(struct shs_engine *e, const struct shs_udp *u, const struct shs_packet *p, uint16_t sport);
};

/* The area. Sizes: n_buckets is a power of two. Attaching: 0, or -EINVAL if it is none, or too small for what it says. */
uint64_t shs_engine_bytes(const struct shs_engine_size *n);
void shs_engine_format(void *area, const struct shs_engine_size *n, uint64_t seed, uint64_t now);
int shs_engine_attach(struct shs_engine *e, void *area, uint64_t bytes, void *queues, uint64_t queue_bytes, const struct shs_device *link);
void shs_engine_rebuild(struct shs_engine *e);
int shs_engine_check(struct shs_engine *e); /* 0, or the line of check.c that found something wrong */

/* Events. */
void shs_engine_input(struct shs_engine *e, const uint8_t *packet, uint32_t len);
void shs_engine_timers(struct shs_engine *e);
uint64_t shs_engine_next(const struct shs_engine *e); /* when timers want to run, at the latest; UINT64_MAX: never */

/* A connection, by handle: generation << 32 | index plus one; 0 when there is no room, or the image makes no sense. */
uint64_t shs_tcp_open(struct shs_engine *e, const struct shs_tcp_image *image);
int shs_tcp_export(struct shs_engine *e, uint64_t handle, struct shs_tcp_image *image);
/* Bytes of the send queue, from snd_una + at on; for export. */
uint32_t shs_tcp_unsent(struct shs_engine *e, uint64_t handle, uint32_t at, void *to, uint32_t len);
struct shs_tcp *shs_tcp_of(struct shs_engine *e, uint64_t handle); /* NULL: gone */

/* What programs do. Bytes, or -EAGAIN, -EPIPE, -EBADF (gone), or the error of the connection, once. */
long shs_tcp_send(struct shs_engine *e, uint64_t handle, const void *from, uint32_t len);
long shs_tcp_recv(struct shs_engine *e, uint64_t handle, void *to, uint32_t len); /* 0: the peer's FIN */
/* Of what is unread the bytes from the at-th on, which stay unread; -EAGAIN: there are none. */
long shs_tcp_peek(struct shs_engine *e, uint64_t handle, uint32_t at, void *to, uint32_t len);
int shs_tcp_shutdown(struct shs_engine *e, uint64_t handle);
int shs_tcp_close(struct shs_engine *e, uint64_t handle); /* the handle is gone, the connection goes on to its end */
int shs_tcp_abort(struct shs_engine *e, uint64_t handle); /* RST; then close */
int shs_tcp_forget(struct shs_engine *e, uint64_t handle); /* silently: the kernel has it again */
int shs_tcp_option(struct shs_engine *e, uint64_t handle, uint32_t flags, uint32_t mask); /* TF_NODELAY, TF_CORK */
int shs_tcp_keepalive(struct shs_engine *e, uint64_t handle, uint32_t idle, uint32_t intvl, uint32_t count); /* ms; idle 0: off */
int shs_tcp_user_timeout(struct shs_engine *e, uint64_t handle, uint32_t ms);
uint32_t shs_tcp_readable(struct shs_engine *e, uint64_t handle);

/* What comes goes to the endpoint `ep1`, by `deliver`, or where that is 0 to a queue of its own. Zeros: any local address, any peer. */
struct shs_udp_open {
    uint8_t laddr[16], raddr[16];
    uint16_t lport, rport;
    uint32_t rx_size;
    uint64_t rx_off, cookie;
    uint32_t ep1;
};
uint64_t shs_udp_open(struct shs_engine *e, const struct shs_udp_open *open);
struct shs_udp *shs_udp_of(const struct shs_engine *e, uint64_t handle); /* NULL: gone */
/* Where to write the `len` bytes of a datagram to `dst`, an address of 16 bytes; NULL: the device is full. Then `send` it, with nothing between. */
uint8_t *shs_udp_room(struct shs_engine *e, const uint8_t dst[16], uint32_t len);
void shs_udp_sent(struct shs_engine *e, struct shs_udp *u, uint8_t *at, const uint8_t src[16], const uint8_t dst[16], uint16_t dport,
                  uint32_t len);
long shs_udp_send(struct shs_engine *e, uint64_t handle, const uint8_t src[16], const uint8_t dst[16], uint16_t dport, const void *from,
                  uint32_t len);
long shs_udp_recv(struct shs_engine *e, uint64_t handle, void *to, uint32_t len, uint8_t src[16], uint16_t *sport);
int shs_udp_close(struct shs_engine *e, uint64_t handle);
