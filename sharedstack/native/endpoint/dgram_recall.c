/*
 * The recall of an inbox, in the order of events (docs/internals/datagrams.md, Recall):
 * 1  under rlock: senders that find the ring shut wait (recall_ns), and it is shut for good;
 * 2  what the kernel's queue has of a sender is younger than what the ring has of it, and must not come first: it is taken out, as far as it can be
 *    sent again;
 * 3  each datagram of the ring is consumed, and then sent by the kernel, from its source to where it was sent to: by the sender's own socket, which
 *    is borrowed; where that is gone, by one that is bound to its address; and where neither can be had, or the source is another host's, by a raw
 *    socket, if this process may have one;
 * 4  what was taken out follows.
 * Consumed first: who is killed in between has lost one datagram, as a kernel may, and no other holder sends it a second time.
 */
#include "common.h"

#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sys/mman.h>

#include "endpoint/anchor.h"
#include "endpoint/dgram.h"
#include "endpoint/residue.h"
#include "engine/packet.h"
#include "shm/lock.h"
#include "shm/sys.h"

#define PATIENCE_NS 50000000ull /* of a sender with a recaller that makes no progress: it may have been killed */
#define LARGEST 65536
#define N_ROADS 4

/* By which datagrams of one source are sent again to one destination. */
struct road {
    struct shs_where from, to;
    int fd; /* -1: by nothing */
    int domain;
    bool known;
    bool raw;    /* with headers of our own */
    bool joined; /* the socket is connected to `to` */
};

struct recall {
    struct shs_env *env;
    const struct shs_end *end;
    int domain; /* of the receiving socket */
    struct road road[N_ROADS];
    unsigned next;
    uint8_t *bytes; /* room for one datagram, then for those that were taken out */
    size_t room, used;
    long lost;
};

/* One that was taken out; its bytes follow. */
struct aside {
    struct shs_where from, to;
    uint32_t link1;
    uint32_t len;
};

static bool same(const struct shs_where *a, const struct shs_where *b)
{
    return a->port == b->port && !memcmp(a->addr, b->addr, sizeof a->addr);
}

/* The link, once taken, of that number. */
static const struct shs_link *link_of(const struct recall *r, uint32_t link1)
{
    return link1 <= shs_load32(&r->env->stack->links_top) ? shs_link_at(r->env->stack, link1) : NULL;
}

/* Is, or was, it a link from there to our port? */
static bool links(const struct recall *r, const struct shs_link *link, const struct shs_where *from)
{
    return link && link->dport == r->end->ep->lport && link->sport == from->port && !memcmp(link->saddr, from->addr, sizeof from->addr);
}

/* Where a datagram was sent to, as well as that is known: by its link; else the socket's address; else where such a datagram would arrive. */
static struct shs_where destination(const struct recall *r, const struct shs_where *from, uint32_t link1, bool wire)
{
    const struct shs_endpoint *ep = r->end->ep;
    struct shs_where to = {.port = ep->lport};
    const struct shs_link *link = link_of(r, link1);
    if (links(r, link, from)) {
        memcpy(to.addr, link->daddr, sizeof to.addr);
    } else if (!shs_any_address(ep->laddr)) {
        memcpy(to.addr, ep->laddr, sizeof to.addr);
    } else if (wire) { /* to the address that an answer would come from */
        if (shs_is_four(from->addr))
            memset(to.addr + 10, 0xff, 2);
        shs_source_for(r->domain, &to, from);
        to.port = ep->lport;
    } else { /* on one host, a source that is not bound to an address is the destination's */
        memcpy(to.addr, from->addr, sizeof to.addr);
    }
    return to;
}

static int domain_of(int fd)
{
    int domain = 0;
    socklen_t len = sizeof domain;
    return shs_sys_getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 ? domain : 0;
}

/* Is this record's socket one that sends from there? Then the road is by a copy of it. A record that is free tells whose it was: a socket may have
 * lost its record and live, and its cookie is nobody else's. */
static bool borrow(struct recall *r, struct road *road, const struct shs_endpoint *ep)
{
    union shs_name name;
    socklen_t len = sizeof name;
    struct shs_where here;
    bool any = shs_any_address(ep->laddr);
    if (!shs_is_datagram(ep) || !ep->cookie || ep->lport != road->from.port || (!any && memcmp(ep->laddr, road->from.addr, 16)))
        return false;
    int fd = shs_borrow(r->env, ep);
    if (fd < 0)
        return false;
    /* it may have been bound or connected anew; or it is another one of that port */
    road->domain = domain_of(fd);
    bool good = SHS_SYS(getsockname(fd, &name.sa, &len)) == 0 && shs_take_address(&name.any, here.addr, &here.port) &&
                (!shs_any_address(here.addr) || shs_source_for(road->domain, &here, &road->to)) && same(&here, &road->from);
    if (!good) {
        shs_sys_close(fd);
        return false;
    }
    len = sizeof name;
    road->joined =
        SHS_SYS(getpeername(fd, &name.sa, &len)) == 0 && shs_take_address(&name.any, here.addr, &here.port) && same(&here, &road->to);
    road->fd = fd;
    return true;
}

