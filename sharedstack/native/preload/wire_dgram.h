/*
 * Purpose: datagrams of this process's sockets that go to other hosts, or come from there, by an engine. The engine's record is of a socket and one
 * peer: the helper makes it when that peer has been talked with often enough, and ends it when it is idle, or asked to. What comes goes to
 * the socket's ring, and all that waits for rings waits for it; but while any peer of a socket is an engine's, nobody may sleep in the
 * kernel on it, and who waits does the engine's work.
 * Who may call: the interceptors of datagram sockets, in a gate.
 */
#pragma once
#include "preload/dgram.h"
#include "preload/wire.h"

static inline bool shs_fd_wired(const struct shs_fd *f)
{
    return f->udp && f->state == SHS_FD_PAIRED && shs_dgram_wired(f->end.ep);
}

/* A datagram went to this peer, or came from there, by the kernel: perhaps it is time for the engine. */
void shs_dgram_talked(struct shs_fd *f, int fd, const struct shs_where *peer);
/* Send by the engine, if the peer is one's: bytes; an error that the socket had, as a send by the kernel would tell it; or SHS_STALE: the kernel may. */
long shs_dgram_transmit(struct shs_fd *f, const struct shs_who *who, const struct shs_where *peer, const struct iovec *iov, size_t count,
                        size_t len);
/* Sleep until something comes, from this host or another: 0 (look again) or -errno. */
long shs_dgram_doze_wired(struct shs_fd *f, const struct shs_who *who, uint64_t deadline);
/* Sockets of whatever process that have this local port: who of them gets what is for the kernel to decide anew. */
void shs_dgram_unwire_port(uint16_t port);
/* All of its peers are the kernel's again, and what came before is in its ring. */
void shs_dgram_unwire(struct shs_fd *f);
