#include "wire/path.h"

#include "engine/tcp.h"
#include "shm/probe.h"

static bool lifted(const struct shs_wire_end *end)
{
    return shs_load32(&end->ep->wire) == end->word;
}

struct shs_tcp *shs_wire_find(const struct shs_engine *e, uint64_t handle)
{
    struct shs_tcp *t = shs_tcp_at(e, (uint32_t)handle);
    return t && shs_load32(&t->state) != SHS_TCP_FREE && shs_load32(&t->gen) == (uint32_t)(handle >> 32) ? t : NULL;
}

struct shs_tcp *shs_wire_record(const struct shs_wire_end *end)
{
    struct shs_tcp *t = shs_wire_find(&end->port->engine, shs_load64(&end->ep->wire_handle));
    return t && lifted(end) ? t : NULL;
}

/* The piece of the program's memory that the cursor is at, which is not at its end: empty ones are stepped over. */
static size_t piece(struct shs_cursor *cur, uint8_t **at)
{
    while (cur->iov->iov_len == cur->off) {
        cur->iov++;
        cur->count--;
        cur->off = 0;
    }
    size_t n = cur->iov->iov_len - cur->off;
    *at = (uint8_t *)cur->iov->iov_base + cur->off;
    n = n < cur->left ? n : cur->left;
    return n < UINT32_MAX / 2 ? n : UINT32_MAX / 2;
}

/* Enter, if it is lifted still: 0, SHS_STALE, or -EAGAIN (this thread is inside). */
static long enter(const struct shs_wire_end *end)
{
    if (!shs_wire_enter(end->port, end->me))
        return -EAGAIN;
    if (SHS_LIKELY(lifted(end)))
        return 0;
    shs_wire_leave(end->port);
    return SHS_STALE;
}

static void add(uint64_t *to, uint64_t n)
{
    shs_set64(to, shs_peek64(to) + n);
}

/* Nothing more comes, or nothing more may be sent. */
static bool is_over(const struct shs_wire_end *end, uint64_t handle, bool receive)
{
    const struct shs_tcp *t = shs_wire_find(&end->port->engine, handle);
    return !t || t->flags & SHS_TF_URGENT || (t->state == SHS_TCP_CLOSED && (!receive || !shs_unread(t))) ||
           (receive && shs_fin_in(t) && !shs_unread(t));
}

static long send_pieces(const struct shs_wire_end *end, struct shs_cursor *cur, uint64_t handle)
{
    long total = 0, r = 0;
    while (cur->left) {
        uint8_t *at;
        size_t n = piece(cur, &at);
        r = shs_readable(at, n) ? shs_tcp_send(&end->port->engine, handle, at, (uint32_t)n) : -EFAULT;
        if (r <= 0)
            break;
        total += r;
        shs_cursor_advance(cur, (size_t)r);
    }
    return total ? total : r;
}

long shs_wire_send(const struct shs_wire_end *end, struct shs_cursor *cur)
{
    struct shs_wire_port *p = end->port;
    long r = enter(end);
    if (r)
        return r;
    uint64_t handle = shs_load64(&end->ep->wire_handle);
    if (shs_wire_arrived(p)) /* an end, or a window, that came before this call counts */
        shs_wire_drive(p);
    r = is_over(end, handle, false) ? SHS_WIRE_OVER : send_pieces(end, cur, handle);
    if (r == -EAGAIN) { /* acknowledgments may wait to be looked at */
        shs_wire_drive(p);
        r = send_pieces(end, cur, handle);
    }
    if (r > 0) {
        struct shs_tcp *t = shs_tcp_of(&p->engine, handle);
        if (t)
            add(&t->sent, (uint64_t)r);
        add(&end->ep->tx_wire, (uint64_t)r);
        shs_count(p->env, SHS_CTR_TX_WIRE_BYTES, (uint64_t)r);
    }
    shs_wire_kick(p);
    shs_wire_leave(p);
    return r;
}

static long receive_pieces(const struct shs_wire_end *end, struct shs_cursor *cur, uint64_t handle, bool peek)
{
    struct shs_engine *e = &end->port->engine;
    long total = 0, r = 0;
    while (cur->left) {
        uint8_t *at;
        size_t n = piece(cur, &at);
        uint32_t shown = peek ? (uint32_t)total : 0, there = shs_tcp_readable(e, handle) - shown;
        if (!shs_writable(at, n < there ? n : there))
            r = -EFAULT;
        else
            r = peek ? shs_tcp_peek(e, handle, shown, at, (uint32_t)n) : shs_tcp_recv(e, handle, at, (uint32_t)n);
        if (r <= 0)
            break;
        total += r;
        shs_cursor_advance(cur, (size_t)r);
        if ((size_t)r < n)
            break;
    }
    return total ? total : r;
}

