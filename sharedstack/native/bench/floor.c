/*
 * shs-floor: what no path can be faster than, on this machine, now.
 *
 * Prints {"cache_line_ns": …, "syscall_ns": …}: a number there in one cache line and back in another, between threads on two
 * CPUs, which is the least that two directions with a writer each can do (one line that both write: about half); and a system
 * call that does nothing. Each is the median of many short stretches, so that an interruption does not count.
 *
 * usage: shs-floor CPU CPU    (the same one twice: no cache line to bounce, printed as 0)
 */
#include "tool.h"

#include <pthread.h>
#include <sys/syscall.h>

enum { STRETCHES = 201, ROUNDS = 500, CALLS = 500 };

/* Each alone on its two cache lines: adjacent ones are fetched in pairs. */
struct line {
    _Alignas(128) uint64_t number;
    char rest[120];
};

static struct line there, back;

static int echo_cpu;

static void put(struct line *line, uint64_t number)
{
    __atomic_store_n(&line->number, number, __ATOMIC_RELEASE);
}

static void await(const struct line *line, uint64_t number)
{
    while (__atomic_load_n(&line->number, __ATOMIC_ACQUIRE) != number)
        ;
}

/* Sends each number back. */
static void *echo(void *unused)
{
    pin(echo_cpu);
    for (uint64_t number = 1; number <= STRETCHES * ROUNDS; number++) {
        await(&there, number);
        put(&back, number);
    }
    return unused;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values)
{
    qsort(values, STRETCHES, sizeof(*values), by_value);
    return values[STRETCHES / 2];
}

static double cache_line_ns(void)
{
    static double took[STRETCHES];
    pthread_t thread;
    errno = pthread_create(&thread, NULL, echo, NULL);
    if (errno != 0)
        die("cannot start a thread");
    uint64_t number = 1;
    for (int i = 0; i < STRETCHES; i++) {
        uint64_t began = now_ns();
        for (int k = 0; k < ROUNDS; k++, number++) {
            put(&there, number);
            await(&back, number);
        }
        took[i] = (double)(now_ns() - began) / ROUNDS;
    }
    pthread_join(thread, NULL);
    return median(took);
}

static double syscall_ns(void)
{
    static double took[STRETCHES];
    for (int i = 0; i < STRETCHES; i++) {
        uint64_t began = now_ns();
        for (int k = 0; k < CALLS; k++)
            syscall(SYS_getppid);
        took[i] = (double)(now_ns() - began) / CALLS;
    }
    return median(took);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s CPU CPU\n", argv[0]);
        return 2;
    }
    int cpu = atoi(argv[1]);
    echo_cpu = atoi(argv[2]);
    pin(cpu);
    double bounce = cpu == echo_cpu ? 0 : cache_line_ns();
    printf("{\"cache_line_ns\":%.1f,\"syscall_ns\":%.1f}\n", bounce, syscall_ns());
    return 0;
}
