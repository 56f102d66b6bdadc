/*
 * Sending a datagram, in the order of events:
 * 1  where to: the message's address, or the connected peer's; only plain messages to single addresses of this host are looked at further;
 * 2  a destination that was sent to often enough gets a link, and goes on by the kernel until a receiver has allowed it;
 * 3  one on another host may be an engine's (wire_dgram.c);
 * 4  allowed, and the receiver has found the kernel's queue empty since our last datagram there: by its ring. Else by the kernel, and it is
 *    noted how many looks the receiver had begun by then.
 */
#include "common.h"

#include <sched.h>

#include "intercepts.gen.h"
#include "preload/dgram.h"
#include "preload/restart.h"
#include "preload/wire_dgram.h"
#include "shm/sys.h"

#define LARGEST_V4 65507 /* RFC 768 over RFC 791 */
#define LARGEST_V6 65527

/* The destination as in a record: false for all that is not plain (scope, flow label, other families, no port), or cannot be read. */
static bool parse(int domain, const struct sockaddr *sa, socklen_t len, struct shs_where *to)
{
    if (len > sizeof(struct sockaddr_storage) || !shs_readable(sa, len))
        return false;
    if (domain == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)sa;
        if (len < sizeof *in || sa->sa_family != AF_INET || !in->sin_port)
            return false;
        memset(to->addr, 0, 10);
        to->addr[10] = to->addr[11] = 0xff;
        memcpy(to->addr + 12, &in->sin_addr, 4);
        to->port = ntohs(in->sin_port);
        return true;
    }
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)sa;
    if (len < sizeof *in6 || sa->sa_family != AF_INET6 || !in6->sin6_port || in6->sin6_scope_id || in6->sin6_flowinfo)
        return false;
    memcpy(to->addr, &in6->sin6_addr, 16);
    to->port = ntohs(in6->sin6_port);
    return true;
}

/* The connected peer; false: none. */
static bool peer(struct shs_dgram *d, int fd, struct shs_where *to)
{
    if (!d->peer_known) {
        union shs_name name;
        socklen_t len = sizeof name;
        d->peer.port = 0;
        if (SHS_SYS(getpeername(fd, &name.sa, &len)) == 0 && !parse(d->domain, &name.sa, len, &d->peer))
            d->peer.port = 0;
        d->peer_known = true;
    }
    *to = d->peer;
    return to->port != 0;
}

struct shs_dest *shs_dest_of(struct shs_dgram *d, const struct shs_where *to)
{
    uint32_t hash = to->port * 31u + to->addr[15] * 7u + to->addr[14] + to->addr[8] * 3u;
    struct shs_dest *found = NULL;
    for (uint32_t i = 0; i < 4; i++) {
        struct shs_dest *dest = &d->dest[(hash + i) % SHS_N_DESTS];
        if (dest->state && dest->to.port == to->port && !memcmp(dest->to.addr, to->addr, sizeof to->addr))
            return dest;
        if (!found && !dest->state)
            found = dest;
    }
    if (!found) /* the oldest knowledge gives way; its link stays, and is found again */
        found = &d->dest[hash % SHS_N_DESTS];
    *found = (struct shs_dest){.to = *to, .state = SHS_DEST_COUNTING};
    return found;
}

/*
 * The receiver is still taking what we gave to the kernel. To give the kernel more would keep it there: so wait while it makes progress, if
 * it runs on another CPU; not for long, and more and more seldom where it does not help.
 */
static bool catches_up(const struct shs_way *way, uint64_t seen, bool block)
{
    struct shs_direction *dir = &way->pair->dir[0];
    uint64_t patience = shs_proc.env.opt.full_us * 1000, now = shs_now(), until = now + patience, last = now + patience * (block ? 40 : 10);
    uint64_t before = shs_load64(&way->pair->looks) + shs_load64(&dir->rd);
    if ((uint32_t)sched_getcpu() == shs_peek32(&dir->rcpu))
        return false;
    do {
        for (int i = 0; i < 64; i++)
            shs_pause();
        if (shs_load64(&way->pair->empty) > seen && shs_word_pushable(shs_load64(&dir->word)))
            return true;
        now = shs_now();
        uint64_t progress = shs_load64(&way->pair->looks) + shs_load64(&dir->rd);
        if (progress != before)
            until = now + patience;
        before = progress;
    } while (now < until && now < last && shs_load64(&way->link->word) == way->word);
    return false;
}

enum { BY_KERNEL, BEHIND, BY_RING };

/* Under the lock: may this datagram be pushed? Fills in `way`. BEHIND: when the receiver has caught up with the kernel's queue. */
static int may_push(struct shs_fd *f, const struct shs_who *who, struct shs_dest *dest, struct shs_way *way)
{
    struct shs_env *env = &shs_proc.env;
    if (dest->state == SHS_DEST_COUNTING && ++dest->sends >= env->opt.lift_after) {
        int r = shs_link_want(env, who, f->ep1, f->dgram->domain, &dest->to);
        dest->sends = 0;
        if (r < 0) {
            dest->state = SHS_DEST_KERNEL;
            shs_set32(&f->end.ep->why_tx, (uint32_t)-r);
        } else if (r > 0) {
            dest->link1 = (uint32_t)r;
            dest->state = SHS_DEST_LINKED;
            shs_set32(&f->end.ep->why_tx, SHS_REASON_NOT_LINKED);
        }
        return BY_KERNEL;
    }
    if (dest->state != SHS_DEST_LINKED)
        return BY_KERNEL;
    if (SHS_UNLIKELY(!dest->way.link || shs_load64(&dest->way.link->word) != dest->way.word)) {
        if (!shs_link_way(env, f->ep1, dest->link1, &dest->way))
            return BY_KERNEL;
        dest->seen = shs_load64(&dest->way.pair->looks); /* all that went by the kernel so far */
    }
    *way = dest->way;
    if (SHS_LIKELY(shs_load64(&dest->way.pair->empty) > dest->seen))
        return BY_RING;
    if (!dest->skip)
        return BEHIND;
    dest->skip--;
    return BY_KERNEL;
}

