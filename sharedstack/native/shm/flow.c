#include "shm/flow.h"

#include "shm/link.h"

static uint32_t fnv(uint32_t h, const void *data, size_t len)
{
    const uint8_t *p = data;
    while (len--)
        h = (h ^ *p++) * 16777619u;
    return h;
}

static void half(uint8_t out[18], const uint8_t addr[16], uint16_t port)
{
    memcpy(out, addr, 16);
    out[16] = (uint8_t)port;
    out[17] = (uint8_t)(port >> 8);
}

uint32_t shs_flow_bucket(const struct shs_flow *flow)
{
    uint8_t a[18], b[18], family[2] = {(uint8_t)flow->family, (uint8_t)(flow->family >> 8)};
    half(a, flow->laddr, flow->lport);
    half(b, flow->raddr, flow->rport);
    bool swap = memcmp(a, b, sizeof a) > 0;
    uint32_t h = fnv(2166136261u, family, 2);
    h = fnv(h, swap ? b : a, sizeof a);
    h = fnv(h, swap ? a : b, sizeof a);
    return h % SHS_N_FLOW_BUCKETS;
}

void shs_flow_of(const struct shs_endpoint *ep, struct shs_flow *flow)
{
    memcpy(flow->laddr, ep->laddr, 16);
    memcpy(flow->raddr, ep->raddr, 16);
    flow->lport = ep->lport;
    flow->rport = ep->rport;
    flow->family = ep->family;
}

/* Chains hold endpoint plus one; a corrupt link ends the walk, and no walk is longer than the table. */
static void unlink_flow(struct shs_stack *stack, uint32_t ep1)
{
    struct shs_endpoint *ep = shs_endpoint_at(stack, ep1);
    struct shs_flow flow;
    shs_flow_of(ep, &flow);
    uint32_t *link = shs_bucket_at(stack, shs_flow_bucket(&flow));
    for (uint32_t i = 0; i < SHS_N_ENDPOINTS && *link; i++) {
        if (*link == ep1) {
            *link = ep->flow_next;
            break;
        }
        struct shs_endpoint *next = shs_endpoint_at(stack, *link);
        if (!next)
            break;
        link = &next->flow_next;
    }
    ep->flow_next = 0;
}

uint32_t shs_endpoint_take(struct shs_stack *stack, const struct shs_flow *flow)
{
    uint32_t hint = stack->endpoint_hint < SHS_N_ENDPOINTS ? stack->endpoint_hint : 0;
    for (uint32_t n = 0; n < SHS_N_ENDPOINTS; n++) {
        uint32_t i = (hint + n) % SHS_N_ENDPOINTS;
        struct shs_endpoint *ep = shs_endpoint_at(stack, i + 1);
        if (i >= stack->endpoints_top) {
            i = stack->endpoints_top;
            ep = shs_endpoint_at(stack, i + 1);
            if (!ep || shs_populate(ep, sizeof *ep) != 0)
                return 0;
            stack->endpoints_top = i + 1;
        }
        if (shs_load32(&ep->state) != SHS_EP_FREE)
            continue;
        uint32_t gen = ep->gen + 1;
        memset((uint8_t *)ep + 8, 0, sizeof *ep - 8);
        ep->gen = gen ? gen : 1;
        memcpy(ep->laddr, flow->laddr, 16);
        memcpy(ep->raddr, flow->raddr, 16);
        ep->lport = flow->lport;
        ep->rport = flow->rport;
        ep->family = flow->family;
        uint32_t *bucket = shs_bucket_at(stack, shs_flow_bucket(flow));
        ep->flow_next = *bucket;
        *bucket = i + 1;
        stack->endpoint_hint = i + 1 < stack->endpoints_top ? i + 1 : stack->endpoints_top;
        stack->endpoints_used++;
        return i + 1;
    }
    return 0;
}

