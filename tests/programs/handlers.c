/*
 * Signal handlers that close, add and poll members of the very epoll set whose wait they interrupt, thousands of times, while the
 * main program answers its peer: nothing may hang or lose count. Prints "ok".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIGNALS 8000
#define MEMBER 1
#define EXTRA 99

static int set, extra = -1;
static volatile sig_atomic_t handled;

static void handler(int sig)
{
    int saved = errno;
    (void)sig;
    handled++;
    if (extra >= 0) {
        close(extra);
        extra = -1;
    } else {
        struct epoll_event ev = {.events = EPOLLIN, .data.u64 = EXTRA};
        extra = socket(AF_INET, SOCK_STREAM, 0);
        epoll_ctl(set, EPOLL_CTL_ADD, extra, &ev);
    }
    struct pollfd p = {.fd = extra, .events = POLLIN};
    poll(&p, 1, 0);
    errno = saved;
}

/* One byte there and back, until the other end closes. */
static int peer(const struct sockaddr_in *addr)
{
    char byte = 'x';
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (const struct sockaddr *)addr, sizeof *addr) != 0)
        return 1;
    while (send(fd, &byte, 1, MSG_NOSIGNAL) == 1 && recv(fd, &byte, 1, 0) == 1)
        ;
    return 0;
}

int main(void)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof addr;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&addr, len) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)&addr, &len) != 0)
        return 1;
    pid_t child = fork();
    if (child == 0)
        return peer(&addr);
    int fd = accept(listener, NULL, NULL);
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = MEMBER};
    set = epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) != 0 || epoll_ctl(set, EPOLL_CTL_ADD, fd, &ev) != 0)
        return 1;
    struct sigaction act = {.sa_handler = handler};
    struct itimerval every = {{0, 50}, {0, 50}}, never = {{0, 0}, {0, 0}};
    sigaction(SIGALRM, &act, NULL);
    setitimer(ITIMER_REAL, &every, NULL);
    long echoed = 0;
    while (handled < SIGNALS || echoed < 1000) {
        struct epoll_event got[4];
        int n = epoll_wait(set, got, 4, 5000);
        if (n == 0) {
            fprintf(stderr, "nothing for 5 s after %ld bytes\n", echoed);
            return 1;
        }
        for (int i = 0; i < n; i++) {
            char byte;
            if (got[i].data.u64 != MEMBER || recv(fd, &byte, 1, 0) != 1)
                continue;
            while (send(fd, &byte, 1, MSG_NOSIGNAL) < 0 && (errno == EAGAIN || errno == EINTR))
                ;
            echoed++;
        }
    }
    setitimer(ITIMER_REAL, &never, NULL);
    close(fd);
    int status = 1;
    waitpid(child, &status, 0);
    if (status == 0)
        puts("ok");
    return status != 0;
}
