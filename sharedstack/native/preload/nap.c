#include "preload/nap.h"

#include "preload/restart.h"

bool shs_may_nap(const struct shs_fd *f, uint64_t deadline)
{
    if (f->udp)
        return false; /* whoever sends a datagram by the kernel rings nobody */
    uint64_t most = shs_proc.env.opt.nap_ms * 1000000;
    return most && (!deadline || deadline > shs_now() + most) && shs_end_rung_for(&shs_proc.env, &f->end);
}

long shs_nap(struct shs_fd *f, const struct shs_who *who, struct shs_bell_own *bell)
{
    struct shs_direction *dir = shs_end_rx(&f->end);
    shs_bell_arm(bell, true);
    long r = shs_bell_claim(&shs_proc.env, who->lock_word, &f->end, bell, shs_alone(f)) ? 0 : -EBUSY;
    shs_fence();
    if (r == 0 && !shs_end_waiting(&f->end) && (shs_load64(&dir->word) & SHS_WORD_OPEN)) {
        /* only now: bytes that went by the kernel before we were armed are not rung for */
        r = shs_end_rung_for(&shs_proc.env, &f->end) ? 0 : -EBUSY;
        if (r == 0) {
            shs_count(&shs_proc.env, SHS_CTR_NAPS, 1);
            r = shs_bell_nap(bell, shs_proc.env.opt.nap_ms * 1000000);
            if (!shs_wait_moved() && !shs_end_waiting(&f->end))
                f->looked_ns = 0; /* rung for something else: it is in the kernel */
        }
    }
    shs_bell_disarm(bell);
    return r;
}
