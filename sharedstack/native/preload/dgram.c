/*
 * A datagram socket of this process: recorded after lift_after calls, left to the kernel for good where an option or another holder asks
 * for it, forgotten when it is bound or connected anew.
 */
#include "common.h"

#include <stdlib.h>

#include "endpoint/anchor.h"
#include "endpoint/lift.h"
#include "intercepts.gen.h"
#include "preload/attach.h"
#include "preload/dgram.h"
#include "preload/member.h"
#include "preload/restart.h"
#include "preload/tell.h"
#include "preload/wire_dgram.h"
#include "shm/lock.h"
#include "shm/sys.h"

/* An entry's own memory is kept while the descriptor lives: another thread may look at it. */
static struct shs_dgram *memory_of(struct shs_fd *f)
{
    shs_proc.private = true;
    if (!f->dgram)
        f->dgram = calloc(1, sizeof *f->dgram);
    else
        memset(f->dgram, 0, sizeof *f->dgram);
    return f->dgram;
}

void shs_dgram_begin(struct shs_fd *f, int fd)
{
    const struct shs_who *who = shs_who();
    struct shs_end end;
    int domain = 0;
    socklen_t len = sizeof domain;
    if (!who || shs_sys_getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) != 0 || !memory_of(f))
        return;
    int r = shs_dgram_register(&shs_proc.env, who, fd);
    if (r <= 0) {
        f->ops = 0;
        if (-r == SHS_REASON_EXHAUSTED)
            shs_tell_that(fd, SHS_REASON_EXHAUSTED);
        else if (r < 0)
            f->why = (uint32_t)-r;
        if (r < 0)
            shs_log("not lifted", fd, (uint32_t)-r);
        return;
    }
    if (!shs_end_of(&shs_proc.env, (uint32_t)r, &end))
        return;
    f->ep1 = (uint32_t)r;
    shs_fd_unmark(f);
    shs_ep_refs(f->ep1, 1);
    end.fd = fd;
    f->end = end;
    f->dgram->domain = domain;
    f->dgram->any_address = shs_any_address(end.ep->laddr);
    uint32_t flags = 0;
    struct timeval tv = {0};
    len = sizeof tv;
    if (shs_sys_fcntl(fd, F_GETFL, 0) & O_NONBLOCK)
        flags |= SHS_EPF_NONBLOCK;
    if (shs_sys_getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, &len) == 0 && (tv.tv_sec || tv.tv_usec))
        flags |= SHS_EPF_RCVTIMEO;
    __atomic_fetch_or(&end.ep->flags, flags, __ATOMIC_SEQ_CST);
    __atomic_store_n(&f->state, SHS_FD_PAIRED, __ATOMIC_RELEASE);
}

void shs_dgram_lower(struct shs_fd *f, uint32_t why)
{
    if (!f->why)
        f->why = why;
    if (f->state != SHS_FD_PAIRED)
        return;
    shs_dgram_unwire(f); /* first: what has come is in the ring then */
    /* Shut under rlock, where rings are opened, and flagged then: whoever sees the flag and finds the ring empty may receive by the kernel, since
     * nobody pushes any more. A handler that interrupted a receive here, or a process without a slot, has no lock: then it is shut once more. */
    struct shs_direction *dir = shs_end_rx(&f->end);
    const struct shs_who *who = shs_who();
    int locked = who ? shs_lock(&shs_proc.env, &dir->rlock, who->lock_word) : -EDEADLK;
    if (locked == SHS_LOCK_REPAIR)
        shs_dir_repair_reader(dir);
    shs_ring_close(dir);
    shs_set32(&f->end.ep->why_rx, why);
    shs_set32(&f->end.ep->why_tx, why);
    shs_endpoint_flag(f->end.ep, SHS_EPF_KERNEL_ONLY);
    if (locked < 0)
        shs_ring_close(dir);
    else
        shs_unlock(&dir->rlock);
}

static long recall(const struct shs_end *end, const struct shs_who *who, const struct shs_shown *shown, bool keep)
{
    long r = shs_dgram_recall(&shs_proc.env, who, end, shown, keep);
    if (r > 0)
        shs_log("unread datagrams lost", end->fd, SHS_REASON_OUTSIDE_HOLDER);
    return r > 0 ? 0 : r;
}

/* The kernel is not asked for destinations any more: who gets the socket would see the answers. */
static void ask_no_more(struct shs_dgram *d, int fd)
{
    if (!d->orig_dst)
        return;
    shs_ask_destinations(fd, d->domain, false);
    d->orig_dst = false;
}

