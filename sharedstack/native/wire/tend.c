#include "wire/tend.h"

#include <sys/mman.h>
#include <sys/shm.h>

#include "endpoint/bell.h"
#include "endpoint/dgram.h"
#include "engine/tcp.h"
#include "repair/repair.h"
#include "shm/lock.h"
#include "shm/slot.h"
#include "shm/sys.h"

/* Driven by somebody within this time: he goes on, it is thought. */
#define ATTENDED_NS 5000000ull
/* A participant sleeps on the interface: it is looked at this often whether he does it, or was stopped. */
#define WATCHED_NS 20000000ull
#define MOST_NS 1000000000ull
/* So long after a stream of sends it is taken to go on; so often it is looked for what was put off; so many times in a round. */
#define STREAM_NS 20000000ull
#define GLANCE_NS 200000ull
#define TENDED_NS 10000000ull /* where all CPUs are busy it gets its turn after some milliseconds */
#define GLANCES 250
#define LEFT_LOOKS 64 /* at what came before a flow's end: more than the rings hold */

static uint32_t word_of(const struct shs_tender *t, uint32_t tag)
{
    return t->env.slot1 << SHS_LOCK_SLOT_SHIFT | tag << 1;
}

/* Does something wait to be done: packets, or timers that were due a while ago? */
static bool overdue(const struct shs_tender *t, uint64_t now)
{
    return shs_wire_pending(&t->port) || shs_engine_next(&t->port.engine) + ATTENDED_NS <= now;
}

static void nap(int kick, uint64_t ns)
{
    struct pollfd p = {.fd = kick, .events = POLLIN};
    struct timespec ts = {(time_t)(ns / 1000000000ull), (long)(ns % 1000000000ull)};
    (void)SHS_SYS(syscall(SYS_ppoll, &p, 1, &ts, NULL, 8));
}

/* Nobody else does anything: sleep on the interface until there is something to do. */
static void watch(struct shs_tender *t, int kick, uint64_t now)
{
    struct pollfd fds[SHS_N_NIC_QUEUES + 1];
    uint32_t n = shs_wire_poll_fds(&t->port, fds);
    uint64_t next = shs_engine_next(&t->port.engine), left = next > now ? next - now : 0;
    left = left < MOST_NS ? left : MOST_NS;
    struct timespec ts = {(time_t)(left / 1000000000ull), (long)(left % 1000000000ull)};
    fds[n++] = (struct pollfd){.fd = kick, .events = POLLIN};
    (void)SHS_SYS(syscall(SYS_ppoll, fds, n, &ts, NULL, 8));
}

static void look(struct shs_tender *t, uint32_t me)
{
    if (shs_wire_try(&t->port, me)) {
        shs_wire_drive(&t->port);
        shs_wire_leave(&t->port);
    }
}

/* Programs send fast, and put off telling the driver: look now and then whether one has left something behind. */
static void glance(struct shs_tender *t, uint32_t me, int kick)
{
    struct shs_wire *w = t->port.engine.w;
    for (int i = 0; i < GLANCES && shs_now() - shs_load64(&w->stream_ns) < STREAM_NS; i++) {
        shs_store64(&w->tended_ns, shs_now() + TENDED_NS);
        nap(kick, GLANCE_NS);
        uint64_t now = shs_now();
        if (shs_load32(&w->unsent) || (now - shs_load64(&w->driven_ns) >= ATTENDED_NS && overdue(t, now)))
            look(t, me);
    }
}

/* One round of tending, which takes a second at most; `kick`: an eventfd that ends it. Returns how many connections and datagram flows there are. */
SHS_PUBLIC int shs_native_wire_tend(struct shs_tender *t, uint32_t tag, int kick);
SHS_PUBLIC int shs_native_wire_tend(struct shs_tender *t, uint32_t tag, int kick)
{
    const struct shs_wire *w = t->port.engine.w;
    uint64_t now = shs_now(), driven = shs_load64(&w->driven_ns);
    uint32_t watcher = shs_load32(&w->watcher);
    uint32_t used = shs_load32(&w->tcp_used) + shs_load32(&w->udp_used);
    if (!used) {
        nap(kick, MOST_NS);
    } else if (now - shs_load64(&w->stream_ns) < STREAM_NS) {
        glance(t, word_of(t, tag), kick);
    } else if (now - driven < ATTENDED_NS) {
        nap(kick, ATTENDED_NS);
    } else if (watcher && shs_slot_alive(t->env.stack, watcher >> SHS_LOCK_SLOT_SHIFT)) {
        nap(kick, WATCHED_NS);
        if (shs_load64(&w->driven_ns) == driven && overdue(t, shs_now()))
            look(t, word_of(t, tag));
    } else {
        watch(t, kick, now);
        look(t, word_of(t, tag));
    }
    return (int)used;
}

