#include "preload/kept.h"

#include <sys/mman.h>

#include "endpoint/lift.h"
#include "intercepts.gen.h"
#include "preload/epoll.h"
#include "ring/ring.h"
#include "shm/probe.h"
#include "shm/sys.h"

#define PIECE 65536
#define KEPT_FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL | MSG_PEEK | MSG_WAITALL | MSG_CMSG_CLOEXEC | MSG_TRUNC)

/* With room for another piece; NULL: no memory. Only who leaves has it so far. */
static struct shs_kept *with_room(struct shs_kept *k, size_t n)
{
    size_t was = k ? k->room : 0, room = was ? was * 2 : 2 * PIECE;
    if (k && k->room - n - sizeof *k >= PIECE)
        return k;
    struct shs_kept *more = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (more == MAP_FAILED)
        return NULL;
    if (k) {
        memcpy(more, k, sizeof *k + n);
        munmap(k, was);
    }
    more->room = room;
    return more;
}

struct keeping {
    struct shs_drain drain;
    struct shs_fd *f;
    struct shs_kept *k;
};

static bool room(struct shs_drain *drain, struct iovec *iov)
{
    struct keeping *keeping = (struct keeping *)drain;
    struct shs_kept *k = with_room(keeping->k, drain->n);
    if (k) {
        keeping->k = k;
        *iov = (struct iovec){k->bytes + drain->n, PIECE};
    }
    return k;
}

/* Nothing was to be had for its bytes: the least that says so. */
static struct shs_kept lost = {.error = ENOBUFS};

static void publish(struct shs_drain *drain)
{
    struct keeping *keeping = (struct keeping *)drain;
    struct shs_kept *k = keeping->k;
    if (k) {
        k->n = drain->n;
        k->error = drain->error;
    }
    __atomic_add_fetch(&shs_proc.kept, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&keeping->f->kept, k ? k : &lost, __ATOMIC_RELEASE);
}

void shs_keep_and_leave(struct shs_fd *f, struct shs_end *end, const struct shs_who *who, bool keep)
{
    struct keeping keeping = {.drain = {.room = room, .done = publish}, .f = f};
    shs_end_leave(&shs_proc.env, who, end, keep ? &keeping.drain : NULL);
    if (keeping.k && !f->kept) /* it was asked for in vain */
        munmap(keeping.k, keeping.k->room);
}

size_t shs_kept_pending(const struct shs_fd *f)
{
    const struct shs_kept *k = f->kept;
    return k ? (size_t)(k->n - shs_load64(&k->rd)) : 0;
}

/* Copy what there is; false: another thread or process took it at the same time. */
static bool take(struct shs_kept *k, struct shs_cursor *cur, int flags, long *got)
{
    uint64_t rd = shs_load64(&k->rd), n = k->n - rd;
    *got = 0;
    for (n = n < cur->left ? n : cur->left; (uint64_t)*got < n;) {
        struct iovec iov[SHS_CURSOR_PIECES];
        size_t pieces, len = shs_cursor_rest(cur, iov, n - (uint64_t)*got, &pieces);
        for (size_t i = 0, at = 0; i < pieces && !(flags & MSG_TRUNC); at += iov[i++].iov_len) {
            if (!shs_writable(iov[i].iov_base, iov[i].iov_len)) {
                *got = *got ? *got : -EFAULT;
                return true;
            }
            memcpy(iov[i].iov_base, k->bytes + rd + (uint64_t)*got + at, iov[i].iov_len);
        }
        shs_cursor_advance(cur, len);
        *got += (long)len;
    }
    return (flags & MSG_PEEK) || shs_cas64(&k->rd, rd, rd + n);
}

/* All was received. */
static void finish(struct shs_fd *f)
{
    struct shs_kept *k = __atomic_exchange_n(&f->kept, NULL, __ATOMIC_SEQ_CST);
    if (!k)
        return;
    if (__atomic_sub_fetch(&shs_proc.kept, 1, __ATOMIC_SEQ_CST) == 0 && shs_proc.quiet)
        shs_proc.off = true;
    if (!shs_proc.quiet && !f->copied && k != &lost &&
        shs_peek32(&shs_proc.threads) <= 1) /* another thread may be receiving: then the memory is lost */
        munmap(k, k->room);
}

