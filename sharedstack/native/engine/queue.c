/*
 * The bytes of queues. A queue is a power of two long, which divides 2^32: sequence numbers plus a bias that never changes are indices
 * into it, so that what a queue holds changes by one store of one sequence number.
 */
#include "engine/tcp.h"

bool shs_queue_ok(const struct shs_engine *e, uint64_t off, uint32_t size)
{
    return size >= 256 && size <= 1u << 30 && !(size & (size - 1)) && off <= e->queue_bytes && size <= e->queue_bytes - off;
}

bool shs_queue_put(struct shs_engine *e, uint64_t off, uint32_t size, uint32_t at, const void *from, uint32_t len)
{
    if (SHS_UNLIKELY(!shs_queue_ok(e, off, size) || len > size))
        return false;
    at &= size - 1;
    uint32_t first = shs_min32(len, size - at);
    memcpy(e->queues + off + at, from, first);
    memcpy(e->queues + off, (const uint8_t *)from + first, len - first);
    return true;
}

bool shs_queue_get(struct shs_engine *e, uint64_t off, uint32_t size, uint32_t at, void *to, uint32_t len)
{
    if (SHS_UNLIKELY(!shs_queue_ok(e, off, size) || len > size))
        return false;
    at &= size - 1;
    uint32_t first = shs_min32(len, size - at);
    memcpy(to, e->queues + off + at, first);
    memcpy((uint8_t *)to + first, e->queues + off, len - first);
    return true;
}
