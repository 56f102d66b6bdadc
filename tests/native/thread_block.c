/*
 * While a thread is blocked in a send that the peer does not read, others use the same end as the kernel lets them: a non-blocking send
 * comes back at once (refused, or taken where a little room is left), and shutdown(2) ends the blocked one.
 */
#include "tcp.h"

static struct world world;
static struct shs_env envs[2], *env[2] = {&envs[0], &envs[1]};
static struct link l;
static uint32_t blocked_ended, other_ended;
static long blocked_result, other_result;

static void *blocked(void *arg)
{
    static uint8_t buf[32 << 20]; /* more than a pair of sockets takes */
    struct shs_who who = world_who(env[0], 1);
    (void)arg;
    blocked_result = link_send_all(env[0], &who, &l.end[0], buf, sizeof buf);
    shs_store32(&blocked_ended, 1);
    return NULL;
}

static void *at_once(void *arg)
{
    struct shs_who who = world_who(env[0], 2);
    (void)arg;
    other_result = link_send(env[0], &who, &l.end[0], "x", 1, MSG_DONTWAIT);
    shs_store32(&other_ended, 1);
    return NULL;
}

static void *shut_down(void *arg)
{
    struct shs_who who = world_who(env[0], 2);
    (void)arg;
    other_result = shs_end_shutdown(env[0], &who, &l.end[0], SHUT_RDWR);
    shs_store32(&other_ended, 1);
    return NULL;
}

static bool ends(uint32_t *flag)
{
    uint64_t until = shs_now() + 2000000000ull;
    while (!shs_load32(flag) && shs_now() < until)
        usleep(1000);
    return shs_load32(flag);
}

/* The peer's end goes, so that whoever still waits comes to an end. */
static int run(const char *name, void *(*other)(void *), bool shutting)
{
    pthread_t thread[2];
    int bad = 0;
    blocked_ended = other_ended = 0;
    link_make(&l, env, AF_INET, false);
    pthread_create(&thread[0], NULL, blocked, NULL);
    usleep(300000);
    CHECK(shs_load32(&blocked_ended), ==, 0);
    pthread_create(&thread[1], NULL, other, NULL);
    bool ended = ends(&other_ended), unblocked = !shutting || ends(&blocked_ended);
    if (!ended || !unblocked) {
        fprintf(stderr, "%s: %s\n", name, ended ? "the blocked send was not ended" : "waits for the blocked send");
        bad = 1;
    }
    shutdown(l.fd[1], SHUT_RDWR);
    struct linger now = {1, 0};
    setsockopt(l.fd[1], SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(l.fd[1]);
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    if (!bad)
        CHECK(other_result == 0 || (!shutting && (other_result == 1 || other_result == -EAGAIN)), ==, true);
    close(l.fd[0]);
    return bad;
}

int main(int argc, char **argv)
{
    check_begin(argc, argv, 60);
    world_make(&world, SHS_N_UNITS);
    world_join(&world, env[0]);
    world_join(&world, env[1]);
    int bad = run("non-blocking send", at_once, false) + run("shutdown", shut_down, true);
    CHECK(bad, ==, 0);
    world_leave(env[0]);
    world_leave(env[1]);
    world_drop(&world);
    return 0;
}
