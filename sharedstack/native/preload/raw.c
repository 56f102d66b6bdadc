/*
 * syscall(): from a number to the library's function for that call (raw.h). In the order of events:
 *
 * 1  shs_i_syscall: a number that is in no declaration is libc's syscall(), after one look at a table of bytes.
 * 2  listed: a call about data goes through the gate, as all data calls do. Where the gate says that the library has no say, the program's
 *    own system call is made, with the hazard seen. Any other call has its handler; confined, only where that makes no other system call.
 * 3  uncancelled: handlers wait by functions of libc's that act on a cancellation; a system call does not.
 */
#include "preload/raw.h"

#include <pthread.h>
#include <sys/syscall.h>

#include "intercepts.gen.h"
#include "preload/gate.h"
#include "preload/restart.h"
#include "preload/signals.h"
#include "shm/probe.h"

struct entry {
    long (*call)(const struct shs_raw *c);
    void (*after)(const struct shs_raw *c, long r);
    enum { WAY_CALL, WAY_RECEIVE, WAY_SEND } way;
    bool quiet;
};

/* The kernel has filled them in: they can be looked into. */
static void received_one(const struct shs_raw *c, long r)
{
    struct msghdr *msg = (struct msghdr *)c->arg[1];
    (void)r;
    if (msg->msg_controllen)
        shs_received_rights(msg);
}

static void received_many(const struct shs_raw *c, long r)
{
    struct mmsghdr *vec = (struct mmsghdr *)c->arg[1];
    for (long i = 0; i < r; i++)
        if (vec[i].msg_hdr.msg_controllen)
            shs_received_rights(&vec[i].msg_hdr);
}

#include "raw.gen.h"

long shs_raw_plain(const struct shs_raw *c)
{
    if (c->made)
        c = c->made;
    return shs_n_syscall(c->number, c->arg[0], c->arg[1], c->arg[2], c->arg[3], c->arg[4], c->arg[5]);
}

static long uncancelled(const struct entry *e, const struct shs_raw *c)
{
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    long r = e->call(c);
    pthread_setcancelstate(before, &before);
    return r;
}

/* Of a datagram socket that is the kernel's for good nothing is ours but what its ring holds still. */
static bool ours(const struct shs_gate *g)
{
    return g->ring || g->kept || (g->dgram && (!(shs_peek32(&g->f->end.ep->flags) & SHS_EPF_KERNEL_ONLY) || shs_end_waiting(&g->f->end)));
}

static long by_gate(const struct entry *e, const struct shs_raw *c)
{
    struct shs_gate g = shs_gate_enter((int)c->arg[0], e->way == WAY_RECEIVE);
    bool handled = ours(&g);
    long r = handled ? uncancelled(e, c) : shs_raw_plain(c);
    shs_gate_leave(&g);
    if (!handled && r >= 0 && e->after)
        e->after(c, r);
    return r;
}

static __attribute__((noinline)) long listed(const struct entry *e, const struct shs_raw *c)
{
    if (e->way != WAY_CALL)
        return by_gate(e, c);
    return shs_proc.quiet && !e->quiet ? shs_raw_plain(c) : uncancelled(e, c);
}

static inline uint8_t place(long number)
{
    return (unsigned long)number < sizeof place_of ? place_of[number] : PLACE_NONE;
}

long shs_i_syscall(long number, long a, long b, long c, long d, long e, long f)
{
    uint8_t at = place(number);
    if (SHS_LIKELY(at == PLACE_NONE))
        return shs_n_syscall(number, a, b, c, d, e, f);
    return listed(&entries[at], &(struct shs_raw){.number = number, .arg = {a, b, c, d, e, f}});
}

/* 64-bit machines have all of it in the first of two arguments. */
static off64_t offset(const struct shs_raw *c)
{
#if __SIZEOF_POINTER__ == 4
    return (off64_t)((uint64_t)(uint32_t)c->arg[3] | (uint64_t)(uint32_t)c->arg[4] << 32);
#else
    return c->arg[3];
#endif
}

long shs_raw_preadv2(const struct shs_raw *c)
{
    return shs_i_preadv64v2((int)c->arg[0], (const struct iovec *)c->arg[1], (int)c->arg[2], offset(c), (int)c->arg[5]);
}

long shs_raw_pwritev2(const struct shs_raw *c)
{
    return shs_i_pwritev64v2((int)c->arg[0], (const struct iovec *)c->arg[1], (int)c->arg[2], offset(c), (int)c->arg[5]);
}

#if __SIZEOF_POINTER__ == 4
#define BY_NUMBER 21

/* socketcall(2): how many arguments each has, and which system call it is; SYS_SOCKET is 1, and so on. */
static const struct {
    short number, args;
} by_socketcall[BY_NUMBER] = {
    [1] = {SYS_socket, 3},    [2] = {SYS_bind, 3},     [3] = {SYS_connect, 3},   [5] = {SYS_accept4, 3},   [9] = {SYS_sendto, 4},
    [10] = {SYS_recvfrom, 4}, [11] = {SYS_sendto, 6},  [12] = {SYS_recvfrom, 6}, [13] = {SYS_shutdown, 2}, [14] = {SYS_setsockopt, 5},
    [16] = {SYS_sendmsg, 3},  [17] = {SYS_recvmsg, 3}, [18] = {SYS_accept4, 4},  [19] = {SYS_recvmmsg, 5}, [20] = {SYS_sendmmsg, 4},
};

long shs_raw_socketcall(const struct shs_raw *c)
{
    const long *args = (const long *)c->arg[1];
    unsigned long which = (unsigned long)c->arg[0];
    if (which >= BY_NUMBER || !by_socketcall[which].number || !shs_kernel_reads(args, (size_t)by_socketcall[which].args * sizeof *args))
        return shs_raw_plain(c);
    struct shs_raw named = {.number = by_socketcall[which].number, .made = c};
    for (int i = 0; i < by_socketcall[which].args; i++)
        named.arg[i] = args[i];
    return listed(&entries[place(named.number)], &named);
}

long shs_raw_recvmmsg64(const struct shs_raw *c)
{
    struct mmsghdr *vec = (struct mmsghdr *)c->arg[1];
    struct shs_timespec64 *timeout = (struct shs_timespec64 *)c->arg[4];
    if (shs_real.__recvmmsg64)
        return shs_i___recvmmsg64((int)c->arg[0], vec, (unsigned)c->arg[2], (int)c->arg[3], timeout);
    if (timeout && !shs_writable(timeout, sizeof *timeout))
        return -EFAULT;
    struct timespec ts = {0, 0};
    if (timeout)
        ts = (struct timespec){timeout->tv_sec > INT32_MAX ? INT32_MAX
                               : timeout->tv_sec < 0       ? -1
                                                           : (long)timeout->tv_sec,
                               timeout->tv_nsec};
    return shs_i_recvmmsg((int)c->arg[0], vec, (unsigned)c->arg[2], (int)c->arg[3], timeout ? &ts : NULL);
}
#endif
