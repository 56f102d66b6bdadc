/*
 * libFuzzer target: what an engine makes of hostile packets. The input is a list of steps: a kind, a length of 16 bits, and bytes. After each step the
 * engine's own checker must find nothing wrong.
 *
 * Kinds: 0 a packet as it is; 1 a segment of a connection, its numbers near those that are expected, with a right checksum; 2 a datagram; 3 a call of
 * the program's; 4 time passes.
 */
#include <stdlib.h>

#include "engine/tcp.h"

#define QUEUE 16384
#define MOST 2048

static const struct shs_engine_size size = {4, 4, 64, 16};
static uint8_t queues[16 * QUEUE], out[MOST];
static _Alignas(64) uint8_t area[1 << 18];

static uint8_t *room(void *dev, uint32_t len)
{
    (void)dev;
    return len <= sizeof out ? out : NULL;
}

static void sent(void *dev, uint32_t len)
{
    (void)dev;
    (void)len;
}

static const struct shs_device device = {.room = room, .send = sent, .is_virtual = true};

struct input {
    const uint8_t *at;
    size_t left;
};

static uint32_t take(struct input *in, uint32_t bytes)
{
    uint32_t v = 0;
    for (; bytes && in->left; bytes--, in->left--)
        v = v << 8 | *in->at++;
    return v;
}

static void address(uint8_t to[16], uint32_t family, uint8_t host)
{
    memset(to, 0, 16);
    to[0] = family == 6 ? 0xfd : 0;
    to[10] = to[11] = family == 4 ? 0xff : 0;
    to[12] = family == 4 ? 10 : 0;
    to[15] = host;
}

static uint64_t open_one(struct shs_engine *e, uint32_t number, uint32_t flags)
{
    uint32_t family = number % 2 ? 6 : 4;
    struct shs_tcp_image i = {
        .family = family,
        .state = SHS_TCP_ESTABLISHED,
        .flags = flags & SHS_TF_IMAGE,
        .lport = 80,
        .rport = (uint16_t)(1000 + number),
        .snd_una = 5000,
        .snd_nxt = 5000,
        .rcv_nxt = 9000,
        .snd_wl1 = 9000,
        .rcv_wup = 9000,
        .snd_wnd = 8000,
        .rcv_wnd = 8000,
        .snd_scale = number,
        .rcv_scale = number,
        .mss = 1000,
        .mtu = 1500,
        .tx_off = 2ull * number * QUEUE,
        .rx_off = (2ull * number + 1) * QUEUE,
        .tx_size = QUEUE,
        .rx_size = QUEUE,
    };
    address(i.laddr, family, 1);
    address(i.raddr, family, 2);
    return shs_tcp_open(e, &i);
}

/* A segment of connection `number`: 16 bits of sequence and acknowledgment number, relative, flags, window, options, and the rest is data. */
static void segment(struct shs_engine *e, struct input *in, uint32_t number)
{
    struct shs_tcp *t = &e->tcp[number];
    uint32_t family = number % 2 ? 6 : 4, seq = t->rcv_nxt + (uint32_t)(int16_t)take(in, 2),
             ack = t->snd_una + (uint32_t)(int16_t)take(in, 2);
    uint8_t bytes[MOST], flags = (uint8_t)take(in, 1);
    uint32_t wnd = take(in, 2), options = take(in, 1) % 11 * 4, header = shs_ip_header(family), at = header + SHS_TCP_HEADER;
    memset(bytes, 0, sizeof bytes);
    for (uint32_t i = 0; i < options; i++)
        bytes[at + i] = (uint8_t)take(in, 1);
    at += options;
    uint32_t len = in->left < MOST - 200 ? (uint32_t)in->left : MOST - 200;
    memcpy(bytes + at, in->at, len);
    in->at += len;
    in->left -= len;
    uint8_t *tcp = bytes + header;
    struct shs_packet p = {.family = family, .proto = SHS_PROTO_TCP, .payload = tcp, .len = SHS_TCP_HEADER + options + len};
    address(p.src, family, 2);
    address(p.dst, family, 1);
    shs_put16(tcp, 1000 + number);
    shs_put16(tcp + 2, 80);
    shs_put32(tcp + 4, seq);
    shs_put32(tcp + 8, ack);
    tcp[12] = (uint8_t)((SHS_TCP_HEADER + options) / 4 << 4);
    tcp[13] = flags;
    shs_put16(tcp + 14, wnd);
    shs_ip_build(bytes, &p, 1);
    shs_put16(tcp + 16, (uint16_t)~shs_sum_fold(shs_sum(tcp, p.len, shs_sum_pseudo(&p, p.len))));
    shs_engine_input(e, bytes, header + p.len);
}

