#include "common.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#include "endpoint/fds.h"
#include "endpoint/lift.h"
#include "endpoint/residue.h"
#include "intercepts.gen.h"
#include "preload/dgram.h"
#include "preload/epoll.h"
#include "preload/kept.h"
#include "preload/member.h"
#include "preload/outside.h"
#include "preload/restart.h"
#include "preload/standin.h"
#include "preload/wire.h"
#include "shm/sys.h"

#define STARTS_MS 200 /* for a program that was just executed to be loaded */

static void lowered(struct shs_endpoint *ep, uint32_t why)
{
    shs_set32(&ep->why_rx, why);
    shs_set32(&ep->why_tx, why);
    shs_endpoint_flag(ep, SHS_EPF_KERNEL_ONLY);
}

static long recall(struct shs_end *end, bool surely)
{
    const struct shs_who *who = shs_who();
    if (!who) {
        shs_ring_close(shs_end_rx(end));
        return 0;
    }
    /* by wlock: whoever was about to publish a record has done so, or sees the flag */
    if (shs_end_send_residue(&shs_proc.env, who, end) == -EAGAIN)
        shs_residue_finish(&shs_proc.env, who, end, SHS_FINISH_MS);
    return shs_end_recall(&shs_proc.env, who, end, surely);
}

long shs_hand_over(struct shs_fd *f, uint32_t why, bool surely)
{
    shs_wire_leave_for(f->end.fd);
    if (f->state < SHS_FD_NEW || f->state > SHS_FD_PAIRED)
        return 0;
    if (f->udp)
        return shs_dgram_hand_over(f, f->end.fd, why, surely);
    if (!f->why)
        f->why = why;
    if (f->state != SHS_FD_REG && f->state != SHS_FD_PAIRED)
        return 0;
    lowered(shs_endpoint_at(shs_proc.env.stack, f->ep1), why);
    return f->state == SHS_FD_PAIRED ? recall(&f->end, surely) : 0;
}

/* What is not in the kernel: of the ring, or kept from one. 0: no more. */
static long take_unread(struct shs_fd *f, int fd, void *to, size_t room)
{
    struct iovec iov = {to, room};
    struct shs_cursor cur;
    uint64_t looked = 0;
    struct shs_rx how = {.looked_ns = &looked};
    shs_cursor_init(&cur, &iov, 1);
    if (shs_kept_waiting(f))
        return shs_kept_recv(f, fd, &cur, MSG_DONTWAIT);
    const struct shs_who *who = f->state == SHS_FD_PAIRED ? shs_who() : NULL;
    if (!who || !shs_end_waiting(&f->end))
        return 0;
    return f->udp ? shs_i_recv(fd, to, room, MSG_DONTWAIT) : shs_end_recv(&shs_proc.env, who, &f->end, &cur, 0, &how);
}

void shs_push_back(struct shs_fd *f, int fd, FILE *file)
{
    size_t n = 0, room = 65536;
    uint8_t *bytes = malloc(room);
    while (bytes) {
        long r = take_unread(f, fd, bytes + n, room - n);
        if (r <= 0)
            break;
        n += (size_t)r;
        uint8_t *more = n == room ? realloc(bytes, room *= 2) : bytes;
        if (!more)
            break;
        bytes = more;
    }
    while (bytes && n)
        ungetc(bytes[--n], file);
    free(bytes);
}

/* The entry of a number, or of another number with the same socket (a vfork child's copies are in nobody's table). */
static struct shs_fd *entry_of(int fd, uint64_t cookie)
{
    struct shs_fd *f = shs_fd_look(fd);
    if (f && shs_fd_registered(f) && shs_endpoint_at(shs_proc.env.stack, f->ep1)->cookie == cookie)
        return f;
    for (int other = 0; (f = shs_fd_next(&other)); other++)
        if (shs_fd_registered(f) && shs_endpoint_at(shs_proc.env.stack, f->ep1)->cookie == cookie)
            return f;
    return NULL;
}

/* IPPROTO_TCP, IPPROTO_UDP, or 0: no such socket. */
static int protocol_of(int fd)
{
    int domain = 0, proto = 0;
    socklen_t len = sizeof domain;
    bool known = shs_sys_getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && (domain == AF_INET || domain == AF_INET6) &&
                 shs_sys_getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &proto, &len) == 0;
    return known && (proto == IPPROTO_TCP || proto == IPPROTO_UDP) ? proto : 0;
}

/* The record of a connection that this process has not looked at yet, or has not lifted: one is made, for others to find. Another thread may be
 * attaching. */
