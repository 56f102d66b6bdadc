/*
 * Purpose: connections of this process that are on the wire path: how they get there (asked for by a send that finds the connection quiet), how they
 * are used and waited for, and how they come back.
 * Who may call: handlers of calls, with the gate passed (the hazard set); `down` in no lock.
 *
 * The state. While an entry is SHS_FD_WIRE, its `wire` is the word of the endpoint as it was when it was lifted. Another word there means that
 * the helper is lowering the connection (wait), or has done so (the entry becomes SHS_FD_REG again, by whoever sees it first). Calls that
 * the wire path does not have lower the connection first, and are the kernel's.
 */
#pragma once
#include "preload/ask.h"
#include "preload/attach.h"
#include "preload/gate.h"
#include "preload/wire_pace.h"
#include "wire/path.h"

struct shs_set;

/* A registered entry without a pair: may it be for the engine? Counts its calls; true if this send should lift it. */
static inline bool shs_wire_due(struct shs_fd *f, int receive)
{
    shs_pace_call(f);
    return ++f->wire_calls >= f->wire_next && !receive;
}

/* Try to lift; true if it is lifted now. What keeps it from it is noted in its record. */
bool shs_wire_lift(struct shs_gate *g, int fd);
/* The gate of an entry that is SHS_FD_WIRE: true if it is lifted; false: it is the kernel's again. */
bool shs_wire_gate(struct shs_gate *g, int fd);
/* Ask the helper about the socket of that record: a REASON_*, or -errno: it could not be asked. `fd` goes along; -1: none. */
long shs_wire_ask(const char *what, uint32_t ep, uint64_t cookie, int fd, const struct shs_patience *patience);
/* Have it lowered, if it is lifted: afterwards the entry is the kernel's, unless no helper came within some seconds. */
void shs_wire_down(struct shs_fd *f, int fd);
/* After a call that moved so many bytes: a connection that moves much a call is lowered, and one that is slower than by the kernel. */
void shs_wire_weigh(struct shs_fd *f, long bytes);
/* Its word has changed: wait until whoever lowers it has done so, and take note. Or urgent data has come: lower it. */
void shs_wire_settle(int fd);
/* shutdown(2) where there is no helper to lower it: the engine does it. */
int shs_wire_shutdown(struct shs_fd *f, int how);
/* The same before its descriptor is closed; without a helper the engine ends the connection, if no other process has it. */
void shs_wire_closing(struct shs_fd *f, int fd);
/* A call that the wire path does not have: whatever of this descriptor is an engine's is the kernel's then. */
void shs_wire_leave_for(int fd);

/* send and recv as the program called them: bytes, -errno, or SHS_LOST: ask the kernel. */
long shs_wire_transmit(struct shs_gate *g, const struct iovec *iov, int count, int flags);
long shs_wire_receive(struct shs_gate *g, const struct iovec *iov, int count, int flags);

/* SO_ERROR of an entry that is SHS_FD_WIRE: an errno that the engine alone knows, once; 0: it is the kernel's to say. */
int shs_wire_error(struct shs_fd *f);
/* poll(2) of an entry that is SHS_FD_WIRE: what it has ready, POLLERR and POLLHUP included; *lowered: it is not lifted any more, or not to be. */
short shs_wire_polled(const struct shs_fd *f, bool *lowered);
struct shs_wire_end shs_wire_end(const struct shs_fd *f);

/* Sleeping on all engines of the process: the sockets that this thread watches for all are added to `fds`, which has room for
 * SHS_WIRE_FDS; `until_ns`: when timers are due. `due`: there is something to do at once. */
#define SHS_WIRE_FDS (SHS_N_NICS * SHS_N_NIC_QUEUES)
struct shs_wire_watch {
    uint32_t ports; /* bit i: port i is watched */
    uint64_t until_ns;
    uint32_t n;
    bool due;
};
struct shs_wire_watch shs_wire_sleep_begin(struct pollfd *fds);
void shs_wire_sleep_end(const struct shs_wire_watch *watch);
/* Do what there is to do on all engines of the process. */
void shs_wire_look_all(void);
/* After a send, in no lock: tell the helper, if it has to be told. */
static inline void shs_wire_sent(void)
{
    if (SHS_LIKELY(!(shs_peek32(&shs_proc.env.nudge) & SHS_NUDGE_TEND)))
        return;
    shs_proc.env.nudge &= ~(uint32_t)SHS_NUDGE_TEND;
    shs_nudge(shs_proc.stack_name, shs_proc.env.slot1 - 1);
}
/* The earlier of a deadline (0: none) and the watch's. */
static inline uint64_t shs_wire_deadline(uint64_t deadline, const struct shs_wire_watch *watch)
{
    return watch->until_ns != UINT64_MAX && (!deadline || watch->until_ns < deadline) ? watch->until_ns : deadline;
}

/* Of an epoll set, under its lock: what the member is ready for by its rules, as shs_member_ready. */
uint32_t shs_wire_member_ready(struct shs_set *set, const struct shs_fd *f, int epfd);
/* Is one of the kernel's events on members that are or were lifted, an end that never was? */
bool shs_wire_false_end(int epfd, const struct epoll_event *event);

/* A descriptor of a port has another number now; false: it is none's. */
bool shs_wire_moved(int from, int to);
/* shs_wire_leave_for each descriptor. */
void shs_wire_leave_all(void);
/* The process leaves its stack: nothing is lifted any more, and what was lent goes. */
void shs_wire_quit(void);
