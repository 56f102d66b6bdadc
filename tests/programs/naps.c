/*
 * What ends a blocking recv whose thread sleeps behind its doorbell alone, for each way in which a stream goes on or ends:
 *
 *     naps SCENE [poll]
 *
 * The reader's peer is a process of its own: it sends a few small messages, far enough apart for the reader to sleep between them,
 * is silent for SILENT_MS, and then does what the scene is named after. The lines are the same on the kernel and through the library.
 */
#include "pairs.h"

#define SILENT_MS 5
#define MESSAGES 100

static char buf[4096];
static void (*what)(int fd);
static bool polled; /* wait in poll(2) first */

static ssize_t receive(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (polled && poll(&p, 1, -1) != 1)
        return -1;
    return recv(fd, buf, sizeof buf, 0);
}

static void peer(int fd)
{
    for (int i = 0; i < MESSAGES; i++) {
        send(fd, "message", 8, 0);
        receive(fd);
        usleep(200);
    }
    send(fd, "message", 8, 0);
    usleep(SILENT_MS * 1000);
    what(fd);
}

/* A connection whose peer is about to do it; the last message has just come. */
static int silent(void (*act)(int fd), pid_t *pid)
{
    what = act;
    int fd = with_child(peer, pid);
    for (int i = 0; i < MESSAGES; i++) {
        receive(fd);
        send(fd, "answer", 7, 0);
    }
    show("the last message", receive(fd));
    return fd;
}

/* Somebody has to end the nap: by itself it lasts a second, where the test says so. */
static void wait_for(void (*act)(int))
{
    pid_t pid;
    int fd = silent(act, &pid);
    double start = ms();
    show("recv", receive(fd));
    say("it took less than half a second: %d", ms() - start < 500);
    show("recv", receive(fd));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void act_send(int s)
{
    send(s, "more", 5, 0);
    usleep(SILENT_MS * 1000);
    shutdown(s, SHUT_WR);
    pause();
}

/* Control data makes the library send natively. */
static void act_send_natively(int s)
{
    struct iovec iov = {"more", 5};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    union {
        char room[CMSG_SPACE(4)];
        struct cmsghdr align;
    } control = {.align = {.cmsg_len = CMSG_LEN(4), .cmsg_level = SOL_SOCKET, .cmsg_type = SO_MARK}};
    msg.msg_control = &control;
    msg.msg_controllen = sizeof control;
    if (sendmsg(s, &msg, 0) < 0)
        send(s, "more", 5, 0); /* marks need a privilege */
    usleep(SILENT_MS * 1000);
    shutdown(s, SHUT_WR);
    pause();
}

static void act_shutdown(int s)
{
    shutdown(s, SHUT_WR);
    pause();
}

static void act_close(int s)
{
    close(s);
    pause();
}

static void act_reset(int s)
{
    struct linger now = {1, 0};
    setsockopt(s, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(s);
    pause();
}

static void act_exit(int s)
{
    (void)s;
    exit(0);
}

static void act_die(int s)
{
    (void)s;
    kill(getpid(), SIGKILL);
}

/* The library does not see this child: it shares its parent's memory, and sends natively. */
static void act_child_sends(int s)
{
    pid_t pid = vfork();
    if (pid == 0) {
        send(s, "more", 5, 0);
        _exit(0);
    }
    usleep(SILENT_MS * 1000);
    shutdown(s, SHUT_WR);
    pause();
}

static void sent(void)
{
    wait_for(act_send);
}
static void sent_natively(void)
{
    wait_for(act_send_natively);
}
static void shut(void)
{
    wait_for(act_shutdown);
}
static void closed(void)
{
    wait_for(act_close);
}
static void reset(void)
{
    wait_for(act_reset);
}
static void exited(void)
{
    wait_for(act_exit);
}
static void killed_peer(void)
{
    wait_for(act_die);
}
static void child_sends(void)
{
    wait_for(act_child_sends);
}

static volatile sig_atomic_t alarms;

static void on_alarm(int sig)
{
    (void)sig;
    alarms++;
}

static void silent_for_long(int s)
{
    usleep(60000);
    send(s, "more", 5, 0);
    pause();
}

/* A signal in the middle, with and without SA_RESTART; silence longer than any nap. */
static void signalled(void)
{
    for (int restart = 0; restart < 2; restart++) {
        pid_t pid;
        int fd = silent(silent_for_long, &pid);
        struct sigaction act = {.sa_handler = on_alarm, .sa_flags = restart ? SA_RESTART : 0};
        sigaction(SIGALRM, &act, NULL);
        struct itimerval in = {.it_value = {0, 3000}};
        double start = ms();
        setitimer(ITIMER_REAL, &in, NULL);
        show("recv", receive(fd));
        say("it took more than 30 ms: %d", ms() - start > 30); /* poll(2) is never restarted, signal(7) */
        say("alarms: %d", (int)alarms);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        close(fd);
    }
}

int main(int argc, char **argv)
{
    static const struct scene scenes[] = {
        {"sent", sent},
        {"sent_natively", sent_natively},
        {"shut", shut},
        {"closed", closed},
        {"reset", reset},
        {"exited", exited},
        {"killed_peer", killed_peer},
        {"child_sends", child_sends},
        {"signalled", signalled},
    };
    if (argc == 3 && !strcmp(argv[2], "poll")) {
        polled = true;
        argc = 2;
    }
    return play(scenes, sizeof scenes / sizeof *scenes, argc, argv);
}
