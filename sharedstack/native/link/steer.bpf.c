/*
 * What a linked interface's packets are asked: whose are you? Those of lifted flows go to the AF_XDP socket of their queue, and so do ICMP errors
 * that quote one of TCP; the kernel never sees them. Everything else is the kernel's, untouched. On the way out, what the kernel would send for a
 * lifted connection is dropped (RST, keepalives): frames of the engine do not come this way.
 *
 * Loaded by the helper (sharedstack_helper/nic/), which keeps `flows`.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define FLOWS 65536
#define QUEUES 64
#define FRAGMENT 0x3fff /* of frag_off: more fragments, offset */
#define ICMP6 58

/* As seen by who receives: the local end is the destination. IPv4 as ::ffff:a.b.c.d, ports in network order. */
struct flow {
    __u8 local[16], remote[16];
    __be16 local_port, remote_port;
    __u32 protocol;
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, FLOWS);
    __type(key, struct flow);
    __type(value, __u32);
} flows SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_XSKMAP);
    __uint(max_entries, QUEUES);
    __type(key, __u32);
    __type(value, __u32);
} sockets SEC(".maps");

/* What is known of a packet; `icmp`: the tuple is that of the packet which an ICMP error quotes. */
struct packet {
    struct flow flow;
    __u8 icmp;
};

struct transport {
    __be16 source, dest;
};

static __always_inline void address4(__u8 *to, __be32 from)
{
    __builtin_memset(to, 0, 10);
    to[10] = to[11] = 0xff;
    __builtin_memcpy(to + 12, &from, 4);
}

/* The ports of TCP or UDP at `at`; `back`: the packet is one of ours, quoted. */
static __always_inline bool ports_at(void *at, void *end, struct packet *p, bool back)
{
    struct transport *t = at;
    if ((void *)(t + 1) > end)
        return false;
    p->flow.local_port = back ? t->source : t->dest;
    p->flow.remote_port = back ? t->dest : t->source;
    return true;
}

static __always_inline bool addresses4(struct iphdr *ip, struct packet *p, bool back)
{
    p->flow.protocol = ip->protocol;
    address4(p->flow.local, back ? ip->saddr : ip->daddr);
    address4(p->flow.remote, back ? ip->daddr : ip->saddr);
    return ip->protocol == IPPROTO_TCP || ip->protocol == IPPROTO_UDP;
}

static __always_inline bool addresses6(struct ipv6hdr *ip, struct packet *p, bool back)
{
    p->flow.protocol = ip->nexthdr;
    __builtin_memcpy(p->flow.local, back ? &ip->saddr : &ip->daddr, 16);
    __builtin_memcpy(p->flow.remote, back ? &ip->daddr : &ip->saddr, 16);
    return ip->nexthdr == IPPROTO_TCP || ip->nexthdr == IPPROTO_UDP;
}

/* RFC 792: unreachable, time exceeded, parameter problem. */
static __always_inline bool parse4(void *at, void *end, struct packet *p, bool back)
{
    struct iphdr *ip = at;
    if ((void *)(ip + 1) > end || ip->ihl != 5 || (ip->frag_off & bpf_htons(FRAGMENT)))
        return false;
    if (ip->protocol != IPPROTO_ICMP || back)
        return addresses4(ip, p, back) && ports_at(ip + 1, end, p, back);
    __u8 *icmp = (void *)(ip + 1);
    struct iphdr *quoted = (void *)(icmp + 8);
    p->icmp = 1;
    if ((void *)(quoted + 1) > end || (icmp[0] != 3 && icmp[0] != 11 && icmp[0] != 12) || quoted->ihl != 5)
        return false;
    return addresses4(quoted, p, true) && ports_at(quoted + 1, end, p, true);
}

/* RFC 4443: types 1 to 4 are errors. */
static __always_inline bool parse6(void *at, void *end, struct packet *p, bool back)
{
    struct ipv6hdr *ip = at;
    if ((void *)(ip + 1) > end)
        return false;
    if (ip->nexthdr != ICMP6 || back)
        return addresses6(ip, p, back) && ports_at(ip + 1, end, p, back);
    __u8 *icmp = (void *)(ip + 1);
    struct ipv6hdr *quoted = (void *)(icmp + 8);
    p->icmp = 1;
    if ((void *)(quoted + 1) > end || icmp[0] < 1 || icmp[0] > 4)
        return false;
    return addresses6(quoted, p, true) && ports_at(quoted + 1, end, p, true);
}

static __always_inline bool parse(void *data, void *end, struct packet *p, bool back)
{
    struct ethhdr *eth = data;
    if ((void *)(eth + 1) > end)
        return false;
    if (eth->h_proto == bpf_htons(ETH_P_IP))
        return parse4(eth + 1, end, p, back);
    if (eth->h_proto == bpf_htons(ETH_P_IPV6))
        return parse6(eth + 1, end, p, back);
    return false;
}

SEC("xdp.frags") /* a packet may be larger than a page; what is looked at is in its first */
int steer_in(struct xdp_md *ctx)
{
    struct packet p = {};
    if (!parse((void *)(long)ctx->data, (void *)(long)ctx->data_end, &p, false))
        return XDP_PASS;
    if (p.icmp && p.flow.protocol == IPPROTO_UDP) /* an error is the socket's, whoever sent what it is about */
        return XDP_PASS;
    if (bpf_map_lookup_elem(&flows, &p.flow)) /* without a socket: dropped, because the kernel's connection must not see it */
        return (int)bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_DROP);
    return XDP_PASS;
}

/* Run by hand, on a packet that was taken from a flow that is the kernel's again. */
SEC("xdp")
int give_back(struct xdp_md *ctx)
{
    (void)ctx;
    return XDP_PASS;
}

SEC("tc")
int steer_out(struct __sk_buff *skb)
{
    struct packet p = {};
    if (!parse((void *)(long)skb->data, (void *)(long)skb->data_end, &p, true) || p.flow.protocol != IPPROTO_TCP)
        return TC_ACT_OK;
    return bpf_map_lookup_elem(&flows, &p.flow) ? TC_ACT_SHOT : TC_ACT_OK;
}

char license_of_program[] SEC("license") = "Apache-2.0";