long shs_kept_recv(struct shs_fd *f, int fd, struct shs_cursor *cur, int flags)
{
    struct shs_kept *k = f->kept;
    struct shs_cursor begin = *cur;
    struct iovec iov[SHS_CURSOR_PIECES];
    size_t pieces;
    long got = 0, r;
    if (!k || (flags & ~KEPT_FLAGS))
        r = 0;
    else
        while (!take(k, cur, flags, &got))
            *cur = begin;
    bool last = k && shs_load64(&k->rd) == k->n && !shs_load32(&k->error);
    if (last)
        finish(f);
    if (got < 0 || (got && (cur->left == 0 || !(flags & MSG_WAITALL) || (flags & MSG_PEEK))))
        return got;
    if (!got && k && !last && !(flags & ~KEPT_FLAGS) && cur->left && shs_load32(&k->error)) {
        uint32_t error = __atomic_exchange_n(&k->error, 0, __ATOMIC_SEQ_CST);
        if (error)
            return -(long)error;
    }
    shs_cursor_rest(cur, iov, cur->left, &pieces);
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = pieces};
    r = shs_n_recvmsg(fd, &msg, flags);
    return got ? got + (r > 0 ? r : 0) : r;
}

void shs_kept_copied(struct shs_fd *from, struct shs_fd *to)
{
    if (!from->kept)
        return;
    from->copied = to->copied = true; /* neither gives the memory back */
    to->kept = from->kept;
    __atomic_add_fetch(&shs_proc.kept, 1, __ATOMIC_SEQ_CST);
}

void shs_kept_drop(struct shs_fd *f)
{
    finish(f);
}

void shs_kept_closing(struct shs_fd *f, int fd)
{
    /* close(2) with unread data resets the connection (RFC 1122, 4.2.2.13); the kernel cannot see ours */
    struct linger now = {1, 0};
    if (shs_kept_waiting(f) && f->why != SHS_REASON_FORKED && !f->copied && !shs_proc.quiet)
        shs_sys_setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

static bool readable(const struct pollfd *p)
{
    const struct shs_fd *f = p->fd >= 0 && (p->events & (POLLIN | POLLRDNORM)) ? shs_fd_look(p->fd) : NULL;
    return f && shs_kept_waiting(f);
}

bool shs_kept_polled(const struct pollfd *fds, nfds_t n)
{
    if (!shs_readable(fds, n * sizeof *fds))
        return false;
    for (nfds_t i = 0; i < n; i++)
        if (readable(&fds[i]))
            return true;
    return false;
}

int shs_kept_poll(struct pollfd *fds, nfds_t n)
{
    int ready = 0;
    for (nfds_t i = 0; i < n; i++) {
        if (readable(&fds[i]))
            fds[i].revents |= fds[i].events & (POLLIN | POLLRDNORM);
        ready += fds[i].revents != 0;
    }
    return ready;
}

/* A member with kept bytes that its interest makes reportable now; edges and one-shots are told of once. */
static bool tell(const struct shs_fd *f, int epfd)
{
    return f->set == (uint32_t)epfd + 1 && (f->events & (EPOLLIN | EPOLLRDNORM)) && shs_kept_waiting(f) &&
           !((f->events & (EPOLLET | EPOLLONESHOT)) && f->kept->told);
}

int shs_kept_events(int epfd, struct epoll_event *events, int n, int max)
{
    struct shs_fd *f;
    for (int fd = 0; n < max && (f = shs_fd_next(&fd)); fd++) {
        if (!tell(f, epfd))
            continue;
        f->kept->told = true;
        events[n].events = f->events & (EPOLLIN | EPOLLRDNORM);
        events[n++].data.u64 = f->data;
    }
    return n;
}

bool shs_kept_any(int epfd)
{
    struct shs_fd *f;
    for (int fd = 0; (f = shs_fd_next(&fd)); fd++)
        if (tell(f, epfd))
            return true;
    return false;
}
