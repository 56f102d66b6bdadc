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
        slots[i] = (uint64_t)(n + i) * frame_bytes;
    __atomic_store_n(x.fill.producer, n, __ATOMIC_RELEASE);
    shs_xsk_detach(&x);
    return 0;
}

int shs_xsk_open(void *memory, uint32_t n_frames, uint32_t frame_bytes, uint32_t ifindex, uint32_t queue, uint32_t *zero_copy)
{
    struct xdp_umem_reg umem = {.addr = (uintptr_t)memory, .len = 2ull * n_frames * frame_bytes, .chunk_size = frame_bytes};
    struct sockaddr_xdp to = {.sxdp_family = AF_XDP, .sxdp_flags = XDP_USE_NEED_WAKEUP, .sxdp_ifindex = ifindex, .sxdp_queue_id = queue};
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
    /* neither XDP_COPY nor XDP_ZEROCOPY: the kernel takes the better one that the driver has */
    r = r ? r : (int)SHS_SYS(bind(fd, (struct sockaddr *)&to, sizeof to));
    if (r == 0)
        r = (int)SHS_SYS(getsockopt(fd, SOL_XDP, XDP_OPTIONS, &options, &len));
    if (r < 0) {
        shs_sys_close(fd);
        return r;
    }
    *zero_copy = options.flags & XDP_OPTIONS_ZEROCOPY;
    return fd;
}
