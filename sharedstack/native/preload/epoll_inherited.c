/*
 * Epoll sets that more than one process or number has. What was unread in members' rings then must be reported to all: whoever passes a set on, or
 * copies its number, hands it over to the kernel; a forked child, and a program that was executed, find it here by themselves, and open no ring.
 * Of sets that came over exec the kernel says who their members are (proc_pid_fdinfo(5)). They are shared (who else has them is unknown),
 * so that no ring is opened in them; but what was unread in a member's ring when the program was executed has to be reported.
 */
#include "preload/epoll.h"

#include "preload/gate.h"
#include "preload/outside.h"
#include "preload/wire.h"
#include "shm/sys.h"

struct reader {
    int fd;
    size_t at, end;
    char buf[1024];
};

static int next_char(struct reader *r)
{
    if (r->at == r->end) {
        long n = SHS_SYS(syscall(SYS_read, r->fd, r->buf, sizeof r->buf));
        if (n <= 0)
            return -1;
        r->at = 0;
        r->end = (size_t)n;
    }
    return (unsigned char)r->buf[r->at++];
}

/* The rest of a line behind its next colon: a number, and blanks around it. false: none there. */
static bool next_number(struct reader *r, int base, uint64_t *value)
{
    int c;
    bool found = false;
    while ((c = next_char(r)) != ':')
        if (c < 0 || c == '\n')
            return false;
    *value = 0;
    while ((c = next_char(r)) == ' ' || c == '\t')
        ;
    for (;; c = next_char(r)) {
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 16;
        if (digit >= base)
            return found; /* what ended it is a blank, or a newline where it was the last one */
        *value = *value * (uint64_t)base + (uint64_t)digit;
        found = true;
    }
}

/* At the beginning of a line: is it about a member? */
static bool begins_member(struct reader *r, bool *over)
{
    const char *want = "tfd";
    int c = 0;
    while (*want && (c = next_char(r)) == *want)
        want++;
    *over = c < 0;
    while (*want && c >= 0 && c != '\n')
        c = next_char(r);
    return !*want;
}

static bool is_member(const struct shs_fd *f, uint64_t ino)
{
    return f && f->state == SHS_FD_PAIRED && !f->udp && f->end.ep->inode == ino;
}

/* "tfd: 5 events: 19 data: 5 pos:0 ino:b0f7 sdev:8": the number may mean another file in this process, the inode does not. */
static void meet_member(int epfd, uint64_t number, uint64_t events, uint64_t data, uint64_t ino)
{
    int fd = number < INT32_MAX ? (int)number : 0;
    struct shs_fd *f = shs_fd_look(fd);
    if (!is_member(f, ino)) /* it came from another process, by itself */
        for (fd = 0; (f = shs_fd_next(&fd)) && !is_member(f, ino); fd++)
            ;
    if (!f || f->set)
        return;
    struct shs_set *set = shs_set_of(epfd);
    if (!set)
        return;
    shs_set_shared(set, epfd);
    shs_set_lock(set);
    set->oneshot |= (events & EPOLLONESHOT) != 0;
    f->set = f->known = (uint32_t)epfd + 1;
    f->events = f->known_events = (uint32_t)events;
    f->data = f->known_data = data;
    f->edge_index = ~0ull;
    shs_set_mark(f, true);
    shs_set_list(set, f, epfd, fd);
    shs_set_unlock(set);
}

void shs_set_meet(int epfd)
{
    char path[64] = "/proc/self/fdinfo/";
    size_t at = strlen(path);
    for (int digits = 1000000000; digits; digits /= 10)
        if (epfd >= digits || digits == 1)
            path[at++] = (char)('0' + epfd / digits % 10);
    struct reader r = {.fd = (int)SHS_SYS(syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0))};
    for (bool over = r.fd < 0; !over;) {
        uint64_t number, events, data, pos, ino, sdev;
        if (begins_member(&r, &over) && next_number(&r, 10, &number) && next_number(&r, 16, &events) && next_number(&r, 16, &data) &&
            next_number(&r, 10, &pos) && next_number(&r, 16, &ino) && next_number(&r, 16, &sdev))
            meet_member(epfd, number, events, data, ino);
    }
    if (r.fd >= 0)
        shs_sys_close(r.fd);
}

static void each_member(int epfd, void (*visit)(struct shs_fd *f, int fd))
{
    struct shs_fd *f;
    for (int fd = 0; (f = shs_fd_next(&fd)); fd++)
        if (f->set == (uint32_t)epfd + 1)
            visit(f, fd);
}

static bool has_ring(const struct shs_fd *f)
{
    return f->state == SHS_FD_PAIRED && !f->udp;
}

static void hand_over_unread(struct shs_fd *f, int fd)
{
    (void)fd;
    if (f->state == SHS_FD_PAIRED && shs_end_waiting(&f->end))
        shs_hand_over(f, SHS_REASON_MANY_SETS, false);
}

void shs_set_pass(struct shs_set *set, int epfd)
{
    shs_set_shared(set, epfd);
    each_member(epfd, hand_over_unread);
}

static void leave_wire(struct shs_fd *f, int fd)
{
    (void)f;
    shs_wire_leave_for(fd); /* an engine's: the parent's alone to report */
}

static void adopt(struct shs_fd *f, int fd)
{
    if (!has_ring(f))
        return;
    struct shs_set *set = shs_set_at(f->set);
    f->listed = 0; /* in the parent's list */
    f->edge_index = ~0ull;
    shs_set_mark(f, true);
    shs_set_list(set, f, (int)f->set - 1, fd);
}

void shs_set_adopt(struct shs_set *set, int epfd)
{
    if (shs_proc.wired)
        each_member(epfd, leave_wire);
    shs_set_lock(set);
    if (set->inherited)
        each_member(epfd, adopt);
    set->inherited = false;
    shs_set_unlock(set);
}

void shs_set_inherited(struct shs_set *set)
{
    memset(&set->lock, 0, sizeof set->lock);
    shs_set_drop_caller(set);
    set->sleepers = set->n_opened = set->n_dirty = 0;
    set->shared = set->inherited = true;
}
