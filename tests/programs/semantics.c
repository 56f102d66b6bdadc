/*
 * What the calls of one thread on a connection of which it holds both ends return, line by line:
 *
 *     semantics SCENE
 *
 * Without a scene it lists them. On the kernel and through the library the lines must be the same.
 */
#include "pairs.h"

#include <linux/sockios.h>

static uint8_t buf[1 << 16];
static volatile sig_atomic_t alarms, pipes;
static int alarm_fd = -1;

static void on_alarm(int sig)
{
    (void)sig;
    alarms++;
    if (alarm_fd >= 0)
        send(alarm_fd, "0123456789", 10, MSG_NOSIGNAL);
}

static void on_pipe(int sig)
{
    (void)sig;
    pipes++;
}

static void handle(int sig, void (*handler)(int), int flags)
{
    struct sigaction act = {.sa_handler = handler, .sa_flags = flags};
    sigaction(sig, &act, NULL);
}

static void alarm_in(int milliseconds)
{
    struct itimerval in = {.it_value = {milliseconds / 1000, milliseconds % 1000 * 1000}};
    setitimer(ITIMER_REAL, &in, NULL);
}

static void receive_timeout(int fd, int milliseconds)
{
    struct timeval tv = {milliseconds / 1000, milliseconds % 1000 * 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
}

static void half_close(void)
{
    for (int side = 0; side < 2; side++) {
        int e[2];
        warm_pair(e);
        put(e[side], 1000);
        show("shutdown", shutdown(e[side], SHUT_WR));
        show("read", read(e[1 - side], buf, 600));
        show("read the rest", read(e[1 - side], buf, 600));
        for (int i = 0; i < 3; i++)
            show("read at the end", read(e[1 - side], buf, 600));
        show("send after shutdown", send(e[side], buf, 1, MSG_NOSIGNAL));
        put(e[1 - side], 700);
        show("the other way", recv(e[side], buf, sizeof buf, 0));
        show("shutdown", shutdown(e[1 - side], SHUT_WR));
        show("the other end", recv(e[side], buf, sizeof buf, 0));
        show("again", recv(e[side], buf, sizeof buf, MSG_DONTWAIT));
        close(e[side]);
        close(e[1 - side]);
    }
}

static void shut_reading(void)
{
    int e[2];
    warm_pair(e);
    show("shutdown", shutdown(e[0], SHUT_RD));
    show("read", recv(e[0], buf, 10, 0));
    show("send", send(e[1], buf, 100, 0));
    show("read what came", recv(e[0], buf, 200, MSG_DONTWAIT));
    show("read", recv(e[0], buf, 10, MSG_DONTWAIT));
    show("it still sends", send(e[0], buf, 100, 0));
    show("which comes", recv(e[1], buf, 200, 0));
}

static void shut_both(void)
{
    int e[2];
    warm_pair(e);
    put(e[0], 300);
    show("shutdown", shutdown(e[0], SHUT_RDWR));
    show("read", recv(e[0], buf, 10, 0));
    show("send", send(e[0], buf, 10, MSG_NOSIGNAL));
    show("peer", recv(e[1], buf, sizeof buf, 0));
    show("peer's end", recv(e[1], buf, sizeof buf, 0));
}

static void reset_unread(void)
{
    int e[2];
    warm_pair(e);
    put(e[0], 500);
    show("close with unread bytes", close(e[1]));
    show("peer reads", recv(e[0], buf, 10, 0));
    show("peer sends", send(e[0], buf, 10, MSG_NOSIGNAL));
    show("peer reads again", recv(e[0], buf, 10, 0));
    close(e[0]);
    warm_pair(e);
    put(e[0], 500);
    show("read some", recv(e[1], buf, 100, 0));
    show("close with unread bytes", close(e[1]));
    struct pollfd p = {.fd = e[0], .events = POLLIN | POLLOUT};
    show("poll", poll(&p, 1, 1000));
    say("revents: %#x", (unsigned)p.revents);
    show("peer reads", recv(e[0], buf, 10, 0));
}

static void reset_by_linger(void)
{
    int e[2];
    struct linger now = {1, 0};
    warm_pair(e);
    show("linger", setsockopt(e[1], SOL_SOCKET, SO_LINGER, &now, sizeof now));
    show("close", close(e[1]));
    show("peer reads", recv(e[0], buf, 10, 0));
    show("and again", recv(e[0], buf, 10, 0));
}

static void peer_closed(void)
{
    int e[2];
    handle(SIGPIPE, on_pipe, 0);
    warm_pair(e);
    show("close", close(e[1]));
    show("first send", send(e[0], buf, 10, MSG_NOSIGNAL));
    usleep(2000);
    show("second send", send(e[0], buf, 10, MSG_NOSIGNAL));
    say("signals: %d", (int)pipes);
    show("third, by write", write(e[0], buf, 10));
    say("signals: %d", (int)pipes);
    show("read", read(e[0], buf, 10));
    close(e[0]);
    warm_pair(e);
    put(e[1], 200);
    show("close", close(e[1]));
    show("read", read(e[0], buf, 100));
    show("read", read(e[0], buf, 200));
    show("read at the end", read(e[0], buf, 100));
    show("read at the end", read(e[0], buf, 100));
}

static void timeouts(void)
{
    int e[2];
    warm_pair(e);
    receive_timeout(e[0], 40);
    double start = ms();
    show("recv", recv(e[0], buf, 10, 0));
    show_wait("recv", start, 40);
    put(e[1], 30);
    show("recv", recv(e[0], buf, 100, 0));
    put(e[1], 30);
    start = ms();
    show("all of 100 when 30 come", recv(e[0], buf, 100, MSG_WAITALL));
    show_wait("it", start, 40);
    receive_timeout(e[0], 20);
    start = ms();
    show("read", read(e[0], buf, 10));
    show_wait("read", start, 20);
    struct timeval tv = {0};
    socklen_t len = sizeof tv;
    show("getsockopt", getsockopt(e[0], SOL_SOCKET, SO_RCVTIMEO, &tv, &len));
    say("says %ld us", (long)tv.tv_usec);
}

static void flags(void)
{
    int e[2];
    warm_pair(e);
    show("nothing", recv(e[0], buf, 10, MSG_DONTWAIT));
    for (uint32_t i = 0; i < 3; i++) {
        fill(buf, 100, i * 100);
        must_send(e[1], buf, 100);
    }
    uint8_t want[300];
    fill(want, 300, 0);
    show("peek", recv(e[0], buf, 50, MSG_PEEK));
    say("right: %d", !memcmp(buf, want, 50));
    show("peek more", recv(e[0], buf, sizeof buf, MSG_PEEK));
    say("right: %d", !memcmp(buf, want, 100));
    show("all", recv(e[0], buf, 250, MSG_WAITALL));
    say("right: %d", !memcmp(buf, want, 250));
    show("peek and do not wait", recv(e[0], buf, 100, MSG_PEEK | MSG_DONTWAIT));
    show("the rest", recv(e[0], buf, 100, MSG_DONTWAIT));
    say("right: %d", !memcmp(buf, want + 250, 50));
    show("nothing", recv(e[0], buf, 100, MSG_PEEK | MSG_DONTWAIT));
    show("all, not waiting", recv(e[0], buf, 100, MSG_WAITALL | MSG_DONTWAIT));
    put(e[1], 60);
    show("all of 100 when 60 are there, not waiting", recv(e[0], buf, 100, MSG_WAITALL | MSG_DONTWAIT));
    put(e[1], 80);
    show("thrown away", recv(e[0], NULL, 30, MSG_TRUNC));
    show("what was behind", recv(e[0], buf, 100, MSG_DONTWAIT));
}

static void nothing(void)
{
    int e[2];
    warm_pair(e);
    show("send of nothing", send(e[0], buf, 0, 0));
    show("write of nothing", write(e[0], buf, 0));
    show("read of nothing", read(e[1], buf, 0));
    put(e[0], 5);
    show("recv of nothing when 5 are there", recv(e[1], buf, 0, 0));
    show("recv", recv(e[1], buf, 10, 0));
    static struct iovec parts[1025];
    show("too many parts", writev(e[0], parts, 1025));
    show("no descriptor", recv(9999, buf, 10, 0));
}

static void nothing_of_nothing(void)
{
    int e[2];
    warm_pair(e);
    show("recv of nothing", recv(e[1], buf, 0, MSG_DONTWAIT));
}

static void unread_count(void)
{
    int e[2], n = -1;
    warm_pair(e);
    show("ioctl", ioctl(e[0], FIONREAD, &n));
    say("unread: %d", n);
    put(e[1], 1);
    put(e[1], 999);
    put(e[1], 30000);
    ioctl(e[0], FIONREAD, &n);
    say("unread: %d", n);
    recv(e[0], buf, 500, MSG_WAITALL);
    ioctl(e[0], SIOCINQ, &n);
    say("unread: %d", n);
    recv(e[0], buf, 30500, MSG_WAITALL);
    ioctl(e[0], FIONREAD, &n);
    say("unread: %d", n);
    close(e[1]);
    show("end", recv(e[0], buf, 10, 0));
    show("ioctl", ioctl(e[0], FIONREAD, &n));
    say("unread: %d", n);
}

static void end_again(void)
{
    int e[2];
    warm_pair(e);
    put(e[1], 10);
    close(e[1]);
    show("recv", recv(e[0], buf, 100, 0));
    struct iovec iov = {buf, 10};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    for (int i = 0; i < 3; i++) {
        show("recv", recv(e[0], buf, 100, 0));
        show("read", read(e[0], buf, 100));
        show("recvmsg", recvmsg(e[0], &msg, 0));
        show("peek", recv(e[0], buf, 100, MSG_PEEK));
        show("all", recv(e[0], buf, 100, MSG_WAITALL));
        struct pollfd p = {.fd = e[0], .events = POLLIN | POLLRDHUP};
        show("poll", poll(&p, 1, 1000));
        say("revents: %#x", (unsigned)p.revents);
    }
}

/* At the end of the stream a call that does not wait says so, too. */
static void end_not_waiting(void)
{
    int e[2];
    warm_pair(e);
    show("nothing", recv(e[0], buf, 100, MSG_DONTWAIT));
    close(e[1]);
    for (int i = 0; i < 3; i++)
        show("not waiting", recv(e[0], buf, 100, MSG_DONTWAIT));
}

static void connecting(void)
{
    struct sockaddr_in at;
    int l = listener(&at), e[2], error = -1;
    socklen_t len = sizeof error;
    e[0] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    show("connect", connect(e[0], (struct sockaddr *)&at, sizeof at));
    struct pollfd p = {.fd = e[0], .events = POLLOUT};
    show("poll", poll(&p, 1, 1000));
    say("revents: %#x", (unsigned)p.revents);
    getsockopt(e[0], SOL_SOCKET, SO_ERROR, &error, &len);
    say("error: %d", error);
    show("connect again", connect(e[0], (struct sockaddr *)&at, sizeof at));
    e[1] = accept4(l, NULL, NULL, SOCK_NONBLOCK);
    show("recv", recv(e[0], buf, 10, 0));
    fcntl(e[0], F_SETFL, 0);
    fcntl(e[1], F_SETFL, 0);
    warm(e);
    say("warm");
    close(l);
    int refused = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    show("connect", connect(refused, (struct sockaddr *)&at, sizeof at));
    p.fd = refused;
    show("poll", poll(&p, 1, 1000));
    say("revents: %#x", (unsigned)p.revents);
    getsockopt(refused, SOL_SOCKET, SO_ERROR, &error, &len);
    say("error: %s", strerrorname_np(error));
    show("send", send(refused, buf, 10, MSG_NOSIGNAL));
    show("recv", recv(refused, buf, 10, 0));
}

static void switching(void)
{
    int e[2], on = 1, off = 0;
    warm_pair(e);
    receive_timeout(e[0], 20);
    show("F_SETFL", fcntl(e[0], F_SETFL, fcntl(e[0], F_GETFL) | O_NONBLOCK));
    double start = ms();
    show("recv", recv(e[0], buf, 10, 0));
    show_wait("recv", start, 0);
    show("F_SETFL", fcntl(e[0], F_SETFL, fcntl(e[0], F_GETFL) & ~O_NONBLOCK));
    start = ms();
    show("recv", recv(e[0], buf, 10, 0));
    show_wait("recv", start, 20);
    show("FIONBIO", ioctl(e[0], FIONBIO, &on));
    start = ms();
    show("read", read(e[0], buf, 10));
    show_wait("read", start, 0);
    say("O_NONBLOCK: %d", (fcntl(e[0], F_GETFL) & O_NONBLOCK) != 0);
    show("FIONBIO", ioctl(e[0], FIONBIO, &off));
    start = ms();
    show("read", read(e[0], buf, 10));
    show_wait("read", start, 20);
    put(e[1], 10);
    show("recv", recv(e[0], buf, 10, 0));
}

static void interrupted(void)
{
    int e[2];
    warm_pair(e);
    struct pollfd p = {.fd = e[0], .events = POLLIN};
    int set = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    for (int restart = 0; restart < 2; restart++) {
        handle(SIGALRM, on_alarm, restart ? SA_RESTART : 0);
        say(restart ? "with SA_RESTART" : "without SA_RESTART");
        for (int sends = !restart ? 0 : 1; sends < 2; sends++) {
            alarm_fd = sends ? e[1] : -1;
            alarms = 0;
            alarm_in(20);
            double start = ms();
            show(sends ? "recv, the handler sends" : "recv", recv(e[0], buf, 100, 0));
            show_wait("it", start, 20);
            say("signals: %d", (int)alarms);
            if (sends && !restart)
                show("what the handler sent", recv(e[0], buf, 100, 0));
        }
        alarm_fd = -1;
        alarm_in(20);
        show("poll", poll(&p, 1, 1000));
        alarm_in(20);
        fd_set rd;
        FD_ZERO(&rd);
        FD_SET(e[0], &rd);
        show("select", select(e[0] + 1, &rd, NULL, NULL, NULL));
        if (!restart)
            epoll_ctl(set, EPOLL_CTL_ADD, e[0], &event);
        alarm_in(20);
        show("epoll_wait", epoll_wait(set, &event, 1, 1000));
        put(e[1], 10);
        show("recv", recv(e[0], buf, 100, 0));
    }
}

/* A millisecond after the call began: a reader that spins is not in the kernel yet. With several handlers, the one that runs counts. */
static void interrupted_soon(void)
{
    int e[2];
    warm_pair(e);
    struct pollfd p = {.fd = e[0], .events = POLLIN};
    int set = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(set, EPOLL_CTL_ADD, e[0], &event);
    handle(SIGUSR1, on_alarm, 0);
    for (int restart = 0; restart < 2; restart++) {
        handle(SIGALRM, on_alarm, restart ? SA_RESTART : 0);
        for (int i = 0; i < 5; i++) {
            alarm_fd = restart ? e[1] : -1;
            alarm_in(1);
            show("recv", recv(e[0], buf, 100, 0));
            alarm_fd = -1;
            alarm_in(1);
            show("poll", poll(&p, 1, 1000));
            alarm_in(1);
            show("epoll_wait", epoll_wait(set, &event, 1, 1000));
        }
    }
    struct sigaction was;
    show("sigaction", sigaction(SIGALRM, NULL, &was));
    say("ours: %d, flags: %#x", was.sa_handler == on_alarm, (unsigned)was.sa_flags & ~0x04000000u);
    say("signal says ours: %d", signal(SIGALRM, on_pipe) == on_alarm);
    say("signal says ours: %d", signal(SIGALRM, SIG_IGN) == on_pipe);
    say("and then: %d", signal(SIGALRM, on_alarm) == SIG_IGN);
    sigaction(SIGALRM, NULL, &was);
    say("restarts: %d", !!(was.sa_flags & SA_RESTART));
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    siginterrupt(SIGALRM, 1);
#pragma GCC diagnostic pop
    sigaction(SIGALRM, NULL, &was);
    say("restarts: %d", !!(was.sa_flags & SA_RESTART));
    alarm_in(1);
    show("recv", recv(e[0], buf, 100, 0));
    show("a bad signal", sigaction(0, NULL, &was));
    show("another one", sigaction(SIGKILL, &was, NULL));
    say("signal: %d", signal(SIGKILL, on_alarm) == SIG_ERR);
    sigaction(SIGALRM, NULL, &was);
    say("still ours: %d", was.sa_handler == on_alarm);
}

/* signal(7): a call with a time-out is never restarted. */
static void interrupted_with_timeout(void)
{
    for (int restart = 0; restart < 2; restart++) {
        int e[2];
        warm_pair(e);
        handle(SIGALRM, on_alarm, restart ? SA_RESTART : 0);
        receive_timeout(e[0], 100);
        alarm_in(20);
        double start = ms();
        show(restart ? "recv, SA_RESTART" : "recv", recv(e[0], buf, 100, 0));
        show_wait("it", start, 20);
    }
}

static void interrupted_partly(void)
{
    int e[2];
    warm_pair(e);
    handle(SIGALRM, on_alarm, 0);
    alarm_in(20);
    put(e[1], 30);
    show("all of 100 when 30 come, interrupted", recv(e[0], buf, 100, MSG_WAITALL));
    say("signals: %d", (int)alarms);
}

static void copies(void)
{
    int e[2];
    warm_pair(e);
    int two = dup(e[0]), three = fcntl(e[0], F_DUPFD_CLOEXEC, 100), four = dup2(e[0], 200);
    show("send", send(e[0], "a", 1, 0));
    show("send by dup", send(two, "b", 1, 0));
    show("send by F_DUPFD", send(three, "c", 1, 0));
    show("send by dup2", send(four, "d", 1, 0));
    show("recv", recv(e[1], buf, 4, MSG_WAITALL));
    say("%.4s", buf);
    put(e[1], 40);
    show("recv", recv(e[0], buf, 10, 0));
    show("recv by dup", recv(two, buf, 10, 0));
    show("recv by F_DUPFD", recv(three, buf, 10, 0));
    show("recv by dup2", recv(four, buf, 10, 0));
    show("nothing", recv(two, buf, 10, MSG_DONTWAIT));
    fcntl(two, F_SETFL, O_NONBLOCK);
    show("one flag for all", recv(e[0], buf, 10, 0));
    fcntl(four, F_SETFL, 0);
    show("close", close(e[0]));
    show("close", close(three));
    put(e[1], 10);
    show("recv by dup", recv(two, buf, 10, 0));
    show("send by dup2", send(four, "e", 1, 0));
    show("recv", recv(e[1], buf, 10, 0));
    show("dup2 over it", dup2(two, four));
    put(e[1], 10);
    show("recv by dup2", recv(four, buf, 10, 0));
    close(two);
    close(four);
    show("end", recv(e[1], buf, 10, 0));
}

static void copied_early(void)
{
    int e[2];
    connected(e);
    int two = dup(e[0]);
    const int by_copy[2] = {two, e[1]};
    warm(e);
    warm(by_copy);
    close(e[0]);
    warm(by_copy);
    close(two);
    show("end", recv(e[1], buf, 10, 0));
}

static void polling(void)
{
    int e[2];
    warm_pair(e);
    struct pollfd p[3] = {{.fd = e[0], .events = POLLIN}, {.fd = e[0], .events = POLLIN | POLLOUT}, {.fd = -1, .events = POLLIN}};
    double start = ms();
    show("poll of one", poll(p, 1, 20));
    show_wait("it", start, 20);
    show("poll for writing", poll(p, 3, 1000));
    say("revents: %#x %#x %#x", (unsigned)p[0].revents, (unsigned)p[1].revents, (unsigned)p[2].revents);
    put(e[1], 10);
    show("poll", poll(p, 3, 1000));
    say("revents: %#x %#x %#x", (unsigned)p[0].revents, (unsigned)p[1].revents, (unsigned)p[2].revents);
    fd_set rd, wr;
    FD_ZERO(&rd);
    FD_ZERO(&wr);
    FD_SET(e[0], &rd);
    FD_SET(e[1], &rd);
    FD_SET(e[0], &wr);
    struct timeval tv = {1, 0};
    show("select", select(e[0] > e[1] ? e[0] + 1 : e[1] + 1, &rd, &wr, NULL, &tv));
    say("sets: %d %d %d", FD_ISSET(e[0], &rd) != 0, FD_ISSET(e[1], &rd) != 0, FD_ISSET(e[0], &wr) != 0);
    recv(e[0], buf, 10, 0);
    struct timespec ts = {0, 20000000};
    start = ms();
    show("ppoll", ppoll(p, 1, &ts, NULL));
    show_wait("it", start, 20);
    FD_ZERO(&rd);
    FD_SET(e[0], &rd);
    tv = (struct timeval){0, 20000};
    start = ms();
    show("select", select(e[0] + 1, &rd, NULL, NULL, &tv));
    show_wait("it", start, 20);
    shutdown(e[1], SHUT_WR);
    p[0].events = POLLIN | POLLRDHUP;
    show("poll at the end", poll(p, 1, 1000));
    say("revents: %#x", (unsigned)p[0].revents);
    close(e[0]);
    show("poll of a closed one", poll(p, 1, 1000));
    say("revents: %#x", (unsigned)p[0].revents);
}

static void epoll_times(void)
{
    int e[2], set = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = 7};
    warm_pair(e);
    epoll_ctl(set, EPOLL_CTL_ADD, e[0], &event);
    for (int wanted = 0; wanted <= 40; wanted += wanted ? 13 : 1) {
        double start = ms();
        show("epoll_wait", epoll_wait(set, &event, 1, wanted));
        show_wait("it", start, wanted);
        /* open the ring, for the next wait to doze on */
        put(e[1], 10);
        show("epoll_wait", epoll_wait(set, &event, 1, 1000));
        say("events: %#x of %u", event.events, event.data.u32);
        show("recv", recv(e[0], buf, 100, 0));
        show("recv", recv(e[0], buf, 100, MSG_DONTWAIT));
    }
    struct timespec ts = {0, 5500000};
    double start = ms();
    show("epoll_pwait2", epoll_pwait2(set, &event, 1, &ts, NULL));
    show_wait("it", start, 5.5);
}

