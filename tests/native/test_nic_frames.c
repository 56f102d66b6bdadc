/*
 * Whoever drives a lent interface dies between any two of the stores that bring a frame back to the kernel: afterwards each frame for receiving is
 * in one ring, once. The rings are ordinary memory here; the test is the kernel.
 */
#include <linux/if_xdp.h>

#include "check.h"
#include "link/nic.h"

#define FRAMES 8
#define BYTES 2048

static struct shs_nic nic;
static uint8_t memory[2 * FRAMES * BYTES];
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
    port = (struct shs_nic_port){.nic = &nic, .memory = memory, .n_queues = 1, .n_frames = FRAMES, .frame_bytes = BYTES};
    port.xsk[0] = (struct shs_xsk){.fd = -1, .rx = ring(0, rx), .tx = ring(1, tx), .fill = ring(2, fill), .done = ring(3, done)};
    for (uint32_t i = 0; i < FRAMES; i++)
        fill[i] = (uint64_t)(FRAMES + i) * BYTES;
    position[2][0] = FRAMES;
    position[2][1] = received; /* the kernel took them */
    for (uint32_t i = 0; i < received; i++)
        rx[i] = (struct xdp_desc){.addr = fill[i] + 256, .len = 60};
    position[0][0] = received;
}

static void each_frame_once(void)
{
    uint32_t seen[2 * FRAMES] = {0};
    for (uint32_t i = position[2][1]; i != position[2][0]; i++)
        seen[fill[i % FRAMES] / BYTES]++;
    for (uint32_t i = position[0][1]; i != position[0][0]; i++)
        seen[rx[i % FRAMES].addr / BYTES]++;
    for (uint32_t i = 0; i < 2 * FRAMES; i++)
        CHECK(seen[i], ==, i >= FRAMES);
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
}

int main(int argc, char **argv)
{
    check_begin(argc, argv, 10);
    for (int stores = 0; stores <= 4; stores++)
        for (uint32_t received = 1; received <= FRAMES; received++)
            killed_after(stores, received);
    sending();
    return 0;
}
