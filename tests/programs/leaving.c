/*
 * Handlers that leave: a signal comes in the middle of each call that waits, and of calls that do not, and its handler sends, jumps out
 * (siglongjmp), forks, or executes another image. Afterwards the same sockets work, in both directions.
 *
 *     leaving SCENE
 *
 * Without a scene it lists them. On the kernel and through the library the lines must be the same.
 */
#include "leaving.h"

#include <sched.h>
#include <setjmp.h>

#define WAIT_MS 3      /* until the signal comes: the call waits by then */
#define BUSY_US 60     /* between signals where calls do not wait */
#define BUSY_ROUNDS 400

/* What the handler does. */

enum { SENDS, SENDS_BACK, JUMPS, FORKS, EXECUTES };

static int act, now;
static volatile sig_atomic_t handled, wrong;
static sigjmp_buf back;
static pid_t child;
static char *self;

static void handler(int sig)
{
    int saved = errno;
    (void)sig;
    handled++;
    if (act == SENDS) {
        wrong += send(e[0], "same", 4, MSG_DONTWAIT | MSG_NOSIGNAL) == 0;
    } else if (act == SENDS_BACK) {
        wrong += send(u[1], "0123", 4, MSG_DONTWAIT) != 4 || send(e[1], "back", 4, MSG_DONTWAIT | MSG_NOSIGNAL) != 4;
    } else if (act == JUMPS) {
        siglongjmp(back, 1);
    } else if (act == FORKS && child >= 0) {
        child = fork();
    } else if (act == EXECUTES) {
        char next[16], fds[6][16];
        const int kept[6] = {e[0], e[1], u[0], u[1], set, listening};
        snprintf(next, sizeof next, "%d", now + 1);
        for (int i = 0; i < 6; i++)
            snprintf(fds[i], sizeof fds[i], "%d", kept[i]);
        execl(self, self, "executes", next, fds[0], fds[1], fds[2], fds[3], fds[4], fds[5], NULL);
        _exit(9);
    }
    errno = saved;
}

static void alarm_once(int ms_from_now)
{
    struct itimerval in = {.it_value = {0, ms_from_now * 1000}};
    setitimer(ITIMER_REAL, &in, NULL);
}

