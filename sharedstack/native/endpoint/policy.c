/*
 * A record is judged by the rules of the participant that registered it, of every one that shares it, and of those of its mate:
 * 1  when it is registered, before it can be paired;
 * 2  when another process comes to have it (fork, exec, passing), or has it alone again;
 * 3  when the helper has said which rules concern a participant, or the rules are other ones: then what is denied is lowered, its rings
 *    shut and its links doubted, and what is not any more is paired by its next calls.
 * Datagram sockets have no verdict of their own: each of their links is judged when its receiver meets it.
 */
#include "endpoint/policy.h"

#include "endpoint/admin.h"
#include "endpoint/dgram.h"
#include "endpoint/lift.h"
#include "shm/policy.h"
#include "shm/slot.h"

static void say(struct shs_endpoint *ep, uint32_t why)
{
    shs_set32(&ep->why_tx, why);
    shs_set32(&ep->why_rx, why);
}

static uint32_t shut(struct shs_env *env, const struct shs_endpoint *ep)
{
    struct shs_pair *pair = shs_pair_at(env->arena, shs_load32(&ep->pair));
    uint32_t n = 0;
    for (int d = 0; pair && d < 2 && shs_load32(&pair->state) == SHS_PAIR_LIVE; d++)
        n += shs_ring_close(&pair->dir[d]);
    return n;
}

/* The record of the other end, plus one, paired or not; 0: none. Under ctl. */
static uint32_t mate_of(struct shs_env *env, const struct shs_endpoint *ep)
{
    struct shs_flow flow;
    uint32_t stale;
    if (shs_load32(&ep->pair))
        return shs_end_peer(env, ep);
    shs_flow_of(ep, &flow);
    return shs_endpoint_mate(env->stack, &flow, ep->cookie, &stale);
}

/* The flag is as both verdicts say. Who opens a ring looks at it again afterwards, so the rings are shut behind it. */
static void mark(struct shs_env *env, struct shs_endpoint *ep, bool mated)
{
    uint32_t verdict = shs_load32(&ep->denied) | shs_load32(&ep->denied_peer);
    bool had = shs_load32(&ep->flags) & SHS_EPF_DENIED;
    if (verdict) {
        say(ep, shs_policy_reason(ep));
        __atomic_fetch_or(&ep->flags, SHS_EPF_DENIED, __ATOMIC_SEQ_CST);
        shut(env, ep);
        shs_count(env, SHS_CTR_DENIED, !had);
    } else if (had) {
        bool paired = shs_load32(&ep->pair);
        say(ep, mated ? SHS_REASON_NOT_READING : SHS_REASON_PEER_UNKNOWN);
        if (paired)
            shs_set32(&ep->why_tx, SHS_REASON_NONE); /* it is for the reader to say */
        if (mated && !paired) /* else its mate pairs it when it comes */
            __atomic_fetch_or(&ep->flags, SHS_EPF_UNPAIRED, __ATOMIC_SEQ_CST);
        __atomic_fetch_and(&ep->flags, ~(uint32_t)SHS_EPF_DENIED, __ATOMIC_SEQ_CST);
    }
}

void shs_policy_note(struct shs_env *env, uint32_t ep1, uint32_t verdict)
{
    struct shs_endpoint *ep = shs_endpoint_at(env->stack, ep1);
    if (!ep || shs_is_datagram(ep) || shs_load32(&ep->denied) == verdict)
        return;
    struct shs_endpoint *mate = shs_endpoint_at(env->stack, mate_of(env, ep));
    shs_store32(&ep->denied, verdict);
    mark(env, ep, mate);
    if (mate) {
        shs_store32(&mate->denied_peer, verdict);
        mark(env, mate, true);
    }
}

static uint32_t verdict_on(struct shs_env *env, const struct shs_endpoint *ep, uint32_t slot1)
{
    struct shs_flow flow;
    shs_flow_of(ep, &flow);
    return shs_policy_verdict(env->stack, slot1, &flow);
}

void shs_policy_settle(struct shs_env *env, uint32_t ep1)
{
    const struct shs_endpoint *ep = shs_endpoint_at(env->stack, ep1);
    if (ep)
        shs_policy_note(env, ep1, verdict_on(env, ep, shs_load32(&ep->slot)));
}

