/*
 * Purpose: the words that every file of the core uses: branch hints, atomics, time.
 * Who may call: anybody; nothing here takes a lock or makes a system call (but the clock, through the vDSO).
 *
 * Atomics: `load`/`store` are acquire/release; read-modify-writes are sequentially consistent, as docs/internals/protocol.md
 * reasons with them.
 */
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include "layout.gen.h"
#include "names.gen.h"

#define SHS_LIKELY(x) __builtin_expect(!!(x), 1)
#define SHS_UNLIKELY(x) __builtin_expect(!!(x), 0)
/* What a forked child runs before its program goes on, side by side: each page of code that it comes to is a fault. */
#define SHS_AT_FORK __attribute__((section("shs_fork")))
#define SHS_PUBLIC __attribute__((visibility("default")))

static inline uint64_t shs_load64(const uint64_t *p)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static inline uint32_t shs_load32(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static inline uint64_t shs_peek64(const uint64_t *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static inline uint32_t shs_peek32(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static inline void shs_store64(uint64_t *p, uint64_t v)
{
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
}

static inline void shs_store32(uint32_t *p, uint32_t v)
{
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
}

/* A store that orders nothing: statistics and hints, and fields that only the holder of a lock writes. */
static inline void shs_set64(uint64_t *p, uint64_t v)
{
    __atomic_store_n(p, v, __ATOMIC_RELAXED);
}

static inline void shs_set32(uint32_t *p, uint32_t v)
{
    __atomic_store_n(p, v, __ATOMIC_RELAXED);
}

/* Of a number that guides us, and may miss a step of another thread's. */
static inline uint32_t shs_step32(uint32_t *p)
{
    uint32_t v = shs_peek32(p) + 1;
    shs_set32(p, v);
    return v;
}

static inline bool shs_cas64(uint64_t *p, uint64_t from, uint64_t to)
{
    return __atomic_compare_exchange_n(p, &from, to, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static inline bool shs_cas32(uint32_t *p, uint32_t from, uint32_t to)
{
    return __atomic_compare_exchange_n(p, &from, to, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static inline uint64_t shs_add64(uint64_t *p, uint64_t n)
{
    return __atomic_fetch_add(p, n, __ATOMIC_SEQ_CST);
}

static inline uint32_t shs_add32(uint32_t *p, uint32_t n)
{
    return __atomic_fetch_add(p, n, __ATOMIC_SEQ_CST);
}

static inline void shs_fence(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static inline void shs_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#else
    __asm__ volatile("" ::: "memory");
#endif
}

/* Nanoseconds of CLOCK_MONOTONIC (through the vDSO: some 20 ns). */
static inline uint64_t shs_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}
