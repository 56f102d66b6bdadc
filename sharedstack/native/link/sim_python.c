/*
 * The sim link and single engines for Python (ctypes), in memory that Python gives. A `tap` is an engine whose packets are kept until they
 * are asked for: a test plays its peer, packet by packet.
 */
#include "link/sim.h"

#define TAP_KEPT 256

struct tap {
    struct shs_engine engine;
    struct shs_device device;
    uint32_t first, count, full, unused;
    struct {
        uint32_t len;
        uint8_t bytes[SHS_SIM_MOST];
    } kept[TAP_KEPT];
    uint8_t queues[8 * SHS_SIM_QUEUE];
    _Alignas(64) uint8_t area[];
};

SHS_PUBLIC uint64_t shs_test_sim_bytes(void);
SHS_PUBLIC uint64_t shs_test_sim_bytes(void)
{
    return shs_sim_bytes();
}

SHS_PUBLIC void shs_test_sim_scenario(uint64_t seed, struct shs_sim_scenario *s);
SHS_PUBLIC void shs_test_sim_scenario(uint64_t seed, struct shs_sim_scenario *s)
{
    shs_sim_scenario(seed, s);
}

/* Returns how much of `capture` was used. */
SHS_PUBLIC uint64_t shs_test_sim_run(void *memory, const struct shs_sim_scenario *s, struct shs_sim_result *r, uint8_t *capture,
                                     uint64_t room);
SHS_PUBLIC uint64_t shs_test_sim_run(void *memory, const struct shs_sim_scenario *s, struct shs_sim_result *r, uint8_t *capture,
                                     uint64_t room)
{
    struct shs_sim *sim = memory;
    sim->capture = capture;
    sim->capture_room = room;
    shs_sim_run(sim, s, r);
    return sim->capture_used;
}

/*
 * Scenarios from `seed` on until so many connections have been; returns the first seed that failed, plus one, or 0. The result is the sum of
 * all; `elapsed_ns` of it is virtual time.
 */
SHS_PUBLIC uint64_t shs_test_sim_many(void *memory, uint64_t seed, uint64_t connections, struct shs_sim_result *sum, uint64_t *done);
SHS_PUBLIC uint64_t shs_test_sim_many(void *memory, uint64_t seed, uint64_t connections, struct shs_sim_result *sum, uint64_t *done)
{
    memset(sum, 0, sizeof *sum);
    struct shs_sim *sim = memory;
    sim->capture_room = 0;
    for (*done = 0; *done < connections; seed++) {
        struct shs_sim_scenario s;
        struct shs_sim_result r;
        shs_sim_scenario(seed, &s);
        shs_sim_run(sim, &s, &r);
        *done += s.connections;
        for (uint32_t k = 0; k < 2; k++) {
            sum->sent[k] += r.sent[k];
            sum->received[k] += r.received[k];
        }
        sum->elapsed_ns += r.elapsed_ns;
        sum->events += r.events;
        sum->packets += r.packets;
        sum->lost += r.lost;
        sum->duplicated += r.duplicated;
        sum->corrupted += r.corrupted;
        sum->retransmits += r.retransmits;
        sum->timeouts += r.timeouts;
        sum->resets += r.resets;
        if (r.verdict) {
            sum->verdict = r.verdict;
            sum->line = r.line;
            return seed + 1;
        }
    }
    return 0;
}

static const struct shs_engine_size tap_size = {.n_tcp = 4, .n_udp = 4, .n_seg = 256, .n_buckets = 4};

static uint8_t *tap_room(void *dev, uint32_t len)
{
    struct tap *tap = dev;
    if (tap->full || tap->count == TAP_KEPT || len > SHS_SIM_MOST)
        return NULL;
    return tap->kept[(tap->first + tap->count) % TAP_KEPT].bytes;
}

static void tap_send(void *dev, uint32_t len)
{
    struct tap *tap = dev;
    tap->kept[(tap->first + tap->count++) % TAP_KEPT].len = len;
}

SHS_PUBLIC uint64_t shs_test_tap_bytes(void);
SHS_PUBLIC uint64_t shs_test_tap_bytes(void)
{
    return sizeof(struct tap) + shs_engine_bytes(&tap_size);
}

