/* What epoll and poll say of connections on the wire path. */
#include "engine/tcp.h"
#include "intercepts.gen.h"
#include "preload/epoll.h"
#include "preload/wire.h"

#include <sys/epoll.h>

#define DISARMED_BITS ((uint32_t)(EPOLLONESHOT | EPOLLET | EPOLLWAKEUP))
#define BITS 0xffffu /* POLL* and EPOLL* of one name are one number */

short shs_wire_polled(const struct shs_fd *f, bool *lowered)
{
    struct shs_wire_end end = shs_wire_end(f);
    *lowered = shs_load32(&f->end.ep->wire) != end.word || (end.port && shs_wire_urgent(&end));
    return end.port && !*lowered ? shs_wire_ready(&end) : 0;
}

uint32_t shs_wire_member_ready(struct shs_set *set, const struct shs_fd *f, int epfd)
{
    struct shs_wire_end end = shs_wire_end(f);
    const struct shs_tcp *t = end.port && f->set == (uint32_t)epfd + 1 ? shs_wire_record(&end) : NULL;
    if (!t || (shs_load32(&t->flags) & SHS_TF_URGENT)) {
        set->urgent = true; /* it was lowered, or is to be */
        return 0;
    }
    if (!(f->events & ~DISARMED_BITS))
        return 0;
    uint32_t wakes = shs_load32(&t->wakes);
    if ((f->events & EPOLLET) && f->edge_index == wakes)
        return 0;
    return (uint32_t)(unsigned short)shs_wire_ready(&end) & ((f->events & BITS) | EPOLLERR | EPOLLHUP);
}

bool shs_wire_false_end(int epfd, const struct epoll_event *event)
{
    const struct shs_fd *f;
    for (int fd = 0; (f = shs_fd_next(&fd)); fd++) {
        if (f->set != (uint32_t)epfd + 1 || f->data != event->data.u64 || !f->wire)
            continue;
        if (f->state == SHS_FD_WIRE)
            return true;
        struct pollfd p = {.fd = fd, .events = (short)(f->events & BITS)};
        return shs_n_poll(&p, 1, 0) >= 0 && !(p.revents & (POLLHUP | POLLERR));
    }
    return false;
}
