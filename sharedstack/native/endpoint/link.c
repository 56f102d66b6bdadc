/*
 * A link, in the order of events:
 * 1  want: a sender that sends to one destination again and again asks for it. The source address that its datagrams will have is
 *    found by connecting a socket of our own in the same way;
 * 2  meet: a receiver takes a datagram from the kernel, from that source to that destination, younger than the wish: the kernel's rules
 *    (firewall, binding, filters, who of several sockets) have let it through to this socket. So the sender may push to its ring;
 * 3  way: the sender looks at the link's word at each datagram;
 * 4  doubt: a port is bound or connected, or a permission is old: it is wanted again.
 */
#include "common.h"

#include "endpoint/anchor.h"
#include "endpoint/dgram.h"
#include "endpoint/lift.h"
#include "endpoint/policy.h"
#include "shm/lock.h"
#include "shm/sys.h"

static bool lock_ctl(struct shs_env *env, const struct shs_who *who)
{
    int r = shs_lock_try(env, &env->stack->ctl, who->lock_word);
    for (int spin = 0; spin < 200 && r == -EAGAIN; spin++) {
        shs_pause();
        r = shs_lock_try(env, &env->stack->ctl, who->lock_word);
    }
    if (r == SHS_LOCK_REPAIR)
        shs_stack_rebuild(env->stack);
    if (r < 0)
        shs_count(env, SHS_CTR_BUSY_CTL, 1);
    return r >= 0;
}

socklen_t shs_name_of(union shs_name *name, int domain, const uint8_t addr[16], uint16_t port)
{
    memset(name, 0, sizeof *name);
    if (domain == AF_INET) {
        name->in.sin_family = AF_INET;
        name->in.sin_port = htons(port);
        memcpy(&name->in.sin_addr, addr + 12, 4);
        return sizeof name->in;
    }
    name->in6.sin6_family = AF_INET6;
    name->in6.sin6_port = htons(port);
    memcpy(&name->in6.sin6_addr, addr, 16);
    return sizeof name->in6;
}

/* Multicast, limited broadcast, link-local: the kernel's alone. */
static bool special(const uint8_t addr[16])
{
    if (shs_is_four(addr))
        return addr[12] >= 224;
    return addr[0] == 0xff || (addr[0] == 0xfe && (addr[1] & 0xc0) == 0x80);
}