static void every(int microseconds)
{
    struct itimerval timer = {.it_interval = {0, microseconds}, .it_value = {0, microseconds}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

static const char *how(void)
{
    static const char *const names[] = {"the handler sends", "the handler sends to it", "jumped out", "forked", "executed"};
    return names[act];
}

static void in_each_call(int what)
{
    act = what;
    make();
    static volatile int i, again; /* beyond a jump */
    for (i = 0; i < (int)N_WAITING; i++)
        for (again = 0; again < 3; again++) {
            now = i;
            child = 0;
            handle(SIGALRM, handler, 0);
            if (sigsetjmp(back, 1) == 0) {
                alarm_once(WAIT_MS + again);
                long r = waiting[i].make();
                if (act == FORKS && child == 0) { /* it goes on with what it has */
                    if (r >= 0 || errno != EINTR)
                        _exit(r == 10 || r == 1 ? 0 : 2); /* what had come, or gone, by then */
                    drain(e[1]);
                    _exit(send(e[1], "from the child", 14, MSG_NOSIGNAL) == 14 ? 0 : 3);
                }
                if (act == FORKS) {
                    int status = 1;
                    if (child < 0 || waitpid(child, &status, 0) != child)
                        fail("waitpid");
                    if (status)
                        say("%s: the child ended with %#x", waiting[i].name, status);
                }
            }
            alarm_once(0);
            for (int fd = listening + 2; fd < 64; fd++) /* of a connect */
                if (fd != set)
                    close(fd);
            works(waiting[i].name, how());
        }
    say("wrong: %d, handled: %d", (int)wrong, (int)handled == (int)N_WAITING * 3);
}

static void sends(void)
{
    in_each_call(SENDS);
}

static void sends_back(void)
{
    in_each_call(SENDS_BACK);
}

static void jumps(void)
{
    in_each_call(JUMPS);
}

static void forks(void)
{
    in_each_call(FORKS);
}

/* From one image to the next, each out of the handler of a call. */
static void executes(int from)
{
    act = EXECUTES;
    if (from == 0)
        make();
    else
        works(waiting[from - 1].name, how());
    if (from == (int)N_WAITING)
        return;
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL); /* it is the handler's */
    if (!much)
        much = calloc(1, MUCH);
    now = from;
    handle(SIGALRM, handler, 0);
    alarm_once(WAIT_MS);
    (void)waiting[from].make();
    say("came back");
}

static void executes_first(void)
{
    executes(0);
}

/* Calls that do not wait, one after the other, with signals all the time. */
static void round_of_calls(void)
{
    uint8_t buf[200] = {0};
    struct pollfd p = {.fd = e[0], .events = POLLIN | POLLOUT};
    struct epoll_event event = {.events = EPOLLIN};
    fd_set rd;
    struct timeval none = {0, 0};
    (void)!send(e[1], buf, sizeof buf, MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)!recv(e[0], buf, sizeof buf, MSG_DONTWAIT);
    (void)!sendto(u[0], buf, sizeof buf, MSG_DONTWAIT, NULL, 0);
    (void)!recvfrom(u[1], buf, sizeof buf, MSG_DONTWAIT, NULL, NULL);
    (void)!poll(&p, 1, 0);
    FD_ZERO(&rd);
    FD_SET(e[0], &rd);
    (void)!select(e[0] + 1, &rd, NULL, NULL, &none);
    epoll_ctl(set, EPOLL_CTL_MOD, e[0], &event);
    epoll_ctl(set, EPOLL_CTL_DEL, e[0], NULL);
    epoll_ctl(set, EPOLL_CTL_ADD, e[0], &event);
    (void)!epoll_wait(set, &event, 1, 0);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    if (client < 0 || connect(client, (struct sockaddr *)&at, sizeof at) != 0)
        return;
    int server = accept(listening, NULL, NULL), copy = dup(server);
    for (int i = 0; i < 5; i++) {
        (void)!send(client, buf, sizeof buf, MSG_DONTWAIT | MSG_NOSIGNAL);
        (void)!recv(server, buf, sizeof buf, MSG_DONTWAIT);
        (void)!send(server, buf, sizeof buf, MSG_DONTWAIT | MSG_NOSIGNAL);
        (void)!recv(client, buf, sizeof buf, MSG_DONTWAIT);
    }
    shutdown(client, SHUT_WR);
    close(copy);
    close(server);
    close(client);
}

static void between(int what, int rounds)
{
    static volatile int done;
    act = what;
    make();
    fcntl(listening, F_SETFL, O_NONBLOCK);
    int first = set > listening ? set + 1 : listening + 1;
    handle(SIGALRM, handler, SA_RESTART);
    (void)sigsetjmp(back, 1);
    done++;
    every(BUSY_US);
    for (; done < rounds; done++) {
        round_of_calls();
        if (act == FORKS && child == 0 && handled)
            _exit(0);
        if (act == FORKS && child > 0) {
            waitpid(child, NULL, 0);
            child = 0;
            handled = 0;
        }
        if (done % 16 == 0 && act == JUMPS)
            for (int fd = first; fd < 64; fd++)
                close(fd);
    }
    every(0);
    for (int fd = first; fd < 64; fd++)
        close(fd);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(set, EPOLL_CTL_ADD, e[0], &event);
    works("calls that do not wait", how());
}

static void jumps_between(void)
{
    between(JUMPS, BUSY_ROUNDS * 4);
}

static void sends_between(void)
{
    between(SENDS_BACK, BUSY_ROUNDS);
}

int main(int argc, char **argv)
{
    static const struct scene scenes[] = {
        {"sends", sends},
        {"sends_back", sends_back},
        {"jumps", jumps},
        {"forks", forks},
        {"executes", executes_first},
        {"jumps_between", jumps_between},
        {"sends_between", sends_between},
    };
    self = argv[0];
    if (argc == 9) {
        e[0] = atoi(argv[3]);
        e[1] = atoi(argv[4]);
        u[0] = atoi(argv[5]);
        u[1] = atoi(argv[6]);
        set = atoi(argv[7]);
        listening = atoi(argv[8]);
        executes(atoi(argv[2]));
        return 0;
    }
    return play(scenes, sizeof scenes / sizeof *scenes, argc, argv);
}
