#include "preload/eager.h"

#include <fcntl.h>
#include <time.h>

#include "endpoint/dgram.h"
#include "endpoint/lift.h"
#include "endpoint/policy.h"
#include "preload/restart.h"
#include "preload/signals.h"
#include "shm/policy.h"
#include "shm/sys.h"

#define NAP_NS 50000
#define PIECE 2048 /* bytes that wake a reader */
#define GIVES_MOST 9 /* times four: 512 MiB */
#define FULL_BYTES (12 << 10) /* three quarters of the smallest ring */
/* After so long without a byte sent a piece goes by the kernel: a call that waits for room has sent what there was room for, whatever ends it. */
#define FIRST_NS 10000000ull
/* How long for a peer to come, for its first receive, and for a reader that does not get on; shorter where a program that does not block may be its own peer. */
#define COMES_NS 300000000ull
#define GREETS_NS 50000000ull
#define COMES_NONBLOCKING_NS 2000000ull
#define COMES_THREADS_NS 20000000ull
#define GETS_ON_NS 300000000ull

/* True if a signal handler ended it. */
static bool nap(void)
{
    struct timespec ts = {0, NAP_NS};
    return SHS_SYS(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &ts, NULL)) != 0;
}

static void pass(int fd, int receive)
{
    struct shs_gate g = {0};
    shs_gate_pass(&g, fd, receive);
    shs_gate_leave(&g);
}

void shs_eager_meet(int fd)
{
    struct shs_fd *f = shs_proc.env.opt.eager == 1 ? shs_fd_look(fd) : NULL;
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer;
    if (!f || f->state != SHS_FD_TCP || f->udp || f->why || shs_proc.quiet || SHS_SYS(getpeername(fd, (struct sockaddr *)&peer, &len)) != 0)
        return; /* or not connected yet */
    uint64_t until = shs_now() + COMES_NS;
    do { /* another thread may be attaching the process, or the tables be locked: the other end became connected at the same moment */
        pass(fd, SHS_RECEIVE);
    } while (f->state == SHS_FD_TCP && f->ops && !f->why && shs_now() < until && !nap());
}

/* Is it kept in the kernel, so that nobody need wait for its ring? The helper's verdict comes within milliseconds. */
static bool denied(const struct shs_fd *f)
{
    const struct shs_endpoint *ep = shs_fd_record(f);
    return ((shs_load32(&ep->flags) & SHS_EPF_DENIED) && shs_policy_reason(ep) != SHS_REASON_UNJUDGED) ||
           shs_policy_kept(shs_proc.env.stack, shs_is_four(ep->laddr));
}

void shs_eager_accepted(int fd)
{
    uint64_t until = shs_now() + COMES_NONBLOCKING_NS;
    shs_eager_meet(fd);
    const struct shs_fd *f = shs_fd_look(fd);
    while (f && f->state == SHS_FD_REG && !f->why && !denied(f) && !shs_proc.quiet && shs_now() < until && !nap())
        pass(fd, SHS_RECEIVE);
    if (f && f->state == SHS_FD_PAIRED)
        pass(fd, SHS_SEND);
}

void shs_eager_polled(const struct pollfd *fds, nfds_t n)
{
    for (nfds_t i = 0; i < n; i++)
        if (fds[i].fd >= 0 && (fds[i].events & (POLLIN | POLLRDNORM)))
            shs_eager_meet(fds[i].fd);
}

/* Is the reader of what `f` sends this very thread, or the only one? Then it does not get on while we wait. */
static bool own_reader(const struct shs_fd *f, const struct shs_who *who)
{
    if (who && shs_peek32(&shs_end_tx(&f->end)->rthread) == who->lock_word)
        return true;
    const struct shs_endpoint *mate = shs_endpoint_at(shs_proc.env.stack, shs_end_peer(&shs_proc.env, f->end.ep));
    return shs_peek32(&shs_proc.threads) <= 1 && mate && shs_load32(&mate->slot) == shs_proc.env.slot1 &&
           !(shs_load32(&mate->flags) & SHS_EPF_SHARED);
}

