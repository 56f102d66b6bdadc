/* What programs ask of a connection (RFC 9293 section 3.10.2 to 3.10.5). Never waits; `wakes` of the record changes when asking again pays. */
#include "engine/tcp.h"

static long take_error(struct shs_tcp *t)
{
    long error = t->error;
    t->error = 0;
    return -error;
}

long shs_tcp_send(struct shs_engine *e, uint64_t handle, const void *from, uint32_t len)
{
    struct shs_tcp *t = shs_tcp_of(e, handle);
    if (!t)
        return -EBADF;
    if (t->error)
        return take_error(t);
    if (t->flags & SHS_TF_FIN_QUEUED || t->state == SHS_TCP_CLOSED)
        return -EPIPE;
    uint32_t used = t->tx_end - t->snd_una, n = used < t->tx_size ? shs_min32(len, t->tx_size - used) : 0;
    if (!n)
        return len ? -EAGAIN : 0;
    if (!shs_queue_put(e, t->tx_off, t->tx_size, t->tx_end + t->tx_bias, from, n))
        return -EIO;
    t->push_seq = t->tx_end + n;
    shs_store32(&t->tx_end, t->tx_end + n); /* published by this */
    shs_tcp_output(e, t);
    shs_timer_settle(e, t);
    return n;
}

uint32_t shs_tcp_readable(struct shs_engine *e, uint64_t handle)
{
    struct shs_tcp *t = shs_tcp_of(e, handle);
    return t ? shs_unread(t) : 0;
}

long shs_tcp_peek(struct shs_engine *e, uint64_t handle, uint32_t at, void *to, uint32_t len)
{
    const struct shs_tcp *t = shs_tcp_of(e, handle);
    if (!t)
        return -EBADF;
    uint32_t unread = shs_unread(t), n = at < unread ? shs_min32(len, unread - at) : 0;
    if (!n)
        return -EAGAIN;
    return shs_queue_get(e, t->rx_off, t->rx_size, t->rx_read + at + t->rx_bias, to, n) ? (long)n : -EIO;
}

long shs_tcp_recv(struct shs_engine *e, uint64_t handle, void *to, uint32_t len)
{
    struct shs_tcp *t = shs_tcp_of(e, handle);
    if (!t)
        return -EBADF;
    uint32_t n = shs_min32(len, shs_unread(t));
    if (n) {
        if (!shs_queue_get(e, t->rx_off, t->rx_size, t->rx_read + t->rx_bias, to, n))
            return -EIO;
        shs_store32(&t->rx_read, t->rx_read + n);
        shs_receive_tune(e, t, n);
        if (t->state != SHS_TCP_CLOSED && t->state != SHS_TCP_TIME_WAIT && shs_receive_wants_update(t)) {
            t->flags |= SHS_TF_ACK_NOW;
            shs_tcp_output(e, t);
            shs_timer_settle(e, t);
        }
        return n;
    }
    if (t->error)
        return take_error(t);
    if (shs_fin_in(t) || t->state == SHS_TCP_CLOSED || !len)
        return 0;
    return -EAGAIN;
}

static void queue_fin(struct shs_engine *e, struct shs_tcp *t)
{
    if (t->state != SHS_TCP_ESTABLISHED && t->state != SHS_TCP_CLOSE_WAIT)
        return;
    t->flags |= SHS_TF_FIN_QUEUED;
    t->flags &= ~SHS_TF_CORK; /* what was held back goes with the FIN */
    t->state = t->state == SHS_TCP_ESTABLISHED ? SHS_TCP_FIN_WAIT_1 : SHS_TCP_LAST_ACK;
    shs_tcp_output(e, t);
}

int shs_tcp_shutdown(struct shs_engine *e, uint64_t handle)
{
    struct shs_tcp *t = shs_tcp_of(e, handle);
    if (!t)
        return -EBADF;
    queue_fin(e, t);
    shs_timer_settle(e, t);
    return 0;
}

int shs_tcp_abort(struct shs_engine *e, uint64_t handle)
{
    struct shs_tcp *t = shs_tcp_of(e, handle);
    if (!t)
        return -EBADF;
    t->flags |= SHS_TF_ORPHAN;
    if (t->state != SHS_TCP_CLOSED && t->state != SHS_TCP_TIME_WAIT)
        shs_emit_reset(e, t, t->snd_nxt);
    shs_tcp_end(e, t, 0);
    return 0;
}

int shs_tcp_close(struct shs_engine *e, uint64_t handle)
{
    struct shs_tcp *t = shs_tcp_of(e, handle);
    if (!t)
        return -EBADF;
    if (t->state == SHS_TCP_CLOSED) {
        t->flags |= SHS_TF_ORPHAN; /* first: whoever rebuilds finishes it */
        shs_flow_free(e, t);
        return 0;
    }
    if (shs_unread(t)) /* RFC 9293 section 3.6.1 (SHLD-3): what was sent will not be read, and the sender must know */
        return shs_tcp_abort(e, handle);
    t->flags |= SHS_TF_ORPHAN | SHS_TF_RX_CLOSED;
    if (t->state == SHS_TCP_FIN_WAIT_2)
        t->timer[SHS_T_WAIT] = e->now + t->linger * SHS_MS;
    queue_fin(e, t);
    shs_timer_settle(e, t);
    return 0;
}

int shs_tcp_option(struct shs_engine *e, uint64_t handle, uint32_t flags, uint32_t mask)
{
    struct shs_tcp *t = shs_tcp_of(e, handle);
    if (!t)
        return -EBADF;
    mask &= SHS_TF_NODELAY | SHS_TF_CORK;
    t->flags = (t->flags & ~mask) | (flags & mask);
    if (t->state != SHS_TCP_CLOSED)
        shs_tcp_output(e, t);
    shs_timer_settle(e, t);
    return 0;
}

int shs_tcp_keepalive(struct shs_engine *e, uint64_t handle, uint32_t idle, uint32_t intvl, uint32_t count)
{
    struct shs_tcp *t = shs_tcp_of(e, handle);
    if (!t)
        return -EBADF;
    t->keep_idle = idle;
    t->keep_intvl = intvl;
    t->keep_count = count;
    t->keep_sent = 0;
    if (t->state != SHS_TCP_CLOSED && t->state != SHS_TCP_TIME_WAIT)
        shs_keep_arm(e, t);
    shs_timer_settle(e, t);
    return 0;
}

int shs_tcp_user_timeout(struct shs_engine *e, uint64_t handle, uint32_t ms)
{
    struct shs_tcp *t = shs_tcp_of(e, handle);
    if (!t)
        return -EBADF;
    t->user_timeout = ms;
    return 0;
}

uint32_t shs_tcp_unsent(struct shs_engine *e, uint64_t handle, uint32_t at, void *to, uint32_t len)
{
    struct shs_tcp *t = shs_tcp_of(e, handle);
    if (!t || shs_fin_acked(t) || at >= t->tx_end - t->snd_una)
        return 0;
    uint32_t n = shs_min32(len, t->tx_end - t->snd_una - at);
    return shs_queue_get(e, t->tx_off, t->tx_size, t->snd_una + at + t->tx_bias, to, n) ? n : 0;
}

int shs_tcp_forget(struct shs_engine *e, uint64_t handle)
{
    struct shs_tcp *t = shs_tcp_of(e, handle);
    if (!t)
        return -EBADF;
    shs_flow_free(e, t);
    return 0;
}