/* Returns where the area is in it, for who looks at the records. */
SHS_PUBLIC uint64_t shs_test_tap_begin(struct tap *tap, uint64_t seed, uint64_t now, uint32_t is_virtual);
SHS_PUBLIC uint64_t shs_test_tap_begin(struct tap *tap, uint64_t seed, uint64_t now, uint32_t is_virtual)
{
    tap->first = tap->count = tap->full = 0;
    tap->device = (struct shs_device){.room = tap_room, .send = tap_send, .dev = tap, .is_virtual = is_virtual};
    shs_engine_format(tap->area, &tap_size, seed, now);
    shs_engine_attach(&tap->engine, tap->area, shs_engine_bytes(&tap_size), tap->queues, sizeof tap->queues, &tap->device);
    tap->engine.now = now;
    return offsetof(struct tap, area);
}

/* Its packets go to a device of the caller's from now on. Returns the engine. */
SHS_PUBLIC struct shs_engine *shs_test_tap_device(struct tap *tap, const struct shs_device *device);
SHS_PUBLIC struct shs_engine *shs_test_tap_device(struct tap *tap, const struct shs_device *device)
{
    tap->engine.link = device;
    return &tap->engine;
}

SHS_PUBLIC void shs_test_tap_full(struct tap *tap, uint32_t full);
SHS_PUBLIC void shs_test_tap_full(struct tap *tap, uint32_t full)
{
    tap->full = full;
}

/* The next packet that was sent: its length; 0: none. */
SHS_PUBLIC uint32_t shs_test_tap_take(struct tap *tap, uint8_t *to);
SHS_PUBLIC uint32_t shs_test_tap_take(struct tap *tap, uint8_t *to)
{
    if (!tap->count)
        return 0;
    uint32_t len = tap->kept[tap->first].len;
    memcpy(to, tap->kept[tap->first].bytes, len);
    tap->first = (tap->first + 1) % TAP_KEPT;
    tap->count--;
    return len;
}

SHS_PUBLIC void shs_test_tap_input(struct tap *tap, const uint8_t *packet, uint32_t len);
SHS_PUBLIC void shs_test_tap_input(struct tap *tap, const uint8_t *packet, uint32_t len)
{
    shs_engine_input(&tap->engine, packet, len);
}

/* Time goes on, to each deadline in turn; what is asked for is the time at the end. */
SHS_PUBLIC void shs_test_tap_until(struct tap *tap, uint64_t now);
SHS_PUBLIC void shs_test_tap_until(struct tap *tap, uint64_t now)
{
    for (uint64_t next; (next = shs_engine_next(&tap->engine)) <= now;) {
        tap->engine.now = shs_max64(tap->engine.now, next);
        shs_engine_timers(&tap->engine);
    }
    tap->engine.now = now;
}

SHS_PUBLIC uint64_t shs_test_tap_next(const struct tap *tap);
SHS_PUBLIC uint64_t shs_test_tap_next(const struct tap *tap)
{
    return shs_engine_next(&tap->engine);
}

SHS_PUBLIC int shs_test_tap_check(struct tap *tap);
SHS_PUBLIC int shs_test_tap_check(struct tap *tap)
{
    return shs_engine_check(&tap->engine);
}

SHS_PUBLIC void shs_test_tap_rebuild(struct tap *tap);
SHS_PUBLIC void shs_test_tap_rebuild(struct tap *tap)
{
    shs_engine_rebuild(&tap->engine);
}

SHS_PUBLIC uint64_t shs_test_tap_open(struct tap *tap, const struct shs_tcp_image *image);
SHS_PUBLIC uint64_t shs_test_tap_open(struct tap *tap, const struct shs_tcp_image *image)
{
    return shs_tcp_open(&tap->engine, image);
}

SHS_PUBLIC int shs_test_tap_export(struct tap *tap, uint64_t handle, struct shs_tcp_image *image);
SHS_PUBLIC int shs_test_tap_export(struct tap *tap, uint64_t handle, struct shs_tcp_image *image)
{
    return shs_tcp_export(&tap->engine, handle, image);
}

/* Bytes of a send queue from its begin, and bytes put where an image says that they are. */
SHS_PUBLIC uint32_t shs_test_tap_unsent(struct tap *tap, uint64_t handle, void *to, uint32_t len);
SHS_PUBLIC uint32_t shs_test_tap_unsent(struct tap *tap, uint64_t handle, void *to, uint32_t len)
{
    return shs_tcp_unsent(&tap->engine, handle, 0, to, len);
}

