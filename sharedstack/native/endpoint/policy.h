/*
 * Purpose: records whose connections the policy, or rules of the kernel's on lo, keep in the kernel (docs/internals/policy.md).
 * Who may call: as each says. A verdict is a store, the flag EPF_DENIED an atomic or: who dies between the two leaves a record that the
 * helper's next look puts right.
 */
#pragma once
#include "endpoint/end.h"
#include "shm/flow.h"
#include "shm/link.h"

/* Why a record that the policy denies is the kernel's. */
static inline uint32_t shs_policy_reason(const struct shs_endpoint *ep)
{
    uint32_t own = shs_load32(&ep->denied), verdict = own ? own : shs_load32(&ep->denied_peer);
    return verdict == SHS_VERDICT_UNJUDGED ? SHS_REASON_UNJUDGED : SHS_REASON_LOWERED_RULE;
}

/* Under ctl: the record's verdict is this one from now on. Its mate learns it, what is open between them is shut. */
void shs_policy_note(struct shs_env *env, uint32_t ep1, uint32_t verdict);
/* Under ctl: judge the record by its registrar's rules, and note that. */
void shs_policy_settle(struct shs_env *env, uint32_t ep1);
/* Under ctl or not: one more participant, slot1, has the connection, and does not lift it where its rules deny it. */
void shs_policy_joined(struct shs_env *env, uint32_t ep1, uint32_t slot1);
/* A mate of that record was found: may both be paired? Notes why not. Under ctl. */
bool shs_policy_pairs(struct shs_env *env, uint32_t ep1, uint32_t mate1);
/* May datagrams of a link be pushed to the receiver that has found it, of the record ep? Notes why not in the sender's record. */
bool shs_policy_links(struct shs_env *env, struct shs_link *link, const struct shs_endpoint *ep);

/* For the helper. Put rules into the segment, and say of `n` slots which concern them; all others are unjudged. The new generation. */
SHS_PUBLIC uint32_t shs_native_policy_write(void *stack, const void *rules, uint32_t n, const uint32_t *slots, const uint64_t *concern);
/* The rules that concern the participant in a slot. */
SHS_PUBLIC void shs_native_policy_slot(void *stack, uint32_t slot, uint64_t concern);
/* Judge anew what the participants have for whose slots `fresh` has 1; `held` are endpoints, and slots of further holders of theirs.
 * -EBUSY: a table is locked. */
SHS_PUBLIC int shs_native_policy_apply(void *stack, void *arena, const uint8_t fresh[SHS_N_SLOTS], uint32_t n, const uint32_t (*held)[2]);
/* Verdict on a connection by rules that lie in the helper's own memory (policy.h), for whoever is concerned by these. */
SHS_PUBLIC uint32_t shs_native_policy_judge(const void *rules, uint64_t concern, const struct shs_flow *flow);
/* Packets of these families on lo are the kernel's from now on (KEPT_*): how many rings were shut for that. */
SHS_PUBLIC int shs_native_policy_keep(void *stack, void *arena, uint32_t families, const char *why);
