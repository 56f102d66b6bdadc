/*
 * Whoever drives the engine is killed behind every instruction that changed its area or its queues, in one call after the other: a packet
 * taken, timers run, bytes sent and received, a shutdown. After each kill the area is rebuilt, agrees with itself, and the same conversation
 * goes on to its end with all bytes right. `test_kill_points SEED POINTS`: so many of each kind at least; without it, one call of each kind, at
 * some of its stores.
 */
#include "engines.h"

#include <sys/user.h>

#define STRIDE 15 /* of the stores, one of so many where not all are asked for */
#define SKIP 40 /* calls of a kind, at most, before the one that is played */

static const char *const names[KINDS] = {"packet received", "timers run", "send", "receive", "shutdown"};
int main(int argc, char **argv);

static struct side saved[2];
static uint32_t wanted, skip, stride;
static uint64_t points, all, instructions;
static struct died { /* shared with the children */
    uint64_t kills;
    uintptr_t at; /* the last one's next instruction */
} *died;
static bool over_now;

/* Area and queues: what others look at when the driver has died. */
#define WATCHED (offsetof(struct side, queues) + sizeof side[0]->queues - offsetof(struct side, area))

static bool changed(uint8_t *was)
{
    if (!memcmp(was, side[0]->area, WATCHED))
        return false;
    memcpy(was, side[0]->area, WATCHED);
    return true;
}

static void restore(void)
{
    for (uint32_t i = 0; i < 2; i++)
        memcpy(side[i], &saved[i], sizeof saved[i]);
}

/* How many instructions of the call change something; it is not taken back. */
static uint64_t count_stores(uint32_t kind, const uint8_t *packet, uint32_t len, uint32_t n)
{
    static uint8_t was[WATCHED];
    uint64_t stores = 0;
    memcpy(was, side[0]->area, sizeof was);
    for (pid_t child = begin_step(kind, packet, len, n); one_instruction(child); instructions++)
        stores += changed(was);
    return stores;
}

static void kill_behind(uint64_t nth, uint32_t kind, const uint8_t *packet, uint32_t len, uint32_t n)
{
    static uint8_t was[WATCHED];
    memcpy(was, side[0]->area, sizeof was);
    pid_t child = begin_step(kind, packet, len, n);
    while (one_instruction(child))
        if (changed(was) && --nth == 0) {
            struct user_regs_struct regs;
            CHECK(ptrace(PTRACE_GETREGS, child, NULL, &regs), ==, 0);
            died->at = regs.rip;
            died->kills++;
            end_step(child);
            return;
        }
}

/* The call once for each of its stores, in a process that plays the conversation to its end afterwards. */
static bool kill_engine_step(struct rng *r, uint32_t kind, const uint8_t *packet, uint32_t len, uint32_t n)
{
    if (over_now || kind != wanted || skip--)
        return false;
    for (uint32_t i = 0; i < 2; i++)
        memcpy(&saved[i], side[i], sizeof saved[i]);
    uint64_t stores = count_stores(kind, packet, len, n);
    over_now = true;
    for (uint64_t k = 1 + below(r, stride); k <= stores; k += stride) {
        points++;
        restore();
        pid_t child = fork();
        CHECK(child, >=, 0);
        if (child == 0) {
            kill_behind(k, kind, packet, len, n);
            take_over();
            return true;
        }
        int status;
        CHECK(waitpid(child, &status, 0), ==, child);
        if (status)
            fprintf(stderr, "%s, killed behind store %llu of %llu, at main %+lld\n", names[kind], (unsigned long long)k,
                    (unsigned long long)stores, (long long)(died->at - (uintptr_t)main));
        CHECK(status, ==, 0);
    }
    all += stores;
    restore();
    return false; /* and on, as if nothing had been */
}

int main(int argc, char **argv)
{
    if (!getenv("GLIBC_TUNABLES")) { /* with `rep movsb` each byte would be a step */
        setenv("GLIBC_TUNABLES", "glibc.cpu.x86_rep_movsb_threshold=1000000000", 1);
        execv("/proc/self/exe", argv);
    }
    check_begin(argc, argv, argc > 2 ? 3600 : 100);
    uint64_t least = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    stride = argc > 2 ? 1 : STRIDE;
    map_sides();
    died = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct rng r = rng_of(1);
    pid_t self = getpid();
    for (wanted = 0; wanted < KINDS; wanted++) {
        points = all = instructions = died->kills = 0;
        uint32_t calls = 0;
        for (; points < least; calls++) {
            skip = (uint32_t)below(&r, wanted == SHUT ? 2 : SKIP);
            over_now = false;
            now = 5000000000ull;
            conversation(&r);
            if (getpid() != self)
                _exit(0);
        }
        CHECK(died->kills, ==, points);
        fprintf(stderr, "%-16s %8llu instructions, killed behind %5llu of %5llu stores, in %u calls\n", names[wanted],
                (unsigned long long)instructions, (unsigned long long)points, (unsigned long long)all, calls);
    }
    return 0;
}
