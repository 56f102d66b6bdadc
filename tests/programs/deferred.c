/*
 * Signal handlers that run in the middle of a call on a lifted connection: they send on the very socket whose lock may be held, leave by siglongjmp,
 * come in thousands. None may be lost, and none may leave anything behind.
 *
 *     deferred SCENE
 *
 * Without a scene it lists them. On the kernel and through the library the lines must be the same.
 */
#include "pairs.h"

#include <setjmp.h>

#define MESSAGE 16
#define EVERY_US 50

static int end[2];
static pthread_t main_thread;
static volatile sig_atomic_t handled, wrong;
static _Atomic long counted;

static void every(int microseconds)
{
    struct itimerval timer = {.it_interval = {0, microseconds}, .it_value = {0, microseconds}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

/* A thread that gets no signals. */
static void run_quietly(pthread_t *thread, void *(*what)(void *))
{
    sigset_t all, was;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &was);
    if (pthread_create(thread, NULL, what, NULL) != 0)
        fail("pthread_create");
    pthread_sigmask(SIG_SETMASK, &was, NULL);
}

static void *drains(void *unused)
{
    uint8_t in[4096];
    ssize_t r;
    while ((r = recv(end[1], in, sizeof in, 0)) > 0)
        counted += r;
    return unused;
}

static void sends(int sig)
{
    uint8_t out[MESSAGE] = {0};
    (void)sig;
    handled++;
    wrong += send(end[0], out, sizeof out, MSG_NOSIGNAL) != sizeof out;
}

static void handler_sends(void)
{
    pthread_t t;
    uint8_t out[MESSAGE] = {0};
    long sent = 0;
    warm_pair(end);
    run_quietly(&t, drains);
    handle(SIGALRM, sends, SA_RESTART);
    every(EVERY_US);
    while (handled < 2000) {
        must_send(end[0], out, sizeof out);
        sent += MESSAGE;
    }
    every(0);
    sent += handled * MESSAGE;
    shutdown(end[0], SHUT_WR);
    pthread_join(t, NULL);
    say("sends that failed: %d, all came: %d", (int)wrong, counted == sent);
}

static sigjmp_buf back;

static void jumps(int sig)
{
    (void)sig;
    siglongjmp(back, 1);
}

static void *in_order(void *unused)
{
    uint64_t last = 0, number;
    while (recv(end[1], &number, sizeof number, MSG_WAITALL) == sizeof number) {
        if (number <= last)
            return "not in order";
        last = number;
    }
    (void)unused;
    return "in order";
}

/* A message may have been sent or not when its call is left; those that were are whole, and in order. */
static void jumps_out_of_sends(void)
{
    static volatile uint64_t number;
    static volatile int left;
    pthread_t t;
    void *said;
    warm_pair(end);
    run_quietly(&t, in_order);
    handle(SIGALRM, jumps, 0);
    if (sigsetjmp(back, 1))
        left++;
    else
        every(EVERY_US);
    while (left < 2000) {
        uint64_t now = ++number;
        if (send(end[0], &now, sizeof now, MSG_NOSIGNAL) != sizeof now)
            fail("send");
    }
    every(0);
    shutdown(end[0], SHUT_WR);
    pthread_join(t, &said);
    say("%s", (const char *)said);
    show("the other way", send(end[1], "back", 4, MSG_NOSIGNAL));
    char in[4];
    show("comes", recv(end[0], in, sizeof in, 0));
}

#define QUEUED 20000

static void next(int sig, siginfo_t *info, void *context)
{
    (void)sig;
    (void)context;
    wrong += info->si_code != SI_QUEUE || info->si_value.sival_int != handled;
    handled++;
}

static void *queues(void *unused)
{
    for (int i = 0; i < QUEUED; i++)
        while (pthread_sigqueue(main_thread, SIGRTMIN, (union sigval){.sival_int = i}) != 0)
            sched_yield(); /* as many are queued as may be */
    return unused;
}

/* Real-time signals: each one comes, with what was said with it, in order. */
static void none_is_lost(void)
{
    struct sigaction act = {.sa_sigaction = next, .sa_flags = SA_SIGINFO | SA_RESTART};
    pthread_t t;
    uint8_t buf[MESSAGE] = {0};
    long rounds = 0, whole = 0;
    main_thread = pthread_self();
    warm_pair(end);
    sigaction(SIGRTMIN, &act, NULL);
    run_quietly(&t, queues);
    for (; handled < QUEUED; rounds++) {
        must_send(end[0], buf, sizeof buf);
        must_recv(end[1], buf, sizeof buf);
        whole++;
    }
    pthread_join(t, NULL);
    say("signals: %d, wrong: %d, rounds whole: %d", (int)handled, (int)wrong, rounds == whole);
}

static void counts(int sig)
{
    (void)sig;
    handled++;
}

static void *kills(void *unused)
{
    for (int i = 0; i < 500; i++) {
        struct sigaction now;
        while (sigaction(SIGUSR1, NULL, &now) != 0 || now.sa_handler != counts)
            sched_yield();
        pthread_kill(main_thread, SIGUSR1);
        while (handled <= i)
            sched_yield();
    }
    return unused;
}

/* SA_RESETHAND: one delivery each, and the default afterwards. */
static void once_each(void)
{
    pthread_t t;
    uint8_t buf[MESSAGE] = {0};
    int defaults = 0;
    main_thread = pthread_self();
    warm_pair(end);
    run_quietly(&t, kills);
    for (int i = 0; i < 500; i++) {
        struct sigaction was;
        handle(SIGUSR1, counts, (int)SA_RESETHAND);
        while (handled <= i) {
            must_send(end[0], buf, sizeof buf);
            must_recv(end[1], buf, sizeof buf);
        }
        defaults += sigaction(SIGUSR1, NULL, &was) == 0 && was.sa_handler == SIG_DFL;
    }
    pthread_join(t, NULL);
    say("signals: %d, defaults: %d", (int)handled, defaults);
}

static void forks(int sig)
{
    (void)sig;
    handled++;
    pid_t pid = fork();
    if (pid == 0) {
        sigset_t blocked;
        sigprocmask(SIG_BLOCK, NULL, &blocked);
        _exit(sigismember(&blocked, SIGUSR2) ? 1 : 0);
    }
    int status = 1;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
        wrong++;
}

/* A handler that forks: its child has the mask that it should have, and the parent goes on. */
static void handler_forks(void)
{
    uint8_t buf[MESSAGE] = {0};
    warm_pair(end);
    handle(SIGALRM, forks, SA_RESTART);
    every(500);
    while (handled < 100) {
        must_send(end[0], buf, sizeof buf);
        must_recv(end[1], buf, sizeof buf);
    }
    every(0);
    say("wrong: %d", (int)wrong);
}

static uint8_t other_stack[65536];

static void looks_where_it_is(int sig)
{
    uint8_t here;
    (void)sig;
    handled++;
    wrong += (uintptr_t)&here < (uintptr_t)other_stack || (uintptr_t)&here >= (uintptr_t)other_stack + sizeof other_stack;
}

/* sigaltstack(2) */
static void on_another_stack(void)
{
    stack_t alt = {.ss_sp = other_stack, .ss_size = sizeof other_stack};
    struct sigaction act = {.sa_handler = looks_where_it_is, .sa_flags = SA_ONSTACK | SA_RESTART};
    uint8_t buf[MESSAGE] = {0};
    warm_pair(end);
    sigaltstack(&alt, NULL);
    sigaction(SIGALRM, &act, NULL);
    every(EVERY_US);
    while (handled < 2000) {
        must_send(end[0], buf, sizeof buf);
        must_recv(end[1], buf, sizeof buf);
    }
    every(0);
    say("wrong: %d", (int)wrong);
}

int main(int argc, char **argv)
{
    static const struct scene scenes[] = {
        {"handler_sends", handler_sends}, {"jumps_out_of_sends", jumps_out_of_sends}, {"none_is_lost", none_is_lost},
        {"once_each", once_each},         {"handler_forks", handler_forks},           {"on_another_stack", on_another_stack},
    };
    return play(scenes, sizeof scenes / sizeof *scenes, argc, argv);
}