static uint32_t record_of(int fd)
{
    shs_join_lock();
    const struct shs_who *who = shs_attach(fd) ? shs_who() : NULL;
    int ep1 = who ? shs_register_find(&shs_proc.env, who, fd) : 0;
    if (who && !ep1)
        ep1 = shs_register_shared(&shs_proc.env, who, fd);
    shs_join_unlock();
    return ep1 > 0 ? (uint32_t)ep1 : 0;
}

void shs_gone_abroad(int fd)
{
    struct shs_fd *f = shs_fd_look(fd);
    uint32_t ep1 = f && shs_fd_registered(f) ? f->ep1 : !f || (f->state == SHS_FD_TCP && !f->udp) ? record_of(fd) : 0;
    struct shs_endpoint *ep = shs_endpoint_at(shs_proc.env.stack, ep1);
    if (ep)
        lowered(ep, SHS_REASON_OUTSIDE_HOLDER);
}

/* What a look through the descriptors is for. */
struct goes {
    bool datagrams; /* these alone: no program finds the record of one that it inherits */
    bool stays;     /* this process goes on as well */
    uint64_t cookie; /* of the socket that has got a stand-in (standin.h), and the number where that is */
    int at;
};

/* One descriptor that another program will have. */
static long hand_over_number(int fd, struct goes *goes)
{
    uint64_t cookie = 0;
    socklen_t len = sizeof cookie;
    int protocol = shs_fd_own(fd) ? 0 : protocol_of(fd);
    if (!protocol || (goes->datagrams && protocol != IPPROTO_UDP) || shs_sys_getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) != 0)
        return 0;
    struct shs_fd *f = shs_proc.attach == SHS_ATTACHED ? entry_of(fd, cookie) : NULL;
    if (protocol == IPPROTO_UDP) { /* one that was inherited, and is not ours yet, was handed over then */
        long r = f ? shs_dgram_hand_over(f, fd, SHS_REASON_OUTSIDE_HOLDER, goes->stays) : 0;
        return r == -EPIPE ? 0 : r;
    }
    struct shs_end end;
    uint32_t ep1 = f ? f->ep1 : 0;
    if (f && SHS_UNLIKELY(f->state == SHS_FD_WIRE))
        shs_wire_down(f, f->end.fd);
    if (f)
        shs_fd_shared(f);
    else
        ep1 = record_of(fd);
    struct shs_endpoint *ep = shs_endpoint_at(shs_proc.env.stack, ep1);
    if (!ep)
        return 0;
    lowered(ep, SHS_REASON_OUTSIDE_HOLDER);
    if (!shs_end_of(&shs_proc.env, ep1, &end))
        return 0;
    end.fd = fd; /* the entry's own number may be closed here */
    if (cookie == goes->cookie) {
        shs_stand_in_put(goes->at, fd);
        return 0;
    }
    long r = recall(&end, false);
    if (r == -EPIPE && (!goes->stays || shs_self.vfork) && shs_stand_in_alone(&end))
        *goes = (struct goes){.stays = goes->stays, .cookie = cookie, .at = fd};
    return r == -EPIPE ? 0 : r; /* what has no stand-in is lost: docs/differences.md */
}

struct entry {
    uint64_t ino;
    int64_t off;
    uint16_t len;
    uint8_t type;
    char name[];
};

/* Will the program have it, or an epoll set that has it? Whoever waits in that hears of what the kernel has, and of nothing else. */
static bool goes_along(int fd)
{
    const struct shs_fd *f = shs_fd_look(fd);
    if (shs_sys_fcntl(fd, F_GETFD, 0) == 0)
        return true;
    return f && f->set && shs_sys_fcntl((int)f->set - 1, F_GETFD, 0) == 0;
}

