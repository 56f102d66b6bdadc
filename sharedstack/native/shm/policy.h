/*
 * Purpose: what the policy says of a connection: the rules in the stack's segment, as declare/policy.py has them.
 * Who may call: anybody, without a lock. Nothing here believes an index or a length that it reads: the segment is its user's own.
 * When the helper dies while it writes the rules, their generation stays odd: nobody is judged until the next helper has written them.
 */
#pragma once
#include "shm/flow.h"

static inline struct shs_policy *shs_policy_at(struct shs_stack *stack)
{
    return (struct shs_policy *)((uint8_t *)stack + SHS_STACK_POLICY);
}

/* By these rules, of which `concern` has those that concern who holds the local end: 0, allowed; a rule plus one; or SHS_VERDICT_DEFAULT. */
uint32_t shs_policy_judge(const struct shs_policy *policy, uint64_t concern, const struct shs_flow *flow);
/* By the rules of the stack, for the participant in slot1: the same, or SHS_VERDICT_UNJUDGED. */
uint32_t shs_policy_verdict(struct shs_stack *stack, uint32_t slot1, const struct shs_flow *flow);

/* Are packets from that address on lo the kernel's alone? */
static inline bool shs_policy_kept(const struct shs_stack *stack, bool four)
{
    return SHS_UNLIKELY(shs_load32(&stack->kept) & (four ? SHS_KEPT_INET : SHS_KEPT_INET6));
}