static void epoll_edges(void)
{
    int e[2], set = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u32 = 7};
    warm_pair(e);
    epoll_ctl(set, EPOLL_CTL_ADD, e[0], &event);
    show("nothing", epoll_wait(set, &event, 1, 0));
    for (int i = 0; i < 3; i++) {
        put(e[1], 100);
        show("edge", epoll_wait(set, &event, 1, 1000));
        show("recv", recv(e[0], buf, 100, 0));
        show("recv", recv(e[0], buf, 100, MSG_DONTWAIT));
    }
    put(e[1], 100);
    show("edge", epoll_wait(set, &event, 1, 1000));
    put(e[1], 100);
    show("a new edge, unread bytes or not", epoll_wait(set, &event, 1, 1000));
    show("recv", recv(e[0], buf, 200, MSG_WAITALL));
    show("recv", recv(e[0], buf, 100, MSG_DONTWAIT));
    event.events = EPOLLIN | EPOLLONESHOT;
    show("oneshot", epoll_ctl(set, EPOLL_CTL_MOD, e[0], &event));
    put(e[1], 100);
    show("once", epoll_wait(set, &event, 1, 1000));
    put(e[1], 100);
    show("not twice", epoll_wait(set, &event, 1, 20));
    event.events = EPOLLIN | EPOLLONESHOT;
    show("armed again", epoll_ctl(set, EPOLL_CTL_MOD, e[0], &event));
    show("what was there", epoll_wait(set, &event, 1, 1000));
    show("recv", recv(e[0], buf, 200, MSG_WAITALL));
    event.events = EPOLLIN | EPOLLRDHUP;
    epoll_ctl(set, EPOLL_CTL_MOD, e[0], &event);
    put(e[1], 50);
    show("level", epoll_wait(set, &event, 1, 1000));
    show("level again", epoll_wait(set, &event, 1, 1000));
    close(e[1]);
    show("end", epoll_wait(set, &event, 1, 1000));
    show("recv", recv(e[0], buf, 200, 0));
    show("end", epoll_wait(set, &event, 1, 1000));
    say("events: %#x", event.events);
    show("recv", recv(e[0], buf, 200, 0));
    show("del", epoll_ctl(set, EPOLL_CTL_DEL, e[0], NULL));
    show("nothing", epoll_wait(set, &event, 1, 10));
}

