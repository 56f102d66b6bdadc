/*
 * What signals do to the calls that wait, by the kind of handler. Line by line:
 *
 *     signals SCENE
 *
 * Without a scene it lists them. On the kernel and through the library the lines must be the same.
 */
#include "pairs.h"

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

static void alarm_in(int milliseconds)
{
    struct itimerval in = {.it_value = {milliseconds / 1000, milliseconds % 1000 * 1000}};
    setitimer(ITIMER_REAL, &in, NULL);
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

int main(int argc, char **argv)
{
    static const struct scene scenes[] = {
        {"interrupted", interrupted},
        {"interrupted_soon", interrupted_soon},
        {"interrupted_with_timeout", interrupted_with_timeout},
        {"interrupted_partly", interrupted_partly},
    };
    return play(scenes, sizeof scenes / sizeof *scenes, argc, argv);
}
