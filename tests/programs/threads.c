/*
 * Lifted connections and several threads: one that receives beside one that sends, one that polls beside one that reads, workers on one
 * epoll set, and a thread that is cancelled while it waits.
 *
 *     threads SCENE
 *
 * Without a scene it lists them. On the kernel and through the library the lines must be the same.
 */
#include "pairs.h"

#define MESSAGES 4000
#define MESSAGE 100

static int end[2];

static void run(pthread_t *thread, void *(*what)(void *), void *with)
{
    if (pthread_create(thread, NULL, what, with) != 0)
        fail("pthread_create");
}

static void *sender(void *which)
{
    uint8_t out[MESSAGE];
    for (uint32_t i = 0; i < MESSAGES; i++) {
        fill(out, sizeof out, i);
        must_send(end[(intptr_t)which], out, sizeof out);
    }
    return NULL;
}

static void *receiver(void *which)
{
    uint8_t in[MESSAGE], want[MESSAGE];
    for (uint32_t i = 0; i < MESSAGES; i++) {
        fill(want, sizeof want, i);
        must_recv(end[(intptr_t)which], in, sizeof in);
        if (memcmp(in, want, sizeof in))
            return "wrong bytes";
    }
    return "all";
}

/* Both ways at once: two threads on each end. */
static void duplex(void)
{
    pthread_t t[4];
    warm_pair(end);
    for (intptr_t i = 0; i < 2; i++) {
        run(&t[i], receiver, (void *)i);
        run(&t[2 + i], sender, (void *)i);
    }
    for (int i = 0; i < 4; i++) {
        void *said;
        pthread_join(t[i], &said);
        if (i < 2)
            say("received: %s", (const char *)said);
    }
}

static _Atomic long counted;

static void *reader(void *unused)
{
    uint8_t in[4096];
    ssize_t r;
    while ((r = recv(end[0], in, sizeof in, 0)) > 0)
        counted += r;
    return unused;
}

static void *poller(void *unused)
{
    uint8_t in[4096];
    struct pollfd p = {.fd = end[0], .events = POLLIN};
    for (ssize_t r = 1; r != 0;) {
        int n = poll(&p, 1, -1);
        if (n != 1)
            return n ? "poll failed" : "poll without a time-out: nothing";
        r = recv(end[0], in, sizeof in, MSG_DONTWAIT);
        if (r > 0)
            counted += r;
    }
    return unused;
}

static void read_by(int readers, int pollers, int pause_us)
{
    pthread_t t[8];
    warm_pair(end);
    counted = 0;
    for (int i = 0; i < readers + pollers; i++)
        run(&t[i], i < readers ? reader : poller, NULL);
    usleep(pause_us);
    sender((void *)1);
    usleep(pause_us);
    sender((void *)1);
    shutdown(end[1], SHUT_WR);
    for (int i = 0; i < readers + pollers; i++) {
        void *said;
        pthread_join(t[i], &said);
        if (said)
            say("%s", (const char *)said);
    }
    if (counted != 2 * MESSAGES * MESSAGE)
        say("%d readers, %d pollers: %ld bytes", readers, pollers, (long)counted);
    close(end[0]);
    close(end[1]);
}

static void readers(void)
{
    read_by(2, 0, 5000);
    read_by(1, 1, 5000);
    read_by(0, 2, 5000);
    read_by(2, 2, 5000);
    say("read");
}

/* What one thread saw in the ring another one may have taken when it looks again, once in some hundred bursts: then it goes on waiting. */
static void pollers(void)
{
    for (int i = 0; i < 100; i++)
        read_by(0, 2, 100);
    say("read");
}

static void *first_use(void *which)
{
    return receiver(which);
}

/* A thread waits in recv from the start, so that nothing can be brought under count on that side; then it goes on. */
static void waiting_from_the_start(void)
{
    pthread_t t;
    void *said;
    connected(end);
    run(&t, first_use, (void *)0);
    usleep(10000);
    sender((void *)1);
    pthread_join(t, &said);
    say("received: %s", (const char *)said);
    warm(end);
    say("warm");
}

#define CONNECTIONS 8
#define TURNS 300

static int set, ends[CONNECTIONS][2];
static _Atomic int turns, busy[CONNECTIONS], collisions;
static bool oneshot;