/* One-shot, and reported by the kernel: bytes by ring are no second report. */
static void oneshot_by_kernel(void)
{
    int e[2], set = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT};
    FILE *file = tmpfile();
    fwrite(buf, 1, 100, file);
    fflush(file);
    warm_pair(e);
    epoll_ctl(set, EPOLL_CTL_ADD, e[0], &event);
    off_t at = 0;
    show("sendfile", sendfile(e[1], fileno(file), &at, 100));
    show("once", epoll_wait(set, &event, 1, 1000));
    put(e[1], 100);
    show("not twice", epoll_wait(set, &event, 1, 20));
    show("recv", recv(e[0], buf, 200, MSG_WAITALL));
    put(e[1], 100);
    show("not twice", epoll_wait(set, &event, 1, 20));
    event.events = EPOLLIN | EPOLLONESHOT;
    show("armed again", epoll_ctl(set, EPOLL_CTL_MOD, e[0], &event));
    show("once", epoll_wait(set, &event, 1, 1000));
}

/* A member of two sets: whichever is waited on hears of it. */
static void two_sets(void)
{
    for (int which = 0; which < 2; which++) {
        int e[2], sets[2] = {epoll_create1(0), epoll_create1(0)};
        struct epoll_event event = {.events = EPOLLIN};
        connected(e);
        for (int i = 0; i < 2; i++)
            epoll_ctl(sets[i], EPOLL_CTL_ADD, e[0], &event);
        warm(e);
        for (int i = 0; i < 3; i++) {
            put(e[1], 10);
            show(which ? "the second" : "the first", epoll_wait(sets[which], &event, 1, 300));
            show("the other one", epoll_wait(sets[!which], &event, 1, 300));
            show("recv", recv(e[0], buf, 100, MSG_DONTWAIT));
            show("nothing", recv(e[0], buf, 100, MSG_DONTWAIT));
        }
    }
}