static long own_socket(int domain, const uint8_t addr[16])
{
    union shs_name name;
    socklen_t len = shs_name_of(&name, domain, addr, 0);
    long fd = SHS_SYS(syscall(SYS_socket, domain, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    long r = fd < 0 ? fd : SHS_SYS(syscall(SYS_bind, fd, &name, len));
    if (r < 0 && fd >= 0)
        shs_sys_close((int)fd);
    return r < 0 ? r : fd;
}

/* From which address would `from` (any, or bound) send to `to`, and where does it arrive? false: nowhere. */
static bool route(int domain, struct shs_where *from, struct shs_where *to)
{
    long fd = own_socket(domain, from->addr);
    if (fd < 0)
        return false;
    union shs_name name;
    socklen_t len = shs_name_of(&name, domain, to->addr, to->port);
    uint16_t port;
    bool known = SHS_SYS(syscall(SYS_connect, fd, &name, len)) == 0;
    len = sizeof name;
    known = known && SHS_SYS(getsockname((int)fd, &name.sa, &len)) == 0 && shs_take_address(&name.any, from->addr, &port);
    len = sizeof name;
    known = known && SHS_SYS(getpeername((int)fd, &name.sa, &len)) == 0 && shs_take_address(&name.any, to->addr, &port);
    shs_sys_close((int)fd);
    return known && !special(from->addr);
}

bool shs_source_for(int domain, struct shs_where *from, const struct shs_where *where)
{
    struct shs_where to = *where;
    return !special(to.addr) && route(domain, from, &to);
}

/* One that one can bind to. */
bool shs_is_own_address(int domain, const uint8_t addr[16])
{
    long fd = own_socket(domain, addr);
    if (fd >= 0)
        shs_sys_close((int)fd);
    return fd >= 0;
}

/* Under ctl: the next link of this source and destination from `at` on, 0: none. */
static uint32_t same_way(struct shs_stack *stack, uint32_t at, const struct shs_where *from, const uint8_t daddr[16], uint16_t dport)
{
    struct shs_link *link;
    for (uint32_t i = 0; i < SHS_N_LINKS && (link = shs_link_at(stack, at)); i++, at = link->next)
        if (shs_link_state(shs_load64(&link->word)) != SHS_LINK_FREE && link->dport == dport && link->sport == from->port &&
            !memcmp(link->saddr, from->addr, 16) && !memcmp(link->daddr, daddr, 16))
            return at;
    return 0;
}

int shs_link_want(struct shs_env *env, const struct shs_who *who, uint32_t ep1, int domain, const struct shs_where *where)
{
    struct shs_endpoint *ep = shs_endpoint_at(env->stack, ep1);
    struct shs_where from, to = *where;
    memcpy(from.addr, ep->laddr, sizeof from.addr);
    from.port = ep->lport;
    if (special(to.addr) || !shs_is_own_address(domain, to.addr) || !route(domain, &from, &to))
        return -SHS_REASON_PEER_UNKNOWN;
    if (!lock_ctl(env, who))
        return 0;
    uint32_t link1 = same_way(env->stack, *shs_link_bucket_at(env->stack, to.port), &from, to.addr, to.port);
    while (link1 && shs_link_at(env->stack, link1)->sender != ep1)
        link1 = same_way(env->stack, shs_link_at(env->stack, link1)->next, &from, to.addr, to.port);
    if (!link1)
        link1 = shs_link_take(env->stack, ep1, &from, &to);
    shs_unlock(&env->stack->ctl);
    shs_count(env, link1 ? SHS_CTR_LINKS_WANTED : SHS_CTR_EXHAUSTED, 1);
    return link1 ? (int)link1 : -SHS_REASON_EXHAUSTED;
}

bool shs_link_meet(struct shs_env *env, const struct shs_who *who, const struct shs_end *end, uint32_t ep1, uint64_t fresh_ns,
                   const struct shs_where *from, const struct shs_where *to)
{
    struct shs_stack *stack = env->stack;
    struct shs_endpoint *ep = end->ep;
    struct shs_direction *dir = shs_end_rx(end);
    struct shs_pair *pair = shs_inbox_of(dir);
    const uint8_t *daddr = to ? to->addr : ep->laddr;
    if (!to && shs_any_address(ep->laddr))
        return false;
    /* without the lock: is there one that could be allowed? */
    struct shs_link *hope = shs_link_at(stack, same_way(stack, shs_load32(shs_link_bucket_at(stack, ep->lport)), from, daddr, ep->lport));
    if (!hope || shs_link_state(shs_load64(&hope->word)) != SHS_LINK_WANTED || shs_load64(&hope->wanted_ns) >= fresh_ns ||
        !shs_policy_links(env, hope, ep) || !lock_ctl(env, who))
        return false;
    uint32_t first = same_way(stack, *shs_link_bucket_at(stack, ep->lport), from, daddr, ep->lport);
    struct shs_link *found = shs_link_at(stack, first);
    /* closed by another thread meanwhile, the record may be another socket's; two senders of one source address: nobody can tell whose it was */
    bool one = shs_end_reads(end, dir) && found && !same_way(stack, found->next, from, daddr, ep->lport);
    uint64_t word = one ? shs_load64(&found->word) : 0;
    /* what had been in the queue before the link was wanted proves nothing */
    bool allow = one && shs_link_state(word) == SHS_LINK_WANTED && shs_load64(&found->wanted_ns) < fresh_ns;
    if (allow) {
        found->receiver = ep1;
        found->pair = ep->pair;
        found->pair_gen = pair->gen;
        found->allowed_ns = shs_now();
        /* not a store: whoever doubts it just now makes the wish younger first, and the word another one then */
        allow = shs_cas64(&found->word, word, shs_link_next(word, SHS_LINK_ALLOWED));
        if (allow && !shs_policy_links(env, found, ep)) { /* denied since we looked: who made it so doubts what is allowed, then we do */
            shs_link_doubt(found, shs_load64(&found->word));
            allow = false;
        }
        shs_count(env, SHS_CTR_LINKS_ALLOWED, allow);
    }
    shs_unlock(&stack->ctl);
    return allow;
}

bool shs_link_way(struct shs_env *env, uint32_t ep1, uint32_t link1, struct shs_way *way)
{
    struct shs_link *link = shs_link_at(env->stack, link1);
    uint64_t word = link ? shs_load64(&link->word) : 0;
    if (shs_link_state(word) != SHS_LINK_ALLOWED)
        return false;
    *way = (struct shs_way){
        .ep = shs_endpoint_at(env->stack, ep1),
        .link = link,
        .pair = shs_pair_at(env->arena, shs_load32(&link->pair)),
        .pair_gen = shs_load32(&link->pair_gen),
        .word = word,
        .tag = shs_tag_of(link->saddr, link->sport) | (uint64_t)link1 << SHS_TAG_LINK_SHIFT,
    };
    return way->ep && way->pair && link->sender == ep1 && shs_load64(&link->word) == word;
}

void shs_links_doubt(struct shs_env *env, uint16_t port, uint64_t age_ns)
{
    uint64_t now = shs_now();
    for (uint32_t link1 = 1; link1 <= shs_load32(&env->stack->links_top) && link1 <= SHS_N_LINKS; link1++) {
        struct shs_link *link = shs_link_at(env->stack, link1);
        uint64_t word = shs_load64(&link->word);
        struct shs_pair *pair = shs_pair_at(env->arena, shs_load32(&link->pair));
        uint64_t age = now - shs_load64(&link->allowed_ns);
        /* an old one is renewed while its ring is empty, when that costs least; or at last */
        bool old = age >= age_ns && (age >= 10 * age_ns || !pair || !shs_ring_waiting(&pair->dir[0]));
        bool allowed = shs_link_state(word) == SHS_LINK_ALLOWED;
        if (!port && allowed && old && shs_link_doubt(link, word))
            shs_count(env, SHS_CTR_LINKS_DOUBTED, 1);
        /* one that is only wanted, too: what a receiver is about to take may have been sent when the kernel decided otherwise */
        while (port && shs_link_state(word) != SHS_LINK_FREE && link->dport == port && !shs_link_doubt(link, word))
            word = shs_load64(&link->word);
        if (port && allowed && link->dport == port)
            shs_count(env, SHS_CTR_LINKS_DOUBTED, 1);
    }
}

void shs_ask_destinations(int fd, int domain, bool ask)
{
    int on = ask;
    shs_sys_setsockopt(fd, IPPROTO_IP, IP_RECVORIGDSTADDR, &on, sizeof on);
    if (domain == AF_INET6)
        shs_sys_setsockopt(fd, IPPROTO_IPV6, IPV6_RECVORIGDSTADDR, &on, sizeof on);
}

bool shs_original_destination(struct msghdr *msg, struct shs_where *to)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        struct sockaddr_storage any = {0};
        size_t len = c->cmsg_len - CMSG_LEN(0);
        bool four = c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_ORIGDSTADDR;
        if (!four && (c->cmsg_level != IPPROTO_IPV6 || c->cmsg_type != IPV6_ORIGDSTADDR))
            continue;
        memcpy(&any, CMSG_DATA(c), len < sizeof any ? len : sizeof any);
        return shs_take_address(&any, to->addr, &to->port);
    }
    return false;
}