static struct shs_engine_size size_for(uint32_t n_tcp)
{
    return (struct shs_engine_size){.n_tcp = n_tcp, .n_udp = n_tcp, .n_seg = n_tcp * 64, .n_buckets = n_tcp * 2};
}

SHS_PUBLIC uint64_t shs_native_wire_bytes(uint32_t n_tcp);
SHS_PUBLIC uint64_t shs_native_wire_bytes(uint32_t n_tcp)
{
    struct shs_engine_size n = size_for(n_tcp);
    return shs_engine_bytes(&n);
}

/* A new area for so many connections, a power of two. */
SHS_PUBLIC void shs_native_wire_format(void *area, uint32_t n_tcp, uint64_t seed);
SHS_PUBLIC void shs_native_wire_format(void *area, uint32_t n_tcp, uint64_t seed)
{
    struct shs_engine_size n = size_for(n_tcp);
    shs_engine_format(area, &n, seed, shs_now());
}

SHS_PUBLIC uint64_t shs_native_wire_tender_bytes(void);
SHS_PUBLIC uint64_t shs_native_wire_tender_bytes(void)
{
    return sizeof(struct shs_tender);
}

static void keep_stray(void *arg, const uint8_t *frame, uint32_t len)
{
    struct shs_tender *t = arg;
    if (t->strays_used + sizeof len + len > sizeof t->strays)
        return; /* lost, as on any network */
    memcpy(t->strays + t->strays_used, &len, sizeof len);
    memcpy(t->strays + t->strays_used + sizeof len, frame, len);
    t->strays_used += (uint32_t)sizeof len + len;
}

/* Memory of rings, into which datagrams go: a descriptor that is the caller's, or (-1) the System V memory `id`. */
static int use_bulk(struct shs_env *env, int fd, int id)
{
    struct shs_stat st;
    if (fd < 0)
        return shs_bulk_map_huge(env, id);
    int r = (int)shs_sys_stat(fd, "", &st);
    env->bulk_fd = fd;
    env->bulk_ino = st.ino;
    return r;
}

/* `parts` in the order of struct shs_wire_parts; `bulk_fd`, `bulk_id`: see use_bulk. 0 or -errno. */
SHS_PUBLIC int shs_native_wire_attach(struct shs_tender *t, void *stack, void *arena, const struct shs_wire_parts *parts, const int *fds,
                                      uint32_t n_fds, int bulk_fd, int bulk_id);