/* The end comes at once after the last bytes: its edge must not be lost to a look at the kernel's queue that was spared. */
static void end_by_edge(void)
{
    for (int way = 0; way < 2; way++) {
        int ended = 0;
        for (int i = 0; i < 40; i++) {
            int e[2], set = epoll_create1(0);
            struct epoll_event event = {.events = EPOLLIN | EPOLLET};
            warm_pair(e);
            epoll_ctl(set, EPOLL_CTL_ADD, e[0], &event);
            fcntl(e[0], F_SETFL, O_NONBLOCK);
            put(e[1], 10);
            ssize_t r;
            long got = 0;
            int waits = 0;
            bool closed = false;
            do {
                while ((r = recv(e[0], buf, 100, 0)) > 0)
                    got += r;
                if (r == 0)
                    break;
                if (!closed)
                    way ? (void)shutdown(e[1], SHUT_WR) : (void)close(e[1]);
                closed = true;
            } while (epoll_wait(set, &event, 1, 300) == 1 && waits++ < 4);
            ended += r == 0 && got == 10;
            close(e[0]);
            if (way)
                close(e[1]);
            close(set);
            if (!r)
                continue;
            break;
        }
        say(way ? "ends by shutdown: %d" : "ends by close: %d", ended);
    }
}

static void messages(void)
{
    int e[2];
    warm_pair(e);
    struct iovec out[3] = {{buf, 10}, {buf + 10, 0}, {buf + 10, 20}};
    struct mmsghdr many[2] = {{.msg_hdr = {.msg_iov = out, .msg_iovlen = 3}}, {.msg_hdr = {.msg_iov = out, .msg_iovlen = 1}}};
    fill(buf, 100, 0);
    show("writev", writev(e[0], out, 3));
    show("sendmsg", sendmsg(e[0], &many[0].msg_hdr, 0));
    show("sendmmsg", sendmmsg(e[0], many, 2, 0));
    say("lengths: %u %u", many[0].msg_len, many[1].msg_len);
    uint8_t in[100] = {0}, control[64];
    struct sockaddr_in from;
    struct iovec parts[2] = {{in, 15}, {in + 15, 15}};
    show("readv", readv(e[1], parts, 2));
    say("right: %d", !memcmp(in, buf, 30));
    struct msghdr msg = {
        .msg_iov = parts, .msg_iovlen = 2, .msg_name = &from, .msg_namelen = sizeof from, .msg_control = control, .msg_controllen = 64};
    show("recvmsg", recvmsg(e[1], &msg, MSG_WAITALL));
    say("flags %#x, name of %u, control of %zu", (unsigned)msg.msg_flags, msg.msg_namelen, msg.msg_controllen);
    socklen_t len = sizeof from;
    show("recvfrom", recvfrom(e[1], in, 30, MSG_WAITALL, (struct sockaddr *)&from, &len));
    struct mmsghdr got[2] = {{.msg_hdr = {.msg_iov = parts, .msg_iovlen = 1}}, {.msg_hdr = {.msg_iov = parts, .msg_iovlen = 1}}};
    show("recvmmsg", recvmmsg(e[1], got, 2, MSG_WAITFORONE, NULL));
    say("length: %u", got[0].msg_len);
}

