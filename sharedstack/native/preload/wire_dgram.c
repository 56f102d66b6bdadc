/*
 * In order of events:
 * 1  talked: what a socket sends to one peer and gets from there is counted. After wire_after datagrams it is asked whether the engine may have them;
 * 2  wire_up: while the endpoint's word says LIFTING nobody goes to sleep in the kernel on it any more; whoever sleeps there already
 *    puts it off. The ring gets memory. Then the helper decides, and steers that peer's packets;
 * 3  the kernel's queue is read to its end before the ring (shown.older);
 * 4  transmit, and the ring;
 * 5  the helper ends it: the handle is stale.
 */
#include "common.h"

#include "preload/wire_dgram.h"

#include <arpa/inet.h>
#include <linux/sockios.h>

#include "endpoint/lift.h"
#include "intercepts.gen.h"
#include "preload/ask.h"
#include "preload/epoll.h"
#include "preload/member.h"
#include "preload/restart.h"
#include "preload/wire_ports.h"
#include "shm/lock.h"
#include "shm/sys.h"
#include "wire/datagram.h"

#define NO_BELL_NS 1000000 /* how long a thread sleeps that can have no bell */
#define LATER 4            /* so many times as many datagrams, until it is tried again */
#define TTL 64             /* the engine's */
#define ERROR_EVERY_NS 1000000

static void text_of(const uint8_t addr[16], char text[INET6_ADDRSTRLEN])
{
    if (shs_is_four(addr))
        inet_ntop(AF_INET, addr + 12, text, INET6_ADDRSTRLEN);
    else
        inet_ntop(AF_INET6, addr, text, INET6_ADDRSTRLEN);
}

struct steered {
    uint64_t why, link, handle;
};

static bool let_it(void *arg)
{
    (void)arg;
    return true; /* what the helper does all the same is as if another peer had been asked for before */
}

/* Ask the helper to have this socket and peer steered to an engine. */
static struct steered ask(const struct shs_fd *f, int fd, const uint8_t local[16], const struct shs_where *peer)
{
    struct steered got = {.why = SHS_REASON_NO_HELPER};
    struct shs_pack pack;
    struct shs_answer answer;
    char text[INET6_ADDRSTRLEN];
    shs_ask_begin(&pack, SHS_MSG_STEER, 5);
    shs_pack_str(&pack, "endpoint");
    shs_pack_uint(&pack, f->ep1 - 1);
    shs_pack_str(&pack, "cookie");
    shs_pack_uint(&pack, shs_load64(&f->end.ep->cookie));
    shs_pack_str(&pack, "local");
    text_of(local, text);
    shs_pack_str(&pack, text);
    shs_pack_str(&pack, "remote");
    text_of(peer->addr, text);
    shs_pack_str(&pack, text);
    shs_pack_str(&pack, "port");
    shs_pack_uint(&pack, peer->port);
    if (shs_ask_patiently(shs_proc.stack_name, &pack, fd, &(struct shs_patience){let_it, NULL}, &answer) == 0) {
        shs_unpack_uint(answer.bytes, answer.len, "why", &got.why);
        shs_unpack_uint(answer.bytes, answer.len, "link", &got.link);
        shs_unpack_uint(answer.bytes, answer.len, "handle", &got.handle);
    }
    for (uint32_t i = 0; i < answer.n_fds; i++)
        shs_sys_close(answer.fd[i]);
    return got;
}

void shs_dgram_unwire(struct shs_fd *f)
{
    if (SHS_UNLIKELY(shs_fd_wired(f)))
        shs_wire_ask(SHS_MSG_LOWER, f->ep1 - 1, shs_load64(&f->end.ep->cookie), -1, NULL);
}

void shs_dgram_unwire_port(uint16_t port)
{
    struct shs_stack *stack = shs_proc.env.stack;
    for (uint32_t ep1 = 1; ep1 <= shs_load32(&stack->endpoints_top) && ep1 <= SHS_N_ENDPOINTS; ep1++) {
        const struct shs_endpoint *ep = shs_endpoint_at(stack, ep1);
        if (shs_load32(&ep->state) == SHS_EP_LIVE && shs_is_datagram(ep) && ep->lport == port && shs_dgram_wired(ep))
            shs_wire_ask(SHS_MSG_LOWER, ep1 - 1, shs_load64(&ep->cookie), -1, NULL);
    }
}

