/*
 * Threads that are cancelled in the middle of calls that wait, and between calls that do not: they end, their cleanup handlers run, and the same
 * sockets work for the others.
 *
 *     cancelled SCENE
 *
 * Without a scene it lists them. On the kernel and through the library the lines must be the same.
 */
#include "leaving.h"

static volatile int cleaned;

static void clean(void *unused)
{
    (void)unused;
    cleaned++;
}

static void *in_the_call(void *call)
{
    pthread_cleanup_push(clean, NULL);
    ((const struct call *)call)->make();
    /* a call that came back, because it was cancelled when it had something to tell: the next point of cancellation */
    for (;;)
        pause();
    pthread_cleanup_pop(0);
    return NULL;
}

static void cancelled(void)
{
    make();
    for (unsigned i = 0; i < N_WAITING; i++)
        for (int again = 0; again < 3; again++) {
            pthread_t thread;
            void *result = NULL;
            cleaned = 0;
            pthread_create(&thread, NULL, in_the_call, (void *)(uintptr_t)&waiting[i]);
            usleep((useconds_t)(again * 2500)); /* spinning, or asleep */
            pthread_cancel(thread);
            pthread_join(thread, &result);
            if (result != PTHREAD_CANCELED || cleaned != 1)
                say("%s: not cancelled (%d)", waiting[i].name, cleaned);
            for (int fd = listening + 2; fd < 64; fd++)
                if (fd != set)
                    close(fd);
            works(waiting[i].name, "cancelled");
        }
}

static _Atomic long sum;

/* Asynchronously only where the standard allows it: in no call at all. */
static void *computes(void *unused)
{
    int was;
    uint8_t buf[100] = {0};
    pthread_cleanup_push(clean, NULL);
    for (;;) {
        (void)!send(e[1], buf, sizeof buf, MSG_DONTWAIT | MSG_NOSIGNAL);
        (void)!recv(e[0], buf, sizeof buf, MSG_DONTWAIT);
        pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &was);
        for (int i = 0; i < 20000; i++)
            sum += i;
        pthread_setcanceltype(was, &was);
    }
    pthread_cleanup_pop(0);
    return unused;
}

static void cancelled_between(void)
{
    make();
    for (int i = 0; i < 60; i++) {
        pthread_t thread;
        void *result = NULL;
        cleaned = 0;
        pthread_create(&thread, NULL, computes, NULL);
        usleep((useconds_t)(100 * (i % 20)));
        pthread_cancel(thread);
        pthread_join(thread, &result);
        if (result != PTHREAD_CANCELED || cleaned != 1)
            say("not cancelled (%d)", cleaned);
    }
    works("calls that do not wait", "cancelled");
}

int main(int argc, char **argv)
{
    static const struct scene scenes[] = {
        {"cancelled", cancelled},
        {"cancelled_between", cancelled_between},
    };
    return play(scenes, sizeof scenes / sizeof *scenes, argc, argv);
}