static void by_sender(struct recall *r, struct road *road, uint32_t link1)
{
    struct shs_stack *stack = r->env->stack;
    uint32_t top = shs_load32(&stack->endpoints_top);
    const struct shs_link *link = link_of(r, link1);
    const struct shs_endpoint *ep = link && link->sender <= top ? shs_endpoint_at(stack, link->sender) : NULL;
    if (ep && borrow(r, road, ep))
        return;
    for (uint32_t ep1 = 1; ep1 <= top && (ep = shs_endpoint_at(stack, ep1)); ep1++)
        if (shs_load32(&ep->state) == SHS_EP_LIVE && borrow(r, road, ep))
            return;
}

/* The sender is gone: a socket of ours has its address for a moment. Not by SO_REUSEADDR, by which it could be had beside another one's. */
static void by_address(struct road *road)
{
    union shs_name name;
    int domain = shs_is_four(road->from.addr) ? AF_INET : AF_INET6, on = 1;
    long fd = SHS_SYS(syscall(SYS_socket, domain, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (fd < 0)
        return;
    if (domain == AF_INET6)
        shs_sys_setsockopt((int)fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (SHS_SYS(syscall(SYS_bind, fd, &name, shs_name_of(&name, domain, road->from.addr, road->from.port))) < 0) {
        shs_sys_close((int)fd);
        return;
    }
    road->domain = domain;
    road->fd = (int)fd;
}

/* On its way out to an address of this host a packet gets its route, and keeps it on its way in (loopback_xmit): nobody asks there whether a source
 * that is another host's may come by this interface. Needs CAP_NET_RAW. */
static bool by_headers(struct road *road)
{
    int domain = shs_is_four(road->from.addr) ? AF_INET : AF_INET6;
    long fd = SHS_SYS(syscall(SYS_socket, domain, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));
    if (fd < 0 || shs_is_four(road->to.addr) != (domain == AF_INET)) {
        if (fd >= 0)
            shs_sys_close((int)fd);
        return false;
    }
    if (road->fd >= 0)
        shs_sys_close(road->fd);
    road->fd = (int)fd;
    road->domain = domain;
    road->raw = true;
    road->joined = false;
    return true;
}

static struct road *road_for(struct recall *r, const struct shs_where *from, const struct shs_where *to, uint32_t link1, bool wire)
{
    for (int i = 0; i < N_ROADS; i++)
        if (r->road[i].known && same(&r->road[i].from, from) && same(&r->road[i].to, to))
            return &r->road[i];
    struct road *road = &r->road[r->next++ % N_ROADS];
    if (road->known && road->fd >= 0)
        shs_sys_close(road->fd);
    *road = (struct road){.from = *from, .to = *to, .fd = -1, .known = true};
    if (!wire)
        by_sender(r, road, link1);
    if (road->fd < 0 && !wire)
        by_address(road);
    if (road->fd < 0)
        by_headers(road);
    return road;
}

/* The headers before the datagram's bytes: their length. */
static size_t headers(const struct road *road, uint8_t *head, const uint8_t *bytes, size_t len)
{
    size_t ip = road->domain == AF_INET ? SHS_IP4_HEADER : SHS_IP6_HEADER;
    uint8_t *udp = head + ip;
    memset(head, 0, ip + SHS_UDP_HEADER);
    shs_put16(udp, road->from.port);
    shs_put16(udp + 2, road->to.port);
    shs_put16(udp + 4, (uint32_t)(SHS_UDP_HEADER + len));
    if (road->domain == AF_INET) { /* the kernel fills in what is 0; RFC 768: no checksum */
        head[0] = 0x45;
        head[8] = 64;
        head[9] = IPPROTO_UDP;
        memcpy(head + 12, road->from.addr + 12, 4);
        memcpy(head + 16, road->to.addr + 12, 4);
        return ip + SHS_UDP_HEADER;
    }
    head[0] = 0x60;
    shs_put16(head + 4, (uint32_t)(SHS_UDP_HEADER + len));
    head[6] = IPPROTO_UDP;
    head[7] = 64;
    memcpy(head + 8, road->from.addr, 16);
    memcpy(head + 24, road->to.addr, 16);
    uint32_t sum = shs_sum(head + 8, 32, (uint32_t)(SHS_UDP_HEADER + len) + IPPROTO_UDP);
    sum = shs_sum(bytes, (uint32_t)len, shs_sum(udp, SHS_UDP_HEADER, sum));
    uint16_t check = (uint16_t)~shs_sum_fold(sum);
    shs_put16(udp + 6, check ? check : 0xffff);
    return ip + SHS_UDP_HEADER;
}

static bool send_by(const struct road *road, uint8_t *bytes, size_t len)
{
    union shs_name name;
    uint8_t head[SHS_IP6_HEADER + SHS_UDP_HEADER];
    struct iovec iov[2] = {{head, road->raw ? headers(road, head, bytes, len) : 0}, {bytes, len}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
    if (!road->joined) {
        msg.msg_namelen = shs_name_of(&name, road->domain, road->to.addr, road->raw ? 0 : road->to.port);
        msg.msg_name = &name;
    }
    /* a borrowed socket may tell an error of earlier times, once, instead of sending */
    for (int i = 0; i < 2; i++)
        if (shs_sys_sendmsg(road->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return true;
    return false;
}

/* Send it, or count it as lost. */
static void give(struct recall *r, struct road *road, uint8_t *bytes, size_t len, int counter)
{
    bool sent = road->fd >= 0 && send_by(road, bytes, len);
    /* a sender may have shut down its sending direction */
    if (!sent && road->fd >= 0 && !road->raw && by_headers(road))
        sent = send_by(road, bytes, len);
    if (!sent)
        counter = SHS_CTR_RECALL_LOST;
    if (counter >= 0)
        shs_count(r->env, counter, 1);
    r->lost += !sent;
    shs_dgram_recall_soon(r->end);
}

static size_t kernel_bytes(int fd)
{
    uint32_t meminfo[SK_MEMINFO_VARS] = {0};
    socklen_t len = sizeof meminfo;
    return shs_sys_getsockopt(fd, SOL_SOCKET, SO_MEMINFO, meminfo, &len) == 0 ? meminfo[SK_MEMINFO_RMEM_ALLOC] : 0;
}

/* recvmsg(2) of the next datagram in the kernel's queue: its length, or -errno. `a` says of whom; `bytes` NULL: it stays there. */
static long next_of_kernel(const struct recall *r, struct aside *a, uint8_t *bytes)
{
    union shs_name name;
    _Alignas(struct cmsghdr) char control[512];
    struct iovec iov = {bytes, LARGEST};
    struct msghdr msg = {.msg_name = &name,
                         .msg_namelen = sizeof name,
                         .msg_iov = &iov,
                         .msg_iovlen = bytes ? 1 : 0,
                         .msg_control = control,
                         .msg_controllen = sizeof control};
    long got = shs_sys_recvmsg(r->end->fd, &msg, MSG_DONTWAIT | (bytes ? 0 : MSG_PEEK));
    if (got < 0)
        return got;
    if (!shs_take_address(&name.any, a->from.addr, &a->from.port))
        return -EINVAL;
    if (!shs_original_destination(&msg, &a->to))
        a->to = destination(r, &a->from, 0, false);
    return got;
}

/* The link by which such a datagram would have been pushed; 0: none. (No link is to many, whom a copy of it would reach a second time.) */
static uint32_t link_between(const struct recall *r, const struct shs_where *from, const struct shs_where *to)
{
    const struct shs_link *link;
    for (uint32_t link1 = 1; (link = link_of(r, link1)); link1++)
        if (links(r, link, from) && !memcmp(link->daddr, to->addr, sizeof to->addr))
            return link1;
    return 0;
}

/* Step 2. Of plain senders the kernel's queue is left as it is, from the first one on. */
static void take_out(struct recall *r)
{
    struct aside *a;
    int told = 0;
    socklen_t len = sizeof told;
    bool any = shs_any_address(r->end->ep->laddr);
    if (any && shs_sys_getsockopt(r->end->fd, IPPROTO_IP, IP_RECVORIGDSTADDR, &told, &len) == 0 && told)
        any = false; /* the program asked for it */
    if (any)
        shs_ask_destinations(r->end->fd, r->domain, true);
    while (r->room - r->used >= sizeof *a + LARGEST) {
        a = (struct aside *)(void *)(r->bytes + r->used);
        long got = next_of_kernel(r, a, NULL);
        if (got < 0 && got != -EAGAIN && got != -EINVAL)
            r->end->ep->error = (uint32_t)-got; /* consumed by asking */
        a->link1 = got < 0 ? 0 : link_between(r, &a->from, &a->to);
        if (!a->link1 || road_for(r, &a->from, &a->to, a->link1, false)->fd < 0)
            break;
        got = next_of_kernel(r, a, (uint8_t *)(a + 1)); /* another holder may have taken the one that was looked at */
        if (got < 0)
            break;
        a->len = (uint32_t)got;
        r->used += (sizeof *a + (size_t)got + 15) & ~(size_t)15;
    }
    if (any)
        shs_ask_destinations(r->end->fd, r->domain, false);
}

static void give_back(struct recall *r)
{
    for (size_t at = LARGEST; at < r->used;) {
        struct aside *a = (struct aside *)(void *)(r->bytes + at);
        give(r, road_for(r, &a->from, &a->to, a->link1, false), (uint8_t *)(a + 1), a->len, -1);
        at += (sizeof *a + a->len + 15) & ~(size_t)15;
    }
}

/* Step 3: 0 or -EPIPE. */
static long give_ring(struct recall *r, const struct shs_who *who, bool keep)
{
    struct shs_direction *dir = r->end->rx;
    struct iovec iov = {r->bytes, LARGEST};
    struct shs_arrived arrived;
    struct shs_cursor cur;
    for (;;) {
        shs_cursor_init(&cur, NULL, 0);
        if (shs_ring_pull_datagram(r->env, dir, &cur, true, who->lock_word, &arrived) != 0)
            return 0;
        struct shs_where from = {.port = (uint16_t)(arrived.tag >> 32)};
        uint32_t four = (uint32_t)arrived.tag, link1 = (uint32_t)(arrived.tag >> SHS_TAG_LINK_SHIFT) & SHS_TAG_LINK_MASK;
        bool wire = arrived.tag & SHS_TAG_WIRE;
        if (arrived.kind == SHS_REC_DATAGRAM6) {
            memcpy(from.addr, arrived.addr, sizeof from.addr);
        } else {
            memset(from.addr + 10, 0xff, 2);
            memcpy(from.addr + 12, &four, 4);
        }
        struct shs_where to = destination(r, &from, link1, wire);
        struct road *road = road_for(r, &from, &to, link1, wire);
        if (road->fd < 0 && keep)
            return -EPIPE;
        shs_cursor_init(&cur, &iov, 1);
        if (shs_ring_pull_datagram(r->env, dir, &cur, false, who->lock_word, &arrived) != 0)
            return 0;
        give(r, road, r->bytes, arrived.full < LARGEST ? arrived.full : LARGEST, SHS_CTR_RECALLED);
    }
}

/* Under rlock, with something in the ring. */
static long recall(struct shs_env *env, const struct shs_who *who, const struct shs_end *end, bool younger, bool keep)
{
    struct recall r = {.env = env, .end = end, .domain = domain_of(end->fd), .used = LARGEST};
    size_t queued = younger ? kernel_bytes(end->fd) : 0; /* its bytes are fewer than the memory that they cost */
    r.room = 3 * LARGEST + 2 * queued;
    void *memory = mmap(NULL, r.room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return -ENOMEM;
    r.bytes = memory;
    shs_dgram_recall_soon(end);
    if (queued)
        take_out(&r);
    long done = give_ring(&r, who, keep);
    give_back(&r);
    for (int i = 0; i < N_ROADS; i++)
        if (r.road[i].known && r.road[i].fd >= 0)
            shs_sys_close(r.road[i].fd);
    munmap(memory, r.room);
    return done < 0 ? done : r.lost;
}

long shs_dgram_recall(struct shs_env *env, const struct shs_who *who, const struct shs_end *end, const struct shs_shown *shown, bool keep)
{
    struct shs_direction *dir = shs_end_rx(end);
    int r = shs_lock(env, &dir->rlock, who->lock_word);
    if (r < 0)
        return -EAGAIN; /* a signal handler interrupted a receive on the same socket */
    if (r == SHS_LOCK_REPAIR)
        shs_dir_repair_reader(dir);
    long done = 0;
    if (shs_end_reads(end, dir)) {
        __atomic_fetch_and(&dir->word, ~SHS_WORD_OPEN, __ATOMIC_SEQ_CST);
        __atomic_fetch_or(&dir->word, SHS_WORD_STICKY, __ATOMIC_SEQ_CST);
        /* what was shown is received next, and what is older than an engine's datagrams before them; or another recall did not come to its end */
        bool younger = r != SHS_LOCK_REPAIR && (!shown || (!shs_shown_next(shown) && !shown->older));
        if (shs_ring_waiting(dir))
            done = recall(env, who, end, younger, keep);
    }
    shs_store64(&shs_inbox_of(dir)->recall_ns, 0);
    shs_unlock(&dir->rlock);
    return done;
}

void shs_dgram_recall_soon(const struct shs_end *end)
{
    shs_store64(&shs_inbox_of(shs_end_rx(end))->recall_ns, shs_now() + PATIENCE_NS);
}

void shs_dgram_await_recall(const struct shs_pair *pair)
{
    uint64_t until;
    while ((until = shs_load64(&pair->recall_ns)) && until - shs_now() <= PATIENCE_NS)
        shs_sys_poll(NULL, 0, 1);
}