static int option(int fd, int level, int name)
{
    int value = 0;
    socklen_t len = sizeof value;
    return shs_sys_getsockopt(fd, level, name, &value, &len) == 0 ? value : -1;
}

/* Do its packets look as the engine's do? Options that the receiving side has to know of have made it the kernel's already. */
static bool plain_options(int fd, bool six)
{
    char device[16] = "";
    socklen_t len = sizeof device;
    bool plain = option(fd, SOL_SOCKET, SO_PRIORITY) == 0 && option(fd, SOL_SOCKET, SO_MARK) == 0 &&
                 option(fd, SOL_SOCKET, SO_DONTROUTE) == 0 && option(fd, SOL_SOCKET, SO_NO_CHECK) == 0;
    plain = plain && shs_sys_getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, &len) == 0 && !device[0];
    if (six)
        return plain && option(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS) == TTL && option(fd, IPPROTO_IPV6, IPV6_TCLASS) <= 0;
    return plain && option(fd, IPPROTO_IP, IP_TTL) == TTL && option(fd, IPPROTO_IP, IP_TOS) == 0;
}

/* Could every waiter be told of what comes? Another process's, or a copy's, could not. */
static bool waiters_known(const struct shs_fd *f)
{
    const struct shs_set *set = shs_set_at(f->set);
    uint32_t elsewhere = shs_load32(&f->end.ep->set_slot);
    if (f->copied || (elsewhere && elsewhere != shs_proc.env.slot1))
        return false;
    return !f->set || (set && !set->shared && (f->listed || set->n_opened < set->room));
}

/* Under LIFTING: the ring has memory, and nobody sleeps in the kernel, who would not be told. */
static bool prepare(struct shs_fd *f, const struct shs_who *who, int fd)
{
    struct shs_direction *dir = shs_end_rx(&f->end);
    struct shs_rx how = {.looked_ns = &f->looked_ns, .set = f};
    if (shs_load32(&dir->rx_on) != SHS_ON && shs_dgram_activate(&shs_proc.env, who, &f->end, shs_in_flight) != 0)
        return false;
    if (f->set) { /* in which somebody may sleep: then the ring gets memory, and stays shut */
        how.begin = shs_set_begin;
        how.done = shs_set_done;
    }
    int r = shs_lock(&shs_proc.env, &dir->rlock, who->lock_word);
    if (r < 0)
        return false;
    if (r == SHS_LOCK_REPAIR)
        shs_dir_repair_reader(dir);
    bool good = shs_end_reads(&f->end, dir) && !shs_word_takers(shs_load64(&dir->word)) && !shs_in_flight(fd, 1);
    if (good && !(shs_load64(&dir->word) & SHS_WORD_OPEN))
        shs_ring_open(&shs_proc.env, who, &f->end, dir, &how);
    good = good && shs_load64(&dir->rchunk) && !shs_word_takers(shs_load64(&dir->word));
    shs_unlock(&dir->rlock);
    return good;
}

/* Its set looks at its ring from now on, and dozes on the interfaces. */
static void tell_set(struct shs_fd *f, int fd)
{
    struct shs_set *set = shs_set_at(f->set);
    if (!set)
        return;
    shs_set_lock(set);
    if (f->listed || set->n_opened < set->room)
        shs_set_list_lifted(set, f, (int)f->set - 1, fd);
    shs_set_unlock(set);
}

/* Under the destinations' lock, or in nobody else's sight: tried again later. */
static void later(struct shs_dest *dest)
{
    uint64_t next = (uint64_t)(dest->wire_next ? dest->wire_next : shs_proc.env.opt.wire_after) * LATER, most = shs_proc.env.opt.wire_most;
    dest->talks = 0;
    dest->wire_next = (uint32_t)(next < most ? next : most);
}

