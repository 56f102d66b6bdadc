/*
 * Purpose: datagrams between a socket and a peer on another host, by an engine: out, and into the socket's ring.
 * Who may call: send: a thread of a participant that holds the descriptor, wire.lock is taken inside; deliver: the engine, under that lock.
 * The engine's record of socket and peer is the helper's to make and to end; a handle of one that has ended is SHS_STALE.
 */
#pragma once
#include "wire/port.h"

#include "endpoint/end.h"

/* Whose socket, and the engine's record of it and its peer. */
struct shs_wire_flow {
    struct shs_wire_port *port;
    struct shs_endpoint *ep;
    uint64_t handle;
    uint32_t me; /* lock word of the thread */
};

/* Send the `len` bytes of iov as one datagram: len, or SHS_STALE, -EFAULT, -EMSGSIZE (it would have to be cut in fragments) or -EAGAIN (the device is full):
 * then the kernel may. */
long shs_wire_send_datagram(const struct shs_wire_flow *flow, const struct iovec *iov, size_t count, size_t len);
/* As struct shs_engine's `deliver`. */
bool shs_wire_deliver(struct shs_engine *e, const struct shs_udp *u, const struct shs_packet *p, uint16_t sport);
