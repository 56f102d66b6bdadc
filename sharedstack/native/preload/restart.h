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
long shs_sending_rights(int over, const struct msghdr *msg, uint32_t *begun);
/* The socket may from now on be used by another process at once: what is not under count stays with the kernel. */
void shs_fd_shared(struct shs_fd *f);
/* Around a call that may give descriptors to another process: what is marked before is not believed to be nobody else's until it is over
 * (endpoint/sole.c). In no lock; shs_share_end gets what shs_share_begin returned. */
uint32_t shs_share_begin(void);
void shs_share_end(uint32_t begun); /* 0: nothing was begun */
/* Sleep on the socket and the bell, the ring staying open: 0 (look again), -EBUSY (another thread dozes there) or -errno. */
long shs_recv_doze(struct shs_fd *f, const struct shs_who *who, struct shs_bell_own *bell, uint64_t deadline);
long shs_recv_special(struct shs_gate *g, struct msghdr *msg, int flags);
/* Shut the ring: from now on the library cannot see all who wait for the descriptor. */
void shs_ring_quit(struct shs_fd *f);
/* struct shs_rx.begin and .done for what may be a member of an epoll set, in this process or in one that shares it; the argument is its struct shs_fd. */
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
#define SHS_IOV_MAX 1024
#define SHS_USER_BITS 56 /* no buffer of a 64-bit program is longer, on any processor */

/* What the kernel has against an array of buffers, before it looks where they are: 0 or -errno. */
static inline long shs_vector_refused(const struct iovec *iov, size_t count)
{
    long r = 0;
    if (SHS_UNLIKELY(!shs_readable(iov, count * sizeof *iov)))
        return -EFAULT;
    for (size_t i = 0; i < count; i++)
        if (SHS_UNLIKELY((ssize_t)iov[i].iov_len < 0))
            return -EINVAL;
        else if (SHS_UNLIKELY((uint64_t)iov[i].iov_len >> SHS_USER_BITS))
            r = -EFAULT;
    return r;
}

/* Is it an array of buffers that the kernel would not refuse? */
static inline bool shs_vector_good(const struct iovec *iov, int count)
{
    return count >= 0 && count <= SHS_IOV_MAX && shs_vector_refused(iov, (size_t)count) == 0;
}

/* An address to send to: looked at, also where it is of no use, as for a stream. */
static inline long shs_address_refused(const struct sockaddr *addr, socklen_t len)
{
    if (!addr)
        return 0;
    return len > sizeof(struct sockaddr_storage) ? -EINVAL : shs_readable(addr, len) ? 0 : -EFAULT;
}

/* What the kernel has against a message, in its order. */
static inline long shs_message_refused(const struct msghdr *msg, bool sends)
{
    if (SHS_UNLIKELY(!shs_readable(msg, sizeof *msg)))
        return -EFAULT;
    if (SHS_UNLIKELY(msg->msg_name)) {
        socklen_t len = msg->msg_namelen < sizeof(struct sockaddr_storage) ? msg->msg_namelen : sizeof(struct sockaddr_storage);
        if ((int)msg->msg_namelen < 0)
            return -EINVAL;
        if (sends && !shs_readable(msg->msg_name, len))
            return -EFAULT;
    }
    return SHS_UNLIKELY(msg->msg_iovlen > SHS_IOV_MAX) ? -EMSGSIZE : shs_vector_refused(msg->msg_iov, msg->msg_iovlen);
}

/* Bytes that an array of buffers, which was found readable, has room for. */
static inline size_t shs_vector_room(const struct iovec *iov, size_t count)
{
    size_t room = 0;
    for (size_t i = 0; i < count; i++)
        room += iov[i].iov_len;
    return room;
}

/* Is it a message that can be looked into? Else it is for the kernel to refuse. */
static inline bool shs_message_readable(const struct msghdr *msg)
{
    return shs_message_refused(msg, false) == 0;
}

/* Is this process's thread the only one that can read here? */
static inline bool shs_alone(const struct shs_fd *f)
{
    return shs_peek32(&shs_proc.threads) <= 1 && !(shs_peek32(&f->end.ep->flags) & SHS_EPF_SHARED);
}
