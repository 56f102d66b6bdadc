#include "shm/policy.h"

#include "shm/slot.h"

static bool in_network(const struct shs_rule_address *net, const uint8_t addr[16])
{
    uint32_t bits = net->bits > 128 ? 128 : net->bits, whole = bits / 8, rest = bits % 8;
    bool four = bits >= 96 && shs_is_four(net->addr); /* else ::/0 would have all of IPv4 in it */
    return shs_is_four(addr) == four && !memcmp(net->addr, addr, whole) && (!rest || !((net->addr[whole] ^ addr[whole]) >> (8 - rest)));
}

/* Does it fit on its side? `local` and `remote` say whether it fits there. */
static bool fits(uint32_t side, bool local, bool remote)
{
    return side == SHS_RULE_LOCAL ? local : side == SHS_RULE_REMOTE ? remote : local || remote;
}

static bool addresses_fit(const struct shs_policy *policy, const struct shs_rule *rule, const struct shs_flow *flow)
{
    uint32_t named = 0, met = 0;
    for (uint32_t i = rule->first_address; i < (uint32_t)rule->first_address + rule->n_addresses && i < SHS_N_RULE_ADDRESSES; i++) {
        const struct shs_rule_address *net = &policy->addresses[i];
        uint32_t bit = 1u << net->side % SHS_RULE_SIDES;
        named |= bit;
        met |= fits(net->side, in_network(net, flow->laddr), in_network(net, flow->raddr)) ? bit : 0;
    }
    return named == met;
}

static bool ports_fit(const struct shs_policy *policy, const struct shs_rule *rule, const struct shs_flow *flow)
{
    uint32_t named = 0, met = 0;
    for (uint32_t i = rule->first_port; i < (uint32_t)rule->first_port + rule->n_ports && i < SHS_N_RULE_PORTS; i++) {
        const struct shs_rule_ports *range = &policy->ports[i];
        uint32_t bit = 1u << range->side % SHS_RULE_SIDES;
        bool local = flow->lport >= range->low && flow->lport <= range->high,
             remote = flow->rport >= range->low && flow->rport <= range->high;
        named |= bit;
        met |= fits(range->side, local, remote) ? bit : 0;
    }
    return named == met;
}

uint32_t shs_policy_judge(const struct shs_policy *policy, uint64_t concern, const struct shs_flow *flow)
{
    for (uint32_t i = 0; i < policy->n_rules && i < SHS_N_RULES; i++) {
        const struct shs_rule *rule = &policy->rules[i];
        if ((concern >> i & 1) && addresses_fit(policy, rule, flow) && ports_fit(policy, rule, flow))
            return rule->deny ? i + 1 : 0;
    }
    return policy->default_deny ? SHS_VERDICT_DEFAULT : 0;
}

uint32_t shs_policy_verdict(struct shs_stack *stack, uint32_t slot1, const struct shs_flow *flow)
{
    const struct shs_policy *policy = shs_policy_at(stack);
    uint32_t gen = shs_load32(&policy->gen);
    if (SHS_LIKELY(!shs_load32(&policy->active) && !(gen & 1) && shs_load32(&policy->gen) == gen))
        return 0;
    const struct shs_slot *slot = slot1 - 1 < SHS_N_SLOTS ? shs_slot_at(stack, slot1 - 1) : NULL;
    if (!slot || (gen & 1))
        return SHS_VERDICT_UNJUDGED;
    uint32_t verdict = shs_policy_judge(policy, shs_load64(&slot->rules), flow);
    __atomic_thread_fence(__ATOMIC_ACQUIRE); /* what was read above, before the generations are looked at again */
    return shs_load32(&policy->gen) == gen && shs_load32(&slot->rules_gen) == gen ? verdict : SHS_VERDICT_UNJUDGED;
}
