/*
 * Purpose: what a ring held that was unread when its process left the stack (member.h). It comes before all that the kernel has, and is
 * received from memory, without a system call. Processes that share the descriptor by fork share this memory too.
 * Who may call: the interceptors; shs_keep_and_leave only who leaves.
 * A reader that is killed while it copies has taken nothing.
 */
#pragma once
#include "preload/gate.h"

struct shs_kept {
    uint64_t rd;    /* bytes received */
    uint64_t n;     /* bytes in all */
    uint32_t error; /* errno that comes after them; 0: the kernel goes on */
    bool told;      /* an edge-triggered or one-shot member of a set: it was reported */
    size_t room;
    uint8_t bytes[];
};

/* Is there something to be received from memory? */
static inline bool shs_kept_waiting(const struct shs_fd *f)
{
    const struct shs_kept *k = __atomic_load_n(&f->kept, __ATOMIC_ACQUIRE);
    return SHS_UNLIKELY(k != NULL) && (shs_load64(&k->rd) < k->n || shs_load32(&k->error));
}

/* The end leaves the stack; `keep`: what its ring holds is kept, with the kernel's bytes that come before it. */
void shs_keep_and_leave(struct shs_fd *f, struct shs_end *end, const struct shs_who *who, bool keep);
/* As recvmsg(2) on what is kept; what MSG_WAITALL wants more, the kernel gives. */
long shs_kept_recv(struct shs_fd *f, int fd, struct shs_cursor *cur, int flags);
/* Bytes for FIONREAD. */
size_t shs_kept_pending(const struct shs_fd *f);
/* `to` is another number of the socket of `from`. */
void shs_kept_copied(struct shs_fd *from, struct shs_fd *to);
/* The descriptor is about to be closed: what is unread makes it a reset. */
void shs_kept_closing(struct shs_fd *f, int fd);
/* The entry's number means something else from now on. */
void shs_kept_drop(struct shs_fd *f);
/* Is one of them to be received from memory? */
bool shs_kept_polled(const struct pollfd *fds, nfds_t n);
/* Mark those that are as readable; returns how many of all have something. */
int shs_kept_poll(struct pollfd *fds, nfds_t n);
/* Members of the set that are to be reported: fills in events from place n on, returns the new number. */
int shs_kept_events(int epfd, struct epoll_event *events, int n, int max);
/* Would shs_kept_events report any? */
bool shs_kept_any(int epfd);