void shs_policy_joined(struct shs_env *env, uint32_t ep1, uint32_t slot1)
{
    const struct shs_endpoint *ep = shs_endpoint_at(env->stack, ep1);
    uint32_t verdict = ep && !shs_load32(&ep->denied) ? verdict_on(env, ep, slot1) : 0;
    if (SHS_UNLIKELY(verdict))
        shs_policy_note(env, ep1, verdict);
}

bool shs_policy_pairs(struct shs_env *env, uint32_t ep1, uint32_t mate1)
{
    struct shs_endpoint *ep = shs_endpoint_at(env->stack, ep1), *mate = shs_endpoint_at(env->stack, mate1);
    if (SHS_UNLIKELY(shs_load32(&ep->denied) | shs_load32(&mate->denied))) {
        shs_store32(&ep->denied_peer, shs_load32(&mate->denied));
        shs_store32(&mate->denied_peer, shs_load32(&ep->denied));
        mark(env, ep, true);
        mark(env, mate, true);
        return false;
    }
    if (!shs_policy_kept(env->stack, shs_is_four(ep->laddr)))
        return true;
    say(ep, SHS_REASON_LO_RULES);
    say(mate, SHS_REASON_LO_RULES);
    __atomic_fetch_or(&ep->flags, SHS_EPF_UNPAIRED, __ATOMIC_SEQ_CST); /* until these rules have gone */
    __atomic_fetch_or(&mate->flags, SHS_EPF_UNPAIRED, __ATOMIC_SEQ_CST);
    return false;
}

#define AGAIN_NS 100000000ull /* a link that was denied is judged again after so long */

bool shs_policy_links(struct shs_env *env, struct shs_link *link, const struct shs_endpoint *ep)
{
    struct shs_endpoint *sender = shs_endpoint_at(env->stack, shs_load32(&link->sender));
    const struct shs_policy *policy = shs_policy_at(env->stack);
    bool kept = shs_policy_kept(env->stack, shs_is_four(link->saddr));
    if (SHS_LIKELY(!kept && !shs_load32(&policy->active)))
        return true;
    uint64_t now = shs_now();
    if (!sender || now - shs_load64(&link->denied_ns) < AGAIN_NS)
        return false;
    struct shs_flow there = {.lport = link->dport, .rport = link->sport, .family = ep->family}, here = there;
    memcpy(there.laddr, link->daddr, 16);
    memcpy(there.raddr, link->saddr, 16);
    memcpy(here.laddr, link->saddr, 16);
    memcpy(here.raddr, link->daddr, 16);
    here.lport = link->sport;
    here.rport = link->dport;
    uint32_t own = shs_policy_verdict(env->stack, shs_load32(&sender->slot), &here);
    uint32_t peer = shs_policy_verdict(env->stack, shs_load32(&ep->slot), &there);
    if (!kept && !(own | peer))
        return true;
    shs_store32(&sender->denied, own);
    shs_store32(&sender->denied_peer, peer);
    shs_set32(&sender->why_tx, own | peer ? shs_policy_reason(sender) : SHS_REASON_LO_RULES);
    if (own != SHS_VERDICT_UNJUDGED && peer != SHS_VERDICT_UNJUDGED)
        shs_store64(&link->denied_ns, now);
    shs_count(env, SHS_CTR_DENIED, 1);
    return false;
}

uint32_t shs_native_policy_write(void *stack, const void *rules, uint32_t n, const uint32_t *slots, const uint64_t *concern)
{
    struct shs_policy *policy = shs_policy_at(stack);
    const struct shs_policy *fresh = rules;
    uint32_t before = shs_load32(&policy->gen) | 1, gen = before + 1 ? before + 1 : 2;
    size_t from = offsetof(struct shs_policy, rules);
    shs_store32(&policy->gen, before);
    shs_fence(); /* whoever reads one of the new rules sees that the generation is odd, or another one */
    memcpy((uint8_t *)policy + from, (const uint8_t *)fresh + from, sizeof *policy - from);
    policy->n_rules = fresh->n_rules;
    policy->default_deny = fresh->default_deny;
    shs_store32(&policy->active, fresh->active);
    for (uint32_t i = 0; i < n; i++) {
        struct shs_slot *slot = shs_slot_at(stack, slots[i]);
        shs_store32(&slot->rules_gen, 0);
        shs_store64(&slot->rules, concern[i]);
        shs_store32(&slot->rules_gen, gen);
    }
    shs_store32(&policy->gen, gen);
    shs_fence();
    return gen;
}

