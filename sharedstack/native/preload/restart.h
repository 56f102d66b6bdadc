/*
 * Purpose: small things that several interceptors need: what a received message did to the
 * descriptor table, receives with flags that only the kernel has, and the epoll set's say on opening a ring.
 */
#pragma once
#include "preload/gate.h"
#include "shm/probe.h"

/* Descriptors came by SCM_RIGHTS: their numbers mean something new. */
void shs_received_rights(struct msghdr *msg);
/* Descriptors are about to be passed on by socket `over`: from now on another process may use them too, perhaps one outside the library: 0, or
 * -errno where that must not be. */
long shs_sending_rights(int over, const struct msghdr *msg);
/* The socket may from now on be used by another process at once: what is not under count stays with the kernel. */
void shs_fd_shared(struct shs_fd *f);
/* Sleep on the socket and the bell, the ring staying open: 0 (look again), -EBUSY (another thread dozes there) or -errno. */
long shs_recv_doze(struct shs_fd *f, const struct shs_who *who, struct shs_bell_own *bell, uint64_t deadline);
long shs_recv_special(struct shs_gate *g, struct msghdr *msg, int flags);
/* Shut the ring: from now on the library cannot see all who wait for the descriptor. */
void shs_ring_quit(struct shs_fd *f);
/* struct shs_rx.begin and .done for a member of an epoll set; the argument is its struct shs_fd. */
bool shs_set_begin(void *fd_entry);
void shs_set_done(void *fd_entry, bool opened);
/* Time-out that `option` (SO_RCVTIMEO, SO_SNDTIMEO) sets, in ns; 0: none. */
uint64_t shs_socket_timeout(int fd, int option);
/* What is left until `deadline` (CLOCK_MONOTONIC, ns), as a time-out for a system call; NULL where there is no deadline (0). */
static inline struct timespec *shs_time_left(uint64_t deadline, struct timespec *ts)
{
    uint64_t now = deadline ? shs_now() : 0, left = deadline > now ? deadline - now : 0;
    ts->tv_sec = (time_t)(left / 1000000000ull);
    ts->tv_nsec = (long)(left % 1000000000ull);
    return deadline ? ts : NULL;
}
/* Are an array of buffers, and a message with its array, there to be read? What is not, is for the kernel to refuse. */
static inline bool shs_vector_good(const struct iovec *iov, int count)
{
    return count >= 0 && count <= 1024 && shs_readable(iov, (size_t)count * sizeof *iov);
}

static inline bool shs_message_readable(const struct msghdr *msg)
{
    return shs_readable(msg, sizeof *msg) && msg->msg_iovlen <= 1024 && shs_readable(msg->msg_iov, msg->msg_iovlen * sizeof *msg->msg_iov);
}

/* Is this process's thread the only one that can read here? */
static inline bool shs_alone(const struct shs_fd *f)
{
    return shs_proc.threads <= 1 && !(shs_peek32(&f->end.ep->flags) & SHS_EPF_SHARED);
}