/* May the peer still come? */
static bool may_come(const struct shs_gate *g)
{
    const struct shs_fd *f = g->f;
    if (f->why || f->udp || f->state < SHS_FD_TCP || shs_proc.quiet)
        return false;
    if (f->state < SHS_FD_REG) /* being registered, or its table was locked */
        return f->ops > 0;
    if (denied(f) || (shs_load32(&shs_fd_record(f)->flags) & (SHS_EPF_SHARED | SHS_EPF_KERNEL_ONLY | SHS_EPF_WRSHUT | SHS_EPF_SEALED)))
        return false;
    return !g->ring;
}

bool shs_eager_again(struct shs_gate *g, int fd, uint64_t *until)
{
    struct shs_fd *f = g->f;
    uint64_t now = shs_now();
    if (!*until)
        *until = now + (!(shs_sys_fcntl(fd, F_GETFL, 0) & O_NONBLOCK) ? COMES_NS
                        : shs_peek32(&shs_proc.threads) > 1           ? COMES_THREADS_NS
                                                                      : COMES_NONBLOCKING_NS);
    if (now >= *until || !may_come(g)) {
        f->awaited = true;
        return false;
    }
    shs_gate_leave(g);
    nap();
    return true;
}

/* A nap after which *f may be an orphan; false: a handler without SA_RESTART ran. */
static bool nap_within(struct shs_fd **f, struct shs_fd **orphan, struct shs_signal_mark mark)
{
    uintptr_t outer = shs_wait_begin((*f)->end.fd);
    bool signalled = nap();
    struct shs_fd *left = shs_wait_end(outer);
    if (SHS_UNLIKELY(left)) {
        if (*orphan)
            shs_orphan_drop(*orphan);
        *f = *orphan = left;
    }
    return signalled ? shs_restarts(mark) : !shs_interrupted(mark, true);
}

/* What a reader has received: it gets on when this changes. */
static uint64_t progress(const struct shs_fd *f)
{
    const struct shs_direction *dir = shs_end_tx(&f->end);
    return (shs_load64(&dir->rd) << 1) + shs_load64(&dir->taken);
}

void shs_eager_read(struct shs_fd *f)
{
    const struct shs_direction *dir = shs_end_tx(&f->end);
    uint64_t until = shs_now() + COMES_NONBLOCKING_NS;
    while (shs_ring_waiting(dir) && !own_reader(f, shs_who()) && shs_now() < until && !nap())
        ;
}

/* Does the peer wait for us to receive? Its ring to us is as good as full. */
static bool awaits_us(const struct shs_fd *f)
{
    const struct shs_direction *dir = shs_end_rx(&f->end);
    return shs_index_diff(shs_word_index(shs_load64(&dir->word)), shs_rd_index(shs_load64(&dir->rd))) > FULL_BYTES;
}

/* The program's own time-out is not to run here. Of two that wait for each other, one gives way. `vain`: it was waited for at this place before. */
static uint64_t patience(const struct shs_fd *f, bool block, bool vain)
{
    if (vain) /* a program that tries again at once would give the kernel all it has; one that fills a socket is to see it full */
        return block || f->gave >= GIVES_MOST ? 0 : COMES_NONBLOCKING_NS;
    if (shs_peek32(&f->end.ep->side) && awaits_us(f))
        return COMES_NONBLOCKING_NS;
    return block && shs_socket_timeout(f->end.fd, SO_SNDTIMEO) ? COMES_NONBLOCKING_NS : GETS_ON_NS;
}

