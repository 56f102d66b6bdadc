/*
 * Purpose: a stack, an arena and bulk memory as the helper makes them, and participants in them, without any helper.
 * The segments are shared mappings, so forked children share them. Bulk windows stand between pages that nobody may touch.
 */
#pragma once
#include "check.h"

#include <netinet/in.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "endpoint/lift.h"
#include "shm/flow.h"
#include "shm/lock.h"
#include "shm/slot.h"
#include "shm/sys.h"
#include "shm/units.h"

struct world {
    struct shs_stack *stack;
    struct shs_arena *arena;
    int bulk_fd;
    uint64_t bulk_ino;
};

static inline void *world_map(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(at == MAP_FAILED, ==, false);
    return at;
}

static inline void world_make(struct world *w, uint32_t n_units)
{
    uint64_t netns = 0;
    socklen_t len = sizeof netns;
    int sock = socket(AF_INET, SOCK_STREAM, 0);
    shs_sys_getsockopt(sock, SOL_SOCKET, 71 /* SO_NETNS_COOKIE */, &netns, &len);
    close(sock);
    w->stack = world_map(SHS_STACK_BYTES);
    w->arena = world_map(SHS_ARENA_BYTES);
    w->bulk_fd = (int)syscall(SYS_memfd_create, "bulk", 1 /* MFD_CLOEXEC */);
    CHECK(ftruncate(w->bulk_fd, SHS_BULK_BYTES), ==, 0);
    struct shs_stat st;
    CHECK(shs_sys_stat(w->bulk_fd, "", &st), ==, 0);
    w->bulk_ino = st.ino;
    struct shs_stack *s = w->stack;
    s->layout_hash = w->arena->layout_hash = SHS_LAYOUT_HASH;
    s->version = SHS_VERSION;
    s->uid = w->arena->uid[0] = w->arena->uid[1] = (uint32_t)getuid();
    s->netns = netns;
    s->made_ns = shs_now();
    s->n_cpus = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
    s->state = SHS_STACK_READY;
    s->pair_ok = 1;
    w->arena->bulk_kind = SHS_BULK_POSIX;
    w->arena->bulk_id = -1;
    w->arena->n_units = n_units;
    shs_store64(&s->magic, SHS_STACK_MAGIC);
    shs_store64(&w->arena->magic, SHS_ARENA_MAGIC);
    CHECK(shs_check_headers(w->stack, w->arena), ==, 0);
}

static inline void world_drop(struct world *w)
{
    munmap(w->stack, SHS_STACK_BYTES);
    munmap(w->arena, SHS_ARENA_BYTES);
    close(w->bulk_fd);
}

/* The calling thread becomes the home thread of a new participant. */
static inline void world_join(struct world *w, struct shs_env *env)
{
    *env = (struct shs_env){.stack = w->stack, .arena = w->arena, .bulk_fd = w->bulk_fd, .bulk_ino = w->bulk_ino};
#define SET(name, variable, value, low, high) env->opt.name = value;
    SHS_OPTION_LIST(SET)
#undef SET
    env->bell_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int slot = shs_slot_claim(w->stack, (uint32_t)getpid(), 0);
    CHECK(slot, >=, 0);
    env->slot1 = (uint32_t)slot + 1;
}

/* Windows of the bulk segment with unmapped neighbours: whoever leaves one is found out. */
static inline void world_guard(struct shs_env *env)
{
    const size_t guard = 1u << 20;
    for (size_t i = 0; i < SHS_N_WINDOWS; i++) {
        uint8_t *at = mmap(NULL, SHS_WINDOW_BYTES + 2 * guard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        CHECK(at == MAP_FAILED, ==, false);
        env->window[i] =
            mmap(at + guard, SHS_WINDOW_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, env->bulk_fd, (off_t)(i * SHS_WINDOW_BYTES));
        CHECK(env->window[i] == at + guard, ==, true);
    }
}

static inline void world_leave(struct shs_env *env)
{
    close(env->bell_fd);
    shs_slot_release(env->stack, env->slot1 - 1);
    for (size_t i = 0; i < SHS_N_WINDOWS; i++)
        if (env->window[i])
            munmap(env->window[i], SHS_WINDOW_BYTES);
}

static inline struct shs_who world_who(const struct shs_env *env, uint32_t tag)
{
    return (struct shs_who){.lock_word = env->slot1 << SHS_LOCK_SLOT_SHIFT | tag << 1, .tag = tag};
}

/* What is derived in the arena, and the same rebuilt from what is primary: they must not differ. */
static inline void world_check_arena(struct world *w)
{
    static struct shs_arena was;
    memcpy(&was, w->arena, sizeof was);
    shs_arena_rebuild(w->arena);
    CHECK(was.pairs_used, ==, w->arena->pairs_used);
    CHECK(was.units_used, ==, w->arena->units_used);
    for (size_t i = 0; i < SHS_N_UNITS / 64; i++)
        CHECK(was.units[i], ==, w->arena->units[i]);
}
