/* For tests/kill: a function of the native core between two breakpoints, the Nth time that it is called. */
#include <stdint.h>

long trapped(long (*call)(uint64_t, uint64_t, uint64_t, uint64_t), uint64_t a, uint64_t b, uint64_t c, uint64_t d);
long trapped(long (*call)(uint64_t, uint64_t, uint64_t, uint64_t), uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    __asm__ volatile("int3" ::: "memory");
    long r = call(a, b, c, d);
    __asm__ volatile("int3" ::: "memory");
    return r;
}
