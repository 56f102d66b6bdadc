/*
 * Purpose: what the bench programs share: failing, clocks, pinning, and a histogram that can be printed.
 * Who may call: the programs of this folder, which know nothing of sharedstack. No locks; nothing here outlives its caller.
 */
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* Ends the process with status 1, after saying what failed and the system's reason. */
__attribute__((format(printf, 1, 2))) _Noreturn static inline void die(const char *format, ...)
{
    const char *reason = strerror(errno);
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, ": %s\n", reason);
    va_end(arguments);
    _exit(1);
}

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* User and system time that this process has used, all threads. */
static inline uint64_t cpu_ns(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return ((uint64_t)used.ru_utime.tv_sec + (uint64_t)used.ru_stime.tv_sec) * 1000000000u +
           ((uint64_t)used.ru_utime.tv_usec + (uint64_t)used.ru_stime.tv_usec) * 1000u;
}

/* Binds the calling thread to a CPU; a negative one leaves it free. */
static inline void pin(int cpu)
{
    cpu_set_t set;
    if (cpu < 0)
        return;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0)
        die("cannot run on CPU %d", cpu);
}

/*
 * Log-linear buckets, as HdrHistogram has them with three digits: up to 2^(SUB_BITS + 1) each value has a bucket, above that
 * each power of two has 2^SUB_BITS. A value is off by 0.05 % at most. Values: ns, up to 275 s.
 */
enum { SUB_BITS = 10, MAX_SHIFT = 27, BUCKETS = (MAX_SHIFT + 2) << SUB_BITS };

struct histogram {
    uint64_t counts[BUCKETS];
};

static inline void histogram_add(struct histogram *h, uint64_t value)
{
    unsigned shift = value >> (SUB_BITS + 1) ? 63u - (unsigned)__builtin_clzll(value) - SUB_BITS : 0;
    if (shift > MAX_SHIFT)
        h->counts[BUCKETS - 1]++;
    else
        h->counts[(shift << SUB_BITS) + (value >> shift)]++;
}

/* The middle of a bucket. */
static inline uint64_t histogram_value(unsigned bucket)
{
    if (bucket < 2u << SUB_BITS)
        return bucket;
    unsigned shift = (bucket >> SUB_BITS) - 1;
    uint64_t low = (uint64_t)((bucket & ((1u << SUB_BITS) - 1)) + (1u << SUB_BITS)) << shift;
    return low + (1ull << shift) / 2;
}

/* As a JSON list of [value, count]. */
static inline void histogram_print(const struct histogram *h)
{
    const char *separator = "";
    putchar('[');
    for (unsigned i = 0; i < BUCKETS; i++) {
        if (h->counts[i] == 0)
            continue;
        printf("%s[%" PRIu64 ",%" PRIu64 "]", separator, histogram_value(i), h->counts[i]);
        separator = ",";
    }
    putchar(']');
}
