#include "shm/link.h"

static void chain(struct shs_stack *stack, uint32_t link1)
{
    struct shs_link *link = shs_link_at(stack, link1);
    uint32_t *bucket = shs_link_bucket_at(stack, link->dport);
    shs_store32(&link->next, *bucket);
    shs_store32(bucket, link1);
}

static void unchain(struct shs_stack *stack, uint32_t link1)
{
    struct shs_link *gone = shs_link_at(stack, link1);
    uint32_t *at = shs_link_bucket_at(stack, gone->dport);
    for (uint32_t i = 0; i < SHS_N_LINKS && *at && *at != link1; i++) {
        struct shs_link *link = shs_link_at(stack, *at);
        if (!link)
            return;
        at = &link->next;
    }
    if (*at == link1)
        shs_store32(at, gone->next);
}

uint32_t shs_link_take(struct shs_stack *stack, uint32_t sender, const struct shs_where *from, const struct shs_where *to)
{
    for (uint32_t link1 = 1; link1 <= SHS_N_LINKS; link1++) {
        struct shs_link *link = shs_link_at(stack, link1);
        if (link1 > stack->links_top) {
            if (shs_populate(link, sizeof *link) != 0)
                return 0;
            stack->links_top = link1;
        }
        uint64_t word = shs_load64(&link->word);
        if (shs_link_state(word) != SHS_LINK_FREE)
            continue;
        link->sender = sender;
        link->receiver = link->pair = 0;
        memcpy(link->saddr, from->addr, sizeof link->saddr);
        memcpy(link->daddr, to->addr, sizeof link->daddr);
        link->sport = from->port;
        link->dport = to->port;
        link->wanted_ns = shs_now();
        link->denied_ns = 0;
        shs_store64(&link->word, shs_link_next(word, SHS_LINK_WANTED));
        chain(stack, link1);
        stack->links_used++;
        return link1;
    }
    return 0;
}

void shs_link_drop(struct shs_stack *stack, uint32_t link1)
{
    struct shs_link *link = shs_link_at(stack, link1);
    uint64_t word;
    do {
        word = shs_load64(&link->word);
        if (shs_link_state(word) == SHS_LINK_FREE)
            return;
    } while (!shs_cas64(&link->word, word, shs_link_next(word, SHS_LINK_FREE)));
    unchain(stack, link1);
    stack->links_used--;
}

bool shs_link_doubt(struct shs_link *link, uint64_t word)
{
    if (shs_link_state(word) == SHS_LINK_FREE)
        return false;
    /* first: a receiver that sees it wanted wants a datagram that is younger. Never back: another one may have doubted it since we read the clock */
    uint64_t now = shs_now(), wanted = shs_load64(&link->wanted_ns);
    while (wanted < now && !shs_cas64(&link->wanted_ns, wanted, now))
        wanted = shs_load64(&link->wanted_ns);
    return shs_cas64(&link->word, word, shs_link_next(word, SHS_LINK_WANTED));
}

bool shs_links_any(struct shs_stack *stack, uint16_t port, uint32_t state, uint32_t receiver)
{
    uint32_t link1 = shs_load32(shs_link_bucket_at(stack, port));
    for (uint32_t i = 0; SHS_UNLIKELY(link1) && i < SHS_N_LINKS; i++) {
        struct shs_link *link = shs_link_at(stack, link1);
        if (!link)
            return false;
        if (link->dport == port && shs_link_state(shs_load64(&link->word)) == state && (!receiver || link->receiver == receiver))
            return true;
        link1 = shs_load32(&link->next);
    }
    return false;
}

void shs_links_rebuild(struct shs_stack *stack)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < SHS_N_LINK_BUCKETS; i++)
        if (*shs_link_bucket_at(stack, (uint16_t)i))
            shs_store32(shs_link_bucket_at(stack, (uint16_t)i), 0);
    if (stack->links_top > SHS_N_LINKS)
        stack->links_top = SHS_N_LINKS;
    for (uint32_t link1 = 1; link1 <= stack->links_top; link1++)
        if (shs_link_state(shs_load64(&shs_link_at(stack, link1)->word)) != SHS_LINK_FREE) {
            chain(stack, link1);
            used++;
        }
    stack->links_used = used;
}