SHS_PUBLIC void shs_test_tap_fill(struct tap *tap, uint64_t off, const void *from, uint32_t len);
SHS_PUBLIC void shs_test_tap_fill(struct tap *tap, uint64_t off, const void *from, uint32_t len)
{
    memcpy(tap->queues + off, from, len);
}

SHS_PUBLIC int64_t shs_test_tap_send(struct tap *tap, uint64_t handle, const void *from, uint32_t len);
SHS_PUBLIC int64_t shs_test_tap_send(struct tap *tap, uint64_t handle, const void *from, uint32_t len)
{
    return shs_tcp_send(&tap->engine, handle, from, len);
}

SHS_PUBLIC int64_t shs_test_tap_recv(struct tap *tap, uint64_t handle, void *to, uint32_t len);
SHS_PUBLIC int64_t shs_test_tap_recv(struct tap *tap, uint64_t handle, void *to, uint32_t len)
{
    return shs_tcp_recv(&tap->engine, handle, to, len);
}

/* 0 shutdown, 1 close, 2 abort, 3 set flags, 4 keepalive (idle, interval, count), 5 user time-out, 6 forget */
SHS_PUBLIC int shs_test_tap_call(struct tap *tap, uint32_t what, uint64_t handle, uint32_t a, uint32_t b, uint32_t c);
SHS_PUBLIC int shs_test_tap_call(struct tap *tap, uint32_t what, uint64_t handle, uint32_t a, uint32_t b, uint32_t c)
{
    struct shs_engine *e = &tap->engine;
    switch (what) {
    case 0:
        return shs_tcp_shutdown(e, handle);
    case 1:
        return shs_tcp_close(e, handle);
    case 2:
        return shs_tcp_abort(e, handle);
    case 3:
        return shs_tcp_option(e, handle, a, b);
    case 4:
        return shs_tcp_keepalive(e, handle, a, b, c);
    case 6:
        return shs_tcp_forget(e, handle);
    default:
        return shs_tcp_user_timeout(e, handle, a);
    }
}

SHS_PUBLIC uint64_t shs_test_tap_udp_open(struct tap *tap, const uint8_t *laddr, const uint8_t *raddr, uint32_t ports, uint64_t off,
                                          uint32_t size);
SHS_PUBLIC uint64_t shs_test_tap_udp_open(struct tap *tap, const uint8_t *laddr, const uint8_t *raddr, uint32_t ports, uint64_t off,
                                          uint32_t size)
{
    struct shs_udp_open open = {.lport = (uint16_t)(ports >> 16), .rport = (uint16_t)ports, .rx_off = off, .rx_size = size};
    memcpy(open.laddr, laddr, 16);
    memcpy(open.raddr, raddr, 16);
    return shs_udp_open(&tap->engine, &open);
}

SHS_PUBLIC int64_t shs_test_tap_udp_send(struct tap *tap, uint64_t handle, const uint8_t *src, const uint8_t *dst, uint32_t dport,
                                         const void *from, uint32_t len);
SHS_PUBLIC int64_t shs_test_tap_udp_send(struct tap *tap, uint64_t handle, const uint8_t *src, const uint8_t *dst, uint32_t dport,
                                         const void *from, uint32_t len)
{
    return shs_udp_send(&tap->engine, handle, src, dst, (uint16_t)dport, from, len);
}

SHS_PUBLIC int64_t shs_test_tap_udp_recv(struct tap *tap, uint64_t handle, void *to, uint32_t len, uint8_t *src, uint16_t *sport);
SHS_PUBLIC int64_t shs_test_tap_udp_recv(struct tap *tap, uint64_t handle, void *to, uint32_t len, uint8_t *src, uint16_t *sport)
{
    return shs_udp_recv(&tap->engine, handle, to, len, src, sport);
}

SHS_PUBLIC int shs_test_tap_udp_close(struct tap *tap, uint64_t handle);
SHS_PUBLIC int shs_test_tap_udp_close(struct tap *tap, uint64_t handle)
{
    return shs_udp_close(&tap->engine, handle);
}
