/*
 * Whoever drives a lent interface dies between any two of the stores that bring a frame back to the kernel: afterwards each frame for receiving is
 * in one ring, once, and no part of a packet that was taken is left. And frames for receiving are never among those for sending: these may all be
 * taken. The rings are ordinary memory here; the test is the kernel.
 */
#include <linux/if_xdp.h>

#include "check.h"
#include "link/nic.h"

#define FRAMES 8
#define BYTES 2048
#define CONTINUED 1 /* XDP_PKT_CONTD */
#define RECEIVING (FRAMES + SHS_NIC_PIECES) /* the first frame to receive into */

static struct shs_nic nic;
static uint8_t memory[(2 * FRAMES + SHS_NIC_PIECES) * BYTES];
static uint32_t position[8][2];
static struct xdp_desc rx[FRAMES], tx[FRAMES];
static uint64_t fill[FRAMES], done[FRAMES];
static struct shs_nic_port port;

static struct shs_xsk_ring ring(int n, void *slots)
{
    return (struct shs_xsk_ring){
        .producer = &position[n][0], .consumer = &position[n][1], .flags = &position[n + 4][0], .slots = slots, .mask = FRAMES - 1};
}

/* All frames are with the kernel, which has received into `received` of them. */
static void begin(uint32_t received)
{
    memset(position, 0, sizeof position);
    memset(&nic, 0, sizeof nic);
    port = (struct shs_nic_port){.nic = &nic, .memory = memory, .n_queues = 1, .n_frames = FRAMES, .frame_bytes = BYTES, .n_pieces = 1};
    port.xsk[0] = (struct shs_xsk){.fd = -1, .rx = ring(0, rx), .tx = ring(1, tx), .fill = ring(2, fill), .done = ring(3, done)};
    for (uint32_t i = 0; i < FRAMES; i++)
        fill[i] = (uint64_t)(RECEIVING + i) * BYTES;
    position[2][0] = FRAMES;
    position[2][1] = received; /* the kernel took them */
    for (uint32_t i = 0; i < received; i++)
        rx[i] = (struct xdp_desc){.addr = fill[i] + 256, .len = 60};
    position[0][0] = received;
}

static void each_frame_once(void)
{
    uint32_t seen[RECEIVING + FRAMES] = {0};
    for (uint32_t i = position[2][1]; i != position[2][0]; i++)
        seen[fill[i % FRAMES] / BYTES]++;
    for (uint32_t i = position[0][1]; i != position[0][0]; i++)
        seen[rx[i % FRAMES].addr / BYTES]++;
    for (uint32_t i = 0; i < RECEIVING + FRAMES; i++)
        CHECK(seen[i], ==, i >= RECEIVING);
    CHECK(nic.queue[0].recycled, ==, 0);
}

/* What recycle had stored when it was killed: 0 nothing, 1 the note, 2 taken, 3 filled but not counted, 4 filled. */
static void killed_after(int stores, uint32_t received)
{
    begin(received);
    uint64_t addr = rx[0].addr / BYTES * BYTES;
    if (stores >= 1)
        nic.queue[0].recycled = addr + 1;
    if (stores >= 2)
        position[0][1]++;
    if (stores >= 3)
        fill[position[2][0] % FRAMES] = addr;
    if (stores >= 4)
        position[2][0]++;
    shs_nic_repair(&port);
    each_frame_once();
    shs_nic_repair(&port);
    each_frame_once();
}

/* The first `gone` frames of a packet of n were on their way out when he died; others have come after it. */
static void killed_within(uint32_t n, uint32_t gone)
{
    begin(n + 2);
    for (uint32_t i = 0; i + 1 < n; i++)
        rx[i].options = CONTINUED;
    nic.queue[0].until = n;
    for (uint32_t i = 0; i < gone; i++) {
        fill[position[2][0]++ % FRAMES] = rx[i].addr / BYTES * BYTES;
        position[0][1]++;
    }
    shs_nic_repair(&port);
    each_frame_once();
    CHECK(position[0][1], ==, n);
    shs_nic_repair(&port);
    CHECK(position[0][1], ==, n);
}

/* A packet of several frames lies in one piece, the last frames' goes on behind them, and none of it is used again too soon. */
static void large(void)
{
    port.n_pieces = SHS_NIC_PIECES;
    CHECK(port.device.room(&port, SHS_NIC_PIECES * BYTES) == NULL, ==, true); /* too long with its header */
    memset(tx, 0, sizeof tx);
    for (uint32_t at = 0; at < 5 * FRAMES; at += 5) {
        position[1][0] = position[3][0] = at;
        position[1][1] = at;
        uint8_t *to = port.device.room(&port, 4 * BYTES + 100);
        CHECK(to - memory, ==, (long)(at % FRAMES) * BYTES + 14);
        memset(to, 0, 4 * BYTES + 100);
        to[0] = 0x45;
        port.device.send(&port, 4 * BYTES + 100);
        CHECK(position[1][0], ==, at + 5);
        for (uint32_t i = 0; i < 5; i++) {
            const struct xdp_desc *d = &tx[(at + i) % FRAMES];
            CHECK(d->addr, ==, (uint64_t)(at % FRAMES + i) * BYTES);
            CHECK(d->len, ==, i < 4 ? BYTES : 114);
            CHECK(d->options, ==, i < 4 ? CONTINUED : 0);
        }
        CHECK(port.device.room(&port, 3 * BYTES) == NULL, ==, true); /* five of eight are with the kernel */
        CHECK(port.device.room(&port, 2 * BYTES) != NULL, ==, true);
    }
}