/* Takes what there is at a connection's first end, and answers each message. */
static void *worker(void *unused)
{
    for (;;) {
        struct epoll_event event;
        int n = epoll_wait(set, &event, 1, 3000);
        if (n <= 0)
            return n ? "epoll_wait failed" : "epoll_wait: nothing for 3 s";
        uint32_t i = event.data.u32;
        if (i == CONNECTIONS)
            return unused;
        if (oneshot && busy[i]++)
            collisions++;
        uint8_t in[MESSAGE];
        ssize_t r;
        while ((r = recv(ends[i][0], in, sizeof in, MSG_DONTWAIT)) > 0) {
            must_send(ends[i][0], in, (size_t)r);
            turns++;
        }
        if (oneshot) {
            busy[i]--;
            event.events = EPOLLIN | EPOLLET | EPOLLONESHOT;
            epoll_ctl(set, EPOLL_CTL_MOD, ends[i][0], &event);
        }
    }
}

static void *client(void *which)
{
    int fd = ends[(intptr_t)which][1];
    uint8_t out[MESSAGE], in[MESSAGE];
    for (uint32_t i = 0; i < TURNS; i++) {
        fill(out, sizeof out, i);
        must_send(fd, out, sizeof out);
        must_recv(fd, in, sizeof in);
        if (memcmp(in, out, sizeof in))
            return "wrong bytes";
    }
    return "all";
}

static void workers_of(bool once, bool warm_first)
{
    pthread_t workers[3], clients[CONNECTIONS];
    int bell[2], all = 0;
    oneshot = once;
    turns = collisions = 0;
    set = epoll_create1(EPOLL_CLOEXEC);
    for (uint32_t i = 0; i < CONNECTIONS; i++) {
        struct epoll_event event = {.events = EPOLLIN | EPOLLET | (once ? EPOLLONESHOT : 0), .data.u32 = i};
        connected(ends[i]);
        if (warm_first)
            warm(ends[i]);
        epoll_ctl(set, EPOLL_CTL_ADD, ends[i][0], &event);
    }
    for (int i = 0; i < 3; i++)
        run(&workers[i], worker, NULL);
    for (intptr_t i = 0; i < CONNECTIONS; i++)
        run(&clients[i], client, (void *)i);
    for (int i = 0; i < CONNECTIONS; i++) {
        void *said;
        pthread_join(clients[i], &said);
        all += !strcmp(said, "all");
    }
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = CONNECTIONS};
    if (pipe(bell) != 0 || epoll_ctl(set, EPOLL_CTL_ADD, bell[0], &event) != 0 || write(bell[1], "x", 1) != 1)
        fail("pipe");
    for (int i = 0; i < 3; i++) {
        void *said;
        pthread_join(workers[i], &said);
        if (said)
            say("worker: %s", (const char *)said);
    }
    say("%s: clients served: %d, pieces enough: %d, collisions: %d", once ? "one-shot" : "edges", all, turns >= CONNECTIONS * TURNS,
        (int)collisions);
    for (int i = 0; i < CONNECTIONS; i++) {
        close(ends[i][0]);
        close(ends[i][1]);
    }
    close(bell[0]);
    close(bell[1]);
    close(set);
}

static void workers(void)
{
    workers_of(true, true);
    workers_of(false, true);
    workers_of(true, false);
}

static void *waits(void *how)
{
    uint8_t in[100];
    struct pollfd p = {.fd = end[0], .events = POLLIN};
    struct epoll_event event = {.events = EPOLLIN};
    int made = epoll_create1(0);
    epoll_ctl(made, EPOLL_CTL_ADD, end[0], &event);
    switch ((intptr_t)how) {
    case 0:
        recv(end[0], in, sizeof in, 0);
        break;
    case 1:
        (void)!read(end[0], in, sizeof in);
        break;
    case 2:
        poll(&p, 1, 5000);
        break;
    default:
        epoll_wait(made, &event, 1, 5000);
    }
    return "not cancelled";
}

static void cancelled(void)
{
    static const char *const names[] = {"recv", "read", "poll", "epoll_wait"};
    for (intptr_t how = 0; how < 4; how++) {
        pthread_t t;
        void *said;
        warm_pair(end);
        run(&t, waits, (void *)how);
        usleep(20000);
        double start = ms();
        pthread_cancel(t);
        pthread_join(t, &said);
        say("%s: %s, soon: %d", names[how], said == PTHREAD_CANCELED ? "cancelled" : (const char *)said, ms() - start < 1000);
        warm(end);
        say("warm");
        close(end[0]);
        close(end[1]);
    }
}

static void *shuts(void *unused)
{
    usleep(20000);
    shutdown(end[0], SHUT_RDWR);
    return unused;
}

