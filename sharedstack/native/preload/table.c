/*
 * The table of descriptors: entries are made when a call meets a number, forgotten when it is closed or taken anew. A number that is closed while
 * another thread waits on it leaves that thread an entry of its own to go on with (process.h).
 */
#include "preload/process.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "endpoint/fds.h"
#include "endpoint/lift.h"
#include "endpoint/residue.h"
#include "preload/attach.h"
#include "preload/dgram.h"
#include "preload/epoll.h"
#include "preload/kept.h"
#include "preload/member.h"
#include "preload/outside.h"
#include "preload/wire.h"
#include "preload/wire_dgram.h"
#include "shm/sys.h"

struct shs_fd *shs_fd_chunk[SHS_FD_CHUNKS];
uint32_t shs_fd_top;
static uint16_t ep_refs[SHS_N_ENDPOINTS];

struct shs_fd *shs_fd_make(int fd)
{
    if ((unsigned)fd >= SHS_FD_CHUNK * SHS_FD_CHUNKS)
        return NULL;
    struct shs_fd **place = &shs_fd_chunk[fd / SHS_FD_CHUNK];
    uint32_t above = (uint32_t)fd / SHS_FD_CHUNK + 1, top;
    if (!__atomic_load_n(place, __ATOMIC_ACQUIRE)) {
        struct shs_fd *fresh = mmap(NULL, SHS_FD_CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *none = NULL;
        if (fresh == MAP_FAILED)
            return NULL;
        while ((top = shs_load32(&shs_fd_top)) < above && !shs_cas32(&shs_fd_top, top, above))
            ;
        if (!__atomic_compare_exchange_n(place, &none, fresh, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            munmap(fresh, SHS_FD_CHUNK_BYTES);
    }
    return shs_fd_look(fd);
}

uint32_t *shs_fd_mark_of(const struct shs_fd *f)
{
    for (uint32_t c = 0; c < shs_load32(&shs_fd_top); c++) {
        struct shs_fd *chunk = shs_fd_chunk[c];
        if (chunk && f >= chunk && f < chunk + SHS_FD_CHUNK)
            return &shs_fd_marks(chunk)[f - chunk];
    }
    return NULL;
}

void shs_fd_unmark(const struct shs_fd *f)
{
    uint32_t *mark = shs_fd_mark_of(f);
    if (mark)
        *mark = 0;
}

void shs_ep_refs_none(void)
{
    memset(ep_refs, 0, sizeof ep_refs);
}

int shs_ep_refs(uint32_t ep1, int n)
{
    if (ep1 - 1 >= SHS_N_ENDPOINTS)
        return 0;
    return __atomic_add_fetch(&ep_refs[ep1 - 1], (uint16_t)n, __ATOMIC_SEQ_CST);
}

/* `end` stays: a thread that looks at the entry without a lock finds memory that is always mapped. */
static __attribute__((noinline)) void clear_all(struct shs_fd *f)
{
    struct shs_fd fresh = {.end = f->end};
    *f = fresh;
    shs_fd_unmark(f);
}

/* Most connections are short: is everything but what `clear_few` writes as it was when the entry was made? */
static inline bool little_used(const struct shs_fd *f)
{
    return f->state <= SHS_FD_TCP && !(f->ep1 | f->set | f->known | f->listed | f->udp | f->awaited) && !f->epoll && !f->dgram && !f->kept;
}

static inline void clear_few(struct shs_fd *f)
{
    __atomic_store_n(&f->state, SHS_FD_UNKNOWN, __ATOMIC_SEQ_CST);
    f->ops = f->why = 0;
    f->copied = f->told = false;
}

static void clear(struct shs_fd *f)
{
    if (little_used(f)) {
        clear_few(f);
        return;
    }
    if (f->dgram && shs_peek32(&shs_proc.threads) <= 1) /* another thread may be looking at it still: then it is lost */
        free(f->dgram);
    __atomic_store_n(&f->state, SHS_FD_UNKNOWN, __ATOMIC_SEQ_CST);
    if (f->kept)
        shs_kept_drop(f);
    clear_all(f);
}

void shs_fd_reset(int fd)
{
    struct shs_fd *f = shs_fd_look(fd);
    if (f && (f->state != SHS_FD_UNKNOWN || f->set))
        clear(f);
}

struct closed {
    int fd;
    const struct shs_fd *f;
};

/* Give whoever waits on the number something to go on with, and wake him. */
static void hand_over(struct shs_thread *t, void *arg)
{
    const struct closed *c = arg;
    uintptr_t waits = (uintptr_t)c->fd << 1 | 1;
    if (t == &shs_self || __atomic_load_n(&t->waits, __ATOMIC_SEQ_CST) != waits)
        return;
    struct shs_fd *orphan = malloc(sizeof *orphan);
    int copy = orphan ? shs_fd_high((int)shs_sys_fcntl(c->fd, F_DUPFD_CLOEXEC, 0)) : -1;
    if (copy >= 0) {
        *orphan = *c->f;
        orphan->state = SHS_FD_PAIRED;
        orphan->end.fd = copy;
        orphan->set = orphan->known = orphan->listed = 0;
        orphan->dirty = false;
        orphan->copied = true; /* its ring stays shut */
    }
    if (copy < 0 || !__atomic_compare_exchange_n(&t->waits, &waits, (uintptr_t)orphan, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        if (copy >= 0)
            shs_fd_drop(copy);
        free(orphan);
        return;
    }
    if (t->bell.handle) /* it may be about to wait for the number */
        shs_bell_ring(&shs_proc.env, NULL, t->bell.handle);
}

void shs_orphan_drop(struct shs_fd *orphan)
{
    shs_fd_drop(orphan->end.fd);
    free(orphan);
    shs_nudge(shs_proc.stack_name, shs_proc.env.slot1 - 1); /* that may have been the last of it */
}

static void give_up(struct shs_fd *f, int fd, bool lost)
{
    uint32_t ep1 = f->ep1, state = f->state;
    __atomic_store_n(&f->state, SHS_FD_KERNEL, __ATOMIC_SEQ_CST);
    bool busy = lost || (shs_peek32(&shs_proc.threads) > 1 && shs_in_flight(fd, -1));
    const struct shs_who *who = shs_who();
    if (busy && !lost && state == SHS_FD_PAIRED && !f->udp)
        shs_each_thread(hand_over, &(struct closed){fd, f});
    bool last = shs_ep_refs(ep1, -1) == 0;
    struct shs_endpoint *ep = shs_endpoint_at(shs_proc.env.stack, ep1);
    if (ep && ep->cookie != f->end.cookie)
        ep = NULL; /* the record is another connection's by now */
    /* with another thread still inside, or other holders, the helper frees the record when the kernel destroys the anchor */
    bool sole = ep && !busy && !(shs_load32(&ep->flags) & SHS_EPF_SHARED);
    if (who && last && sole && state == SHS_FD_PAIRED && !f->udp)
        shs_residue_finish(&shs_proc.env, who, &f->end, SHS_FINISH_MS);
    if (who && last && !(ep && shs_end_close(&shs_proc.env, who, ep1, fd, sole)))
        shs_nudge(shs_proc.stack_name, shs_proc.env.slot1 - 1); /* the helper looks which anchors are gone */
}

/* `lost`: it was closed by a call that we did not see, and the number may be anything's. */
static void closing(struct shs_fd *f, int fd, bool lost)
{
    if (f->state <= SHS_FD_KERNEL) {
        shs_fd_reset(fd);
        return;
    }
    if (SHS_UNLIKELY(f->state == SHS_FD_WIRE))
        shs_wire_closing(f, fd);
    shs_dgram_unwire(f);
    uint32_t state = f->state;
    if (f->set || f->known || f->listed)
        shs_set_forget(f, fd);
    if (state == SHS_FD_EPOLL)
        shs_set_drop(f->epoll, fd);
    if (state == SHS_FD_REG || state == SHS_FD_PAIRED) {
        shs_join_lock(); /* the number of its record is of this stack */
        if (f->state == SHS_FD_REG || f->state == SHS_FD_PAIRED)
            give_up(f, fd, lost);
        shs_join_unlock();
    }
    if (f->kept)
        shs_kept_closing(f, fd);
    clear(f);
}

void shs_fd_closing(int fd)
{
    struct shs_fd *f = shs_fd_look(fd);
    if (SHS_LIKELY(f && little_used(f)))
        clear_few(f);
    else if (f)
        closing(f, fd, false);
}

/* One number of a dissolved connection: it stays in its set. */
static void as_new(struct shs_fd *f, int fd, bool shared)
{
    shs_set_quit(f, fd);
    f->ep1 = f->ops = 0;
    f->registered = NULL;
    f->drained = f->looked_ns = 0;
    if (shared && !f->why)
        f->why = SHS_REASON_FORKED;
    shs_fd_unmark(f);
    __atomic_store_n(&f->state, SHS_FD_NEW, __ATOMIC_SEQ_CST);
}

void shs_fd_dissolve(int fd)
{
    struct shs_fd *f = shs_fd_look(fd);
    uint32_t ep1 = f->ep1;
    if (f->state < SHS_FD_REG) {
        f->ops = 0;
        __atomic_store_n(&f->state, SHS_FD_NEW, __ATOMIC_SEQ_CST);
        return;
    }
    struct shs_endpoint *ep = shs_endpoint_at(shs_proc.env.stack, ep1);
    const struct shs_who *who = shs_who();
    bool copied = f->copied, sole = ep && !(shs_load32(&ep->flags) & SHS_EPF_SHARED), shared = copied || !sole;
    for (int c = 0; c < SHS_FD_CHUNKS; c++)
        for (int i = 0; shs_fd_chunk[c] && i < SHS_FD_CHUNK && (copied || c == fd / SHS_FD_CHUNK); i++) {
            struct shs_fd *one = &shs_fd_chunk[c][i];
            int number = c * SHS_FD_CHUNK + i;
            if (one->ep1 != ep1 || (one->state != SHS_FD_REG && one->state != SHS_FD_PAIRED) || one->udp)
                continue;
            as_new(one, number, shared);
            sole = sole && !(shs_peek32(&shs_proc.threads) > 1 && shs_in_flight(number, -1));
            shs_ep_refs(ep1, -1);
        }
    if (who && ep && !shs_end_dissolve(&shs_proc.env, who, ep1, sole))
        shs_nudge(shs_proc.stack_name, shs_proc.env.slot1 - 1);
}

bool shs_fd_lost(struct shs_fd *f)
{
    uint64_t cookie = 0;
    socklen_t len = sizeof cookie;
    int fd = f->end.fd;
    if (shs_fd_look(fd) != f || f->state != SHS_FD_PAIRED)
        return false;
    if (shs_sys_getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) == 0 && cookie == f->end.cookie)
        return false;
    closing(f, fd, true);
    return true;
}
