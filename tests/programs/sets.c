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

/* Two one-shot members with equal data, and other descriptors that have it too. */
static void equal_data(void)
{
    int e[2], other[2], p[2];
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 42}, got;
    warm_pair(e);
    warm_pair(other);
    set = epoll_create1(0);
    show("add", epoll_ctl(set, EPOLL_CTL_ADD, e[0], &event));
    show("add", epoll_ctl(set, EPOLL_CTL_ADD, other[0], &event));
    show("nothing", recv(e[0], buf, 1, MSG_DONTWAIT));
    show("nothing", recv(other[0], buf, 1, MSG_DONTWAIT));
    shutdown(e[1], SHUT_WR);
    show("the end of one", epoll_wait(set, &got, 1, 1000));
    put(other[1], 10);
    show("bytes of the other", epoll_wait(set, &got, 1, 1000));
    show("recv", recv(other[0], buf, 100, MSG_DONTWAIT));
    put(other[1], 10);
    show("both were reported", epoll_wait(set, &got, 1, 20));
    show("recv", recv(other[0], buf, 100, MSG_DONTWAIT));
    if (pipe(p) != 0 || write(p[1], "x", 1) != 1)
        fail("pipe");
    show("armed", epoll_ctl(set, EPOLL_CTL_MOD, other[0], &event));
    event.events = EPOLLIN | EPOLLET;
    show("a pipe", epoll_ctl(set, EPOLL_CTL_ADD, p[0], &event));
    show("reported", epoll_wait(set, &got, 1, 1000));
    show("once", epoll_wait(set, &got, 1, 20));
    put(other[1], 10);
    show("bytes", epoll_wait(set, &got, 1, 1000));
    show("once", epoll_wait(set, &got, 1, 20));
    show("recv", recv(other[0], buf, 100, MSG_DONTWAIT));
    close(other[0]);
    close(other[1]);
    drop(e);
}

/* A one-shot member that was reported says nothing more, not even that its stream ended. */
static void end_of_a_disarmed_one(void)
{
    int e[2];
    struct epoll_event got;
    unread(e);
    set = epoll_create1(0);
    control(EPOLL_CTL_ADD, e[0], EPOLLIN | EPOLLONESHOT);
    show("bytes", epoll_wait(set, &got, 1, 1000));
    struct linger now = {1, 0};
    setsockopt(e[1], SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(e[1]);
    show("nothing more", epoll_wait(set, &got, 1, 20));
    rearm(e);
    show("armed again", epoll_wait(set, &got, 1, 1000));
    close(e[0]);
    close(set);
}

static _Atomic int inside, collisions, over;
static int member[2];

static void *works(void *unused)
{
    struct epoll_event event;
    uint8_t in[16];
    while (!over) {
        if (epoll_wait(set, &event, 1, 50) <= 0)
            continue;
        collisions += inside++ != 0;
        for (int i = 0; i < 3; i++)
            (void)!recv(member[0], in, sizeof in, MSG_DONTWAIT);
        inside--;
        event.events = EPOLLIN | EPOLLONESHOT;
        epoll_ctl(set, EPOLL_CTL_MOD, member[0], &event);
    }
    return unused;
}

/* Whatever comes by which way: a one-shot member is in the hands of one thread at a time. */
static void one_at_a_time(void)
{
    pthread_t t[3];
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT};
    warm_pair(member);
    fcntl(member[1], F_SETFL, O_NONBLOCK);
    set = epoll_create1(0);
    show("add", epoll_ctl(set, EPOLL_CTL_ADD, member[0], &event));
    for (int i = 0; i < 3; i++)
        run(&t[i], works, NULL);
    double start = ms();
    for (int i = 0; ms() - start < 2500; i++) {
        (void)!send(member[1], buf, 16 + (size_t)i % 7 * 100, MSG_NOSIGNAL);
        if (i % 50 == 0)
            usleep(200);
    }
    over = 1;
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    say("collisions: %d", (int)collisions);
}

/* An edge, and the one report of a one-shot member, have all that is so, also what did not change. */
static void both_ways_at_once(void)
{
    static const uint32_t kinds[] = {EPOLLET, EPOLLONESHOT, EPOLLET | EPOLLONESHOT};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        int e[2];
        struct epoll_event event = {0};
        warm_pair(e);
        show("nothing yet", recv(e[0], buf, 10, MSG_DONTWAIT));
        set = epoll_create1(0);
        control(EPOLL_CTL_ADD, e[0], EPOLLIN | EPOLLOUT | kinds[i]);
        show("writable", epoll_wait(set, &event, 1, 300));
        say("events: %x", event.events);
        for (int turn = 0; turn < 3; turn++) {
            show("nothing", recv(e[0], buf, 10, MSG_DONTWAIT));
            put(e[1], 10);
            if (kinds[i] & EPOLLONESHOT)
                control(EPOLL_CTL_MOD, e[0], EPOLLIN | EPOLLOUT | kinds[i]);
            show("both", epoll_wait(set, &event, 1, 300));
            say("events: %x", event.events);
            show("recv", recv(e[0], buf, sizeof buf, MSG_DONTWAIT));
        }
        drop(e);
    }
}