/* A small send, which would go by the kernel whole: a little later, when the peer receives for the first time, it may go by ring. */
static bool greet(struct shs_gate *g, struct shs_fd **f, struct shs_fd **orphan, struct shs_signal_mark mark, bool block)
{
    uint64_t until = shs_now() + (block ? GREETS_NS : COMES_NONBLOCKING_NS);
    while (!(*f)->greeted && !own_reader(*f, g->who) && !shs_proc.quiet) {
        const struct shs_direction *dir = shs_end_tx(&(*f)->end);
        uint64_t word = shs_load64(&dir->word);
        if (shs_peek64(&dir->rchunk) || (word & SHS_WORD_STICKY) || shs_word_takers(word) || shs_now() >= until)
            (*f)->greeted = true;
        if (word & SHS_WORD_OPEN)
            return true;
        if ((*f)->greeted || !nap_within(f, orphan, mark))
            break;
    }
    return false;
}

/* By ring, as long as its reader gets on. `woken`: it has just been given something by the kernel, and may open its ring. False: there is no sense
 * in waiting for it. */
static bool push(struct shs_gate *g, struct shs_fd **f, struct shs_fd **orphan, struct shs_cursor *cur, long *sent, bool block, bool woken,
                 bool *broken)
{
    struct shs_signal_mark mark = shs_signal_mark();
    uint64_t at = 0, until = 0, began = 0;
    while (cur->left) {
        long r = shs_end_push(&shs_proc.env, g->who, &(*f)->end, cur);
        if (r > 0) {
            *sent += r;
            woken = false;
            continue;
        }
        if (r == -EBUSY && !woken && !(cur->left <= PIECE && greet(g, f, orphan, mark, block)))
            return !own_reader(*f, g->who);
        if (r == -EBUSY && !woken)
            continue;
        if (!r || own_reader(*f, g->who) || shs_proc.quiet) /* confined meanwhile: no system call of ours */
            return false;
        uint64_t now = shs_now(), got = progress(*f);
        if (!until || got != at) {
            at = got;
            until = now + patience(*f, block, (*f)->vain == at + 1);
        }
        if (now >= until) { /* once for each place at which a reader stands */
            (*f)->vain = at + 1;
            return false;
        }
        began = began ? began : now;
        if (!*sent && now >= began + FIRST_NS) {
            if (cur->left <= PIECE) /* many small sends do not each wait so long */
                (*f)->vain = at + 1;
            return true;
        }
        if (!nap_within(f, orphan, mark)) {
            *broken = true;
            return false;
        }
    }
    return true;
}

/* How much goes by the kernel for a reader that does not get on: little, since it may be about to; four times as much each time it stands where it
 * stood, so that a program that fills a socket sees it full after a few calls. */
static size_t scant(struct shs_fd *f)
{
    uint64_t at = progress(f) + 1;
    f->gave = f->gave_at == at ? f->gave + 1 : 0;
    f->gave_at = at;
    return (size_t)PIECE << 2 * (f->gave < GIVES_MOST ? f->gave : GIVES_MOST);
}

long shs_eager_send(struct shs_gate *g, struct shs_fd **f, struct shs_fd **orphan, struct shs_cursor *cur, int flags, bool block,
                    bool *broken)
{
    bool woken = false, coming;
    long sent = 0, r;
    do {
        coming = push(g, f, orphan, cur, &sent, block, woken, broken);
        /* who may come back from a call with less does so, and gets to receive the sooner what its peer waits to send */
        bool gives_way = !coming && !block;
        if (sent && (!cur->left || gives_way))
            return sent;
        struct shs_cursor piece = *cur;
        size_t most = coming && block ? PIECE : block ? piece.left : scant(*f);
        piece.left = piece.left < most ? piece.left : most;
        size_t want = piece.left;
        r = shs_end_send(&shs_proc.env, g->who, &(*f)->end, &piece, flags);
        if (r <= 0)
            return sent ? sent : r;
        shs_cursor_advance(cur, (size_t)r);
        sent += r;
        woken = (size_t)r == want;
    } while (woken && coming && cur->left);
    return sent;
}