static void files(void)
{
    int e[2], ends[2];
    warm_pair(e);
    FILE *file = tmpfile();
    fill(buf, 5000, 0);
    fwrite(buf, 1, 5000, file);
    fflush(file);
    off_t at = 1000;
    show("send", send(e[0], "abc", 3, 0));
    show("sendfile", sendfile(e[0], fileno(file), &at, 3000));
    say("offset: %ld", (long)at);
    show("send", send(e[0], "xyz", 3, 0));
    uint8_t in[3006];
    show("recv", recv(e[1], in, sizeof in, MSG_WAITALL));
    say("in order: %d", !memcmp(in, "abc", 3) && !memcmp(in + 3, buf + 1000, 3000) && !memcmp(in + 3003, "xyz", 3));
    if (pipe(ends) != 0)
        fail("pipe");
    put(e[0], 700);
    show("splice", splice(e[1], NULL, ends[1], NULL, 700, 0));
    show("read", read(ends[0], in, 700));
    fill(buf, 700, 0);
    say("right: %d", !memcmp(in, buf, 700));
    show("write", write(ends[1], buf, 500));
    show("splice", splice(ends[0], NULL, e[0], NULL, 500, 0));
    show("send", send(e[0], "end", 3, 0));
    show("recv", recv(e[1], in, 503, MSG_WAITALL));
    say("in order: %d", !memcmp(in, buf, 500) && !memcmp(in + 500, "end", 3));
}