static void program(struct shs_engine *e, struct input *in, const uint64_t handle[4], uint64_t udp)
{
    uint32_t what = take(in, 1), number = take(in, 1) % 4, n = take(in, 2);
    uint8_t bytes[4096] = {0}, from[16];
    uint16_t port;
    n = n < sizeof bytes ? n : sizeof bytes;
    switch (what % 7) {
    case 0:
        shs_tcp_send(e, handle[number], bytes, n);
        break;
    case 1:
        if (n & 1)
            shs_tcp_peek(e, handle[number], n % 7, bytes, n);
        else
            shs_tcp_recv(e, handle[number], bytes, n);
        break;
    case 2:
        shs_tcp_shutdown(e, handle[number]);
        break;
    case 3:
        shs_tcp_close(e, handle[number]);
        break;
    case 4:
        shs_tcp_option(e, handle[number], n, SHS_TF_NODELAY | SHS_TF_CORK);
        break;
    case 5:
        shs_udp_recv(e, udp, bytes, n, from, &port);
        break;
    default:
        shs_tcp_keepalive(e, handle[number], n, 10, 3);
    }
}

static void step(struct shs_engine *e, uint32_t kind, struct input in, const uint64_t handle[4], uint64_t udp)
{
    switch (kind % 5) {
    case 0:
        shs_engine_input(e, in.at, (uint32_t)in.left);
        break;
    case 1:
        segment(e, &in, take(&in, 1) % 4);
        break;
    case 2: {
        uint8_t bytes[MOST];
        struct shs_packet p = {.family = 4, .proto = SHS_PROTO_UDP};
        uint32_t len = in.left < 1000 ? (uint32_t)in.left : 1000;
        address(p.src, 4, 2);
        address(p.dst, 4, 1);
        memcpy(bytes + SHS_IP4_HEADER + SHS_UDP_HEADER, in.at, len);
        p.payload = bytes + SHS_IP4_HEADER;
        p.len = shs_udp_build(bytes + SHS_IP4_HEADER, &p, 53, 53, len);
        shs_ip_build(bytes, &p, 1);
        shs_engine_input(e, bytes, SHS_IP4_HEADER + p.len);
        break;
    }
    case 3:
        program(e, &in, handle, udp);
        break;
    default:
        e->now += (uint64_t)take(&in, 3) * 1000;
        shs_engine_timers(e);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct shs_engine e;
    struct shs_udp_open open = {.lport = 53, .rx_size = QUEUE, .rx_off = 8ull * QUEUE};
    struct input in = {data, len};
    uint64_t handle[4];
    if (shs_engine_bytes(&size) > sizeof area)
        abort();
    shs_engine_format(area, &size, 1, 1000000000);
    if (shs_engine_attach(&e, area, sizeof area, queues, sizeof queues, &device) != 0)
        abort();
    e.now = 1000000000;
    uint32_t flags = take(&in, 1);
    for (uint32_t i = 0; i < 4; i++)
        handle[i] = open_one(&e, i, flags);
    uint64_t udp = shs_udp_open(&e, &open);
    while (in.left > 3) {
        uint32_t kind = take(&in, 1), n = take(&in, 2) % MOST;
        n = n < in.left ? n : (uint32_t)in.left;
        step(&e, kind, (struct input){in.at, n}, handle, udp);
        if (shs_engine_check(&e) != 0)
            abort();
        in.at += n;
        in.left -= n;
    }
    return 0;
}