SHS_PUBLIC int shs_native_wire_attach(struct shs_tender *t, void *stack, void *arena, const struct shs_wire_parts *parts, const int *fds,
                                      uint32_t n_fds, int bulk_fd, int bulk_id)
{
    memset(t, 0, sizeof *t);
    t->env = (struct shs_env){.stack = stack, .arena = arena, .bulk_fd = -1};
    int r = use_bulk(&t->env, bulk_fd, bulk_id);
    if (r < 0)
        return r;
    t->env.slot1 = shs_load32(&t->env.stack->helper);
    t->env.bell_fd = (int)SHS_SYS(syscall(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    r = shs_wire_attach(&t->port, &t->env, parts, fds, n_fds);
    t->port.nic.stray = keep_stray;
    t->port.nic.stray_arg = t;
    return r;
}

SHS_PUBLIC void shs_native_wire_detach(struct shs_tender *t);
SHS_PUBLIC void shs_native_wire_detach(struct shs_tender *t)
{
    shs_wire_detach(&t->port);
    if (t->env.bell_fd >= 0)
        shs_sys_close(t->env.bell_fd);
    if (t->env.bulk_fd < 0 && t->env.window[0])
        shmdt(t->env.window[0]);
    for (size_t w = 0; t->env.bulk_fd >= 0 && w < SHS_N_WINDOWS; w++)
        if (t->env.window[w])
            munmap(t->env.window[w], SHS_WINDOW_BYTES);
}

/* Whoever asked for a lift has `from` in the endpoint's word still: `to` from now on, and it cannot be given up any more. 0, or -ECANCELED. */
SHS_PUBLIC int shs_native_wire_begin(struct shs_tender *t, uint32_t ep1, uint32_t from, uint32_t to);
SHS_PUBLIC int shs_native_wire_begin(struct shs_tender *t, uint32_t ep1, uint32_t from, uint32_t to)
{
    struct shs_endpoint *ep = shs_endpoint_at(t->env.stack, ep1);
    return ep && shs_cas32(&ep->wire, from, to) ? 0 : -ECANCELED;
}

/* The endpoint is the engine's now, with what the image says; `word`: what its `wire` is to be, which was `from`. 0, or -errno: nothing was done. */
SHS_PUBLIC int shs_native_wire_open(struct shs_tender *t, uint32_t tag, uint32_t ep1, const struct shs_tcp_image *image, uint32_t from,
                                    uint32_t word);
SHS_PUBLIC int shs_native_wire_open(struct shs_tender *t, uint32_t tag, uint32_t ep1, const struct shs_tcp_image *image, uint32_t from,
                                    uint32_t word)
{
    struct shs_endpoint *ep = shs_endpoint_at(t->env.stack, ep1);
    if (!ep || !shs_wire_enter(&t->port, word_of(t, tag)))
        return -EINVAL;
    uint64_t handle = shs_tcp_open(&t->port.engine, image);
    int r = handle ? 0 : -ENOSPC;
    if (handle) {
        shs_store64(&ep->wire_handle, handle);
        if (!shs_cas32(&ep->wire, from, word)) {
            shs_tcp_forget(&t->port.engine, handle);
            r = -ECANCELED; /* whoever asked for it has given up */
        }
    }
    shs_wire_leave(&t->port);
    return r;
}

/* From now on this thread alone receives; `on` 0: not any more. */
SHS_PUBLIC void shs_native_wire_hold(struct shs_tender *t, uint32_t tag, uint32_t on);
SHS_PUBLIC void shs_native_wire_hold(struct shs_tender *t, uint32_t tag, uint32_t on)
{
    if (!shs_wire_enter(&t->port, word_of(t, tag)))
        return;
    shs_store32(&t->port.engine.w->moving, on ? word_of(t, tag) : 0);
    shs_wire_leave(&t->port);
}

/*
 * Take the endpoint's connection out of the engine, while this thread alone receives: its holders wait until `wire` changes again. 0, or -errno: -ESTALE it is not lifted. `unsent` and `unread` have room for a queue each.
 * What is written there is whole before the engine forgets it. `word` may say LOWERING: somebody died over that, and the engine has it still.
 */
SHS_PUBLIC int shs_native_wire_take(struct shs_tender *t, uint32_t tag, uint32_t ep1, uint32_t word, struct shs_lowered *out,
                                    uint8_t *unsent, uint8_t *unread, uint32_t room);
SHS_PUBLIC int shs_native_wire_take(struct shs_tender *t, uint32_t tag, uint32_t ep1, uint32_t word, struct shs_lowered *out,
                                    uint8_t *unsent, uint8_t *unread, uint32_t room)
{
    struct shs_endpoint *ep = shs_endpoint_at(t->env.stack, ep1);
    struct shs_engine *e = &t->port.engine;
    uint32_t me = word_of(t, tag);
    bool again = (word & SHS_WIRE_STATE_MASK) == SHS_WIRE_LOWERING;
    if (!ep || !shs_wire_enter(&t->port, me))
        return -EINVAL;
    uint64_t handle = shs_load64(&ep->wire_handle);
    struct shs_tcp *tcp = shs_tcp_of(e, handle);
    if (!tcp || !shs_cas32(&ep->wire, word, (word & ~(uint32_t)SHS_WIRE_STATE_MASK) | SHS_WIRE_LOWERING)) {
        shs_wire_leave(&t->port);
        return -ESTALE;
    }
    shs_wire_drive(&t->port);
    *out = (struct shs_lowered){.state = tcp->state, .error = tcp->error ? tcp->error : again ? out->error : 0};
    tcp->error = 0;
    shs_tcp_export(e, handle, &out->image);
    out->n_unsent = shs_tcp_unsent(e, handle, 0, unsent, room);
    if (out->image.rx_len && out->image.rx_len <= room) {
        long n = shs_tcp_peek(e, handle, 0, unread, out->image.rx_len);
        out->n_unread = n > 0 ? (uint32_t)n : 0;
    }
    if (tcp->bell)
        e->woken(e, tcp->bell);
    shs_tcp_forget(e, handle);
    shs_wire_leave(&t->port);
    return 0;
}

/* Packets that came for it meanwhile are looked at: those are strays now. */
SHS_PUBLIC uint32_t shs_native_wire_strays(struct shs_tender *t, uint32_t tag, uint8_t *to, uint32_t room);
SHS_PUBLIC uint32_t shs_native_wire_strays(struct shs_tender *t, uint32_t tag, uint8_t *to, uint32_t room)
{
    uint32_t n = 0;
    if (!shs_wire_enter(&t->port, word_of(t, tag)))
        return 0;
    shs_wire_drive(&t->port);
    if (t->strays_used <= room) {
        n = t->strays_used;
        memcpy(to, t->strays, n);
        t->strays_used = 0;
    }
    shs_wire_leave(&t->port);
    return n;
}

/* The endpoint is the kernel's again: the word changes to `to`. */
SHS_PUBLIC void shs_native_wire_close(struct shs_tender *t, uint32_t ep1, uint32_t to);
SHS_PUBLIC void shs_native_wire_close(struct shs_tender *t, uint32_t ep1, uint32_t to)
{
    struct shs_endpoint *ep = shs_endpoint_at(t->env.stack, ep1);
    if (!ep)
        return;
    shs_store32(&ep->wire, to);
    struct shs_pair *pair = shs_is_datagram(ep) ? shs_pair_at(t->env.arena, shs_load32(&ep->pair)) : NULL;
    if (pair && !shs_links_any(t->env.stack, ep->lport, SHS_LINK_ALLOWED, ep1))
        shs_ring_close(&pair->dir[0]); /* nobody pushes to it any more */
}

/* The i-th record of TCP connections, or of datagrams: 0; -ESTALE: it is free; -ENOENT: there are not so many. */
SHS_PUBLIC int shs_native_wire_seen(const struct shs_tender *t, uint32_t datagrams, uint32_t i, struct shs_wire_seen *out);
SHS_PUBLIC int shs_native_wire_seen(const struct shs_tender *t, uint32_t datagrams, uint32_t i, struct shs_wire_seen *out)
{
    const struct shs_engine *e = &t->port.engine;
    *out = (struct shs_wire_seen){.handle = i + 1};
    if (i >= (datagrams ? e->n.n_udp : e->n.n_tcp))
        return -ENOENT;
    const struct shs_udp *u = &e->udp[datagrams ? i : 0];
    const struct shs_tcp *c = shs_tcp_at(e, datagrams ? 1 : i + 1);
    out->handle |= (uint64_t)(datagrams ? u->gen : c->gen) << 32;
    memcpy(out->laddr, datagrams ? u->laddr : c->laddr, 16);
    memcpy(out->raddr, datagrams ? u->raddr : c->raddr, 16);
    out->lport = datagrams ? u->lport : c->lport;
    out->rport = datagrams ? u->rport : c->rport;
    out->state = datagrams ? u->state : c->state;
    out->tx_off = datagrams ? 0 : c->tx_off;
    out->cookie = datagrams ? u->cookie : 0;
    out->ep1 = datagrams ? u->ep1 : 0;
    return out->state ? 0 : -ESTALE;
}

static void clear_of(uint32_t *word, uint32_t slot1)
{
    uint32_t held = shs_load32(word);
    if (held >> SHS_LOCK_SLOT_SHIFT == slot1)
        shs_cas32(word, held, 0);
}

/* A participant has died, and its slot will be another's, who would be taken for the holder of what it held. */
SHS_PUBLIC void shs_native_wire_bury(struct shs_tender *t, uint32_t tag, uint32_t slot1);
SHS_PUBLIC void shs_native_wire_bury(struct shs_tender *t, uint32_t tag, uint32_t slot1)
{
    struct shs_wire *w = t->port.engine.w;
    if (shs_load32(&w->lock) >> SHS_LOCK_SLOT_SHIFT == slot1 && shs_wire_try(&t->port, word_of(t, tag)))
        shs_wire_leave(&t->port);
    clear_of(&w->moving, slot1);
    clear_of(&w->watcher, slot1);
}

/* A record that is nobody's. */
SHS_PUBLIC void shs_native_wire_forget(struct shs_tender *t, uint32_t tag, uint64_t handle);
SHS_PUBLIC void shs_native_wire_forget(struct shs_tender *t, uint32_t tag, uint64_t handle)
{
    if (!shs_wire_enter(&t->port, word_of(t, tag)))
        return;
    shs_tcp_forget(&t->port.engine, handle);
    shs_wire_leave(&t->port);
}

/* Figures of a lifted connection, for whoever decides whether it stays so: bytes sent and received, and when something last happened. */
SHS_PUBLIC int shs_native_wire_figures(struct shs_tender *t, uint32_t ep1, uint64_t figures[4]);
SHS_PUBLIC int shs_native_wire_figures(struct shs_tender *t, uint32_t ep1, uint64_t figures[4])
{
    struct shs_endpoint *ep = shs_endpoint_at(t->env.stack, ep1);
    const struct shs_tcp *tcp = ep ? shs_wire_find(&t->port.engine, shs_load64(&ep->wire_handle)) : NULL;
    if (!tcp || !shs_wire_is_on(shs_load32(&ep->wire)))
        return -ESTALE;
    figures[0] = shs_load64(&tcp->sent);
    figures[1] = shs_load64(&tcp->received);
    figures[2] = shs_max64(shs_load64(&tcp->last_rcvd_ns), shs_load64(&tcp->last_sent_ns));
    figures[3] = shs_load32(&tcp->state);
    return 0;
}

/* An endpoint's datagrams from and to this peer are the engine's: *handle, or -errno. `word`: what the endpoint's `wire` is to be, if it is `from` still. */
SHS_PUBLIC int shs_native_wire_udp_open(struct shs_tender *t, uint32_t tag, const struct shs_udp_open *open, uint32_t from, uint32_t word,
                                        uint64_t *handle);
SHS_PUBLIC int shs_native_wire_udp_open(struct shs_tender *t, uint32_t tag, const struct shs_udp_open *open, uint32_t from, uint32_t word,
                                        uint64_t *handle)
{
    struct shs_endpoint *ep = shs_endpoint_at(t->env.stack, open->ep1);
    if (!ep || !shs_wire_enter(&t->port, word_of(t, tag)))
        return -EINVAL;
    int r = 0;
    *handle = shs_udp_open(&t->port.engine, open);
    if (!*handle) {
        r = -ENOSPC;
    } else if (!shs_cas32(&ep->wire, from, word)) {
        shs_udp_close(&t->port.engine, *handle);
        r = -ECANCELED; /* whoever asked for it has given up */
    }
    shs_wire_leave(&t->port);
    return r;
}

/* After its packets come no more by the interface: those that have come are looked at, and the record is given back. */
SHS_PUBLIC void shs_native_wire_udp_close(struct shs_tender *t, uint32_t tag, uint64_t handle);
SHS_PUBLIC void shs_native_wire_udp_close(struct shs_tender *t, uint32_t tag, uint64_t handle)
{
    if (!shs_wire_enter(&t->port, word_of(t, tag)))
        return;
    for (int i = 0; i < LEFT_LOOKS && shs_wire_drive(&t->port); i++)
        ;
    shs_udp_close(&t->port.engine, handle);
    shs_wire_leave(&t->port);
}

/* Datagrams sent and received, by which is told whether it is used: 0, or -ESTALE. */
SHS_PUBLIC int shs_native_wire_udp_figures(const struct shs_tender *t, uint64_t handle, uint64_t figures[2]);
SHS_PUBLIC int shs_native_wire_udp_figures(const struct shs_tender *t, uint64_t handle, uint64_t figures[2])
{
    const struct shs_udp *u = shs_udp_of(&t->port.engine, handle);
    if (!u)
        return -ESTALE;
    figures[0] = shs_load64(&u->sent);
    figures[1] = shs_load64(&u->received);
    return 0;
}