void shs_native_policy_slot(void *stack, uint32_t slot, uint64_t concern)
{
    struct shs_slot *at = shs_slot_at(stack, slot);
    shs_store32(&at->rules_gen, 0);
    shs_fence();
    shs_store64(&at->rules, concern);
    shs_store32(&at->rules_gen, shs_load32(&shs_policy_at(stack)->gen));
}

/* The verdict on a record: of its registrar, and of those who share it. Is anybody of them judged anew? */
static bool judged(struct shs_env *env, uint32_t ep1, const uint8_t *fresh, uint32_t n, const uint32_t (*held)[2], uint32_t *verdict)
{
    const struct shs_endpoint *ep = shs_endpoint_at(env->stack, ep1);
    uint32_t slot1 = shs_load32(&ep->slot);
    bool there = slot1 - 1 < SHS_N_SLOTS && shs_slot_alive(env->stack, slot1), concerned = there && fresh[slot1 - 1];
    *verdict = there ? verdict_on(env, ep, slot1) : 0;
    for (uint32_t i = 0; i < n && (shs_load32(&ep->flags) & SHS_EPF_SHARED); i++)
        if (held[i][0] + 1 == ep1) {
            concerned = true;
            *verdict = *verdict ? *verdict : verdict_on(env, ep, held[i][1] + 1);
        }
    return concerned;
}

int shs_native_policy_apply(void *stack, void *arena, const uint8_t fresh[SHS_N_SLOTS], uint32_t n, const uint32_t (*held)[2])
{
    struct shs_env env = {
        .stack = stack, .arena = arena, .bulk_fd = -1, .bell_fd = -1, .slot1 = shs_load32(&((struct shs_stack *)stack)->helper)};
    if (!shs_admin_take_tables(&env, env.slot1 << SHS_LOCK_SLOT_SHIFT | 2))
        return -EBUSY;
    for (uint32_t ep1 = 1; ep1 <= env.stack->endpoints_top && ep1 <= SHS_N_ENDPOINTS; ep1++) {
        const struct shs_endpoint *ep = shs_endpoint_at(env.stack, ep1);
        uint32_t verdict;
        if (shs_load32(&ep->state) == SHS_EP_LIVE && !shs_is_datagram(ep) && judged(&env, ep1, fresh, n, held, &verdict))
            shs_policy_note(&env, ep1, verdict);
    }
    shs_admin_drop_tables(&env);
    shs_links_doubt(&env, 0, 0);
    return 0;
}

uint32_t shs_native_policy_judge(const void *rules, uint64_t concern, const struct shs_flow *flow)
{
    return shs_policy_judge(rules, concern, flow);
}

int shs_native_policy_keep(void *stack_at, void *arena, uint32_t families, const char *why)
{
    struct shs_stack *stack = stack_at;
    struct shs_env env = {.stack = stack, .arena = arena, .bulk_fd = -1, .bell_fd = -1, .slot1 = shs_load32(&stack->helper)};
    struct shs_policy *policy = shs_policy_at(stack);
    uint32_t more = families & ~shs_load32(&stack->kept), n = 0;
    memcpy(policy->lo_rule, why, strnlen(why, sizeof policy->lo_rule - 1) + 1);
    policy->lo_rule[sizeof policy->lo_rule - 1] = 0;
    __atomic_store_n(&stack->kept, families, __ATOMIC_SEQ_CST);
    if (!more)
        return 0;
    for (uint32_t ep1 = 1; ep1 <= shs_load32(&stack->endpoints_top) && ep1 <= SHS_N_ENDPOINTS; ep1++) {
        const struct shs_endpoint *ep = shs_endpoint_at(stack, ep1);
        if (shs_load32(&ep->state) == SHS_EP_LIVE && !shs_is_datagram(ep) &&
            (more & (shs_is_four(ep->laddr) ? SHS_KEPT_INET : SHS_KEPT_INET6)))
            n += shut(&env, ep);
    }
    shs_links_doubt(&env, 0, 0);
    return (int)n;
}