long shs_dgram_hand_over(struct shs_fd *f, int fd, uint32_t why, bool keep)
{
    const struct shs_who *who = f->state == SHS_FD_PAIRED ? shs_who() : NULL;
    if (who && shs_end_waiting(&f->end))
        shs_dgram_recall_soon(&f->end);
    shs_dgram_lower(f, why);
    if (!who)
        return 0;
    struct shs_end end = f->end;
    end.fd = fd; /* the entry's own number may be closed in a vfork child */
    ask_no_more(f->dgram, fd);
    /* who shares it may receive what is left */
    return recall(&end, who, &f->dgram->shown, keep || (shs_load32(&end.ep->flags) & SHS_EPF_SHARED));
}

void shs_dgram_taken(int fd)
{
    uint64_t cookie = 0;
    int protocol = 0;
    socklen_t len = sizeof protocol;
    struct shs_end end = {.fd = fd};
    if (shs_sys_getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len) != 0 || protocol != IPPROTO_UDP)
        return;
    len = sizeof cookie;
    if (shs_sys_getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) != 0 || !shs_attach(fd) || !shs_join_try())
        return;
    const struct shs_who *who = shs_who();
    uint32_t ep1 = who ? shs_endpoint_seek(shs_proc.env.stack, cookie) : 0;
    if (ep1 && shs_end_of(&shs_proc.env, ep1, &end) && shs_is_datagram(end.ep)) {
        if (shs_dgram_wired(end.ep))
            shs_wire_ask(SHS_MSG_LOWER, ep1 - 1, cookie, -1, NULL);
        shs_dgram_recall_soon(&end);
        shs_set32(&end.ep->why_rx, SHS_REASON_FORKED);
        shs_set32(&end.ep->why_tx, SHS_REASON_FORKED);
        shs_endpoint_flag(end.ep, SHS_EPF_SHARED | SHS_EPF_KERNEL_ONLY);
        recall(&end, who, NULL, true);
    }
    shs_join_unlock();
}

bool shs_dgram_leave(struct shs_fd *f, int fd)
{
    const struct shs_who *who = shs_who();
    if (f->state != SHS_FD_PAIRED || !who || shs_end_waiting(&f->end) || shs_in_flight(fd, -1))
        return false;
    if (!shs_tables_lock(&shs_proc.env, who))
        return false;
    __atomic_store_n(&f->state, SHS_FD_BUSY, __ATOMIC_SEQ_CST);
    if (shs_ep_refs(f->ep1, -1) == 0)
        shs_endpoint_free(&shs_proc.env, who, f->ep1);
    shs_tables_unlock(&shs_proc.env);
    f->ops = f->ep1 = 0;
    f->looked_ns = 0;
    shs_fd_unmark(f);
    __atomic_store_n(&f->state, SHS_FD_TCP, __ATOMIC_SEQ_CST);
    return true;
}

void shs_dgram_moved(struct shs_fd *f, int fd)
{
    if (f->state != SHS_FD_PAIRED)
        return;
    const struct shs_who *who = shs_who();
    shs_dgram_unwire(f);
    if (who)
        shs_end_seal(&shs_proc.env, who, &f->end);
    else
        shs_dgram_lower(f, SHS_REASON_EXHAUSTED);
    f->dgram->leaving = true;
    shs_dgram_leave(f, fd);
}

void shs_dgram_port_changed(int fd)
{
    union shs_name name;
    socklen_t len = sizeof name;
    struct shs_where here = {.port = 0};
    if (shs_proc.attach != SHS_ATTACHED || !(shs_load32(&shs_proc.env.stack->links_used) | shs_load32(&shs_proc.env.stack->n_nics)))
        return;
    if (SHS_SYS(getsockname(fd, &name.sa, &len)) != 0 || !shs_take_address(&name.any, here.addr, &here.port) || !here.port)
        return;
    shs_links_doubt(&shs_proc.env, here.port, 0);
    if (shs_load32(&shs_proc.env.stack->n_nics))
        shs_dgram_unwire_port(here.port);
}

int shs_dgram_next_size(struct shs_fd *f)
{
    const struct shs_who *who = shs_who();
    struct shs_arrived arrived;
    struct shs_cursor cur;
    if (!who || shs_shown_next(&f->dgram->shown) || shs_lock(&shs_proc.env, &f->end.rx->rlock, who->lock_word) < 0)
        return -1;
    shs_cursor_init(&cur, NULL, 0);
    long r = shs_ring_pull_datagram(&shs_proc.env, f->end.rx, &cur, true, who->lock_word, &arrived);
    shs_unlock(&f->end.rx->rlock);
    return r == 0 ? (int)arrived.full : -1;
}
