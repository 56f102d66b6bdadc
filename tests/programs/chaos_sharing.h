/*
 * How a connection comes to another process: forked, passed, or kept over exec.
 */
#pragma once
#include "chaos_wait.h"

#include <pthread.h>
#include <stddef.h>
#include <sys/un.h>
#include <sys/wait.h>

static socklen_t door_of(struct sockaddr_un *name, uint32_t number)
{
    memset(name, 0, sizeof *name);
    name->sun_family = AF_UNIX;
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
                       (size_t)snprintf(name->sun_path + 1, sizeof name->sun_path - 1, "chaos.%llx.%u", (unsigned long long)ledger->magic,
                                        number));
}

static void remove_end(uint32_t at)
{
    close(self.ends[at].fd);
    self.ends[at] = self.ends[--self.n_ends];
}

static struct end *add_end(struct end e)
{
    e.last_ns = now_ns();
    e.ready = 1;
    e.silent = 0;
    self.ends[self.n_ends] = e;
    join_set(e.fd, ENDS_FROM);
    hold(&e);
    return &self.ends[self.n_ends++];
}

/* SCM_RIGHTS to another actor of our host, which goes on where we were. */
static void pass_end(uint32_t at)
{
    uint32_t number = roll(&self.dice, ledger->actors);
    struct sockaddr_un name;
    socklen_t size = door_of(&name, number);
    int door = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (number != self.number && ledger->process[number].group == me->group && connect(door, (struct sockaddr *)&name, size) == 0) {
        union {
            struct cmsghdr header;
            char bytes[CMSG_SPACE(sizeof(int))];
        } control = {{.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
        memcpy(CMSG_DATA(&control.header), &self.ends[at].fd, sizeof(int));
        struct iovec part = {&self.ends[at], sizeof(struct end)};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        alive("pass connection", self.ends[at].hello.connection);
        if (self.way <= BY_EDGES) /* what is in two sets is the kernel's for good */
            epoll_ctl(self.set, EPOLL_CTL_DEL, self.ends[at].fd, NULL);
        if (sendmsg(door, &message, MSG_NOSIGNAL) == sizeof(struct end)) {
            count(PASSES, 1);
            tell(self.ends[at].hello.connection, self.ends[at].side, 'p');
            remove_end(at);
        } else {
            join_set(self.ends[at].fd, ENDS_FROM);
            self.ends[at].ready = 1;
            self.ends[at].silent = 0;
        }
    }
    close(door);
}

static void take_passed(void)
{
    int door = accept4(self.fd[DOOR], NULL, NULL, SOCK_CLOEXEC);
    if (door < 0)
        return;
    struct end e;
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {&e, sizeof e};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    if (recvmsg(door, &message, MSG_CMSG_CLOEXEC) == sizeof e && message.msg_controllen) {
        memcpy(&e.fd, CMSG_DATA(&control.header), sizeof(int));
        tell(e.hello.connection, e.side, 't');
        if (self.n_ends < ENDS_MOST)
            add_end(e);
        else
            close(e.fd);
    }
    close(door);
}

/* Only what is `kept` stays open: everything else is the parent's. */
static void forget_all_but(int kept)
{
    for (uint32_t i = 0; i < ENDS_FROM; i++)
        close(self.fd[i]);
    for (uint32_t i = 0; i < self.n_ends; i++)
        if (self.ends[i].fd != kept)
            close(self.ends[i].fd);
    if (self.way <= BY_EDGES)
        close(self.set);
}

/* One thread of a worker whose connection has something to send at any time. */
static void *send_all(void *end)
{
    struct end *e = end;
    struct dice dice = {mix(e->hello.connection ^ ledger->seed)};
    while (e->sent < both_bytes(e, e->side) && !e->broken && !ledger->stop) {
        if (!to_send(e))
            usleep(500);
        else if (send_some(e, &dice) == OVER)
            break;
    }
    if (e->side == 0 || ledger->stop) {
        tell(e->hello.connection, e->side, 's');
        shutdown(e->fd, SHUT_WR);
    }
    return NULL;
}

/* Two threads: one sends, this one receives. */
static enum stepped work_both(struct end *e, struct dice *dice)
{
    pthread_t sender;
    enum stepped so_far = MOVED;
    if (pthread_create(&sender, NULL, send_all, e) != 0)
        return OVER;
    while (so_far == MOVED) {
        alive("receiver of connection", e->hello.connection);
        so_far = receive_some(e, dice);
    }
    e->broken = 1; /* nobody receives any more: the other thread is to end, too */
    shutdown(e->fd, SHUT_RDWR);
    pthread_join(sender, NULL);
    return so_far;
}

/* A child's life: one connection, by calls that block. */
static _Noreturn void work(struct end e)
{
    struct dice dice = {mix(e.hello.connection ^ self.dice.state)};
    forget_all_but(e.fd);
    fcntl(e.fd, F_SETFL, 0);
    hold(&e);
    tell(e.hello.connection, e.side, 'w');
    enum stepped so_far = e.hello.pattern != TURNS && !e.shut ? work_both(&e, &dice) : MOVED;
    while (so_far != OVER && !ledger->stop) {
        if (e.pause_ns)
            usleep((useconds_t)(e.pause_ns > now_ns() ? (e.pause_ns - now_ns()) / 1000 : 0));
        e.pause_ns = 0;
        alive("worker of connection", e.hello.connection);
        so_far = step(&e, &dice);
        if (so_far == BLOCKED)
            finding("a blocking call on connection %u says that it would block", e.hello.connection);
    }
    tell(e.hello.connection, e.side, so_far == OVER ? 'o' : 'x');
    close(e.fd);
    atomic_store(&me->pid, 0);
    _exit(0);
}

/* A child takes a connection, and we close it; or it does nothing, and is gone. */
static void fork_with(int at)
{
    alive("fork", 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct process *place = child_place(self.number);
        if (!place)
            _exit(0);
        me = place;
        alive("child", 0);
        if (at >= 0) /* the parent closes it meanwhile */
            work(self.ends[at]);
        atomic_store(&me->pid, 0);
        _exit(0);
    }
    if (pid < 0)
        return;
    count(at >= 0 ? WORKERS : FORKS, 1);
    if (at >= 0) {
        tell(self.ends[at].hello.connection, self.ends[at].side, 'f');
        remove_end((uint32_t)at);
    }
}

/* This program once more, with all that it has; its state goes by a file without a name. */
static void execute(char **argv)
{
    int state = memfd_create("chaos", 0);
    if (state < 0 || write(state, &self, sizeof self) != sizeof self)
        return;
    char text[16];
    snprintf(text, sizeof text, "%d", state);
    for (uint32_t i = 0; i < ENDS_FROM; i++)
        fcntl(self.fd[i], F_SETFD, 0);
    for (uint32_t i = 0; i < self.n_ends; i++)
        fcntl(self.ends[i].fd, F_SETFD, 0);
    for (uint32_t i = 0; i < self.n_ends; i++)
        if (self.ends[i].hello.magic)
            tell(self.ends[i].hello.connection, self.ends[i].side, 'c');
    alive("exec", 0);
    count(EXECS, 1);
    execv("/proc/self/exe", (char *[]){argv[0], argv[1], argv[2], argv[3], text, NULL});
    finding("exec: %s", strerror(errno));
}

static void come_back(int state)
{
    if (pread(state, &self, sizeof self, 0) != sizeof self)
        exit(2);
    close(state);
    for (uint32_t i = 0; i < ENDS_FROM; i++)
        fcntl(self.fd[i], F_SETFD, FD_CLOEXEC);
    for (uint32_t i = 0; i < self.n_ends; i++)
        fcntl(self.ends[i].fd, F_SETFD, FD_CLOEXEC);
}