static void full(void)
{
    int e[2];
    warm_pair(e);
    long sent = 0, got = 0, r;
    fill(buf, sizeof buf, 0);
    while ((r = send(e[0], buf, sizeof buf, MSG_DONTWAIT)) > 0)
        sent += r;
    show("full", r);
    struct pollfd p = {.fd = e[0], .events = POLLOUT};
    show("writable", poll(&p, 1, 0));
    while ((r = recv(e[1], buf, sizeof buf, MSG_DONTWAIT)) > 0)
        got += r;
    show("empty", r);
    usleep(2000);
    while ((r = recv(e[1], buf, sizeof buf, MSG_DONTWAIT)) > 0)
        got += r;
    say("all came: %d, enough: %d", sent == got, sent > 100000);
    show("writable", poll(&p, 1, 1000));
    warm(e);
}

static void stdio_late(void)
{
    int e[2];
    warm_pair(e);
    FILE *file = fdopen(e[0], "r+");
    must_send(e[1], "line\n", 5);
    char line[100];
    show("fgets", fgets(line, sizeof line, file) ? (long)strlen(line) : -1);
    show("fputs", fputs("answer\n", file) >= 0 && fflush(file) == 0);
    show("recv", recv(e[1], buf, 100, 0));
    show("fclose", fclose(file));
    show("end", recv(e[1], buf, 100, 0));
}

