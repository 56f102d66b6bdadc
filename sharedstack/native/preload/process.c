#include "preload/process.h"

#include <dlfcn.h>
#include <linux/membarrier.h>
#include <stdlib.h>

#include "endpoint/fds.h"
#include "endpoint/lift.h"
#include "preload/attach.h"
#include "preload/boundary.h"
#include "preload/dgram.h"
#include "preload/epoll.h"
#include "preload/follow.h"
#include "preload/member.h"
#include "preload/nested.h"
#include "preload/restart.h"
#include "preload/signals.h"
#include "shm/slot.h"
#include "shm/sys.h"

struct shs_process shs_proc;
__thread struct shs_thread shs_self __attribute__((tls_model("initial-exec")));

#define MAX_THREADS 4096
static struct shs_thread *threads[MAX_THREADS];
static uint32_t tags = 1; /* from there on no place was ever taken */
/*
 * Destructors of pthread keys run after we heard of the thread's end, and we do not hear of the end that comes then. A thread that uses a socket
 * there is listed as `late`, by its number: nothing points at its memory, it counts as inside any call, and leaves the list once it is gone.
 */
static struct shs_thread late;
static pid_t late_tid[MAX_THREADS];
static uint32_t n_late;
static struct shs_nested threads_lock;
static const volatile char *single_threaded; /* glibc's own word, if it has it */

#if defined(__x86_64__)
__asm__(".symver dlsym, dlsym@GLIBC_2.2.5");
__asm__(".symver dlopen, dlopen@GLIBC_2.2.5");
#elif defined(__i386__)
__asm__(".symver dlsym, dlsym@GLIBC_2.0");
__asm__(".symver dlopen, dlopen@GLIBC_2.1");
#elif defined(__aarch64__)
__asm__(".symver dlsym, dlsym@GLIBC_2.17");
__asm__(".symver dlopen, dlopen@GLIBC_2.17");
#endif

extern int __cxa_thread_atexit_impl(void (*fn)(void *), void *arg, void *dso);
extern void *__dso_handle;