/* Frames for sending come round in order, and never to what the kernel still has. */
static void sending(void)
{
    begin(0);
    nic.hops[0] = (struct shs_hop){.state = SHS_HOP_KNOWN, .addr = {[10] = 0xff, [11] = 0xff}};
    nic.magic = SHS_NIC_MAGIC;
    nic.n_queues = 1;
    nic.n_frames = FRAMES;
    nic.frame_bytes = BYTES;
    int none = -1;
    struct shs_nic_port attached;
    CHECK(shs_nic_attach(&attached, &nic, memory, sizeof memory - 1, &none), ==, -EINVAL);
    CHECK(shs_nic_attach(&attached, &nic, memory, sizeof memory, &none), ==, -EBADF);
    port.device = attached.device;
    port.device.dev = &port;
    uint8_t *at[FRAMES];
    for (int i = 0; i < FRAMES; i++) {
        CHECK((at[i] = port.device.room(&port, 100)) != NULL, ==, true);
        memset(at[i], 0, 100);
        at[i][0] = 0x45;
        port.device.send(&port, 100);
        for (int k = 0; k < i; k++)
            CHECK(at[i] != at[k], ==, true);
        CHECK(tx[i].len, ==, 114);
    }
    CHECK(port.device.room(&port, 100) == NULL, ==, true);
    CHECK(nic.queue[0].tx_full, ==, 1);
    position[3][0] = 2; /* two are done */
    CHECK(port.device.room(&port, 100) == at[0], ==, true);
    CHECK(port.device.room(&port, BYTES) == NULL, ==, true); /* too long with its header */
    at[0][0] = 0x45;
    at[0][19] = 9; /* nobody knows where that is */
    port.device.send(&port, 100);
    CHECK(nic.queue[0].tx_lost, ==, 1);
    CHECK(position[1][0], ==, FRAMES);
    at[0][19] = 0;
    large();
}

/* Everything that may be sent is with the kernel, which completes nothing: what comes is received all the same, and its frames go back. */
static void receiving_while_all_is_sent(void)
{
    static uint8_t area[100000] __attribute__((aligned(64))), queues[4096];
    static const struct shs_engine_size size = {.n_tcp = 1, .n_udp = 1, .n_seg = 8, .n_buckets = 4};
    struct shs_engine engine;
    struct shs_nic_port attached;
    int none = -1;
    CHECK(shs_nic_attach(&attached, &nic, memory, sizeof memory, &none), ==, -EBADF);
    begin(FRAMES);
    port.device = attached.device;
    port.device.dev = &port;
    CHECK(shs_engine_bytes(&size), <=, sizeof area);
    shs_engine_format(area, &size, 1, 1);
    CHECK(shs_engine_attach(&engine, area, sizeof area, queues, sizeof queues, &port.device), ==, 0);
    engine.now = 1;
    nic.hops[0] = (struct shs_hop){.state = SHS_HOP_KNOWN, .addr = {[10] = 0xff, [11] = 0xff}};
    uint8_t *to;
    while ((to = port.device.room(&port, 100))) {
        memset(to, 0, 100);
        to[0] = 0x45;
        port.device.send(&port, 100);
    }
    CHECK(position[1][0], ==, FRAMES);
    for (uint32_t turn = 0; turn < 5; turn++) {
        CHECK(shs_nic_receive(&port, &engine, 2 * FRAMES), ==, FRAMES);
        each_frame_once();
        CHECK(position[2][0] - position[2][1], ==, FRAMES);
        for (uint32_t i = 0; i < FRAMES; i++) { /* the kernel receives again, into what it was given back */
            rx[position[0][0] % FRAMES] = (struct xdp_desc){.addr = fill[position[2][1] % FRAMES] + 256, .len = 60};
            position[2][1]++;
            position[0][0]++;
        }
    }
    CHECK(nic.queue[0].rx, ==, 5 * FRAMES);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv, 10);
    for (int stores = 0; stores <= 4; stores++)
        for (uint32_t received = 1; received <= FRAMES; received++)
            killed_after(stores, received);
    for (uint32_t n = 2; n <= 6; n++)
        for (uint32_t gone = 0; gone <= n; gone++)
            killed_within(n, gone);
    sending();
    receiving_while_all_is_sent();
    return 0;
}
