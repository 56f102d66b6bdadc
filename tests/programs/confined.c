/*
 * confined FILTER WAIT: a child serves a connection, confines itself by seccomp while bytes are unread, and serves on. Any system call that it did
 * not ask for kills it. FILTER: filter (prctl), seccomp (the system call), strict; WAIT: read, poll, select or epoll, how it waits from then on.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 50
#define UNREAD 60000
#define AFTER 200000

static void must(int good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

#define ALLOW(number) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (number), 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static void confine(const char *how)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(SYS_read),
        ALLOW(SYS_write),
        ALLOW(SYS_poll),
#ifdef SYS_select
        ALLOW(SYS_select),
#endif
        ALLOW(SYS_pselect6),
        ALLOW(SYS_epoll_wait),
        ALLOW(SYS_exit_group),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    if (!strcmp(how, "strict"))
        must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0, "strict");
    else if (!strcmp(how, "filter"))
        must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0, "filter");
    else
        must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0, "seccomp");
}

static unsigned char byte_at(size_t i)
{
    return (unsigned char)(i * 31 + i / 251);
}

static void wait_for(const char *how, int fd, int set)
{
    if (!strcmp(how, "poll")) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, -1) != 1 || !(p.revents & POLLIN))
            _exit(3);
    } else if (!strcmp(how, "select")) {
        fd_set rd;
        FD_ZERO(&rd);
        FD_SET(fd, &rd);
        if (select(fd + 1, &rd, NULL, NULL, NULL) != 1 || !FD_ISSET(fd, &rd))
            _exit(4);
    } else if (!strcmp(how, "epoll")) {
        struct epoll_event event;
        if (epoll_wait(set, &event, 1, -1) != 1 || event.data.fd != fd)
            _exit(5);
    }
}

static ssize_t take(const char *how, int fd, void *buffer, size_t n)
{
    return strcmp(how, "number") ? read(fd, buffer, n) : syscall(SYS_read, fd, buffer, n);
}

static void leave(const char *filter, int status)
{
    if (!strcmp(filter, "strict"))
        syscall(SYS_exit, status); /* exit_group is deadly there */
    _exit(status);
}

static void serve(int listener, int ready, int go, const char *filter, const char *how)
{
    int fd = accept(listener, NULL, NULL), set = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    unsigned char buffer[4096];
    must(fd >= 0, "accept");
    if (!strcmp(how, "epoll"))
        must(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
    for (int i = 0; i < ROUNDS; i++) {
        wait_for(how, fd, set);
        must(take(how, fd, buffer, sizeof buffer) == 1 && write(fd, "a", 1) == 1, "round");
    }
    must(write(ready, "r", 1) == 1 && read(go, buffer, 1) == 1, "in step"); /* now so many bytes are unread */
    confine(filter);
    must(write(ready, "c", 1) == 1, "in step");
    for (size_t got = 0; got < UNREAD + AFTER;) {
        wait_for(how, fd, set);
        ssize_t r = take(how, fd, buffer, sizeof buffer);
        if (r <= 0)
            leave(filter, 6);
        for (ssize_t i = 0; i < r; i++)
            if (buffer[i] != byte_at(got + (size_t)i))
                leave(filter, 7);
        got += (size_t)r;
    }
    if (write(fd, "done", 4) != 4)
        leave(filter, 8);
    wait_for(how, fd, set);
    leave(filter, take(how, fd, buffer, sizeof buffer) == 0 ? 0 : 9);
}

int main(int argc, char **argv)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof here;
    int listener = socket(AF_INET, SOCK_STREAM, 0), ready[2], go[2], status = 0;
    static unsigned char bytes[UNREAD + AFTER];
    char answer[8];
    if (argc != 3)
        return 2;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = byte_at(i);
    must(bind(listener, (struct sockaddr *)&here, sizeof here) == 0 && listen(listener, 1) == 0, "listen");
    must(getsockname(listener, (struct sockaddr *)&here, &len) == 0 && pipe(ready) == 0 && pipe(go) == 0, "pipes");
    pid_t child = fork();
    if (child == 0)
        serve(listener, ready[1], go[0], argv[1], argv[2]);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    must(connect(fd, (struct sockaddr *)&here, sizeof here) == 0, "connect");
    for (int i = 0; i < ROUNDS; i++)
        must(write(fd, "b", 1) == 1 && read(fd, answer, 1) == 1, "round");
    must(read(ready[0], answer, 1) == 1, "ready");
    must(write(fd, bytes, UNREAD) == UNREAD && write(go[1], "g", 1) == 1 && read(ready[0], answer, 1) == 1, "confined");
    must(write(fd, bytes + UNREAD, AFTER) == AFTER, "more");
    ssize_t got = 0;
    for (ssize_t r; got < 4 && (r = read(fd, answer + got, sizeof answer)) > 0;)
        got += r;
    shutdown(fd, SHUT_WR);
    must(waitpid(child, &status, 0) == child, "waitpid");
    printf("%.*s, status %d, signal %d\n", (int)got, answer, WEXITSTATUS(status), WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    return 0;
}