/* Bytes that are in a ring when stdio takes over: it is read inside libc. */
static void stdio_unread(void)
{
    int e[2];
    warm_pair(e);
    fcntl(e[0], F_SETFL, O_NONBLOCK);
    must_send(e[1], "before\n", 7);
    FILE *file = fdopen(e[0], "r+");
    must_send(e[1], "after\n", 6);
    char line[100];
    for (int i = 0; i < 2; i++)
        say("%s", fgets(line, sizeof line, file) ? line : strerrorname_np(errno));
}

static void options(void)
{
    int e[2], value = -1, again = 50000;
    socklen_t len = sizeof value;
    struct sockaddr_in here, there;
    socklen_t here_len = sizeof here, there_len = sizeof there;
    warm_pair(e);
    show("SO_ERROR", getsockopt(e[0], SOL_SOCKET, SO_ERROR, &value, &len));
    say("value: %d", value);
    getsockopt(e[0], SOL_SOCKET, SO_TYPE, &value, &len);
    say("type: %d", value);
    show("names", getsockname(e[0], (struct sockaddr *)&here, &here_len) + getpeername(e[1], (struct sockaddr *)&there, &there_len));
    say("same: %d", !memcmp(&here, &there, sizeof here));
    show("SO_SNDBUF", setsockopt(e[0], SOL_SOCKET, SO_SNDBUF, &again, sizeof again));
    show("SO_KEEPALIVE", setsockopt(e[0], SOL_SOCKET, SO_KEEPALIVE, &(int){1}, sizeof(int)));
    show("TCP_CORK", setsockopt(e[0], IPPROTO_TCP, TCP_CORK, &(int){1}, sizeof(int)));
    put(e[0], 10);
    show("TCP_CORK", setsockopt(e[0], IPPROTO_TCP, TCP_CORK, &(int){0}, sizeof(int)));
    show("recv", recv(e[1], buf, 100, 0));
    show("MSG_MORE", send(e[0], buf, 10, MSG_MORE));
    show("send", send(e[0], buf, 10, 0));
    show("recv", recv(e[1], buf, 20, MSG_WAITALL));
    show("SO_RCVLOWAT", setsockopt(e[1], SOL_SOCKET, SO_RCVLOWAT, &(int){20}, sizeof(int)));
    put(e[0], 10);
    struct pollfd p = {.fd = e[1], .events = POLLIN};
    show("10 of 20", poll(&p, 1, 10));
    put(e[0], 10);
    show("20 of 20", poll(&p, 1, 1000));
    show("recv", recv(e[1], buf, 20, 0));
}

