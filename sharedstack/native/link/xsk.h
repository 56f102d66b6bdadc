/*
 * Purpose: the rings of one AF_XDP socket, by the kernel's interface (linux/if_xdp.h; Documentation/networking/af_xdp.rst). The socket is opened by
 * the helper, which has the capabilities; whoever holds its descriptor maps the rings and drives them.
 * Who may call: one at a time, under wire.lock. All positions lie in the kernel's ring memory, so that one goes on where another stopped.
 */
#pragma once
#include "common.h"

struct shs_xsk_ring {
    uint32_t *producer, *consumer, *flags;
    void *slots;
    uint32_t mask;
    void *map;
    size_t map_bytes;
};

struct shs_xsk {
    int fd;
    struct shs_xsk_ring rx, tx, fill, done;
};

/*
 * Opens a socket on a queue, whose frames are `memory`, and fills its fill ring. There are n_frames of `frame_bytes` for each way, a power of two: first those
 * to send from, then SHS_NIC_PIECES for packets that go beyond the last of them, then those to receive into. `parts`: packets may take several frames (Linux
 * 6.6), which some drivers can only copy. `busy_us`: who waits has the driver look for packets, for so long (0: no; Linux 5.11). Needs CAP_NET_RAW,
 * CAP_NET_ADMIN for `busy_us`, and locked memory. The descriptor, or -errno; -EOPNOTSUPP: the kernel has no `parts`. *kind: SHS_QUEUE_*.
 */
struct shs_xsk_wanted {
    uint32_t n_frames, frame_bytes, ifindex, queue, parts, busy_us;
};
int shs_xsk_open(void *memory, const struct shs_xsk_wanted *wanted, uint32_t *kind);

/* Frames of a queue, those for packets that go beyond the last one among them. */
static inline uint64_t shs_xsk_frames(uint32_t n_frames)
{
    return 2ull * n_frames + SHS_NIC_PIECES;
}

/* Maps the rings of an open socket, each of n_frames slots: 0 or -errno. The descriptor stays the caller's. */
int shs_xsk_attach(struct shs_xsk *x, int fd, uint32_t n_frames);
void shs_xsk_detach(struct shs_xsk *x);

/* Slots that are filled and not consumed yet. */
static inline uint32_t shs_xsk_used(const struct shs_xsk_ring *r)
{
    return __atomic_load_n(r->producer, __ATOMIC_ACQUIRE) - __atomic_load_n(r->consumer, __ATOMIC_ACQUIRE);
}

static inline bool shs_xsk_needs_wakeup(const struct shs_xsk_ring *r)
{
    return __atomic_load_n(r->flags, __ATOMIC_ACQUIRE) & 1; /* XDP_RING_NEED_WAKEUP */
}
