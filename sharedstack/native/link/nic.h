/*
 * Purpose: an interface lent to a stack as the engine's device: frames of its AF_XDP sockets in, packets of the engine out.
 * Who may call: a participant or the helper, under wire.lock.
 * When the caller dies here: frames that are sent need no keeping (nic.c); of those received one may be on its way back to the kernel, which
 * shs_nic_repair finds by nic_queue.recycled. A packet that was being handled is lost, or handled twice: TCP bears both.
 */
#pragma once
#include "engine/engine.h"
#include "link/xsk.h"

struct shs_nic_port {
    struct shs_nic *nic;
    uint8_t *memory; /* of all queues, one after the other */
    uint32_t n_queues, n_frames, frame_bytes; /* as attached, whatever the segment says later */
    uint32_t n_pieces;                        /* frames that a packet may take */
    bool busy;                                /* who waits has the driver look for packets */
    uint32_t out; /* the queue to send by: the one that brought the last packet */
    struct shs_device device;
    /* A packet of a flow that the engine has not: it was given back to the kernel, which is to get this as well. NULL: it is lost. */
    void (*stray)(void *arg, const uint8_t *frame, uint32_t len);
    void *stray_arg;
    struct shs_xsk xsk[SHS_N_NIC_QUEUES];
    uint8_t whole[SHS_NIC_PIECES * 2048]; /* a packet that came in several frames */
};

static inline uint64_t shs_nic_memory(uint32_t n_queues, uint32_t n_frames, uint32_t frame_bytes)
{
    return n_queues * shs_xsk_frames(n_frames) * frame_bytes;
}

/* `fds`: a socket for each queue. 0, or -errno; -EINVAL: the segment is none, or too small for what it says. */
int shs_nic_attach(struct shs_nic_port *p, struct shs_nic *nic, void *memory, uint64_t bytes, const int *fds);
void shs_nic_detach(struct shs_nic_port *p);
/* Gives at most `budget` packets to the engine; returns how many. */
uint32_t shs_nic_receive(struct shs_nic_port *p, struct shs_engine *e, uint32_t budget);
/* What was sent is on its way when this returns. */
void shs_nic_flush(struct shs_nic_port *p);
/* The largest packet that goes to this address (16 bytes, IPv4 mapped). */
uint32_t shs_nic_path_mtu(const struct shs_nic *nic, const uint8_t to[16]);
/* The owner of wire.lock died. */
void shs_nic_repair(struct shs_nic_port *p);
