/*
 * For Python (ctypes): AF_XDP sockets for the helper, which opens them and lends them; for tests, an engine driven over a lent interface.
 */
#include "link/nic.h"

#define BUDGET 64

SHS_PUBLIC int shs_native_xsk_open(void *memory, const struct shs_xsk_wanted *wanted, uint32_t *kind);
SHS_PUBLIC int shs_native_xsk_open(void *memory, const struct shs_xsk_wanted *wanted, uint32_t *kind)
{
    return shs_xsk_open(memory, wanted, kind);
}

SHS_PUBLIC uint64_t shs_test_nic_bytes(void);
SHS_PUBLIC uint64_t shs_test_nic_bytes(void)
{
    return sizeof(struct shs_nic_port);
}

SHS_PUBLIC int shs_test_nic_attach(struct shs_nic_port *p, struct shs_nic *nic, void *memory, uint64_t bytes, const int *fds);
SHS_PUBLIC int shs_test_nic_attach(struct shs_nic_port *p, struct shs_nic *nic, void *memory, uint64_t bytes, const int *fds)
{
    return shs_nic_attach(p, nic, memory, bytes, fds);
}

SHS_PUBLIC void shs_test_nic_detach(struct shs_nic_port *p);
SHS_PUBLIC void shs_test_nic_detach(struct shs_nic_port *p)
{
    shs_nic_detach(p);
}

SHS_PUBLIC const struct shs_device *shs_test_nic_device(const struct shs_nic_port *p);
SHS_PUBLIC const struct shs_device *shs_test_nic_device(const struct shs_nic_port *p)
{
    return &p->device;
}

SHS_PUBLIC void shs_test_nic_repair(struct shs_nic_port *p);
SHS_PUBLIC void shs_test_nic_repair(struct shs_nic_port *p)
{
    shs_nic_repair(p);
}

/* Strays that were kept: length u32 and bytes of each, one after the other. */
static struct {
    uint32_t used;
    uint8_t bytes[65536];
} strays;

static void keep(void *arg, const uint8_t *frame, uint32_t len)
{
    (void)arg;
    if (strays.used + sizeof len + len > sizeof strays.bytes)
        return;
    memcpy(strays.bytes + strays.used, &len, sizeof len);
    memcpy(strays.bytes + strays.used + sizeof len, frame, len);
    strays.used += (uint32_t)sizeof len + len;
}

/* Keeps strays from now on; returns the bytes of those that were kept, into `to`, which has room for 65536. */
SHS_PUBLIC uint32_t shs_test_nic_strays(struct shs_nic_port *p, uint8_t *to);
SHS_PUBLIC uint32_t shs_test_nic_strays(struct shs_nic_port *p, uint8_t *to)
{
    uint32_t n = strays.used;
    p->stray = keep;
    memcpy(to, strays.bytes, n);
    strays.used = 0;
    return n;
}

static uint32_t lose_every, sent;
static void (*send_whole)(void *dev, uint32_t len);

static void send_most(void *dev, uint32_t len)
{
    if (++sent % lose_every)
        send_whole(dev, len);
}

/* Of so many packets that are sent from now on one is lost. */
SHS_PUBLIC void shs_test_nic_lose(struct shs_nic_port *p, uint32_t every);
SHS_PUBLIC void shs_test_nic_lose(struct shs_nic_port *p, uint32_t every)
{
    lose_every = every;
    send_whole = p->device.send;
    p->device.send = send_most;
}

/* By that queue, until a packet comes by another one. */
SHS_PUBLIC void shs_test_nic_send_by(struct shs_nic_port *p, uint32_t queue);
SHS_PUBLIC void shs_test_nic_send_by(struct shs_nic_port *p, uint32_t queue)
{
    p->out = queue;
}

static uint32_t drive(struct shs_nic_port *p, struct shs_engine *e)
{
    e->now = shs_now();
    uint32_t n = shs_nic_receive(p, e, BUDGET);
    shs_engine_timers(e);
    shs_nic_flush(p);
    return n;
}

/* What whoever polls does, for so long; returns the packets that came. */
SHS_PUBLIC uint64_t shs_test_nic_drive(struct shs_nic_port *p, struct shs_engine *e, uint64_t ns);
SHS_PUBLIC uint64_t shs_test_nic_drive(struct shs_nic_port *p, struct shs_engine *e, uint64_t ns)
{
    uint64_t until = shs_now() + ns, n = 0;
    do
        n += drive(p, e);
    while (shs_now() < until);
    return n;
}

/* Until so many bytes are there to be received: 0, or -EAGAIN after `ns`. */
static int await(struct shs_nic_port *p, struct shs_engine *e, uint64_t handle, uint32_t bytes, uint64_t ns)
{
    uint64_t until = shs_now() + ns;
    while (shs_tcp_readable(e, handle) < bytes) {
        drive(p, e);
        if (shs_now() > until)
            return -EAGAIN;
    }
    return 0;
}

/* Messages of `len` bytes there and back, n times; times[i] in ns of whoever is `first`. How many went well. */
SHS_PUBLIC uint32_t shs_test_nic_pingpong(struct shs_nic_port *p, struct shs_engine *e, uint64_t handle, uint32_t first, uint32_t len,
                                          uint32_t n, uint64_t *times);
SHS_PUBLIC uint32_t shs_test_nic_pingpong(struct shs_nic_port *p, struct shs_engine *e, uint64_t handle, uint32_t first, uint32_t len,
                                          uint32_t n, uint64_t *times)
{
    uint8_t bytes[2048];
    if (len > sizeof bytes)
        return 0;
    memset(bytes, 'p', len);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t start = shs_now();
        if (first && shs_tcp_send(e, handle, bytes, len) != (long)len)
            return i;
        if (first)
            shs_nic_flush(p);
        if (await(p, e, handle, len, 2000000000ull) < 0 || shs_tcp_recv(e, handle, bytes, len) != (long)len)
            return i;
        if (!first && shs_tcp_send(e, handle, bytes, len) != (long)len)
            return i;
        if (!first)
            shs_nic_flush(p);
        times[i] = shs_now() - start;
    }
    shs_test_nic_drive(p, e, 50000000); /* the last acknowledgments */
    return n;
}