static void note(struct shs_fd *f, const struct shs_where *peer, const struct steered *got)
{
    struct shs_dgram *d = f->dgram;
    shs_nested_lock(&d->lock);
    struct shs_dest *dest = shs_dest_of(d, peer);
    bool known = !got->why && dest->wire_link1 == (uint32_t)got->link + 1 && dest->wire_handle == got->handle;
    if (got->why || known) /* it was an engine's all the time, and what went by the kernel did not fit into a frame */
        later(dest);
    if (got->why) {
        dest->wire_link1 = 0;
    } else if (!known) {
        dest->talks = 0;
        dest->wire_link1 = (uint32_t)got->link + 1;
        dest->wire_handle = got->handle;
        dest->by_kernel = true;
    }
    shs_nested_unlock(&d->lock);
}

/* The word says LIFTING or ON. */
static struct steered steer(struct shs_fd *f, const struct shs_who *who, int fd, const struct shs_where *peer)
{
    struct steered got = {.why = SHS_REASON_NATIVE_READER};
    struct shs_where from = {.port = 0};
    if (!prepare(f, who, fd))
        return got;
    got.why = SHS_REASON_NO_ROUTE;
    memcpy(from.addr, f->end.ep->laddr, sizeof from.addr);
    if (!shs_source_for(f->dgram->domain, &from, peer)) /* or broadcast, or multicast */
        return got;
    got.why = SHS_REASON_NO_HELPER;
    if (!shs_wire_ports_borrow(shs_load32(&shs_proc.env.stack->n_nics)))
        return got;
    got = ask(f, fd, from.addr, peer);
    if (!got.why && !shs_wire_port_borrow((uint32_t)got.link)) {
        shs_dgram_unwire(f);
        got.why = SHS_REASON_NO_HELPER;
    }
    return got;
}

/* Under the join lock. */
static void wire_up(struct shs_fd *f, const struct shs_who *who, int fd, const struct shs_where *peer)
{
    struct shs_endpoint *ep = f->end.ep;
    struct steered got = {.why = SHS_REASON_OPTION};
    uint32_t was = shs_load32(&ep->wire), lifting = was;
    if (plain_options(fd, !shs_is_four(peer->addr))) {
        if (!(was & SHS_WIRE_STATE_MASK)) {
            lifting = ((was >> SHS_WIRE_GEN_SHIFT) + 1) << SHS_WIRE_GEN_SHIFT | SHS_WIRE_LIFTING;
            if (!shs_cas32(&ep->wire, was, lifting))
                return;
        }
        shs_fence();
        got = steer(f, who, fd, peer);
        if (lifting != was)
            shs_cas32(&ep->wire, lifting, was); /* refused, or never asked */
    }
    note(f, peer, &got);
    if (got.why != SHS_REASON_NO_ROUTE ||
        !shs_is_own_address(f->dgram->domain, peer->addr)) /* a peer of this host says nothing of others */
        shs_set32(&ep->wire_why, (uint32_t)got.why);
    shs_count(&shs_proc.env, got.why ? SHS_CTR_WIRE_REFUSED : SHS_CTR_WIRE_LIFTS, 1);
    if (got.why && got.why != SHS_REASON_NO_HELPER) /* the helper may have done it without an answer */
        return;
    if (!shs_fd_wired(f))
        return;
    f->dgram->shown.older = true;
    tell_set(f, fd);
}

static bool is_loopback(const uint8_t addr[16])
{
    static const uint8_t v6[16] = {[15] = 1};
    return (shs_is_four(addr) && addr[12] == 127) || !memcmp(addr, v6, sizeof v6);
}

void shs_dgram_talked(struct shs_fd *f, int fd, const struct shs_where *peer)
{
    struct shs_dgram *d = f->dgram;
    const struct shs_options *opt = &shs_proc.env.opt;
    if (SHS_LIKELY(!shs_load32(&shs_proc.env.stack->n_nics)) || !opt->wire || f->why || d->leaving || fd <= 2 || !peer->port ||
        is_loopback(peer->addr))
        return;
    shs_nested_lock(&d->lock);
    struct shs_dest *dest = shs_dest_of(d, peer);
    dest->by_kernel = true;
    bool due = dest->state != SHS_DEST_LINKED && ++dest->talks >= (dest->wire_next ? dest->wire_next : opt->wire_after);
    shs_nested_unlock(&d->lock);
    const struct shs_who *who = due ? shs_who() : NULL;
    bool own = shs_load32(&f->end.ep->flags) & (SHS_EPF_SHARED | SHS_EPF_KERNEL_ONLY | SHS_EPF_RDSHUT | SHS_EPF_WRSHUT);
    if (!who || own || !waiters_known(f) || !shs_join_try())
        return;
    if (f->state == SHS_FD_PAIRED && shs_proc.attach == SHS_ATTACHED)
        wire_up(f, who, fd, peer);
    shs_join_unlock();
}

