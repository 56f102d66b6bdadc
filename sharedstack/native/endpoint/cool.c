/*
 * Cooling: a ring that carried nothing for a while gives its memory back, and a pair that is cold for longer is given back altogether
 * (unpair.c). The helper does it, so that connections whose processes do nothing at all cool as well. The reader opens the ring again,
 * with a new chunk, in its next read call; until then the kernel carries.
 */
#include "endpoint/admin.h"
#include "endpoint/bell.h"
#include "endpoint/dgram.h"
#include "endpoint/residue.h"
#include "shm/lock.h"
#include "shm/sys.h"
#include "shm/units.h"

#define RENEW_NS 1000000000ull /* the kernel decides anew who may push to whom */

/* Each pair at the last look, in the helper's own memory. */
static struct {
    uint64_t index[2], kernel[2]; /* write index; bytes sent and taken by the kernel, under count */
    uint32_t gen, cold;           /* looks in a row that found nothing new, and no ring */
} seen[SHS_N_PAIRS];

/* Shut the ring and free its chunk, if it is empty and still at `index`. Under both locks. */
static bool shut(struct shs_env *env, struct shs_direction *dir, uint64_t index, uint32_t me)
{
    uint64_t word = shs_load64(&dir->word), chunk = shs_load64(&dir->rchunk);
    shs_residue_tidy(env, dir, me);
    bool same =
        shs_word_index(word) == index && !shs_load32(&dir->re_on) && shs_chunk_unit(shs_load64(&dir->wchunk)) == shs_chunk_unit(chunk);
    /* both locks are ours: nobody reads, writes or opens. A taker's count in the word may still change, and shut it fails then. */
    if (!same || shs_ring_waiting(dir) || !shs_cas64(&dir->word, word, word & ~SHS_WORD_OPEN) || !shs_arena_try(env, me))
        return false;
    shs_store64(&dir->wchunk, 0);
    shs_store64(&dir->rchunk, 0);
    shs_units_drop(env->arena, chunk);
    shs_unlock(&env->arena->lock);
    return true;
}

static void ring(struct shs_env *env, uint32_t bell)
{
    env->bell_fd = (int)SHS_SYS(syscall(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    shs_bell_ring(env, NULL, bell);
    if (env->bell_fd >= 0)
        shs_sys_close(env->bell_fd);
    env->bell_fd = -1;
}

bool shs_cool(struct shs_env *env, struct shs_direction *dir, uint64_t index, uint32_t me)
{
    int r = shs_lock_try(env, &dir->rlock, me), w;
    bool done = false;
    if (r < 0)
        return false;
    if (r == SHS_LOCK_REPAIR)
        shs_dir_repair_reader(dir);
    w = shs_lock_try(env, &dir->wlock, me);
    if (w >= 0) {
        if (w == SHS_LOCK_REPAIR) {
            shs_dir_repair_writer(dir);
            if (shs_load32(&dir->bell)) /* it may have died between publishing and ringing, and its lock, which says so, is ours now */
                ring(env, shs_load32(&dir->bell));
        }
        done = shut(env, dir, index, me);
        shs_unlock(&dir->wlock);
    }
    shs_unlock(&dir->rlock);
    return done;
}

/* An inbox to which datagrams come from other hosts, which have nowhere else to go. */
static bool wired(struct shs_env *env, const struct shs_pair *pair)
{
    const struct shs_endpoint *ep = shs_endpoint_at(env->stack, shs_load32(&pair->endpoint[1]));
    return ep && shs_is_datagram(ep) && shs_dgram_wired(ep);
}

/* One look at a live pair; false: it needs none for the time being. */
static bool look(struct shs_env *env, uint32_t pair1, uint32_t patience, uint32_t me)
{
    struct shs_pair *pair = shs_pair_at(env->arena, pair1);
    bool still = seen[pair1 - 1].gen == shs_load32(&pair->gen), warm = false;
    for (int d = 0; d < 2; d++) {
        struct shs_direction *dir = &pair->dir[d];
        uint64_t index = shs_word_index(shs_load64(&dir->word)), kernel = shs_load64(&dir->ksent) + shs_load64(&dir->taken);
        bool same = still && index == seen[pair1 - 1].index[d];
        if (shs_load64(&dir->rchunk) && (!same || wired(env, pair) || !shs_cool(env, dir, index, me)))
            warm = true;
        warm |= !same || kernel != seen[pair1 - 1].kernel[d];
        seen[pair1 - 1].index[d] = index;
        seen[pair1 - 1].kernel[d] = kernel;
    }
    seen[pair1 - 1].gen = shs_load32(&pair->gen);
    seen[pair1 - 1].cold = warm ? 0 : seen[pair1 - 1].cold + 1;
    return seen[pair1 - 1].cold <= patience || shs_unpair(env, pair1, seen[pair1 - 1].index, me, 0) == 0;
}

int shs_native_cool(void *stack, void *arena, uint32_t patience)
{
    struct shs_env env = {.stack = stack, .arena = arena, .bulk_fd = -1, .bell_fd = -1};
    env.slot1 = shs_load32(&env.stack->helper);
    uint32_t me = env.slot1 << SHS_LOCK_SLOT_SHIFT | 2, pairs = 0;
    int left = 0;
    shs_store32(&env.arena->cooling, 1);
    shs_links_doubt(&env, 0, RENEW_NS);
    for (uint32_t p = 1; p <= shs_load32(&env.arena->pairs_top) && p <= SHS_N_PAIRS; p++) {
        const uint32_t *state = &shs_pair_at(env.arena, p)->state;
        if (shs_load32(state) == SHS_PAIR_LIVE) {
            left += look(&env, p, patience, me);
            pairs += shs_load32(state) == SHS_PAIR_LIVE;
        } else if (shs_load32(state) == SHS_PAIR_PARKED) {
            shs_inbox_sweep(&env, p, me);
        }
    }
    if (left == 0) {
        shs_store32(&env.arena->cooling, 0);
        shs_fence();
        /* taken meanwhile, by somebody who saw that we were looking? */
        if (shs_load32(&env.arena->units_used) || shs_load32(&env.arena->pairs_used) != pairs) {
            shs_store32(&env.arena->cooling, 1);
            left = 1;
        }
    }
    return left;
}
