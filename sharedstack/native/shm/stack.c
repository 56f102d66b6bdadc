#include "shm/stack.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/shm.h>

#include "shm/sys.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

int shs_populate(void *at, size_t len)
{
    uintptr_t first = (uintptr_t)at & ~(uintptr_t)4095, last = ((uintptr_t)at + len + 4095) & ~(uintptr_t)4095;
    long r = SHS_SYS(syscall(SYS_madvise, first, last - first, MADV_POPULATE_WRITE));
    if (r != -EINVAL)
        return (int)r;
    /* before Linux 5.14: let the kernel write to each page; where memory is used up it gets EFAULT, not we SIGBUS */
    int zero = (int)SHS_SYS(syscall(SYS_openat, AT_FDCWD, "/dev/zero", O_RDONLY | O_CLOEXEC, 0));
    if (zero < 0)
        return zero;
    for (uintptr_t page = first; page < last && r != -EFAULT; page += 4096) {
        uint8_t was = __atomic_load_n((volatile uint8_t *)page, __ATOMIC_RELAXED);
        r = was ? 0 : SHS_SYS(syscall(SYS_read, zero, page, 1));
    }
    shs_sys_close(zero);
    return r < 0 ? (int)r : 0;
}

/* Map a window; its descriptor may get another number meanwhile, and the old number another meaning (endpoint/fds.h). */
static uint8_t *map_window(struct shs_env *env, off_t offset)
{
    for (;;) {
        struct shs_stat st;
        int fd = __atomic_load_n(&env->bulk_fd, __ATOMIC_SEQ_CST);
        bool ours = fd >= 0 && shs_sys_stat(fd, "", &st) == 0 && st.ino == env->bulk_ino;
        uint8_t *base = ours ? mmap(NULL, SHS_WINDOW_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset) : MAP_FAILED;
        if (__atomic_load_n(&env->bulk_fd, __ATOMIC_SEQ_CST) == fd)
            return base == MAP_FAILED ? NULL : base; /* NULL: no memory, or the program closed or replaced our descriptor unseen */
        if (base != MAP_FAILED)
            munmap(base, SHS_WINDOW_BYTES);
    }
}

int shs_bulk_map_huge(struct shs_env *env, int id)
{
    uint8_t *at = shmat(id, NULL, 0);
    if (at == (void *)-1)
        return -errno;
    for (size_t w = 0; w < SHS_N_WINDOWS; w++)
        env->window[w] = at + w * SHS_WINDOW_BYTES;
    env->bulk_fd = -1;
    return 0;
}

uint8_t *shs_unit_memory(struct shs_env *env, uint32_t unit)
{
    if (SHS_UNLIKELY(unit >= env->arena->n_units || unit >= SHS_N_UNITS))
        return NULL;
    size_t at = (size_t)unit * SHS_UNIT_BYTES;
    uint8_t **window = &env->window[at / SHS_WINDOW_BYTES];
    uint8_t *base = __atomic_load_n(window, __ATOMIC_ACQUIRE);
    if (SHS_UNLIKELY(!base)) {
        base = map_window(env, (off_t)(at / SHS_WINDOW_BYTES * SHS_WINDOW_BYTES));
        if (!base)
            return NULL;
        uint8_t *none = NULL;
        if (!__atomic_compare_exchange_n(window, &none, base, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
            munmap(base, SHS_WINDOW_BYTES);
            base = none;
        }
    }
    return base + at % SHS_WINDOW_BYTES;
}

bool shs_units_map(struct shs_env *env)
{
    uint32_t n = env->arena->n_units < SHS_N_UNITS ? env->arena->n_units : SHS_N_UNITS;
    for (uint32_t unit = 0; unit < n; unit += SHS_WINDOW_BYTES / SHS_UNIT_BYTES)
        if (!shs_unit_memory(env, unit))
            return false;
    return true;
}

int shs_check_headers(const struct shs_stack *stack, const struct shs_arena *arena)
{
    if (shs_load64(&stack->magic) != SHS_STACK_MAGIC || shs_load64(&arena->magic) != SHS_ARENA_MAGIC)
        return -EPROTO;
    if (stack->layout_hash != SHS_LAYOUT_HASH || arena->layout_hash != SHS_LAYOUT_HASH || stack->version != SHS_VERSION)
        return -EPROTO;
    return 0;
}
