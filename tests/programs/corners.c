/* What calls mean in corners where the differential machine (tests/differential) found a difference: the same lines on the kernel and through the library. */
#include "pairs.h"

static int go[2]; /* the parent has done what it had to do before the child executes another image */
static const char *image, *self;

static void become(int fd)
{
    char byte, number[12];
    if (read(go[0], &byte, 1) != 1)
        fail("read");
    snprintf(number, sizeof number, "%d", fd);
    execl(self, self, image, number, (char *)NULL);
    fail("exec");
}

/* A child with a warm connection, in whose ring there are 100 bytes when it executes that image. */
static void execute_as(const char *name, bool shut)
{
    pid_t child;
    int status;
    image = name;
    if (pipe2(go, O_CLOEXEC) != 0)
        fail("pipe");
    int fd = with_child(become, &child);
    put(fd, 100);
    if (shut)
        shutdown(fd, SHUT_RDWR);
    if (write(go[1], "x", 1) != 1)
        fail("write");
    waitpid(child, &status, 0);
    show("status", status);
}

/* The first call of the new image on the descriptor is none that takes data. */
static void image_polls(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
    int unread = 0;
    show("poll", poll(&p, 1, 0));
    show("revents", p.revents);
    show("ioctl", ioctl(fd, FIONREAD, &unread));
    show("unread", unread);
}

static void image_selects(int fd)
{
    fd_set set;
    struct timeval none = {0, 0};
    FD_ZERO(&set);
    FD_SET(fd, &set);
    show("select", select(fd + 1, &set, NULL, NULL, &none));
}

static void image_counts(int fd)
{
    int unread = 0;
    show("ioctl", ioctl(fd, FIONREAD, &unread));
    show("unread", unread);
}

static void image_watches(int fd)
{
    struct epoll_event e = {.events = EPOLLIN};
    int ep = epoll_create1(EPOLL_CLOEXEC);
    show("add", epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
    show("wait", epoll_wait(ep, &e, 1, 0));
}

static void image_waits_not(int fd)
{
    char buf[200];
    show("fcntl", fcntl(fd, F_SETFL, O_NONBLOCK));
    show("recv", recv(fd, buf, sizeof buf, 0));
    show("recv", recv(fd, buf, sizeof buf, 0));
}

static void image_copies(int fd)
{
    char buf[200];
    int copy = dup(fd);
    show("recv", recv(fd, buf, 50, 0));
    show("recv", recv(copy, buf, sizeof buf, 0));
}

static void image_shuts(int fd)
{
    char buf[200];
    show("shutdown", shutdown(fd, SHUT_WR));
    show("send", send(fd, buf, 10, MSG_NOSIGNAL));
    show("recv", recv(fd, buf, sizeof buf, 0));
}

static void image_reads(int fd)
{
    char buf[200];
    show("recv", recv(fd, buf, sizeof buf, 0));
    show("recv", recv(fd, buf, sizeof buf, 0));
}

static void exec_poll(void)
{
    execute_as("polls", false);
}
static void exec_select(void)
{
    execute_as("selects", false);
}
static void exec_count(void)
{
    execute_as("counts", false);
}
static void exec_watch(void)
{
    execute_as("watches", false);
}
static void exec_nonblocking(void)
{
    execute_as("waits_not", false);
}
static void exec_copy(void)
{
    execute_as("copies", false);
}
static void exec_shut(void)
{
    execute_as("shuts", false);
}
static void exec_ended(void)
{
    execute_as("reads", true);
}

/* Passed on before any byte went: what comes is not in a ring, since who received it may be the one to read */
static void passed_early(void)
{
    int e[2], way[2], copy = -1;
    char byte = 'x', buf[200];
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))}};
    struct iovec iov = {&byte, 1};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
    pid_t child;
    connected(e);
    socketpair(AF_UNIX, SOCK_DGRAM, 0, way);
    memcpy(CMSG_DATA(&control.header), &e[0], sizeof(int));
    if (sendmsg(way[0], &m, 0) != 1)
        fail("sendmsg");
    for (int i = 0; i < 40; i++) {
        put(e[1], 100);
        must_recv(e[0], buf, 100);
        recv(e[0], buf, 1, MSG_DONTWAIT);
    }
    put(e[1], 100);
    if ((child = fork()) == 0) {
        close(e[0]);
        if (recvmsg(way[1], &m, 0) == 1)
            memcpy(&copy, CMSG_DATA(&control.header), sizeof copy);
        image_polls(copy);
        show("recv", recv(copy, buf, sizeof buf, MSG_DONTWAIT));
        exit(0);
    }
    waitpid(child, NULL, 0);
}

