/*
 * I/O that goes beside the calls that the library sees: libc's asynchronous I/O (threads of libc's own), the kernel's (io_submit), and io_uring. A
 * connection that is used so is handed over to the kernel first, as to a holder outside the library: what is in its ring is sent again by
 * the kernel (preload/outside.h).
 *
 * Which descriptors an io_uring will be used on is not known when it is set up, and its requests are memory that nobody but the kernel reads:
 * so from then on every connection of the process is the kernel's. Each is registered all the same, for `inspect --why` to say so.
 */
#include "preload/aside.h"

#include <linux/aio_abi.h>

#include "intercepts.gen.h"
#include "preload/gate.h"
#include "preload/outside.h"
#include "preload/raw.h"
#include "preload/signals.h"
#include "preload/standin.h"
#include "preload/wire.h"
#include "shm/probe.h"

/* -EPIPE: what is in its ring can only be received here (docs/differences.md). */
static long goes_aside(int fd, uint32_t why)
{
    shs_meet_inherited();
    shs_wire_leave_for(fd);
    struct shs_fd *f = shs_fd_look(fd);
    (void)shs_stand_in(f, fd, false);
    if (!f || f->state < SHS_FD_NEW || f->state > SHS_FD_PAIRED)
        return 0;
    long r = shs_hand_over(f, why, true);
    return r == -ENOMEM || r == -EAGAIN ? -EAGAIN : 0;
}

int shs_i_aio_read(struct aiocb *request)
{
    long r = goes_aside(request->aio_fildes, SHS_REASON_AIO);
    return r < 0 ? (int)r : shs_n_aio_read(request);
}

int shs_i_aio_write(struct aiocb *request)
{
    long r = goes_aside(request->aio_fildes, SHS_REASON_AIO);
    return r < 0 ? (int)r : shs_n_aio_write(request);
}

int shs_i_aio_read64(struct aiocb64 *request)
{
    long r = goes_aside(request->aio_fildes, SHS_REASON_AIO);
    return r < 0 ? (int)r : shs_n_aio_read64(request);
}

int shs_i_aio_write64(struct aiocb64 *request)
{
    long r = goes_aside(request->aio_fildes, SHS_REASON_AIO);
    return r < 0 ? (int)r : shs_n_aio_write64(request);
}

int shs_i_lio_listio(int mode, struct aiocb *const *list, int n, struct sigevent *event)
{
    long r = 0;
    for (int i = 0; i < n && r == 0; i++)
        r = list[i] && list[i]->aio_lio_opcode != LIO_NOP ? goes_aside(list[i]->aio_fildes, SHS_REASON_AIO) : 0;
    return r < 0 ? (int)r : shs_n_lio_listio(mode, list, n, event);
}

int shs_i_lio_listio64(int mode, struct aiocb64 *const *list, int n, struct sigevent *event)
{
    long r = 0;
    for (int i = 0; i < n && r == 0; i++)
        r = list[i] && list[i]->aio_lio_opcode != LIO_NOP ? goes_aside(list[i]->aio_fildes, SHS_REASON_AIO) : 0;
    return r < 0 ? (int)r : shs_n_lio_listio64(mode, list, n, event);
}

long shs_raw_io_submit(const struct shs_raw *c)
{
    struct iocb *const *list = (struct iocb *const *)c->arg[2];
    long r = 0;
    shs_meet_inherited();
    for (long i = 0; i < c->arg[1] && r == 0 && shs_guarding; i++) {
        if (!shs_readable(&list[i], sizeof list[i]) || !shs_readable(list[i], sizeof *list[i]))
            break; /* the kernel stops there too */
        r = goes_aside((int)list[i]->aio_fildes, SHS_REASON_AIO);
    }
    return r < 0 ? r : shs_raw_plain(c);
}

void shs_registered_aside(struct shs_fd *f)
{
    shs_fence(); /* the entry is seen by whoever sets up a ring, or the ring is seen here */
    if (!shs_proc.uring)
        return;
    (void)shs_hand_over(f, SHS_REASON_IO_URING, true);
}

long shs_raw_io_uring_setup(const struct shs_raw *c)
{
    long r = shs_raw_plain(c);
    if (r < 0 || shs_proc.uring || shs_proc.off)
        return r;
    shs_meet_inherited();
    shs_proc.uring = true;
    shs_fence();
    struct shs_fd *f;
    for (int fd = 0; (f = shs_fd_next(&fd)); fd++)
        if (f->state == SHS_FD_REG || f->state == SHS_FD_PAIRED)
            shs_registered_aside(f);
    return r;
}