int main(int argc, char **argv)
{
    static const struct scene scenes[] = {
        {"half_close", half_close},
        {"shut_reading", shut_reading},
        {"shut_both", shut_both},
        {"reset_unread", reset_unread},
        {"reset_by_linger", reset_by_linger},
        {"peer_closed", peer_closed},
        {"timeouts", timeouts},
        {"flags", flags},
        {"nothing", nothing},
        {"nothing_of_nothing", nothing_of_nothing},
        {"unread_count", unread_count},
        {"end_again", end_again},
        {"end_not_waiting", end_not_waiting},
        {"connecting", connecting},
        {"switching", switching},
        {"interrupted", interrupted},
        {"interrupted_soon", interrupted_soon},
        {"interrupted_with_timeout", interrupted_with_timeout},
        {"interrupted_partly", interrupted_partly},
        {"copies", copies},
        {"copied_early", copied_early},
        {"polling", polling},
        {"epoll_times", epoll_times},
        {"epoll_edges", epoll_edges},
        {"oneshot_by_kernel", oneshot_by_kernel},
        {"two_sets", two_sets},
        {"end_by_edge", end_by_edge},
        {"messages", messages},
        {"files", files},
        {"full", full},
        {"stdio_late", stdio_late},
        {"stdio_unread", stdio_unread},
        {"options", options},
    };
    return play(scenes, sizeof scenes / sizeof *scenes, argc, argv);
}