/* Each of our descriptors that the program will have to do with, until something fails. */
static long hand_over_along(struct goes goes)
{
    _Alignas(struct entry) char buf[1024];
    long n, r = 0;
    int dir = (int)SHS_SYS(syscall(SYS_openat, AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    for (int fd = 0; dir < 0 && fd < SHS_FD_CHUNK && r == 0; fd++) /* no /proc */
        r = goes_along(fd) ? hand_over_number(fd, &goes) : 0;
    while (dir >= 0 && r == 0 && (n = SHS_SYS(syscall(SYS_getdents64, dir, buf, sizeof buf))) > 0)
        for (long at = 0; at < n && r == 0; at += ((struct entry *)(buf + at))->len) {
            const char *name = ((struct entry *)(buf + at))->name;
            int fd = *name == '.' ? -1 : atoi(name);
            if (fd >= 0 && fd != dir && goes_along(fd))
                r = hand_over_number(fd, &goes);
        }
    if (dir >= 0)
        shs_sys_close(dir);
    return r;
}

static long hand_over_streams(struct goes *goes)
{
    long r = 0;
    for (int fd = 0; fd <= 2 && r == 0; fd++)
        r = shs_sys_fcntl(fd, F_GETFD, 0) == 0 ? hand_over_number(fd, goes) : 0;
    return r;
}

/* Members that the program will not have, of sets that it will: nobody tells it of what is in their rings. */
static long hand_over_watched(struct goes *goes)
{
    struct shs_fd *f;
    long r = 0;
    for (int fd = 0; r == 0 && (f = shs_fd_next(&fd)); fd++)
        if (f->set && shs_sys_fcntl((int)f->set - 1, F_GETFD, 0) == 0 && shs_sys_fcntl(fd, F_GETFD, 0) != 0)
            r = hand_over_number(fd, goes);
    return r;
}

static bool have_datagrams(void)
{
    struct shs_fd *f;
    for (int fd = 0; (f = shs_fd_next(&fd)); fd++)
        if (f->udp && f->state == SHS_FD_PAIRED)
            return true;
    return false;
}

/* What this process and the program will share. Before it is marked so. */
static void stand_in_along(void)
{
    struct shs_fd *f;
    for (int fd = 0; (f = shs_fd_next(&fd)); fd++)
        if (f->state == SHS_FD_PAIRED && goes_along(fd))
            (void)shs_stand_in(f, fd, false);
}

/* Whatever is not close-on-exec another program will have too, at the same time if it is a child. */
static void mark_inherited(void)
{
    struct shs_fd *f;
    for (int fd = 0; (f = shs_fd_next(&fd)); fd++) {
        if (f->state < SHS_FD_NEW || f->state > SHS_FD_WIRE || shs_sys_fcntl(fd, F_GETFD, 0) != 0)
            continue;
        if (f->state == SHS_FD_WIRE)
            shs_wire_down(f, fd);
        shs_fd_shared(f);
    }
    shs_sets_told(true);
}

/* What is in a ring of ours only a program of our stack can read. */
static bool inside(const struct shs_preload *preload)
{
    return preload->how != SHS_PRELOAD_NOT && preload->same;
}

/* Whatever the program is. Datagrams before their sockets are marked: nobody pushes in between, and it is seen whether others have them already. */
static long before_any(bool stays)
{
    long r = have_datagrams() ? hand_over_along((struct goes){.datagrams = true, .stays = stays}) : 0;
    mark_inherited();
    return r;
}

long shs_before_exec(const char *path, int fd, bool search, bool stays, struct shs_preload *preload)
{
    char found[4096];
    struct goes goes = {.stays = stays};
    if (shs_proc.off)
        return 0;
    if (search && path && !shs_find_program(path, found, sizeof found))
        return 0; /* it will fail */
    if (preload->how != SHS_PRELOAD_NOT && shs_outside_program(search ? found : path, fd, preload))
        preload->how = SHS_PRELOAD_NOT;
    if (!inside(preload) && stays && !shs_self.vfork)
        stand_in_along();
    long r = before_any(stays);
    if (r < 0)
        return r;
    if (!inside(preload))
        return hand_over_along(goes);
    r = hand_over_watched(&goes);
    return r < 0 ? r : hand_over_streams(&goes); /* whatever it is, stdio uses those three natively */
}

long shs_before_shell(struct shs_preload *preload)
{
    if (shs_proc.off)
        return 0;
    if (preload->how != SHS_PRELOAD_NOT && shs_outside_program("/bin/sh", -1, preload))
        preload->how = SHS_PRELOAD_NOT;
    if (!inside(preload))
        stand_in_along();
    long r = before_any(true);
    return r < 0 || inside(preload) ? r : hand_over_along((struct goes){.stays = true});
}

void shs_before_leaving(void)
{
    struct shs_fd *f;
    if (shs_load32(&shs_proc.attach) != SHS_ATTACHED)
        return;
    for (int fd = 0; (f = shs_fd_next(&fd)); fd++) {
        if (f->state != SHS_FD_PAIRED || f->udp || !shs_end_waiting(&f->end))
            continue;
        bool shared = shs_load32(&f->end.ep->flags) & SHS_EPF_SHARED;
        if (!shared || shs_hand_over(f, SHS_REASON_OUTSIDE_HOLDER, true) == -EPIPE)
            (void)shs_stand_in(f, fd, true);
    }
}

/* Which of these words does a file of another process hold? A bit for each; -errno. */
static int words_in(int pid, const char *file, const struct iovec *words, int n)
{
    char path[32], buf[4096];
    size_t have = 0, longest = 0;
    int found = 0;
    for (int i = 0; i < n; i++)
        longest = words[i].iov_len > longest ? words[i].iov_len : longest;
    snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
    int fd = (int)SHS_SYS(syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC));
    if (fd < 0)
        return fd;
    for (long r; found != (1 << n) - 1 && (r = SHS_SYS(read(fd, buf + have, sizeof buf - have))) > 0;) {
        have += (size_t)r;
        for (int i = 0; i < n; i++)
            found |= memmem(buf, have, words[i].iov_base, words[i].iov_len) ? 1 << i : 0;
        size_t keep = have < longest ? have : longest; /* one may be cut in two */
        memmove(buf, buf + have - keep, keep);
        have = keep;
    }
    shs_sys_close(fd);
    return found;
}

/* Is the process, which has the library and may not have used it yet, one of another stack? */
static bool of_another_stack(int pid, bool some, bool ours)
{
    char variable[sizeof "SHAREDSTACK_STACK=" + SHS_MAX_STACK_NAME + 1];
    if (some)
        return !ours;
    size_t len = (size_t)snprintf(variable, sizeof variable, "SHAREDSTACK_STACK=%s", shs_proc.stack_name);
    const struct iovec words[] = {{variable, sizeof "SHAREDSTACK_STACK=" - 1}, {variable, len + 1}};
    int said = words_in(pid, "environ", words, 2);
    return said >= 0 && !(said & 2) && ((said & 1) || strcmp(shs_proc.stack_name, SHS_DEFAULT_STACK) != 0);
}

static bool is_helper(int pid)
{
    const struct shs_stack *stack = shs_load32(&shs_proc.attach) == SHS_ATTACHED ? shs_proc.env.stack : NULL;
    uint32_t slot1 = stack ? shs_load32(&stack->helper) : 0;
    return slot1 && shs_load32(&shs_slot_at(shs_proc.env.stack, slot1 - 1)->pid) == (uint32_t)pid;
}

/* Will it have the library as soon as its loader comes to that, as far as its environment tells? */
static bool will_preload(int pid)
{
    char library[] = "libsharedstack";
    const struct iovec word = {library, sizeof library - 1};
    return words_in(pid, "environ", &word, 1) > 0;
}

enum shs_receiver shs_receiver(int over, bool closely)
{
    char stack[SHS_MAX_STACK_NAME + 16];
    char library[] = "libsharedstack", segments[] = "/dev/shm/" SHS_SHM_PREFIX ".", later[] = "/libc";
    enum { LIBRARY = 1, SOME_STACK = 2, OUR_STACK = 4, LATER = 8 };
    struct ucred peer = {0};
    socklen_t len = sizeof peer;
    if (shs_sys_getsockopt(over, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0 || peer.pid <= 0 || peer.pid == getpid())
        return SHS_RECEIVER_ANY;
    if (peer.uid != getuid())
        return SHS_RECEIVER_PLAIN;
    if (!closely)
        return SHS_RECEIVER_ANY;
    if (is_helper(peer.pid))
        return SHS_RECEIVER_HELPER;
    size_t n = (size_t)snprintf(stack, sizeof stack, ".%s.stack", shs_proc.stack_name);
    const struct iovec words[] = {{library, sizeof library - 1}, {segments, sizeof segments - 1}, {stack, n}, {later, sizeof later - 1}};
    int found = words_in((int)peer.pid, "maps", words, 4);
    /* it may have been executed just now: its loader maps what is preloaded before the C library, and all else */
    for (int i = 0; i < STARTS_MS && found >= 0 && !(found & (LIBRARY | LATER)) && will_preload((int)peer.pid); i++) {
        struct timespec ts = {0, 1000000};
        (void)SHS_SYS(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &ts, NULL));
        found = words_in((int)peer.pid, "maps", words, 4);
    }
    bool plain = found < 0 ? found == -EACCES /* another user's */
                           : !(found & LIBRARY) || of_another_stack((int)peer.pid, found & SOME_STACK, found & OUR_STACK);
    return plain ? SHS_RECEIVER_PLAIN : SHS_RECEIVER_ANY;
}