void shs_endpoint_drop(struct shs_stack *stack, uint32_t ep1)
{
    struct shs_endpoint *ep = shs_endpoint_at(stack, ep1);
    if (!ep || shs_load32(&ep->state) == SHS_EP_FREE)
        return;
    unlink_flow(stack, ep1);
    ep->pair = 0;
    shs_store32(&ep->state, SHS_EP_FREE);
    stack->endpoints_used--;
    if (ep1 - 1 < stack->endpoint_hint)
        stack->endpoint_hint = ep1 - 1;
}

static bool same_flow(const struct shs_endpoint *ep, const struct shs_flow *flow, bool mirrored)
{
    const uint8_t *l = mirrored ? flow->raddr : flow->laddr, *r = mirrored ? flow->laddr : flow->raddr;
    uint16_t lport = mirrored ? flow->rport : flow->lport, rport = mirrored ? flow->lport : flow->rport;
    return ep->lport == lport && ep->rport == rport && ep->family == flow->family && !memcmp(ep->laddr, l, 16) && !memcmp(ep->raddr, r, 16);
}

uint32_t shs_endpoint_find(struct shs_stack *stack, const struct shs_flow *flow, uint64_t cookie)
{
    uint32_t ep1 = *shs_bucket_at(stack, shs_flow_bucket(flow));
    struct shs_endpoint *ep;
    for (uint32_t i = 0; i < SHS_N_ENDPOINTS && (ep = shs_endpoint_at(stack, ep1)); i++, ep1 = ep->flow_next)
        if (ep->cookie == cookie && shs_load32(&ep->state) == SHS_EP_LIVE)
            return ep1;
    return 0;
}

uint32_t shs_endpoint_seek(struct shs_stack *stack, uint64_t cookie)
{
    for (uint32_t ep1 = 1; ep1 <= shs_load32(&stack->endpoints_top) && ep1 <= SHS_N_ENDPOINTS; ep1++) {
        const struct shs_endpoint *ep = shs_endpoint_at(stack, ep1);
        if (shs_load32(&ep->state) == SHS_EP_LIVE && shs_load64(&ep->cookie) == cookie)
            return ep1;
    }
    return 0;
}

uint32_t shs_endpoint_mate(struct shs_stack *stack, const struct shs_flow *flow, uint64_t cookie, uint32_t *stale)
{
    uint32_t ep1 = *shs_bucket_at(stack, shs_flow_bucket(flow)), mate = 0;
    struct shs_endpoint *ep;
    *stale = 0;
    for (uint32_t i = 0; i < SHS_N_ENDPOINTS && (ep = shs_endpoint_at(stack, ep1)); i++, ep1 = ep->flow_next) {
        if (ep->cookie == cookie || shs_load32(&ep->state) != SHS_EP_LIVE)
            continue;
        /* the kernel has no two established sockets of one tuple: a record of our own end is of a connection that has gone */
        if (same_flow(ep, flow, false))
            *stale = ep1;
        else if (ep->pair == 0 && same_flow(ep, flow, true))
            mate = ep1;
    }
    return mate;
}

void shs_stack_rebuild(struct shs_stack *stack)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < SHS_N_FLOW_BUCKETS; i++)
        if (*shs_bucket_at(stack, i))
            *shs_bucket_at(stack, i) = 0;
    if (stack->endpoints_top > SHS_N_ENDPOINTS)
        stack->endpoints_top = SHS_N_ENDPOINTS;
    for (uint32_t ep1 = 1; ep1 <= stack->endpoints_top; ep1++) {
        struct shs_endpoint *ep = shs_endpoint_at(stack, ep1);
        ep->flow_next = 0;
        if (shs_load32(&ep->state) == SHS_EP_FREE)
            continue;
        struct shs_flow flow;
        shs_flow_of(ep, &flow);
        uint32_t *bucket = shs_bucket_at(stack, shs_flow_bucket(&flow));
        ep->flow_next = *bucket;
        *bucket = ep1;
        used++;
    }
    stack->endpoints_used = used;
    stack->endpoint_hint = 0;
    shs_links_rebuild(stack);
}
