#include "wire/port.h"

#include "endpoint/bell.h"
#include "shm/lock.h"
#include "shm/slot.h"
#include "wire/datagram.h"

#define BUDGET 64 /* packets of one look: the lock is not held for long */
/* Sends so many in a row, each so soon after the one before, are a stream: the driver, which is told by a system call, is told of so many at once. */
#define STREAM_AFTER 64
#define STREAM_GAP_NS 5000
#define KICK_EVERY 8
#define TURN_NS 100000 /* a round of somebody else's takes less, as long as he is not stopped */
#define ASK_NS 50000000ull /* between two calls for the helper */

static void woken(struct shs_engine *e, uint32_t bell)
{
    struct shs_wire_port *p = (struct shs_wire_port *)e;
    for (uint32_t i = 0; i < p->n_rung; i++)
        if (p->rung[i] == bell)
            return;
    if (p->n_rung < SHS_WIRE_RUNGS)
        p->rung[p->n_rung++] = bell;
    else
        shs_bell_ring(p->env, NULL, bell);
}

int shs_wire_attach(struct shs_wire_port *p, struct shs_env *env, const struct shs_wire_parts *parts, const int *fds, uint32_t n_fds)
{
    const struct shs_nic *nic = parts->nic;
    *p = (struct shs_wire_port){.env = env, .n_fds = n_fds};
    if (!n_fds || n_fds > SHS_N_NIC_QUEUES || nic->n_queues != n_fds)
        return -EINVAL;
    int r = shs_nic_attach(&p->nic, parts->nic, parts->frames, parts->frame_bytes, fds);
    if (r == 0)
        r = shs_engine_attach(&p->engine, parts->area, parts->area_bytes, parts->queues, parts->queue_bytes, &p->nic.device);
    if (r < 0) {
        shs_nic_detach(&p->nic);
        return r;
    }
    p->engine.woken = woken;
    p->engine.deliver = shs_wire_deliver;
    memcpy(p->fd, fds, n_fds * sizeof *fds);
    return 0;
}

void shs_wire_detach(struct shs_wire_port *p)
{
    shs_nic_detach(&p->nic);
    p->n_fds = 0;
}

static bool entered(struct shs_wire_port *p, uint32_t me, int r)
{
    if (r < 0)
        return false;
    p->me = me;
    p->engine.now = shs_now();
    p->n_rung = 0;
    if (SHS_UNLIKELY(r == SHS_LOCK_REPAIR)) {
        shs_engine_rebuild(&p->engine);
        shs_nic_repair(&p->nic);
    }
    return true;
}

bool shs_wire_enter(struct shs_wire_port *p, uint32_t me)
{
    return entered(p, me, shs_lock(p->env, &p->engine.w->lock, me));
}

bool shs_wire_try(struct shs_wire_port *p, uint32_t me)
{
    return entered(p, me, shs_lock_try(p->env, &p->engine.w->lock, me));
}

void shs_wire_leave(struct shs_wire_port *p)
{
    uint32_t n = p->n_rung, rung[SHS_WIRE_RUNGS];
    memcpy(rung, p->rung, n * sizeof *rung);
    shs_unlock(&p->engine.w->lock);
    for (uint32_t i = 0; i < n; i++)
        shs_bell_ring(p->env, NULL, rung[i]);
}

/* Is a connection on its way between the kernel and the engine? What comes for it now is nobody's: whoever moves it looks after that. */
static bool held_back(const struct shs_wire_port *p)
{
    uint32_t by = shs_load32(&p->engine.w->moving);
    return by && by != p->me && shs_slot_alive(p->env->stack, by >> SHS_LOCK_SLOT_SHIFT);
}

static void flush(struct shs_wire_port *p)
{
    shs_store32(&p->engine.w->unsent, 0);
    shs_nic_flush(&p->nic);
}

void shs_wire_kick(struct shs_wire_port *p)
{
    struct shs_wire *w = p->engine.w;
    uint64_t now = p->engine.now;
    shs_set32(&w->streak, now - w->sent_ns >= STREAM_GAP_NS ? 0 : w->streak < STREAM_AFTER ? w->streak + 1 : w->streak);
    if (w->streak >= STREAM_AFTER) {
        shs_set64(&w->stream_ns, now);
        bool tended = now < shs_load64(&w->tended_ns);
        if (tended && w->unsent + 1 < KICK_EVERY) {
            shs_store32(&w->unsent, w->unsent + 1);
            shs_set64(&w->sent_ns, now);
            return;
        }
        if (!tended && now - w->asked_ns >= ASK_NS) {
            w->asked_ns = now;
            p->env->nudge |= SHS_NUDGE_TEND;
        }
    }
    flush(p);
    shs_set64(&w->sent_ns, shs_now()); /* the driver's part is no pause of the program's */
}

uint32_t shs_wire_drive(struct shs_wire_port *p)
{
    uint32_t n = held_back(p) ? 0 : shs_nic_receive(&p->nic, &p->engine, BUDGET);
    shs_engine_timers(&p->engine);
    flush(p);
    shs_set64(&p->engine.w->driven_ns, p->engine.now);
    return n;
}

/* Somebody else has packets in hand: what has come before this call is to be seen by it, so wait for him, if he is as quick as he should be. */
static bool in_turn(struct shs_wire_port *p, uint32_t me)
{
    uint64_t until = shs_now() + TURN_NS;
    do {
        if (shs_wire_try(p, me))
            return true;
        shs_pause();
    } while (shs_now() < until);
    return false;
}

void shs_wire_look(struct shs_wire_port *p, uint32_t me)
{
    if ((shs_wire_worth_a_look(p) || shs_engine_next(&p->engine) <= shs_now()) && in_turn(p, me)) {
        shs_wire_drive(p);
        shs_wire_leave(p);
    }
}

bool shs_wire_watch_begin(struct shs_wire_port *p, uint32_t me, uint64_t *until_ns)
{
    uint32_t *watcher = &p->engine.w->watcher, held = shs_load32(watcher);
    *until_ns = UINT64_MAX;
    if (held && held != me && shs_slot_alive(p->env->stack, held >> SHS_LOCK_SLOT_SHIFT))
        return false;
    if (held != me && !shs_cas32(watcher, held, me))
        return false;
    *until_ns = shs_engine_next(&p->engine);
    return true;
}

void shs_wire_watch_end(struct shs_wire_port *p, uint32_t me)
{
    shs_cas32(&p->engine.w->watcher, me, 0);
}

uint32_t shs_wire_poll_fds(const struct shs_wire_port *p, struct pollfd *fds)
{
    for (uint32_t i = 0; i < p->n_fds; i++)
        fds[i] = (struct pollfd){.fd = p->fd[i], .events = POLLIN};
    return p->n_fds;
}
