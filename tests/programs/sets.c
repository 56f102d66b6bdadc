/*
 * Epoll sets and the bytes that a member has already when it comes, or comes back:
 *
 *     sets SCENE
 *
 * Without a scene it lists them. On the kernel and through the library the lines must be the same.
 */
#include "pairs.h"

#define SLEEPERS 12

static int set;
static uint8_t buf[1000];

static void run(pthread_t *thread, void *(*what)(void *), void *with)
{
    if (pthread_create(thread, NULL, what, with) != 0)
        fail("pthread_create");
}

static void *sleeps(void *milliseconds)
{
    struct epoll_event event;
    return (void *)(intptr_t)epoll_wait(set, &event, 1, (int)(intptr_t)milliseconds);
}

/* How many of so many threads that sleep in the set hear of what `change` does to it? */
static void show_woken(int n, void (*change)(const int *), const int *e)
{
    pthread_t t[SLEEPERS];
    intptr_t woken = 0;
    for (int i = 0; i < n; i++)
        run(&t[i], sleeps, (void *)1500);
    usleep(50000);
    double start = ms();
    change(e);
    for (int i = 0; i < n; i++) {
        void *said;
        pthread_join(t[i], &said);
        woken += (intptr_t)said;
    }
    say("%d sleepers: woken: %d, soon: %d", n, woken > 0, n > 1 || ms() - start < 1000);
}

static void control(int op, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    show("epoll_ctl", epoll_ctl(set, op, fd, &event));
}

static void add(const int *e)
{
    control(EPOLL_CTL_ADD, e[0], EPOLLIN);
}

static void rearm(const int *e)
{
    control(EPOLL_CTL_MOD, e[0], EPOLLIN | EPOLLONESHOT);
}

static void add_edge(const int *e)
{
    control(EPOLL_CTL_ADD, e[0], EPOLLIN | EPOLLET);
}

/* A pair whose first end has unread bytes, which are not the first ones that came. */
static void unread(int e[2])
{
    warm_pair(e);
    show("nothing yet", recv(e[0], buf, 10, MSG_DONTWAIT));
    put(e[1], 100);
}

static void drop(const int e[2])
{
    close(e[0]);
    close(e[1]);
    close(set);
}

/* Who sleeps in a set hears of a member that comes with unread bytes. */
static void added_with_bytes(void)
{
    for (int n = 1; n <= SLEEPERS; n += SLEEPERS - 1)
        for (int edge = 0; edge < 2; edge++) {
            int e[2];
            unread(e);
            set = epoll_create1(0);
            show_woken(n, edge ? add_edge : add, e);
            show("recv", recv(e[0], buf, sizeof buf, MSG_DONTWAIT));
            drop(e);
        }
}

/* Beside another member whose ring is in use. */
static void added_beside_another(void)
{
    int e[2], other[2];
    warm_pair(other);
    set = epoll_create1(0);
    control(EPOLL_CTL_ADD, other[0], EPOLLIN);
    put(other[1], 10);
    show("the other", (long)(intptr_t)sleeps((void *)1000));
    show("recv", recv(other[0], buf, sizeof buf, MSG_DONTWAIT));
    show("nothing", recv(other[0], buf, sizeof buf, MSG_DONTWAIT));
    for (int n = 1; n <= SLEEPERS; n += SLEEPERS - 1) {
        unread(e);
        show_woken(n, add, e);
        show("recv", recv(e[0], buf, sizeof buf, MSG_DONTWAIT));
        close(e[0]);
        close(e[1]);
    }
    drop(other);
}

/* A one-shot member that is armed again with bytes still unread. */
static void rearmed_with_bytes(void)
{
    int e[2];
    unread(e);
    set = epoll_create1(0);
    control(EPOLL_CTL_ADD, e[0], EPOLLIN | EPOLLONESHOT);
    show("once", (long)(intptr_t)sleeps((void *)1000));
    show("recv some", recv(e[0], buf, 40, MSG_DONTWAIT));
    show_woken(1, rearm, e);
    show("recv some", recv(e[0], buf, 40, MSG_DONTWAIT));
    show_woken(1, rearm, e);
    show("recv", recv(e[0], buf, sizeof buf, MSG_DONTWAIT));
    rearm(e);
    put(e[1], 10);
    show("again", (long)(intptr_t)sleeps((void *)1000));
    show("recv", recv(e[0], buf, sizeof buf, MSG_DONTWAIT));
    drop(e);
}

int main(int argc, char **argv)
{
    static const struct scene scenes[] = {
        {"added_with_bytes", added_with_bytes},
        {"added_beside_another", added_beside_another},
        {"rearmed_with_bytes", rearmed_with_bytes},
    };
    return play(scenes, sizeof scenes / sizeof *scenes, argc, argv);
}
