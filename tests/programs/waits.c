/*
 * Time-outs, poll, select and epoll over a connection of which one thread holds both ends. Line by line:
 *
 *     waits SCENE
 *
 * Without a scene it lists them. On the kernel and through the library the lines must be the same.
 */
#include "pairs.h"

static uint8_t buf[1 << 16];

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

int main(int argc, char **argv)
{
    static const struct scene scenes[] = {
        {"timeouts", timeouts},       {"switching", switching},     {"polling", polling},
        {"epoll_times", epoll_times}, {"epoll_edges", epoll_edges}, {"oneshot_by_kernel", oneshot_by_kernel},
        {"two_sets", two_sets},       {"end_by_edge", end_by_edge},
    };
    return play(scenes, sizeof scenes / sizeof *scenes, argc, argv);
}
