#include "preload/member.h"

#include <linux/futex.h>
#include <sys/mman.h>

#include "endpoint/fds.h"
#include "endpoint/lift.h"
#include "endpoint/residue.h"
#include "preload/attach.h"
#include "preload/dgram.h"
#include "preload/epoll.h"
#include "preload/gate.h"
#include "preload/kept.h"
#include "preload/wire.h"
#include "shm/slot.h"
#include "shm/sys.h"

#define RETRY_NS 1000000000ull

static struct shs_nested join_lock;
static uint32_t slot_busy;

bool shs_join_try(void)
{
    return shs_nested_try(&join_lock);
}

void shs_join_lock(void)
{
    shs_nested_lock(&join_lock);
}

void shs_join_unlock(void)
{
    shs_nested_unlock(&join_lock);
}

SHS_AT_FORK void shs_member_forked(void)
{
    memset(&join_lock, 0, sizeof join_lock);
    slot_busy = 0;
}

/* Under the join lock: segments and a slot. */
static bool enter(int fd, struct shs_env *fresh)
{
    *fresh = (struct shs_env){.bulk_fd = -1, .bell_fd = -1, .opt = shs_proc.env.opt, .epoch = shs_proc.env.epoch};
    shs_proc.attach_why = (uint32_t)shs_attach_segments(fresh, shs_proc.stack_name, fd);
    shs_proc.retry_ns = shs_proc.attach_why == SHS_REASON_NONE ? 0 : shs_now() + RETRY_NS;
    return shs_proc.attach_why == SHS_REASON_NONE;
}

static void entered(const struct shs_env *fresh)
{
    uint32_t epoch = shs_proc.env.epoch;
    shs_proc.env = *fresh;
    shs_proc.env.epoch = epoch;
    shs_proc.forked = 0;
    shs_proc.unwitnessed = false;
    shs_self.slot1 = 0;
    shs_self.witness = true;
    shs_store32(&shs_proc.attach, SHS_ATTACHED);
    /* the helper knows the process from its credentials; which slot it took, it learns here */
    shs_nudge(shs_proc.stack_name, shs_proc.env.slot1 - 1);
}

bool shs_left(void)
{
    shs_join_lock();
    bool over = shs_load32(&shs_proc.attach) != SHS_LEAVING; /* else it is this thread that leaves, and we are in a signal handler */
    shs_join_unlock();
    return over;
}

bool shs_attach(int fd)
{
    uint32_t state = shs_load32(&shs_proc.attach);
    struct shs_env fresh;
    if (state == SHS_ATTACHED)
        return true;
    if (shs_self.ended) /* nobody to witness that the process lives */
        return false;
    if (shs_proc.off || shs_proc.quiet || (state == SHS_ATTACH_FAILED && shs_now() < shs_proc.retry_ns) || !shs_join_try())
        return false;
    state = shs_load32(&shs_proc.attach);
    bool done = state == SHS_ATTACHED;
    if (!done && state != SHS_LEAVING) {
        done = enter(fd, &fresh);
        if (done) {
            entered(&fresh);
        } else {
            shs_store32(&shs_proc.attach, SHS_ATTACH_FAILED);
            shs_log("not attached", fd, shs_proc.attach_why);
        }
    }
    shs_join_unlock();
    return done;
}

/* A forked child's first need: a slot of its own, which the helper is told of. */
static void take_child_slot(void)
{
    if (!shs_cas32(&slot_busy, 0, 1))
        return;
    if (shs_proc.forked) {
        int slot = shs_slot_claim(shs_proc.env.stack, (uint32_t)getpid(), 0);
        if (slot >= 0) {
            shs_self.witness = true;
            shs_proc.env.slot1 = (uint32_t)slot + 1;
            shs_nudge(shs_proc.stack_name, (uint32_t)slot);
            shs_count(&shs_proc.env, SHS_CTR_FORK_SLOTS, 1);
            shs_proc.forked = 0;
        }
    }
    shs_store32(&slot_busy, 0);
}

const struct shs_who *shs_who(void)
{
    struct shs_thread *t = &shs_self;
    if (SHS_LIKELY(t->slot1 && t->slot1 == shs_proc.env.slot1 && !shs_proc.unwitnessed))
        return &t->who;
    if (shs_load32(&shs_proc.attach) != SHS_ATTACHED)
        return NULL;
    if (shs_proc.forked)
        take_child_slot();
    if (!shs_proc.env.slot1 || (!t->listed && !shs_list_thread()))
        return NULL;
    struct shs_slot *slot = shs_slot_at(shs_proc.env.stack, shs_proc.env.slot1 - 1);
    if (!t->witness && !t->ended && (shs_load32(&slot->flags) & SHS_SLOT_UNWITNESSED) && shs_slot_enrol(slot) == 0) {
        t->witness = true;
        shs_proc.unwitnessed = false;
    }
    t->slot1 = shs_proc.env.slot1;
    t->who.lock_word = t->slot1 << SHS_LOCK_SLOT_SHIFT | t->who.tag << 1;
    shs_fence(); /* who leaves says so first, and takes everybody's identity then */
    if (shs_load32(&shs_proc.attach) != SHS_ATTACHED)
        t->slot1 = 0;
    return t->slot1 ? &t->who : NULL;
}

