#include "shm/lock.h"

#include <linux/futex.h>

#include "shm/slot.h"
#include "shm/sys.h"

/* The owner in `held` is dead: put ourselves in its place, keeping the waiters bit. */
static bool take_over(struct shs_env *env, uint32_t *word, uint32_t held, uint32_t me)
{
    if (shs_slot_alive(env->stack, held >> SHS_LOCK_SLOT_SHIFT))
        return false;
    if (!shs_cas32(word, held, me | (held & SHS_LOCK_WAITERS)))
        return false;
    shs_count(env, SHS_CTR_LOCK_REPAIRS, 1);
    return true;
}

static int try_once(struct shs_env *env, uint32_t *word, uint32_t me)
{
    uint32_t held = shs_load32(word);
    if (held == 0)
        return shs_cas32(word, 0, me) ? SHS_LOCKED : -EAGAIN;
    if ((held & ~(uint32_t)SHS_LOCK_WAITERS) == me)
        return -EDEADLK;
    return take_over(env, word, held, me) ? SHS_LOCK_REPAIR : -EAGAIN;
}

int shs_lock_try(struct shs_env *env, uint32_t *word, uint32_t me)
{
    shs_defer_begin();
    int r = try_once(env, word, me);
    if (r < 0)
        shs_defer_end();
    return r;
}

void shs_lock_await(struct shs_env *env, uint32_t held)
{
    struct shs_slot *slot = env->slot1 ? shs_slot_at(env->stack, env->slot1 - 1) : NULL;
    held &= ~(uint32_t)SHS_LOCK_WAITERS;
    if (!slot || shs_peek32(&slot->awaits) == held)
        return;
    shs_set64(&slot->awaits_ns, held ? shs_now() : 0);
    shs_store32(&slot->awaits, held);
}

/* In the kernel, until the lock is ours, or the patience has come to its end. */
static int sleep_for(struct shs_env *env, uint32_t *word, uint32_t me, uint64_t patience)
{
    /* a sleeper cannot know how many others sleep: it keeps the waiters bit when it gets the lock */
    struct timespec nap = {0, 2000000};
    uint64_t until = patience ? shs_now() + patience : 0;
    for (;;) {
        uint32_t held = shs_load32(word);
        if (held == 0) {
            if (shs_cas32(word, 0, me | SHS_LOCK_WAITERS))
                return SHS_LOCKED;
            continue;
        }
        if (take_over(env, word, held, me))
            return SHS_LOCK_REPAIR;
        if (until && shs_now() >= until)
            return -EAGAIN;
        if (!(held & SHS_LOCK_WAITERS)) {
            if (!shs_cas32(word, held, held | SHS_LOCK_WAITERS))
                continue;
            held |= SHS_LOCK_WAITERS;
        }
        shs_lock_await(env, held);
        /* the owner may die without waking us: look again, ever more seldom (a stopped owner costs nothing) */
        shs_defer_end(); /* the owner may be stopped for long: nobody shall find us deaf */
        (void)SHS_SYS(syscall(SYS_futex, word, FUTEX_WAIT, held, &nap, NULL, 0));
        shs_defer_begin();
        if (nap.tv_nsec < 100000000)
            nap.tv_nsec *= 2;
    }
}

int shs_lock_slow(struct shs_env *env, uint32_t *word, uint32_t me, uint64_t patience)
{
    shs_count(env, SHS_CTR_LOCK_WAITS, 1);
    for (int i = 0; i < 100; i++) {
        uint32_t held = shs_load32(word);
        if ((held & ~(uint32_t)SHS_LOCK_WAITERS) == me)
            return -EDEADLK;
        if (held == 0 && shs_cas32(word, 0, me))
            return SHS_LOCKED;
        shs_pause();
    }
    int r = sleep_for(env, word, me, patience);
    if (r >= 0)
        shs_lock_await(env, 0);
    return r;
}

void shs_unlock_slow(uint32_t *word)
{
    (void)SHS_SYS(syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0));
}