/* readv and writev of nothing do not come to the socket; write does */
static void of_no_bytes(void)
{
    int e[2];
    char byte;
    struct iovec none[2] = {{&byte, 0}, {&byte, 0}};
    warm_pair(e);
    fcntl(e[0], F_SETFL, O_NONBLOCK);
    show("recv", recv(e[0], &byte, 1, 0));
    show("read", read(e[0], &byte, 0));
    show("readv", readv(e[0], none, 2));
    show("readv", readv(e[1], none, 2)); /* blocking */
    close(e[1]);
    show("send", send(e[0], "x", 1, MSG_NOSIGNAL));
    show("writev", writev(e[0], none, 2));
    signal(SIGPIPE, SIG_IGN);
    show("write", write(e[0], &byte, 0));
}

/* MSG_TRUNC of a stream throws away as much as all pieces have room for */
static void discard_in_pieces(void)
{
    int e[2];
    char buf[200];
    struct iovec pieces[3] = {{buf, 0}, {buf, 30}, {buf + 30, 40}};
    struct msghdr m = {.msg_iov = pieces, .msg_iovlen = 3};
    warm_pair(e);
    put(e[1], 100);
    show("discard", recvmsg(e[0], &m, MSG_TRUNC));
    show("recv", recv(e[0], buf, sizeof buf, 0));
}

/* An epoll set is readable while a member's ring holds something, though nobody polled the set before */
static void set_in_poll(void)
{
    int e[2], ep = epoll_create1(0);
    char buf[200];
    struct epoll_event event = {.events = EPOLLIN};
    struct pollfd p = {.fd = ep, .events = POLLIN};
    warm_pair(e);
    epoll_ctl(ep, EPOLL_CTL_ADD, e[0], &event);
    show("recv", recv(e[0], buf, sizeof buf, MSG_DONTWAIT));
    put(e[1], 100);
    show("poll", poll(&p, 1, 0));
    show("poll", poll(&p, 1, 1000));
    show("wait", epoll_wait(ep, &event, 1, 0));
    show("recv", recv(e[0], buf, sizeof buf, 0));
    show("poll", poll(&p, 1, 0));
}

/* An end that only ever received is shut both ways: more for it resets the connection, and is not received by a ring */
static void shut_before_sending(void)
{
    int e[2];
    char buf[2000];
    connected(e);
    for (int i = 0; i < 40; i++) {
        put(e[1], 1000);
        must_recv(e[0], buf, 1000);
        recv(e[0], buf, 1, MSG_DONTWAIT);
    }
    show("shutdown", shutdown(e[0], SHUT_WR));
    show("shutdown", shutdown(e[0], SHUT_RD));
    show("send", send(e[1], buf, 100, MSG_NOSIGNAL));
    struct pollfd p = {.fd = e[0], .events = POLLIN | POLLOUT | POLLRDHUP};
    show("poll", poll(&p, 1, 0));
    show("revents", p.revents);
    show("recv", recv(e[0], buf, 100, MSG_DONTWAIT));
    show("send", send(e[1], buf, 100, MSG_NOSIGNAL));
}

static const struct {
    const char *name;
    void (*act)(int fd);
} images[] = {
    {"polls", image_polls},         {"selects", image_selects}, {"counts", image_counts}, {"watches", image_watches},
    {"waits_not", image_waits_not}, {"copies", image_copies},   {"shuts", image_shuts},   {"reads", image_reads},
};

int main(int argc, char **argv)
{
    static const struct scene scenes[] = {
        {"exec_poll", exec_poll},
        {"exec_select", exec_select},
        {"exec_count", exec_count},
        {"exec_watch", exec_watch},
        {"exec_nonblocking", exec_nonblocking},
        {"exec_copy", exec_copy},
        {"exec_shut", exec_shut},
        {"exec_ended", exec_ended},
        {"passed_early", passed_early},
        {"of_no_bytes", of_no_bytes},
        {"discard_in_pieces", discard_in_pieces},
        {"set_in_poll", set_in_poll},
        {"shut_before_sending", shut_before_sending},
    };
    self = argv[0];
    for (size_t i = 0; argc == 3 && i < sizeof images / sizeof *images; i++)
        if (!strcmp(argv[1], images[i].name)) {
            images[i].act(atoi(argv[2]));
            return 0;
        }
    return play(scenes, sizeof scenes / sizeof *scenes, argc, argv);
}