/* Why the socket is not to be registered again; 0: it may be. The new record would not know what the old one did. */
static uint32_t carried(const struct shs_endpoint *ep)
{
    uint32_t flags = shs_load32(&ep->flags);
    if (flags & (SHS_EPF_RDSHUT | SHS_EPF_WRSHUT))
        return SHS_REASON_SHUT_DOWN;
    if (flags & SHS_EPF_KERNEL_ONLY)
        return shs_peek32(&ep->opt_level) ? SHS_REASON_OPTION : shs_peek32(&ep->why_rx) ? shs_peek32(&ep->why_rx) : SHS_REASON_OPTION;
    return flags & (SHS_EPF_SHARED | SHS_EPF_PINNED) ? SHS_REASON_FORKED : 0;
}

/* Other processes go on with it in the stack, and here it will be used uncounted. */
static void leave_to_others(struct shs_endpoint *ep)
{
    if (shs_load32(&ep->flags) & SHS_EPF_KERNEL_ONLY)
        return;
    shs_set32(&ep->why_rx, SHS_REASON_OUTSIDE_HOLDER);
    shs_set32(&ep->why_tx, SHS_REASON_OUTSIDE_HOLDER);
    shs_endpoint_flag(ep, SHS_EPF_KERNEL_ONLY);
}

static void leave_stream(struct shs_fd *f, int fd, const struct shs_who *who)
{
    struct shs_env *env = &shs_proc.env;
    struct shs_endpoint *ep = shs_endpoint_at(env->stack, f->ep1);
    struct shs_end end;
    if (!ep)
        return;
    bool shared = shs_load32(&ep->flags) & SHS_EPF_SHARED, paired = shs_end_of(env, f->ep1, &end);
    end.fd = fd;
    if (!f->why)
        f->why = carried(ep);
    if (shared)
        leave_to_others(ep);
    else if (!paired)
        shs_store32(&ep->slot, 0);
    if (!paired)
        return;
    if (!who) {
        shs_ring_close(end.rx);
        return;
    }
    /* what the kernel can be given again is there for whatever this process becomes; the rest only for itself */
    if (!shared && shs_end_waiting(&end))
        (void)shs_end_recall(env, who, &end, true);
    /* what other processes may read as well is theirs, unless it was we who read last */
    shs_keep_and_leave(f, &end, who, !shared || shs_load32(&end.rx->opener) == env->slot1);
}

static void leave_datagrams(struct shs_fd *f, int fd, const struct shs_who *who)
{
    struct shs_env *env = &shs_proc.env;
    struct shs_endpoint *ep = shs_endpoint_at(env->stack, f->ep1);
    if (!ep)
        return;
    if (!f->why)
        f->why = carried(ep);
    bool shared = shs_load32(&ep->flags) & SHS_EPF_SHARED;
    struct shs_end end = f->end;
    end.fd = fd;
    if (who && shs_end_waiting(&end))
        shs_dgram_recall_soon(&end);
    leave_to_others(ep);
    shs_ring_close(f->end.rx);
    if (!shared && f->dgram->orig_dst && !shs_proc.quiet)
        shs_ask_destinations(fd, f->dgram->domain, false);
    if (who && shs_dgram_recall(env, who, &end, &f->dgram->shown, shared) > 0)
        shs_log("unread datagrams lost", fd, SHS_REASON_OUTSIDE_HOLDER);
    bool last = shs_ep_refs(f->ep1, -1) == 0;
    if (who && last && !shared && !shs_end_done(env, who, f->ep1))
        shs_nudge(shs_proc.stack_name, shs_proc.env.slot1 - 1);
}

/* Each entry is as if its socket had not been used yet. `sender`: who sends unread datagrams again. */
static void leave_entries(const struct shs_who *who, const struct shs_who *sender)
{
    struct shs_fd *f;
    for (int fd = 0; (f = shs_fd_next(&fd)); fd++) {
        if (f->state != SHS_FD_REG && f->state != SHS_FD_PAIRED)
            continue;
        if (f->udp)
            leave_datagrams(f, fd, sender);
        else
            leave_stream(f, fd, who);
        f->ep1 = f->ops = 0;
        f->registered = NULL;
        f->looked_ns = f->drained = 0;
        shs_fd_unmark(f);
        __atomic_store_n(&f->state, SHS_FD_TCP, __ATOMIC_SEQ_CST);
    }
}

static bool unread_datagrams(void)
{
    struct shs_fd *f;
    for (int fd = 0; (f = shs_fd_next(&fd)); fd++)
        if (f->udp && f->state == SHS_FD_PAIRED && shs_end_waiting(&f->end))
            return true;
    return false;
}