void *shs_next(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

void *shs_late(const char *library, const char *name)
{
    void *loaded = dlopen(library, RTLD_LAZY | RTLD_NOLOAD);
    return loaded ? dlsym(loaded, name) : NULL;
}

static void read_options(struct shs_options *opt)
{
    const char *profile = getenv("SHAREDSTACK_PROFILE");
#define X(name, env, value, low, high) opt->name = value;
    SHS_OPTION_LIST(X)
#undef X
#define X(label, name, value)               \
    if (profile && !strcmp(profile, label)) \
        opt->name = value;
    SHS_PROFILE_LIST(X)
#undef X
#define X(name, env, value, low, high)                                     \
    {                                                                      \
        const char *text = getenv(env);                                    \
        char *end = NULL;                                                  \
        uint64_t n = text && *text ? strtoull(text, &end, 10) : opt->name; \
        if (!end || !*end)                                                 \
            opt->name = n<(low) ? (low) : n>(high) ? (high) : n;           \
    }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wtype-limits"
    SHS_OPTION_LIST(X)
#pragma GCC diagnostic pop
#undef X
}

static void prepare(void);
static void parent(void);
static void child(void);
extern int __register_atfork(void (*)(void), void (*)(void), void (*)(void), void *);

void shs_start(void)
{
    int saved = errno;
    shs_resolve();
    single_threaded = shs_next("__libc_single_threaded"); /* here: a forked child must not ask the loader */
    __register_atfork(prepare, parent, child, &__dso_handle);
    read_options(&shs_proc.env.opt);
    if (shs_proc.env.opt.eager)
        shs_proc.env.opt.lift_after = 1;
    const char *name = getenv("SHAREDSTACK_STACK");
    strncpy(shs_proc.stack_name, name && *name ? name : SHS_DEFAULT_STACK, SHS_MAX_STACK_NAME);
    shs_proc.env.bulk_fd = shs_proc.env.bell_fd = -1;
    shs_proc.off = !shs_proc.env.opt.enable;
    if (!shs_proc.off)
        shs_follow_start();
    /* Here, though few programs will need it: under a microsecond now, and tens of milliseconds once there are threads (the kernel waits for its own readers). */
    if (!shs_proc.off)
        syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
    __atomic_store_n(&shs_proc.resolved, true, __ATOMIC_RELEASE);
    errno = saved;
}

__attribute__((constructor)) static void start(void)
{
    if (!shs_proc.resolved)
        shs_start();
}

/* Has this thread never made another one? Then nobody opens anything while it forks. glibc says so from 2.32 on; before that it is not known. */
static bool single(void)
{
    return single_threaded && *single_threaded && shs_peek32(&shs_proc.threads) <= 1;
}

static void lock_threads(void)
{
    shs_nested_lock(&threads_lock);
}

static void unlock_threads(void)
{
    shs_nested_unlock(&threads_lock);
}

/* The thread ends: nothing may point at its memory any more, and another one has to be the slot's witness. */
static void thread_ends(void *arg)
{
    struct shs_thread *t = arg;
    if (!t->listed)
        return;
    lock_threads();
    if (t->who.tag < MAX_THREADS && threads[t->who.tag] == t)
        threads[t->who.tag] = NULL;
    shs_set32(&shs_proc.threads, shs_proc.threads - 1);
    unlock_threads();
    if (t->slot1 == shs_proc.env.slot1 && t->slot1) {
        shs_bell_drop(&t->bell, false);
        if (t->witness) {
            shs_slot_leave_home(shs_slot_at(shs_proc.env.stack, t->slot1 - 1));
            shs_proc.unwitnessed = true;
        }
    }
    if (!shs_proc.quiet)
        shs_bell_drop(&t->bell, true); /* of a stack that was left since */
    t->listed = t->witness = false;
    t->slot1 = 0; /* the tag in `who` may be another thread's from now on */
    t->ended = true;
}

/* Under the lock: forget late threads that are gone. */
static void sweep_late(void)
{
    for (uint32_t tag = 1; n_late && tag < tags; tag++)
        if (threads[tag] == &late && SHS_SYS(syscall(SYS_tgkill, getpid(), late_tid[tag], 0)) == -ESRCH) {
            threads[tag] = NULL;
            n_late--;
            shs_set32(&shs_proc.threads, shs_proc.threads - 1);
        }
}

bool shs_list_thread(void)
{
    struct shs_thread *t = &shs_self;
    lock_threads();
    sweep_late();
    for (uint32_t tag = 1; tag < MAX_THREADS && !t->listed; tag++)
        if (!threads[tag]) {
            threads[tag] = t->ended ? &late : t;
            late_tid[tag] = (pid_t)shs_sys_gettid();
            n_late += t->ended;
            t->who.tag = tag;
            t->listed = true;
            tags = tag < tags ? tags : tag + 1;
            shs_set32(&shs_proc.threads, shs_proc.threads + 1);
        }
    unlock_threads();
    if (t->listed && !t->ended)
        __cxa_thread_atexit_impl(thread_ends, t, &__dso_handle);
    return t->listed;
}

/* A search for holders that begins later finds us, as one of them or about to share. */
static uint32_t probes(void)
{
    return __atomic_load_n(&shs_proc.env.stack->probes, __ATOMIC_SEQ_CST) + 1;
}

static void mark(struct shs_fd *f, uint32_t *marked)
{
    if ((f->state == SHS_FD_NEW || f->state == SHS_FD_TCP || f->state == SHS_FD_BUSY) && !f->why)
        f->why = SHS_REASON_FORKED;
    if (!shs_fd_registered(f))
        return;
    uint32_t now = probes();
    if (*marked == now)
        return;
    if (f->udp && !(shs_load32(&shs_fd_record(f)->flags) & SHS_EPF_SHARED))
        shs_dgram_lower(f, SHS_REASON_FORKED);
    shs_endpoint_flag(shs_fd_record(f), SHS_EPF_SHARED);
    *marked = now;
    if (!f->udp)
        shs_set32(&shs_proc.env.nudge, shs_peek32(&shs_proc.env.nudge) | SHS_NUDGE_MET); /* nobody tells when the other holder has gone */
}

static void mark_shared(void)
{
    /* servers fork again and again, and each fork waits for this: what is marked already is passed over without a look at it */
    uint32_t done = shs_load32(&shs_proc.attach) == SHS_ATTACHED ? probes() : 0;
    for (uint32_t c = 0; c < shs_load32(&shs_fd_top); c++) {
        struct shs_fd *chunk = __atomic_load_n(&shs_fd_chunk[c], __ATOMIC_ACQUIRE);
        for (int i = 0; chunk && i < SHS_FD_CHUNK; i++)
            if (!done || shs_fd_marks(chunk)[i] != done)
                mark(&chunk[i], &shs_fd_marks(chunk)[i]);
    }
}

SHS_AT_FORK static void child(void)
{
    struct shs_thread *self = &shs_self;
    shs_defer_forked();
    memset(&threads_lock, 0, sizeof threads_lock);
    for (uint32_t tag = 1; tag < tags; tag++)
        if (threads[tag] && threads[tag] != &late) {
            shs_bell_drop(&threads[tag]->bell, true);
            if (threads[tag] != self)
                threads[tag] = NULL;
        } else if (threads[tag] && (!self->ended || self->who.tag != tag)) {
            threads[tag] = NULL;
        } else if (threads[tag]) {
            late_tid[tag] = getpid();
        }
    n_late = self->listed && self->ended;
    /* its parent's sets: the parent goes on as before, and looks after its rings; here their members stay with the kernel */
    struct shs_fd *f;
    for (int fd = 0; shs_proc.private && (f = shs_fd_next(&fd)); fd++) {
        if (f->state == SHS_FD_EPOLL && f->epoll)
            shs_set_inherited(f->epoll);
        if (f->dgram) /* another thread of the parent may have held it */
            memset(&f->dgram->lock, 0, sizeof f->dgram->lock);
    }
    if (!single())
        mark_shared(); /* what other threads opened after prepare() */
    shs_proc.forks++;
    shs_fd_forked();
    shs_member_forked();
    self->polled = NULL;
    shs_proc.threads = self->listed;
    self->slot1 = 0;
    self->witness = false;
    self->hazard = 0;
    shs_proc.env.slot1 = 0;
    shs_proc.env.epoch++; /* what a call that goes on here remembers, it is its parent who is counted there */
    shs_proc.forked = shs_proc.attach == SHS_ATTACHED;
    if (self->handling) /* perhaps in the middle of such a call, which must not take a lock in its parent's name */
        (void)shs_who();
}

void shs_fd_shared(struct shs_fd *f)
{
    uint32_t orphan = 0, *marked = shs_fd_mark_of(f);
    mark(f, marked ? marked : &orphan);
}

/* Under the join lock: nobody leaves the stack meanwhile. */
static uint32_t sharing(void)
{
    if (shs_load32(&shs_proc.attach) != SHS_ATTACHED || !shs_proc.env.slot1)
        return 0;
    shs_add32(&shs_slot_at(shs_proc.env.stack, shs_proc.env.slot1 - 1)->sharing, 1);
    return shs_proc.env.epoch + 1;
}

static void shared(uint32_t begun)
{
    if (begun && begun == shs_proc.env.epoch + 1 && shs_load32(&shs_proc.attach) == SHS_ATTACHED)
        shs_add32(&shs_slot_at(shs_proc.env.stack, shs_proc.env.slot1 - 1)->sharing, (uint32_t)-1);
}

uint32_t shs_share_begin(void)
{
    shs_join_lock();
    uint32_t begun = sharing();
    shs_join_unlock();
    return begun;
}

void shs_share_end(uint32_t begun)
{
    if (!begun)
        return;
    shs_join_lock();
    shared(begun);
    shs_join_unlock();
}

static uint32_t forking; /* what sharing() returned; under the join lock, from before the fork until after it */

/*
 * Before fork: from now on two processes may use what is open. Other threads go on: what they open before the fork itself is marked after it, and
 * who has a new descriptor that is not in the table yet sees by `forks` that there was one.
 */
static void prepare(void)
{
    shs_join_lock(); /* nobody is half-way into a stack, or out of it */
    forking = sharing();
    shs_add32(&shs_proc.forks, 1);
    mark_shared();
    shs_sets_told(false);
}

static void parent(void)
{
    shs_add32(&shs_proc.forks, 1);
    if (!single())
        mark_shared();
    shared(forking);
    shs_join_unlock();
}

long shs_fork_by(long (*call)(const void *), const void *arg)
{
    prepare();
    long r = call(arg);
    if (r == 0)
        child();
    else
        parent();
    return r;
}

struct shs_bell_own *shs_bell(void)
{
    struct shs_thread *t = &shs_self;
    if (t->ended) /* nobody would take it back */
        return NULL;
    if (t->bell.handle && t->bell_epoch != shs_proc.env.epoch)
        shs_bell_drop(&t->bell, true);
    if (!t->bell.handle && shs_bell_make(&shs_proc.env, t->who.tag, &t->bell) != 0)
        return NULL;
    t->bell_epoch = shs_proc.env.epoch;
    return &t->bell;
}

bool shs_bell_moved(int from, int to)
{
    bool found = false;
    lock_threads();
    for (uint32_t tag = 1; tag < tags && !found; tag++) {
        struct shs_thread *t = threads[tag] == &late ? NULL : threads[tag];
        found = t && t->bell.handle && t->bell.fd == from;
        if (found)
            shs_bell_move(&shs_proc.env, &t->bell, to, t == &shs_self);
    }
    unlock_threads();
    return found;
}

void shs_each_thread(void (*visit)(struct shs_thread *t, void *arg), void *arg)
{
    lock_threads();
    for (uint32_t tag = 1; tag < tags; tag++)
        if (threads[tag] && threads[tag] != &late)
            visit(threads[tag], arg);
    unlock_threads();
}

static bool inside(const struct shs_thread *t, int fd, int receive)
{
    if (t == &late)
        return true;
    uint32_t hazard = __atomic_load_n(&t->hazard, __ATOMIC_ACQUIRE);
    if (receive < 0 ? hazard && (hazard - 1) >> 1 == (uint32_t)fd : hazard == ((uint32_t)fd << 1 | (uint32_t)receive) + 1)
        return true;
    for (nfds_t i = 0; receive != 0 && t->polled && i < t->n_polled; i++)
        if (t->polled[i].fd == fd)
            return true;
    return false;
}

bool shs_in_flight(int fd, int receive)
{
    bool found = false;
    if (shs_peek32(&shs_proc.threads) > 1 && SHS_SYS(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0)) < 0)
        return true; /* forbidden: nobody can say */
    lock_threads();
    sweep_late();
    uint32_t own = shs_self.ended && shs_self.listed ? shs_self.who.tag : 0;
    for (uint32_t tag = 1; tag < tags && !found; tag++)
        found = threads[tag] && threads[tag] != &shs_self && tag != own && inside(threads[tag], fd, receive);
    unlock_threads();
    return found;
}

void shs_polling(const struct pollfd *fds, nfds_t n)
{
    lock_threads();
    shs_self.polled = fds;
    shs_self.n_polled = n;
    unlock_threads();
}

void shs_log(const char *what, int fd, uint32_t why)
{
    static const char *const names[] = {SHS_REASON_NAMES};
    if (!shs_proc.env.opt.log)
        return;
    char line[400];
    int n = snprintf(line, sizeof line, "sharedstack: pid %d, descriptor %d: %s: %s\n", (int)getpid(), fd, what,
                     why < sizeof names / sizeof *names ? names[why] : "?");
    if (n > 0) /* snprintf(3) returns what it would have written */
        (void)SHS_SYS(syscall(SYS_write, 2, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1));
}