/* The usual way to call a thread back from recv. */
static void called_back(void)
{
    pthread_t t;
    uint8_t in[100];
    warm_pair(end);
    run(&t, shuts, NULL);
    double start = ms();
    show("recv", recv(end[0], in, sizeof in, 0));
    say("soon: %d", ms() - start < 1000);
    pthread_join(t, NULL);
    show("peer", recv(end[1], in, sizeof in, 0));
}

static pthread_key_t last_word;

static void says_last_word(void *fd)
{
    must_send((int)(intptr_t)fd, "bye", 3);
    close((int)(intptr_t)fd);
}

static void *dies_talking(void *unused)
{
    int e[2];
    uint8_t in[10];
    warm_pair(e);
    must_send(e[1], "x", 1);
    must_recv(e[0], in, 1);
    pthread_setspecific(last_word, (void *)(intptr_t)e[0]);
    (void)unused;
    return (void *)(intptr_t)e[1];
}

/* Destructors of pthread keys run when a thread's local objects are gone: they may use sockets all the same. */
static void last_words(void)
{
    pthread_attr_t large;
    uint8_t in[10];
    pthread_attr_init(&large);
    pthread_attr_setstacksize(&large, 256 << 20); /* not kept for the next thread, but unmapped */
    pthread_key_create(&last_word, says_last_word);
    for (int i = 0; i < 5; i++) {
        pthread_t t;
        void *other;
        if (pthread_create(&t, &large, dies_talking, NULL) != 0)
            fail("pthread_create");
        pthread_join(t, &other);
        show("last words", recv((int)(intptr_t)other, in, sizeof in, MSG_WAITALL));
        close((int)(intptr_t)other);
    }
    warm_pair(end);
    say("warm");
}

static void *sends_soon(void *unused)
{
    usleep(20000);
    must_send(end[1], "0123456789", 10);
    return unused;
}

/* A wait whose first buffer is empty, and one for more than comes at once. */
static void buffers_of_a_wait(void)
{
    pthread_t t;
    uint8_t in[100];
    struct iovec parts[3] = {{in, 0}, {in, 4}, {in + 4, 90}};
    struct msghdr msg = {.msg_iov = parts, .msg_iovlen = 3};
    warm_pair(end);
    run(&t, sends_soon, NULL);
    show("readv", readv(end[0], parts, 3));
    pthread_join(t, NULL);
    run(&t, sends_soon, NULL);
    show("recvmsg", recvmsg(end[0], &msg, 0));
    pthread_join(t, NULL);
    must_send(end[1], "0123456789", 10);
    run(&t, sends_soon, NULL);
    show("all of 20", recv(end[0], in, 20, MSG_WAITALL));
    pthread_join(t, NULL);
    run(&t, sends_soon, NULL);
    show("peek", recv(end[0], in, 20, MSG_PEEK));
    pthread_join(t, NULL);
    show("recv", recv(end[0], in, 20, 0));
}

static void *adds(void *which)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = 5};
    usleep(20000);
    if ((intptr_t)which == 0)
        epoll_ctl(set, EPOLL_CTL_ADD, end[0], &event);
    must_send(end[1], "x", 1);
    return NULL;
}

/* A thread in epoll_wait hears of what another one adds, or of bytes for what is there. */
static void added_meanwhile(void)
{
    for (intptr_t there = 0; there < 2; there++) {
        pthread_t t;
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = 5};
        uint8_t in[100];
        warm_pair(end);
        set = epoll_create1(0);
        if (there)
            epoll_ctl(set, EPOLL_CTL_ADD, end[0], &event);
        event.data.u32 = 0;
        run(&t, adds, (void *)there);
        show("epoll_wait", epoll_wait(set, &event, 1, 2000));
        say("of %u", event.data.u32);
        pthread_join(t, NULL);
        show("recv", recv(end[0], in, sizeof in, MSG_DONTWAIT));
        close(end[0]);
        close(end[1]);
        close(set);
    }
}

int main(int argc, char **argv)
{
    static const struct scene scenes[] = {
        {"duplex", duplex},
        {"readers", readers},
        {"pollers", pollers},
        {"waiting_from_the_start", waiting_from_the_start},
        {"workers", workers},
        {"cancelled", cancelled},
        {"called_back", called_back},
        {"buffers_of_a_wait", buffers_of_a_wait},
        {"added_meanwhile", added_meanwhile},
        {"last_words", last_words},
    };
    return play(scenes, sizeof scenes / sizeof *scenes, argc, argv);
}