static void leave_sets(void)
{
    struct shs_fd *f;
    for (int fd = 0; (f = shs_fd_next(&fd)); fd++)
        if (f->state == SHS_FD_EPOLL && f->epoll)
            shs_set_leave(f->epoll, fd);
}

static void take_identity(struct shs_thread *t, void *unused)
{
    (void)unused;
    t->slot1 = 0;
    if (t != &shs_self)
        t->witness = false;
}

static void call_back(struct shs_thread *t, void *unused)
{
    (void)unused;
    if (t != &shs_self && t->bell.handle && t->bell_epoch == shs_proc.env.epoch)
        shs_bell_ring(&shs_proc.env, NULL, t->bell.handle);
}

/* Private memory in place of a mapping, with some bytes of it as they were. At the same addresses, and in one step. */
static void replace(void *at, size_t len, const void *keep, size_t n)
{
    uint8_t *fresh = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (fresh != MAP_FAILED) {
        if (n)
            memcpy(fresh + ((const uint8_t *)keep - (uint8_t *)at), keep, n);
        if (mremap(fresh, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, at) != MAP_FAILED)
            return;
        munmap(fresh, len);
    }
    /* no room for both: what it was must go all the same */
    (void)!mmap(at, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

/*
 * The segments go; the slot is left as that of a killed process. It is marked last, by a second mapping of its page, when no thread of ours can
 * write to anything any more. The robust list of its home thread, if that is another one, leads through the slot for ever: there it stays.
 */
static void unmap(struct shs_env *env, uint32_t slot1)
{
    struct shs_slot *slot = slot1 ? shs_slot_at(env->stack, slot1 - 1) : NULL;
    struct shs_slot *there = NULL;
    uint8_t *pages = MAP_FAILED;
    size_t into = (uintptr_t)slot & 4095, len = (into + sizeof *slot + 4095) & ~(size_t)4095;
    if (slot) {
        if (shs_self.witness)
            shs_slot_leave_home(slot);
        pages = mremap((uint8_t *)slot - into, 0, len, MREMAP_MAYMOVE);
        there = pages == MAP_FAILED ? slot : (struct shs_slot *)(void *)(pages + into);
    }
    shs_self.witness = false;
    replace(env->arena, SHS_ARENA_BYTES, NULL, 0);
    if (there == slot && slot) /* no second mapping to be had */
        shs_store32(&slot->robust, FUTEX_OWNER_DIED);
    replace(env->stack, SHS_STACK_BYTES, slot, slot ? sizeof *slot : 0);
    for (int w = 0; w < SHS_N_WINDOWS; w++)
        if (env->window[w])
            replace(env->window[w], SHS_WINDOW_BYTES, NULL, 0);
    if (there != slot) {
        __atomic_fetch_and(&there->flags, ~(uint32_t)SHS_SLOT_UNWITNESSED, __ATOMIC_SEQ_CST);
        shs_store32(&there->robust, FUTEX_OWNER_DIED);
        munmap(pages, len);
    }
}

static void drop(int *kept)
{
    int fd = __atomic_exchange_n(kept, -1, __ATOMIC_SEQ_CST);
    if (fd >= 0 && shs_fd_wait_unused())
        shs_fd_drop(fd);
}

void shs_leave(void)
{
    struct shs_env *env = &shs_proc.env;
    if (shs_load32(&shs_proc.attach) != SHS_ATTACHED)
        return;
    bool forked = shs_proc.forked; /* it has no slot yet, and streams are its parent's */
    const struct shs_who *who = forked && !unread_datagrams() ? NULL : shs_who();
    uint32_t slot1 = env->slot1;
    __atomic_store_n(&shs_proc.attach, SHS_LEAVING, __ATOMIC_SEQ_CST);
    shs_wire_quit();
    shs_each_thread(take_identity, NULL);
    shs_fence();
    leave_entries(forked ? NULL : who, who);
    leave_sets();
    shs_each_thread(call_back, NULL);
    unmap(env, slot1);
    env->epoch++;
    env->slot1 = 0;
    env->nudge = 0;
    shs_ep_refs_none();
    if (slot1)
        shs_nudge(shs_proc.stack_name, slot1 - 1);
    drop(&env->bell_fd);
    drop(&env->bulk_fd);
    shs_bell_drop(&shs_self.bell, true);
    shs_proc.forked = 0;
    shs_proc.retry_ns = 0;
    shs_store32(&shs_proc.attach, SHS_NOT_ATTACHED);
}

bool shs_move(int fd)
{
    struct shs_env fresh;
    bool over = shs_load32(&shs_proc.env.stack->state) == SHS_STACK_RETIRED;
    if (!over || shs_self.ended || shs_proc.quiet || shs_now() < shs_proc.retry_ns || !shs_join_try())
        return false;
    bool done = shs_load32(&shs_proc.attach) == SHS_ATTACHED && enter(fd, &fresh);
    if (done) {
        shs_leave();
        entered(&fresh);
    }
    shs_join_unlock();
    return done;
}
