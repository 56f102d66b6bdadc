#include "link/xsk.h"

#include <errno.h>
#include <linux/if_xdp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shm/sys.h"

#ifndef AF_XDP
#define AF_XDP 44
#endif
#ifndef SOL_XDP
#define SOL_XDP 283
#endif
#ifndef XDP_USE_SG
#define XDP_USE_SG (1 << 4)
#endif
#ifndef SO_PREFER_BUSY_POLL
#define SO_PREFER_BUSY_POLL 69
#define SO_BUSY_POLL_BUDGET 70
#endif
#define BUSY_BUDGET 64 /* packets that the driver looks at in one call */

static void unmap(struct shs_xsk_ring *r)
{
    if (r->map)
        munmap(r->map, r->map_bytes);
    *r = (struct shs_xsk_ring){0};
}

void shs_xsk_detach(struct shs_xsk *x)
{
    unmap(&x->rx);
    unmap(&x->tx);
    unmap(&x->fill);
    unmap(&x->done);
}

/* A ring of `n` slots, which the kernel has made as large as it was asked to. */
static int map_ring(struct shs_xsk_ring *r, int fd, const struct xdp_ring_offset *off, uint32_t n, size_t slot, off64_t page)
{
    size_t bytes = off->desc + n * slot;
    void *at = mmap64(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, page);
    if (at == MAP_FAILED)
        return -errno;
    uint8_t *base = at;
    r->producer = (void *)(base + off->producer);
    r->consumer = (void *)(base + off->consumer);
    r->flags = (void *)(base + off->flags);
    r->slots = base + off->desc;
    r->mask = n - 1;
    r->map = at;
    r->map_bytes = bytes;
    return 0;
}

int shs_xsk_attach(struct shs_xsk *x, int fd, uint32_t n)
{
    struct xdp_mmap_offsets off;
    socklen_t len = sizeof off;
    *x = (struct shs_xsk){.fd = fd};
    int r = SHS_SYS(getsockopt(fd, SOL_XDP, XDP_MMAP_OFFSETS, &off, &len));
    if (r == 0 && len != sizeof off)
        r = -EPROTO; /* a kernel before 5.4, whose rings have no flags */
    if (r == 0)
        r = map_ring(&x->rx, fd, &off.rx, n, sizeof(struct xdp_desc), XDP_PGOFF_RX_RING);
    if (r == 0)
        r = map_ring(&x->tx, fd, &off.tx, n, sizeof(struct xdp_desc), XDP_PGOFF_TX_RING);
    if (r == 0)
        r = map_ring(&x->fill, fd, &off.fr, n, sizeof(uint64_t), (off64_t)XDP_UMEM_PGOFF_FILL_RING);
    if (r == 0)
        r = map_ring(&x->done, fd, &off.cr, n, sizeof(uint64_t), (off64_t)XDP_UMEM_PGOFF_COMPLETION_RING);
    if (r < 0)
        shs_xsk_detach(x);
    return r;
}

static int sized(int fd, int option, uint32_t n)
{
    return (int)SHS_SYS(setsockopt(fd, SOL_XDP, option, &n, sizeof n));
}

/* All frames for receiving go to the kernel at once. */
static int fill(int fd, uint32_t n, uint32_t frame_bytes)
{
    struct shs_xsk x;
    int r = shs_xsk_attach(&x, fd, n);
    if (r < 0)
        return r;
    uint64_t *slots = x.fill.slots;
    for (uint32_t i = 0; i < n; i++)
        slots[i] = (uint64_t)(n + SHS_NIC_PIECES + i) * frame_bytes;
    __atomic_store_n(x.fill.producer, n, __ATOMIC_RELEASE);
    shs_xsk_detach(&x);
    return 0;
}

/* Who calls for packets has the driver look for them, whose interrupts wait meanwhile (napi_defer_hard_irqs, gro_flush_timeout of the interface). */
static int poll_busily(int fd, uint32_t us)
{
    const int options[][2] = {{SO_PREFER_BUSY_POLL, 1}, {SO_BUSY_POLL, (int)us}, {SO_BUSY_POLL_BUDGET, BUSY_BUDGET}};
    int r = 0;
    for (size_t i = 0; i < sizeof options / sizeof *options && r == 0; i++)
        r = (int)SHS_SYS(setsockopt(fd, SOL_SOCKET, options[i][0], &options[i][1], sizeof options[i][1]));
    return r;
}

/* Neither XDP_COPY nor XDP_ZEROCOPY: the kernel takes the better one that the driver has. */
static int bind_to(int fd, const struct shs_xsk_wanted *wanted)
{
    struct sockaddr_xdp to = {
        .sxdp_family = AF_XDP, .sxdp_flags = XDP_USE_NEED_WAKEUP, .sxdp_ifindex = wanted->ifindex, .sxdp_queue_id = wanted->queue};
    if (wanted->parts)
        to.sxdp_flags |= XDP_USE_SG;
    int r = (int)SHS_SYS(bind(fd, (struct sockaddr *)&to, sizeof to));
    return r == -EINVAL && wanted->parts ? -EOPNOTSUPP : r;
}

/* Since Linux 6.14 it is known at once whether the driver says which of its NAPI contexts has a queue; before, with the first packet. */
static bool can_be_polled(int fd)
{
    int napi = 0;
    socklen_t len = sizeof napi;
    return SHS_SYS(getsockopt(fd, SOL_SOCKET, SO_INCOMING_NAPI_ID, &napi, &len)) == 0 && napi != 0;
}

int shs_xsk_open(void *memory, const struct shs_xsk_wanted *wanted, uint32_t *kind)
{
    uint32_t n_frames = wanted->n_frames, frame_bytes = wanted->frame_bytes;
    struct xdp_umem_reg umem = {.addr = (uintptr_t)memory, .len = shs_xsk_frames(n_frames) * frame_bytes, .chunk_size = frame_bytes};
    struct xdp_options options = {0};
    socklen_t len = sizeof options;
    int fd = (int)SHS_SYS(socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0));
    if (fd < 0)
        return fd;
    int r = (int)SHS_SYS(setsockopt(fd, SOL_XDP, XDP_UMEM_REG, &umem, sizeof umem));
    r = r ? r : sized(fd, XDP_UMEM_FILL_RING, n_frames);
    r = r ? r : sized(fd, XDP_UMEM_COMPLETION_RING, n_frames);
    r = r ? r : sized(fd, XDP_RX_RING, n_frames);
    r = r ? r : sized(fd, XDP_TX_RING, n_frames);
    r = r ? r : fill(fd, n_frames, frame_bytes);
    r = r ? r : bind_to(fd, wanted);
    r = r || !wanted->busy_us ? r : poll_busily(fd, wanted->busy_us);
    if (r == 0)
        r = (int)SHS_SYS(getsockopt(fd, SOL_XDP, XDP_OPTIONS, &options, &len));
    if (r < 0) {
        shs_sys_close(fd);
        return r;
    }
    *kind = (options.flags & XDP_OPTIONS_ZEROCOPY ? SHS_QUEUE_ZERO_COPY : 0) | (can_be_polled(fd) ? SHS_QUEUE_NAPI : 0);
    return fd;
}