/* A datagram went by the kernel: what follows to that port may not overtake it. port 0: any. */
static void went_by_kernel(struct shs_dgram *d, uint16_t port)
{
    shs_nested_lock(&d->lock);
    for (int i = 0; i < SHS_N_DESTS; i++) {
        struct shs_dest *dest = &d->dest[i];
        if (dest->way.pair && (!port || dest->to.port == port)) {
            uint64_t looks = shs_load64(&dest->way.pair->looks);
            dest->seen = looks > dest->seen ? looks : dest->seen;
        }
    }
    shs_nested_unlock(&d->lock);
}

/* Is it a message that a ring can carry? */
static bool plain(struct shs_fd *f, const struct msghdr *msg, int flags)
{
    if (SHS_UNLIKELY(f->why || f->dgram->leaving))
        return false;
    if (SHS_UNLIKELY(shs_peek32(&f->end.ep->flags) & (SHS_EPF_KERNEL_ONLY | SHS_EPF_SHARED | SHS_EPF_WRSHUT)))
        return false;
    if (SHS_LIKELY(!msg->msg_controllen && !(flags & ~(MSG_DONTWAIT | MSG_NOSIGNAL | MSG_CONFIRM))))
        return true;
    shs_set32(&f->end.ep->why_tx, SHS_REASON_CONTROL_DATA);
    if (flags & MSG_MORE) /* the kernel gathers pieces of a datagram from now on */
        shs_dgram_lower(f, SHS_REASON_CONTROL_DATA);
    return false;
}

/* By the ring: the datagram's length, or SHS_RING_*. */
static long push(struct shs_fd *f, const struct shs_who *who, const struct msghdr *msg, int flags, const struct shs_where *to)
{
    struct shs_dgram *d = f->dgram;
    struct shs_way way;
    size_t len = 0, most = d->domain == AF_INET ? LARGEST_V4 : LARGEST_V6;
    for (size_t i = 0; i < msg->msg_iovlen; i++) {
        if (msg->msg_iov[i].iov_len > most - len)
            return SHS_RING_SHUT;
        len += msg->msg_iov[i].iov_len;
    }
    if (SHS_UNLIKELY(shs_dgram_wired(f->end.ep))) {
        long r = shs_dgram_transmit(f, who, to, msg->msg_iov, msg->msg_iovlen, len);
        if (r != SHS_STALE)
            return r;
    }
    bool block = !(flags & MSG_DONTWAIT) && !(shs_peek32(&f->end.ep->flags) & SHS_EPF_NONBLOCK);
    shs_nested_lock(&d->lock);
    struct shs_dest *dest = shs_dest_of(d, to);
    int may = may_push(f, who, dest, &way);
    const struct shs_pair *pair = dest->way.pair;
    if (SHS_UNLIKELY(may == BEHIND)) {
        may = catches_up(&way, dest->seen, block) ? BY_RING : BY_KERNEL;
        dest->in_vain = may == BY_RING ? 0 : dest->in_vain < 512 ? dest->in_vain * 2 + 8 : dest->in_vain;
        dest->skip = dest->in_vain;
    }
    shs_nested_unlock(&d->lock);
    if (may != BY_RING) {
        if (pair)
            shs_dgram_await_recall(pair);
        return SHS_RING_SHUT;
    }
    long r = shs_dgram_push(&shs_proc.env, who, &way, msg->msg_iov, msg->msg_iovlen, len, block);
    if (SHS_LIKELY(r >= 0) && SHS_UNLIKELY(shs_peek32(&f->end.ep->why_tx)))
        shs_set32(&f->end.ep->why_tx, SHS_REASON_NONE);
    if (SHS_UNLIKELY(r < 0))
        shs_dgram_await_recall(pair);
    return r;
}

long shs_dgram_sendmsg(struct shs_gate *g, int fd, const struct msghdr *msg, int flags)
{
    struct shs_fd *f = g->f;
    struct shs_dgram *d = f->dgram;
    struct shs_where to = {.port = 0};
    shs_set32(&f->takes, 0);
    bool good = shs_message_readable(msg), known = false; /* else it is for the kernel to refuse */
    if (SHS_LIKELY(good))
        known = msg->msg_name ? parse(d->domain, msg->msg_name, msg->msg_namelen, &to) : peer(d, fd, &to);
    if (SHS_LIKELY(known && plain(f, msg, flags))) {
        long r = push(f, g->who, msg, flags, &to);
        if (SHS_LIKELY(r >= 0) || (r > SHS_RING_BROKEN && r != -EFAULT)) /* or an error that the socket had */
            return r;
    }
    long r = shs_n_sendmsg(fd, msg, flags);
    went_by_kernel(d, known ? to.port : 0);
    if (r >= 0) {
        shs_set64(&f->end.ep->tx_kernel, shs_peek64(&f->end.ep->tx_kernel) + (uint64_t)r);
        shs_count(&shs_proc.env, SHS_CTR_TX_KERNEL_BYTES, (uint64_t)r);
        shs_count(&shs_proc.env, SHS_CTR_TX_KERNEL_DATAGRAMS, 1);
        if (known)
            shs_dgram_talked(f, fd, &to);
    }
    return r;
}