/* Of this host's kernel: has it sent all that went to it? */
static bool sent_all(int fd)
{
    int left = 1;
    return shs_sys_ioctl(fd, SIOCOUTQ, &left) == 0 && !left;
}

/* An ICMP error comes to the kernel's socket, if that is connected, and the next send tells it: asked for now and then. */
static long error_of(struct shs_fd *f)
{
    uint64_t now = shs_now();
    int error = 0;
    socklen_t len = sizeof error;
    if (now - f->dgram->error_ns < ERROR_EVERY_NS)
        return 0;
    f->dgram->error_ns = now;
    return shs_sys_getsockopt(f->end.fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 ? -error : 0;
}

long shs_dgram_transmit(struct shs_fd *f, const struct shs_who *who, const struct shs_where *peer, const struct iovec *iov, size_t count,
                        size_t len)
{
    struct shs_dgram *d = f->dgram;
    struct shs_wire_flow flow = {.ep = f->end.ep, .me = who->lock_word};
    shs_nested_lock(&d->lock);
    struct shs_dest *dest = shs_dest_of(d, peer);
    uint32_t link1 = dest->wire_link1;
    bool behind = link1 && dest->by_kernel;
    flow.handle = dest->wire_handle;
    if (SHS_UNLIKELY(behind) && sent_all(f->end.fd))
        dest->by_kernel = behind = false;
    shs_nested_unlock(&d->lock);
    if (!link1 || behind || !(flow.port = shs_wire_port_at(link1 - 1)))
        return SHS_STALE;
    long r = d->peer_known && d->peer.port ? error_of(f) : 0;
    if (r < 0)
        return r;
    r = shs_wire_send_datagram(&flow, iov, count, len);
    shs_wire_sent();
    if (r >= 0)
        return r;
    shs_nested_lock(&d->lock);
    dest = shs_dest_of(d, peer);
    if (r == SHS_STALE && dest->wire_handle == flow.handle) { /* idle for a while, or its route changed */
        dest->wire_link1 = 0;
        later(dest);
    }
    shs_nested_unlock(&d->lock);
    return SHS_STALE;
}

long shs_dgram_doze_wired(struct shs_fd *f, const struct shs_who *who, uint64_t deadline)
{
    struct pollfd fds[SHS_WIRE_FDS + 2];
    struct shs_bell_own *bell = shs_bell();
    struct timespec ts;
    long r = 0;
    bool claimed = false;
    if (bell) {
        shs_bell_arm(bell, false);
        claimed = shs_bell_claim(&shs_proc.env, who->lock_word, &f->end, bell, shs_alone(f));
    }
    shs_fence();
    struct shs_wire_watch watch = shs_wire_sleep_begin(fds + 2);
    uint64_t until = shs_wire_deadline(deadline, &watch);
    if (!claimed && (!until || until > shs_now() + NO_BELL_NS))
        until = shs_now() + NO_BELL_NS;
    fds[0] = (struct pollfd){.fd = f->end.fd, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = bell ? bell->fd : -1, .events = POLLIN};
    if (!watch.due && !shs_end_waiting(&f->end)) {
        shs_count(&shs_proc.env, SHS_CTR_DOZES, 1);
        r = shs_n_ppoll(fds, 2 + watch.n, shs_time_left(until, &ts), NULL);
        if (r > 0 && fds[1].revents)
            shs_bell_drain(bell);
        if (r > 0 && fds[0].revents)
            f->looked_ns = 0;
    }
    if (bell)
        shs_bell_disarm(bell);
    shs_wire_sleep_end(&watch);
    return r < 0 ? r : 0;
}
