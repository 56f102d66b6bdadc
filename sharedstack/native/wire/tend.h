/*
 * Purpose: what the helper does for an engine: it drives it when no participant does, and makes connections its own and the kernel's again. Called
 * from Python (sharedstack_helper/wire/). Every function takes wire.lock itself.
 */
#pragma once
#include "wire/path.h"

/* A port of the helper's, made by shs_native_wire_attach. `tag`: the thread's, other than those of the other threads that use it. */
struct shs_tender {
    struct shs_wire_port port;
    struct shs_env env;
    uint32_t strays_used;
    uint8_t strays[1 << 18]; /* packets of no connection, for the kernel: length u32 and bytes of each frame */
};

/* A record of an engine, for a helper that adopts it. `tx_off`: of TCP; `ep1`, `cookie`: of datagrams. */
struct shs_wire_seen {
    uint64_t handle, tx_off, cookie;
    uint8_t laddr[16], raddr[16];
    uint16_t lport, rport;
    uint32_t state, ep1;
};

/* What became of a connection that was lifted. */
struct shs_lowered {
    struct shs_tcp_image image;
    uint32_t n_unsent, n_unread;
    uint32_t state, error; /* TCP_* and errno, of the engine */
};