long shs_wire_recv(const struct shs_wire_end *end, struct shs_cursor *cur, bool peek)
{
    struct shs_wire_port *p = end->port;
    long r = enter(end);
    if (r)
        return r;
    uint64_t handle = shs_load64(&end->ep->wire_handle);
    if (!shs_tcp_readable(&p->engine, handle) || p->engine.now - shs_peek64(&p->engine.w->driven_ns) > SHS_MS)
        shs_wire_drive(p);
    r = is_over(end, handle, true) ? SHS_WIRE_OVER : receive_pieces(end, cur, handle, peek);
    if (r > 0 && !peek) {
        struct shs_tcp *t = shs_tcp_of(&p->engine, handle);
        if (t)
            add(&t->received, (uint64_t)r);
        add(&end->ep->rx_wire, (uint64_t)r);
        shs_count(p->env, SHS_CTR_RX_WIRE_BYTES, (uint64_t)r);
    }
    shs_wire_kick_receive(p); /* a window that has opened */
    shs_wire_leave(p);
    return r;
}

short shs_wire_ready(const struct shs_wire_end *end)
{
    const struct shs_tcp *t = shs_wire_record(end);
    if (!t)
        return 0;
    uint32_t nxt = shs_load32(&t->rcv_nxt); /* before the flags: FIN_HELD is there before what it is about */
    bool over = shs_load32(&t->state) == SHS_TCP_CLOSED, fin = shs_load32(&t->flags) & SHS_TF_FIN_HELD && shs_before(t->fin_seq, nxt);
    short events = 0;
    if (nxt != shs_load32(&t->rx_read) || fin || over)
        events |= POLLIN | POLLRDNORM;
    if ((shs_load32(&t->tx_end) - shs_load32(&t->snd_una)) / 2 <= t->tx_size / 3 || over)
        events |= POLLOUT | POLLWRNORM;
    if (fin || over)
        events |= POLLRDHUP;
    if (over)
        events |= POLLHUP;
    if (t->error)
        events |= POLLERR;
    return events;
}

bool shs_wire_urgent(const struct shs_wire_end *end)
{
    const struct shs_tcp *t = shs_wire_record(end);
    return t && (shs_load32(&t->flags) & SHS_TF_URGENT);
}

uint32_t shs_wire_unread(const struct shs_wire_end *end)
{
    const struct shs_tcp *t = shs_wire_record(end);
    return t ? shs_unread(t) : 0;
}

uint32_t shs_wire_unacked(const struct shs_wire_end *end)
{
    const struct shs_tcp *t = shs_wire_record(end);
    return t ? shs_load32(&t->tx_end) - shs_load32(&t->snd_una) : 0;
}

int shs_wire_option(const struct shs_wire_end *end, uint32_t flags, uint32_t mask)
{
    long r = enter(end);
    if (r)
        return (int)r;
    r = shs_tcp_option(&end->port->engine, shs_load64(&end->ep->wire_handle), flags, mask);
    shs_nic_flush(&end->port->nic);
    shs_wire_leave(end->port);
    return (int)r;
}

int shs_wire_finish(const struct shs_wire_end *end)
{
    long r = enter(end);
    if (r)
        return (int)r;
    r = shs_tcp_shutdown(&end->port->engine, shs_load64(&end->ep->wire_handle));
    shs_nic_flush(&end->port->nic);
    shs_wire_leave(end->port);
    return (int)r;
}

void shs_wire_abandon(const struct shs_wire_end *end)
{
    if (enter(end))
        return;
    shs_tcp_close(&end->port->engine, shs_load64(&end->ep->wire_handle));
    shs_wire_drive(end->port);
    shs_wire_leave(end->port);
}

void shs_wire_await(const struct shs_wire_end *end, uint32_t bell, bool room)
{
    struct shs_tcp *t = shs_wire_record(end);
    if (!t)
        return;
    if (shs_peek32(&t->bell) != bell)
        shs_store32(&t->bell, bell);
    if (room && !shs_peek32(&t->want_room))
        shs_store32(&t->want_room, 1);
    shs_fence();
}
