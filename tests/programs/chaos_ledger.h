/*
 * The ledger of a chaos run: a file that all its processes have mapped, so that what they did is known when they are killed.
 *
 * Who sends writes what it is about to have sent, then what the call took; who receives likewise. So of a direction whose ends may both be killed at any instruction it is known that `accepted` bytes were taken,
 * and that no more than `intent` may arrive. tests/chaos/ledger.py has the same layout.
 */
#pragma once
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PROCESSES 1024
#define CONNECTIONS (1u << 20)
#define FLOWS (1u << 18)
#define FINDINGS 64
#define FINDING_BYTES 320

enum count {
    CONNECTS,
    ACCEPTS,
    BYTES_SENT,
    BYTES_RECEIVED,
    ENDS,   /* of a stream, seen by its reader, all bytes there */
    RESETS, /* seen by either */
    FORKS,
    WORKERS, /* forked to go on with a connection by blocking calls */
    EXECS,
    PASSES,
    SHUTDOWNS,
    ABORTS, /* closed in the middle */
    DATAGRAMS_SENT,
    DATAGRAM_BYTES,
    DATAGRAMS_RECEIVED,
    DATAGRAMS_LOST,      /* on one host */
    WIRE_DATAGRAMS_LOST, /* between hosts, where any may be */
    DATAGRAMS_REFUSED, /* not sent back, because the kernel had no room */
    REBINDS,
    CORRUPT, /* bytes or datagrams that are not what they should be */
    COUNTS,
};

#define TAKEN 1 /* in place of a process id: by whoever is about to write its own */

struct process {
    _Atomic uint32_t pid; /* 0: free */
    uint32_t number;      /* of the actor whose child it is, or that it is */
    _Atomic uint64_t beat_ns;
    _Atomic uint32_t generation; /* of its datagram socket: another one, another number */
    uint32_t group;              /* where it is */
    uint32_t targets;            /* whom it connects to */
    uint32_t address;            /* in network order */
    _Atomic uint64_t emptied; /* how often it found its datagram socket empty */
    char doing[80];
};

struct direction {
    _Atomic uint64_t intent, accepted, asked, received;
};

struct connection {
    struct direction direction[2]; /* [0]: what the client sends */
    _Atomic uint32_t holder[2];    /* process ids: the client's, the server's */
    _Atomic uint32_t fd[2];
    char story[44]; /* what was done with it, a letter each: small ones at the client's end, capitals at the server's */
    _Atomic uint32_t told;
};

struct ledger {
    uint64_t magic, size, seed, patience_ns;
    _Atomic uint32_t stop, connections, flows, findings;
    uint32_t actors, more;
    uint32_t most[4]; /* bytes of a message, by group */
    _Atomic uint64_t counts[32];
    char finding[FINDINGS][FINDING_BYTES];
    struct process process[PROCESSES];
    struct connection connection[CONNECTIONS];
};

static struct ledger *ledger;
static struct process *me;

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void count(enum count which, uint64_t n)
{
    atomic_fetch_add_explicit(&ledger->counts[which], n, memory_order_relaxed);
}

/* What is wrong, for the driver, which ends the run. */
__attribute__((format(printf, 1, 2))) static void finding(const char *format, ...)
{
    char text[FINDING_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int n = snprintf(text, sizeof text, "process %d (%u): ", (int)getpid(), me ? me->number : 0);
    vsnprintf(text + n, sizeof text - (size_t)n, format, arguments);
    va_end(arguments);
    uint32_t at = atomic_fetch_add(&ledger->findings, 1);
    if (at < FINDINGS)
        memcpy(ledger->finding[at], text, sizeof text);
}

static void tell(uint32_t connection, uint32_t side, char what)
{
    struct connection *c = &ledger->connection[connection];
    uint32_t at = atomic_fetch_add(&c->told, 1);
    if (at < sizeof c->story - 1)
        c->story[at] = (char)(side ? what - 'a' + 'A' : what);
}

static void alive(const char *doing, uint32_t what)
{
    atomic_store_explicit(&me->beat_ns, now_ns(), memory_order_relaxed);
    snprintf(me->doing, sizeof me->doing, "%s %u", doing, what);
}

static void open_ledger(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    ledger = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *ledger, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (ledger == MAP_FAILED || ledger->size != sizeof *ledger) {
        fprintf(stderr, "%s: no ledger of %zu bytes\n", path, sizeof *ledger);
        exit(2);
    }
    close(fd);
}

/* A place in the table for a child; NULL: there is none. */
static struct process *child_place(uint32_t number)
{
    for (uint32_t i = ledger->actors; i < PROCESSES; i++) {
        uint32_t free = 0;
        struct process *place = &ledger->process[i];
        if (atomic_load(&place->pid) == 0 && atomic_compare_exchange_strong(&place->pid, &free, TAKEN)) {
            place->number = number;
            place->group = ledger->process[number].group;
            atomic_store(&place->beat_ns, now_ns());
            atomic_store(&place->pid, (uint32_t)getpid());
            return place;
        }
    }
    return NULL;
}

/* Numbers that follow from the seed, who asks, and how often. */
struct dice {
    uint64_t state;
};

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint32_t roll(struct dice *dice, uint32_t below)
{
    dice->state += 0x9e3779b97f4a7c15u;
    return (uint32_t)(mix(dice->state) % below);
}