/* In a new image: what came before it, by the set that was made before it, too; then what comes afterwards. */
static int waits_in(int epfd, int fd, int alone)
{
    struct epoll_event event = {0};
    set = epfd;
    show("epoll_wait", epoll_wait(set, &event, 1, 1000));
    say("events: %x, data: %d", event.events, (int)event.data.u32);
    show("recv", recv(fd, buf, sizeof buf, MSG_DONTWAIT));
    show("nothing more", epoll_wait(set, &event, 1, 0));
    if (!alone)
        return 0;
    must_send(fd, "go on", 5);
    show("epoll_wait", epoll_wait(set, &event, 1, 1000));
    show("recv", recv(fd, buf, sizeof buf, MSG_DONTWAIT));
    return 0;
}

/* A set that comes over exec with its members, one of which has unread bytes; its number below theirs, and above. */
static void inherited_over_exec(void)
{
    static const uint32_t kinds[] = {0, EPOLLET, EPOLLONESHOT};
    for (int i = 0; i < 6; i++) {
        int e[2], below = i % 2 ? dup(0) : -1, status = -1;
        char numbers[3][16];
        char *args[] = {"sets", numbers[0], numbers[1], numbers[2], NULL};
        warm_pair(e);
        if (below >= 0)
            close(below);
        set = epoll_create1(0);
        control(EPOLL_CTL_ADD, e[0], EPOLLIN | kinds[i / 2]);
        put(e[1], 100);
        snprintf(numbers[0], sizeof numbers[0], "%d", set);
        snprintf(numbers[1], sizeof numbers[1], "%d", e[0]);
        snprintf(numbers[2], sizeof numbers[2], "%d", kinds[i / 2] != EPOLLONESHOT);
        pid_t child = fork();
        if (child == 0) {
            execv("/proc/self/exe", args);
            _exit(126);
        }
        close(e[0]);
        close(set);
        if (kinds[i / 2] != EPOLLONESHOT) {
            must_recv(e[1], buf, 5);
            put(e[1], 50);
        }
        waitpid(child, &status, 0);
        show("status", status);
        close(e[1]);
    }
}

/* A program, with the library or without, has the set, but no member: it hears of what comes to them all the same. */
static void watched_by_another_program(void)
{
    static const uint32_t kinds[] = {0, EPOLLET};
    for (int i = 0; i < 4; i++) {
        int e[2], status = -1;
        char number[16];
        char *args[] = {"sets", number, NULL};
        warm_pair(e);
        fcntl(e[0], F_SETFD, FD_CLOEXEC);
        fcntl(e[1], F_SETFD, FD_CLOEXEC);
        set = epoll_create1(0);
        control(EPOLL_CTL_ADD, e[0], EPOLLIN | kinds[i % 2]);
        put(e[1], 30);
        must_recv(e[0], buf, 30);
        snprintf(number, sizeof number, "%d", 1000 + set);
        pid_t child = fork();
        if (child == 0) {
            if (i < 2)
                setenv("LD_PRELOAD", "", 1); /* the user's wish: without it */
            execv("/proc/self/exe", args);
            _exit(126);
        }
        usleep(100000);
        put(e[1], 100);
        waitpid(child, &status, 0);
        show("status", status);
        show("recv", recv(e[0], buf, sizeof buf, MSG_DONTWAIT));
        put(e[1], 10);
        struct epoll_event event = {0};
        show("epoll_wait", epoll_wait(set, &event, 1, 1000));
        show("recv", recv(e[0], buf, sizeof buf, MSG_DONTWAIT));
        drop(e);
    }
}

/* The child has the connection, and not the set: what it reads does not keep the parent's set from hearing. */
static void read_by_a_child(void)
{
    int e[2], to_child[2], from_child[2];
    struct epoll_event event = {0};
    char go = 0;
    connected(e);
    if (pipe(to_child) != 0 || pipe(from_child) != 0)
        fail("pipe");
    set = epoll_create1(0);
    control(EPOLL_CTL_ADD, e[0], EPOLLIN);
    for (int i = 0; i < 2; i++) { /* just enough to lift it, its ring being open or not */
        put(e[i], 1);
        show("epoll_wait", epoll_wait(set, &event, 1, 0));
        show("recv", recv(e[1 - i], buf, 1, MSG_WAITALL));
        show("recv", recv(e[1 - i], buf, 1, MSG_DONTWAIT));
    }
    pid_t child = fork();
    if (child == 0) {
        close(set);
        for (int i = 0; i < 3; i++)
            recv(e[0], buf, sizeof buf, MSG_DONTWAIT);
        (void)!write(from_child[1], "x", 1);
        (void)!read(to_child[0], &go, 1);
        _exit(0);
    }
    (void)!read(from_child[0], &go, 1);
    for (int i = 0; i < 2; i++) {
        pthread_t t;
        run(&t, sleeps, (void *)1000);
        usleep(50000);
        put(e[1], 10);
        void *said;
        pthread_join(t, &said);
        say("epoll_wait: %d", (int)(intptr_t)said);
        show("recv", recv(e[0], buf, sizeof buf, MSG_DONTWAIT));
    }
    (void)!write(to_child[1], "x", 1);
    waitpid(child, NULL, 0);
    drop(e);
}

