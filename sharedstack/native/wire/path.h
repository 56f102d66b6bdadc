/*
 * Purpose: a lifted connection as its holder uses it: send, receive, look. Nothing here waits.
 * Who may call: a thread of a participant that holds the descriptor; wire.lock is taken inside.
 * Each function compares the endpoint's `wire` word with the one that the caller knows: if it is another one by now, the helper has lowered the
 * connection, nothing was done, and the kernel is to be used (SHS_STALE).
 */
#pragma once
#include "wire/port.h"

#include "endpoint/end.h"

struct shs_wire_end {
    struct shs_wire_port *port;
    struct shs_endpoint *ep;
    uint32_t word; /* of ep->wire, when the caller found it lifted */
    uint32_t me;   /* lock word of the thread */
};

/* What send and receive return when the connection is at its end, its peer's FIN or a reset having come, or urgent data: what that means to the program the kernel
 * says, after the connection was lowered. */
#define SHS_WIRE_OVER (-1102)

static inline bool shs_wire_is_on(uint32_t word)
{
    return (word & SHS_WIRE_STATE_MASK) == SHS_WIRE_ON;
}

/* As a non-blocking send: bytes (cur is advanced), -EAGAIN, -EFAULT, SHS_WIRE_OVER or SHS_STALE. */
long shs_wire_send(const struct shs_wire_end *end, struct shs_cursor *cur);
/* As a non-blocking receive: bytes, -EAGAIN, -EFAULT, SHS_WIRE_OVER or SHS_STALE. */
long shs_wire_recv(const struct shs_wire_end *end, struct shs_cursor *cur, bool peek);
/* What poll(2) would say of it: POLLIN, POLLOUT, POLLRDHUP, POLLHUP, POLLERR. No lock. */
short shs_wire_ready(const struct shs_wire_end *end);
/* A record by its handle, looked at without a lock: what it says may change meanwhile. NULL: gone. */
struct shs_tcp *shs_wire_find(const struct shs_engine *e, uint64_t handle);
/* Its record; NULL: it is not lifted any more. No lock. */
struct shs_tcp *shs_wire_record(const struct shs_wire_end *end);
/* Has urgent data come, for which it has to be lowered? No lock. */
bool shs_wire_urgent(const struct shs_wire_end *end);
/* Bytes that can be received, and bytes that are sent and not acknowledged. No lock. */
uint32_t shs_wire_unread(const struct shs_wire_end *end);
uint32_t shs_wire_unacked(const struct shs_wire_end *end);
/* TF_NODELAY, TF_CORK: 0, -errno or SHS_STALE. */
int shs_wire_option(const struct shs_wire_end *end, uint32_t flags, uint32_t mask);
/* Nothing more is sent: a FIN follows. 0, -errno or SHS_STALE. */
int shs_wire_finish(const struct shs_wire_end *end);
/* The descriptor is closed, and nobody is there to lower it: the engine ends the connection. */
void shs_wire_abandon(const struct shs_wire_end *end);
/* From now on this bell is rung when there is something new; `room`: room to send is. To be followed by a look. */
void shs_wire_await(const struct shs_wire_end *end, uint32_t bell, bool room);