/* A member that has unread bytes when it comes to a second set: both report them. */
static void bytes_in_two_sets(void)
{
    for (int written = 0; written < 2; written++) {
        int e[2], sets[2];
        struct epoll_event event = {0};
        warm_pair(e);
        for (int i = 0; i < 2; i++) {
            set = sets[i] = epoll_create1(0);
            control(EPOLL_CTL_ADD, e[0], EPOLLIN);
            if (i == 0)
                put(e[1], 10);
        }
        if (written)
            put(e[1], 20);
        show("first", epoll_wait(sets[0], &event, 1, 1000));
        show("second", epoll_wait(sets[1], &event, 1, 1000));
        show("recv", recv(e[0], buf, 10, MSG_DONTWAIT));
        show("first", epoll_wait(sets[0], &event, 1, written ? 1000 : 0));
        show("second", epoll_wait(sets[1], &event, 1, written ? 1000 : 0));
        show("recv", recv(e[0], buf, 100, MSG_DONTWAIT));
        put(e[0], 30);
        show("the other way", recv(e[1], buf, 100, MSG_WAITALL | MSG_DONTWAIT));
        close(sets[0]);
        drop(e);
    }
}

/* Of several sets that have a member exclusively one is told at least; what cannot be combined is refused. */
static void exclusive(void)
{
    int e[2], first, second;
    struct epoll_event event = {0};
    warm_pair(e);
    set = first = epoll_create1(0);
    control(EPOLL_CTL_ADD, e[0], EPOLLIN | EPOLLEXCLUSIVE);
    control(EPOLL_CTL_MOD, e[0], EPOLLIN);
    put(e[1], 10);
    show("alone", epoll_wait(first, &event, 1, 1000));
    say("events: %x", event.events);
    show("recv", recv(e[0], buf, sizeof buf, MSG_DONTWAIT));
    set = second = epoll_create1(0);
    control(EPOLL_CTL_ADD, e[0], EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT);
    control(EPOLL_CTL_ADD, e[0], EPOLLIN | EPOLLEXCLUSIVE);
    put(e[1], 10);
    say("told: %d", epoll_wait(first, &event, 1, 1000) + epoll_wait(second, &event, 1, 1000) > 0);
    show("recv", recv(e[0], buf, sizeof buf, MSG_DONTWAIT));
    control(EPOLL_CTL_DEL, e[0], 0);
    show("nothing", epoll_wait(second, &event, 1, 0));
    close(first);
    close(second);
    close(e[0]);
    close(e[1]);
}

/* A member is reported with the data that it was given last, by the kernel too, which may not know of them yet. */
static void changed_data(void)
{
    int e[2];
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 7};
    warm_pair(e);
    set = epoll_create1(0);
    show("ADD", epoll_ctl(set, EPOLL_CTL_ADD, e[0], &event));
    show("nothing", epoll_wait(set, &event, 1, 0));
    event = (struct epoll_event){.events = EPOLLIN | EPOLLRDHUP, .data.u64 = 8};
    show("MOD", epoll_ctl(set, EPOLL_CTL_MOD, e[0], &event));
    show("shutdown", shutdown(e[1], SHUT_WR));
    show("the end", epoll_wait(set, &event, 1, 1000));
    say("data: %d", (int)event.data.u64);
    close(set);
    drop(e);
}

int main(int argc, char **argv)
{
    static const struct scene scenes[] = {
        {"changed_data", changed_data},
        {"added_with_bytes", added_with_bytes},
        {"added_beside_another", added_beside_another},
        {"rearmed_with_bytes", rearmed_with_bytes},
        {"equal_data", equal_data},
        {"end_of_a_disarmed_one", end_of_a_disarmed_one},
        {"one_at_a_time", one_at_a_time},
        {"both_ways_at_once", both_ways_at_once},
        {"watched_by_another_program", watched_by_another_program},
        {"exclusive", exclusive},
        {"bytes_in_two_sets", bytes_in_two_sets},
        {"read_by_a_child", read_by_a_child},
        {"inherited_over_exec", inherited_over_exec},
    };
    if (argc == 2 && atoi(argv[1]) >= 1000) {
        struct epoll_event event = {0};
        show("plain: epoll_wait", epoll_wait(atoi(argv[1]) - 1000, &event, 1, 1000));
        say("events: %x", event.events);
        return 0;
    }
    if (argc == 4)
        return waits_in(atoi(argv[1]), atoi(argv[2]), atoi(argv[3]));
    return play(scenes, sizeof scenes / sizeof *scenes, argc, argv);
}
