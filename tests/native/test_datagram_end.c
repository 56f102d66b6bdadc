/*
 * Links and inboxes with real sockets: who is allowed to push, and when; that the kernel's datagrams come before those pushed later; what
 * becomes of a permission when either end goes, a port changes, or a sender dies inside.
 */
#include "endpoint/admin.h"
#include "endpoint/bell.h"
#include "endpoint/dgram.h"
#include "world.h"

static struct world w;
static struct shs_env env;
static struct shs_who who;
static uint64_t looked;

struct sock {
    int fd;
    uint32_t ep1;
    struct shs_end end;
    struct shs_where at;
    struct shs_shown shown;
};

static bool nobody(int fd, int receive)
{
    return fd < 0 && receive;
}

static struct sock unknown(const char *address)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(strcmp(address, "any") ? INADDR_LOOPBACK : INADDR_ANY)};
    socklen_t len = sizeof in;
    struct sock s = {.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
    CHECK(bind(s.fd, (struct sockaddr *)&in, len), ==, 0);
    CHECK(getsockname(s.fd, (struct sockaddr *)&in, &len), ==, 0);
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    s.at.addr[10] = s.at.addr[11] = 0xff;
    memcpy(s.at.addr + 12, &in.sin_addr, 4);
    s.at.port = ntohs(in.sin_port);
    return s;
}

static void record(struct sock *s)
{
    int r = shs_dgram_register(&env, &who, s->fd);
    CHECK(r, >, 0);
    s->ep1 = (uint32_t)r;
    CHECK(shs_end_of(&env, s->ep1, &s->end), ==, true);
    s->end.fd = s->fd;
}

static struct sock make(const char *address)
{
    struct sock s = unknown(address);
    record(&s);
    CHECK(shs_dgram_activate(&env, &who, &s.end, nobody), ==, 0);
    return s;
}

static void drop(struct sock *s)
{
    CHECK(shs_tables_lock(&env, &who), ==, true);
    shs_endpoint_free(&env, &who, s->ep1);
    shs_tables_unlock(&env);
    close(s->fd);
}

static void by_kernel(struct sock *from, struct sock *to, char what)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(to->at.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    CHECK(sendto(from->fd, &what, 1, 0, (struct sockaddr *)&in, sizeof in), ==, 1);
}

static long by_ring(struct sock *from, uint32_t link1, char what)
{
    struct iovec iov = {&what, 1};
    struct shs_way way;
    if (!shs_link_way(&env, from->ep1, link1, &way))
        return SHS_RING_SHUT;
    return shs_dgram_push(&env, &who, &way, &iov, 1, 1, false);
}

static long receive_with(struct sock *s, int flags, bool orig_dst, char *what)
{
    struct iovec iov = {what, 1};
    struct shs_dgram_io io = {.iov = &iov, .count = 1, .flags = flags, .domain = AF_INET, .orig_dst = orig_dst, .shown = &s->shown};
    struct shs_rx how = {.looked_ns = &looked, .must_look = true};
    return shs_dgram_recv(&env, &who, &s->end, s->ep1, &io, &how);
}

static long receive(struct sock *s, bool orig_dst, char *what)
{
    return receive_with(s, 0, orig_dst, what);
}

/* One receive; 0: nothing there. */
static char take(struct sock *s, bool orig_dst)
{
    char what = 0;
    long r = receive(s, orig_dst, &what);
    CHECK(r == 0 || r == -EAGAIN, ==, true);
    return r == 0 ? what : 0;
}

/* As an engine brings it, from another host. */
static bool from_afar(struct sock *to, uint64_t cookie, char what, uint32_t *bell)
{
    static const uint8_t host[16] = {[10] = 0xff, [11] = 0xff, [12] = 192, [14] = 2, [15] = 7};
    return shs_dgram_put(&env, who.lock_word + 2, to->end.ep, cookie, host, 4242, &what, 1, bell);
}

static uint32_t want(struct sock *from, struct sock *to)
{
    int link1 = shs_link_want(&env, &who, from->ep1, AF_INET, &to->at);
    CHECK(link1, >, 0);
    CHECK(shs_link_want(&env, &who, from->ep1, AF_INET, &to->at), ==, link1); /* found again */
    return (uint32_t)link1;
}

/* One old enough to be allowed. */
static uint32_t allowed(struct sock *from, struct sock *to)
{
    uint32_t link1 = want(from, to);
    CHECK(take(to, false), ==, 0);
    by_kernel(from, to, 'a');
    CHECK(take(to, false), ==, 'a');
    CHECK(take(to, false), ==, 0);
    CHECK(by_ring(from, link1, 'b'), ==, 1);
    CHECK(take(to, false), ==, 'b');
    return link1;
}

static void permission(void)
{
    struct sock a = make("one"), b = make("one"), c = make("one");
    struct shs_pair *inbox = shs_inbox_of(b.end.rx);
    by_kernel(&a, &b, '1');
    uint32_t link1 = want(&a, &b);
    CHECK(take(&b, false), ==, '1'); /* from before it was wanted: it proves nothing */
    CHECK(by_ring(&a, link1, 'x'), ==, SHS_RING_SHUT);
    CHECK(take(&b, false), ==, 0);
    by_kernel(&c, &b, '2'); /* another sender's */
    CHECK(take(&b, false), ==, '2');
    CHECK(by_ring(&a, link1, 'x'), ==, SHS_RING_SHUT);
    by_kernel(&a, &b, '3');
    uint64_t seen = inbox->looks;
    CHECK(take(&b, false), ==, '3');
    CHECK(inbox->empty, >, seen); /* nothing was left: it may push */
    CHECK(by_ring(&a, link1, '4'), ==, 1);
    CHECK(by_ring(&a, link1, '5'), ==, 1);
    by_kernel(&a, &b, '6');
    seen = inbox->looks;
    CHECK(take(&b, false), ==, '4');
    CHECK(take(&b, false), ==, '5');
    CHECK(inbox->empty, <=, seen); /* not before the kernel's queue was looked at */
    CHECK(take(&b, false), ==, '6');
    CHECK(take(&b, false), ==, 0);
    CHECK(inbox->empty, >, seen);
    shs_links_doubt(&env, b.at.port, 0);
    CHECK(by_ring(&a, link1, '7'), ==, SHS_RING_SHUT);
    by_kernel(&a, &b, '8');
    CHECK(take(&b, false), ==, '8');
    CHECK(take(&b, false), ==, 0);
    by_kernel(&a, &b, '9');
    CHECK(take(&b, false), ==, '9');
    CHECK(by_ring(&a, link1, 'y'), ==, 1);
    drop(&a);
    CHECK(w.stack->links_used, ==, 0);
    CHECK(take(&b, false), ==, 'y'); /* what was pushed outlives its sender */
    drop(&b);
    drop(&c);
}

/* Bound to all addresses: only where the kernel says to which one a datagram was sent. */
static void any_address(void)
{
    struct sock a = make("one"), b = make("any");
    uint32_t link1 = want(&a, &b);
    int on = 1;
    for (int i = 0; i < 3; i++) {
        CHECK(take(&b, false), ==, 0);
        by_kernel(&a, &b, '1');
        CHECK(take(&b, false), ==, '1');
        CHECK(by_ring(&a, link1, 'x'), ==, SHS_RING_SHUT);
    }
    CHECK(setsockopt(b.fd, IPPROTO_IP, IP_RECVORIGDSTADDR, &on, sizeof on), ==, 0);
    by_kernel(&a, &b, '2');
    CHECK(take(&b, true), ==, '2');
    CHECK(by_ring(&a, link1, '3'), ==, 1);
    CHECK(take(&b, true), ==, '3');
    drop(&b);
    CHECK(by_ring(&a, link1, 'x'), ==, SHS_RING_SHUT);
    drop(&a);
}

/* An inbox that is given up while a sender holds its lock, and used again. */
static void parked(void)
{
    struct sock a = make("one"), b = make("one");
    uint32_t link1 = allowed(&a, &b), pair1 = b.end.ep->pair;
    struct shs_pair *inbox = shs_inbox_of(b.end.rx);
    struct shs_way old;
    CHECK(shs_link_way(&env, a.ep1, link1, &old), ==, true);
    struct shs_env other;
    world_join(&w, &other);
    CHECK(shs_lock_try(&other, &inbox->dir[0].wlock, world_who(&other, 3).lock_word), ==, SHS_LOCKED);
    CHECK(by_ring(&a, link1, 'x'), ==, SHS_RING_SHUT); /* held: by the kernel, without waiting */
    drop(&b);
    CHECK(inbox->state, ==, SHS_PAIR_PARKED);
    CHECK(w.arena->units_used, >, 0);
    world_check_arena(&w);
    struct sock c = make("one");
    CHECK(c.end.ep->pair, !=, pair1);
    shs_native_cool(w.stack, w.arena, 1);
    CHECK(w.arena->units_used, >, 0);
    world_leave(&other); /* it dies with the lock */
    shs_native_cool(w.stack, w.arena, 1);
    CHECK(w.arena->units_used, ==, 0);
    world_check_arena(&w);
    struct sock d = make("one");
    CHECK(d.end.ep->pair, ==, pair1);
    CHECK(w.arena->units_used, ==, 0);
    struct iovec iov = {"x", 1};
    CHECK(shs_dgram_push(&env, &who, &old, &iov, 1, 1, false), ==, SHS_RING_SHUT); /* a late sender finds another generation */
    allowed(&a, &d);
    drop(&a);
    drop(&c);
    drop(&d);
}

static void dead_inside(void)
{
    struct sock a = make("one"), b = make("one");
    uint32_t link1 = allowed(&a, &b);
    struct shs_env other;
    world_join(&w, &other);
    CHECK(shs_lock_try(&other, &b.end.rx->wlock, world_who(&other, 3).lock_word), ==, SHS_LOCKED);
    world_leave(&other);
    CHECK(by_ring(&a, link1, '1'), ==, 1);
    CHECK(take(&b, false), ==, '1');
    drop(&b);
    drop(&a);
}

/* Two senders of one source address: nobody can tell whose datagrams come. */
static void two_of_a_kind(void)
{
    struct sock a = make("one"), b = make("one"), twin = make("one");
    twin.end.ep->lport = a.end.ep->lport; /* as SO_REUSEPORT would have it */
    uint32_t link1 = want(&a, &b), other = want(&twin, &b);
    for (int i = 0; i < 3; i++) {
        CHECK(take(&b, false), ==, 0);
        by_kernel(&a, &b, '1');
        CHECK(take(&b, false), ==, '1');
    }
    CHECK(by_ring(&a, link1, 'x'), ==, SHS_RING_SHUT);
    CHECK(by_ring(&twin, other, 'x'), ==, SHS_RING_SHUT);
    drop(&b);
    drop(&a);
    CHECK(shs_tables_lock(&env, &who), ==, true);
    shs_stack_rebuild(w.stack); /* its bucket is another one now */
    shs_tables_unlock(&env);
    drop(&twin);
}

/* A pair that a connection had before: its indices go on, at the very end of their range here. */
static void after_a_connection(void)
{
    uint64_t index = SHS_INDEX_MASK + 1 - 4096;
    CHECK(shs_tables_lock(&env, &who), ==, true);
    uint32_t pair1 = shs_pair_take(w.arena);
    struct shs_pair *pair = shs_pair_at(w.arena, pair1);
    shs_store64(&pair->dir[0].word, index);
    shs_store32(&pair->state, SHS_PAIR_LIVE);
    shs_pair_drop(w.arena, pair1);
    shs_tables_unlock(&env);
    struct sock a = make("one"), b = make("one");
    CHECK(a.end.ep->pair, ==, pair1);
    CHECK(shs_rd_index(pair->dir[0].rd), ==, index);
    uint32_t link1 = allowed(&b, &a);
    for (int i = 0; i < 300; i++) { /* beyond the end */
        CHECK(by_ring(&b, link1, (char)('a' + i % 26)), ==, 1);
        CHECK(take(&a, false), ==, 'a' + i % 26);
    }
    drop(&a);
    drop(&b);
}

/* An idle inbox gives its memory back, and stays its socket's. */
static void idle(void)
{
    struct sock a = make("one"), b = make("one");
    uint32_t link1 = allowed(&a, &b), pair1 = b.end.ep->pair;
    int left = 1;
    for (int i = 0; i < 6; i++)
        left = shs_native_cool(w.stack, w.arena, 1);
    CHECK(left, ==, 0);
    CHECK(w.arena->units_used, ==, 0);
    CHECK(b.end.ep->pair, ==, pair1);
    CHECK(shs_inbox_of(b.end.rx)->state, ==, SHS_PAIR_LIVE);
    CHECK(by_ring(&a, link1, 'x'), ==, SHS_RING_SHUT);
    by_kernel(&a, &b, '1');
    CHECK(take(&b, false), ==, '1');
    CHECK(take(&b, false), ==, 0);
    CHECK(by_ring(&a, link1, '2'), ==, 1);
    CHECK(take(&b, false), ==, '2');
    drop(&a);
    drop(&b);
}

/* A thread that was in a receive when another one closed the socket: the inbox has become another socket's. */
static void late_receiver(void)
{
    struct sock a = make("one"), b = make("one"), late = b;
    struct shs_take none;
    drop(&b);
    struct sock c = make("one");
    CHECK(c.end.rx == late.end.rx, ==, true);
    uint32_t link1 = allowed(&a, &c);
    CHECK(by_ring(&a, link1, 'x'), ==, 1);
    char what;
    struct iovec iov = {&what, 1};
    struct shs_dgram_io io = {.iov = &iov, .count = 1, .domain = AF_INET, .shown = &late.shown};
    struct shs_rx how = {.looked_ns = &looked, .must_look = true};
    CHECK(shs_dgram_recv(&env, &who, &late.end, late.ep1, &io, &how), ==, SHS_STALE);
    CHECK(shs_taker_enter(&env, &who, &late.end, &none), ==, SHS_STALE);
    CHECK(shs_dgram_activate(&env, &who, &late.end, nobody), ==, -EAGAIN);
    CHECK(shs_end_waiting(&late.end), ==, false);
    CHECK(take(&c, false), ==, 'x');
    drop(&c);
    drop(&a);
}

/* A participant dies asleep in the kernel; its inbox is parked before it is buried, and used again afterwards. */
static void dead_taker(void)
{
    struct sock b = make("one");
    struct shs_direction *dir = b.end.rx;
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        struct shs_env other;
        struct shs_take take;
        check_child(20);
        world_join(&w, &other);
        struct shs_who me = world_who(&other, 1);
        CHECK(shs_taker_enter(&other, &me, &b.end, &take), ==, 1);
        _exit((int)other.slot1);
    }
    CHECK(waitpid(pid, &status, 0), ==, pid);
    drop(&b);
    struct sock c = make("one");
    CHECK(c.end.rx != dir, ==, true); /* nobody knows how long the taker is going to count */
    CHECK(shs_native_reap(w.stack, w.arena, (uint32_t)WEXITSTATUS(status) - 1), ==, 0);
    CHECK(shs_word_takers(shs_load64(&dir->word)), ==, 0);
    struct sock d = make("one");
    CHECK(d.end.rx == dir, ==, true);
    drop(&d);
    drop(&c);
}

/* A port is bound while a link to it is only wanted: what was sent before that is in the queue still. */
static void wanted_is_doubted(void)
{
    struct sock a = make("one"), b = make("one");
    uint32_t link1 = want(&a, &b);
    CHECK(take(&b, false), ==, 0);
    by_kernel(&a, &b, '1');
    shs_links_doubt(&env, b.at.port, 0);
    CHECK(take(&b, false), ==, '1');
    CHECK(by_ring(&a, link1, 'x'), ==, SHS_RING_SHUT);
    CHECK(take(&b, false), ==, 0);
    by_kernel(&a, &b, '2');
    CHECK(take(&b, false), ==, '2');
    CHECK(by_ring(&a, link1, '3'), ==, 1);
    CHECK(take(&b, false), ==, '3');
    /* whoever read the clock first, and stores last, makes no wish older */
    struct shs_link *link = shs_link_at(w.stack, link1);
    uint64_t later = shs_now() + 1000000000000ull;
    shs_store64(&link->wanted_ns, later);
    CHECK(shs_link_doubt(link, shs_load64(&link->word)), ==, true);
    CHECK(link->wanted_ns, ==, later);
    drop(&a);
    drop(&b);
}

/* What a thread took in a native call is compared with looks from before that; and it allows nothing when its socket is closed by then. */
static void native_take(void)
{
    struct sock a = make("one"), b = make("one"), late = b;
    uint64_t before = shs_inbox_of(b.end.rx)->empty_ns;
    want(&a, &b);
    CHECK(take(&b, false), ==, 0);
    uint64_t after = shs_inbox_of(b.end.rx)->empty_ns;
    CHECK(shs_link_meet(&env, &who, &b.end, b.ep1, before, &a.at, NULL), ==, false);
    CHECK(shs_link_meet(&env, &who, &b.end, b.ep1, after, &a.at, NULL), ==, true);
    drop(&b);
    struct sock c = make("one");
    CHECK(c.end.ep == late.end.ep && c.end.rx == late.end.rx, ==, true);
    want(&a, &c);
    CHECK(take(&c, false), ==, 0);
    after = shs_inbox_of(c.end.rx)->empty_ns;
    CHECK(shs_link_meet(&env, &who, &late.end, late.ep1, after, &a.at, NULL), ==, false);
    CHECK(shs_link_meet(&env, &who, &c.end, c.ep1, after, &a.at, NULL), ==, true);
    drop(&c);
    drop(&a);
}

/* A thread that met the activation of another one, which then failed: the ring is not for it. */
static void not_under_count(void)
{
    struct sock a = make("one"), b = unknown("one");
    char what = 0;
    record(&b);
    by_kernel(&a, &b, '1');
    CHECK(receive(&b, false, &what), ==, SHS_STALE);
    CHECK(shs_dgram_activate(&env, &who, &b.end, nobody), ==, 0);
    CHECK(take(&b, false), ==, '1');
    drop(&b);
    drop(&a);
}

/* How many datagrams were left of another socket's queue says nothing of the next one's. */
static void mark_of_another(void)
{
    struct sock a = make("one"), b = make("one"), c = unknown("one");
    struct shs_pair *inbox = shs_inbox_of(b.end.rx);
    for (int i = 0; i < 8; i++)
        by_kernel(&a, &c, 'o');
    want(&a, &b);
    uint32_t link1 = want(&a, &c);
    for (int i = 0; i < 3; i++)
        by_kernel(&a, &b, '1');
    CHECK(take(&b, false), ==, '1');
    CHECK(inbox->mark_left, >, 0);
    drop(&b);
    record(&c);
    CHECK(shs_inbox_of(c.end.rx) == inbox, ==, true);
    CHECK(shs_dgram_activate(&env, &who, &c.end, nobody), ==, 0);
    for (int i = 0; i < 8; i++) {
        CHECK(take(&c, false), ==, 'o');
        CHECK(by_ring(&a, link1, 'x'), ==, SHS_RING_SHUT); /* sent before it was wanted */
    }
    drop(&c);
    drop(&a);
}

/* What MSG_PEEK has shown is the next one, though another sender's has come by the ring meanwhile. */
static void shown_is_next(void)
{
    struct sock a = make("one"), b = make("one"), c = make("one");
    uint32_t link1 = allowed(&a, &b);
    char what = 0;
    by_kernel(&c, &b, '1');
    CHECK(receive_with(&b, MSG_PEEK, false, &what), ==, 0);
    CHECK(what, ==, '1');
    CHECK(by_ring(&a, link1, '2'), ==, 1);
    CHECK(take(&b, false), ==, '1');
    CHECK(take(&b, false), ==, '2');
    drop(&c);
    drop(&b);
    drop(&a);
}

/* Another thread took what was shown before that was noted: what a sender gives to the kernel does not overtake what it gave to the ring. */
static void shown_and_taken(void)
{
    struct sock a = make("one"), b = make("one");
    uint32_t link1 = allowed(&a, &b);
    uint64_t taken = b.shown.taken;
    by_kernel(&a, &b, '1');
    CHECK(take(&b, false), ==, '1');
    CHECK(take(&b, false), ==, 0);
    CHECK(by_ring(&a, link1, '2'), ==, 1);
    by_kernel(&a, &b, '3');
    shs_shown_note(&b.shown, taken, MSG_PEEK, 1);
    CHECK(take(&b, false), ==, '2');
    CHECK(take(&b, false), ==, '3');
    drop(&b);
    drop(&a);
}

/* A sender dies between publishing and ringing, and it is the helper, cooling, that takes its lock. */
static void dead_before_ringing(void)
{
    struct sock a = make("one"), b = make("one");
    allowed(&a, &b);
    struct shs_env other;
    struct shs_bell_own bell;
    struct shs_cursor cur;
    struct iovec iov = {"z", 1};
    CHECK(shs_bell_make(&env, who.tag, &bell), ==, 0);
    shs_bell_arm(&bell, false);
    CHECK(shs_bell_claim(&env, who.lock_word, &b.end, &bell, true), ==, true);
    world_join(&w, &other);
    CHECK(shs_lock_try(&other, &b.end.rx->wlock, world_who(&other, 3).lock_word), ==, SHS_LOCKED);
    shs_cursor_init(&cur, &iov, 1);
    CHECK(shs_ring_push_datagram(&other, b.end.rx, &cur, SHS_REC_DATAGRAM, 0, false), ==, 1);
    shs_native_cool(w.stack, w.arena, 1);
    CHECK(bell.bell->armed, !=, 0);
    world_leave(&other);
    shs_native_cool(w.stack, w.arena, 1);
    CHECK(bell.bell->armed, ==, 0);
    char byte;
    CHECK(recv(bell.fd, &byte, 1, MSG_DONTWAIT), ==, 1);
    CHECK(take(&b, false), ==, 'z');
    shs_bell_drop(&bell, false);
    drop(&a);
    drop(&b);
}

/* Datagrams from other hosts come to a ring that is shut, too, but not to one without memory, or to another socket. */
static void other_hosts(void)
{
    struct sock a = make("one"), b = make("one");
    struct shs_direction *dir = b.end.rx;
    uint64_t cookie = b.end.ep->cookie;
    uint32_t bell;
    CHECK(from_afar(&b, cookie, '0', &bell), ==, false); /* no memory yet */
    shs_store32(&b.end.ep->wire, 1 << SHS_WIRE_GEN_SHIFT | SHS_WIRE_ON);
    CHECK(take(&b, false), ==, 0); /* opens, as it has a sender */
    CHECK(from_afar(&b, cookie, '1', &bell), ==, true);
    CHECK(bell, ==, 0);
    CHECK(take(&b, false), ==, '1');
    CHECK(b.end.ep->rx_wire, ==, 1);
    CHECK(b.end.ep->rx_local, ==, 0);
    CHECK(shs_ring_close(dir), ==, true);
    CHECK(from_afar(&b, cookie, '2', &bell), ==, true);
    by_kernel(&a, &b, '3');
    CHECK(take(&b, false), ==, '2');
    CHECK(take(&b, false), ==, '3');
    by_kernel(&a, &b, '4');
    CHECK(from_afar(&b, cookie, '5', &bell), ==, true);
    b.shown.older = true; /* what the kernel has was there first */
    CHECK(take(&b, false), ==, '4');
    CHECK(take(&b, false), ==, '5');
    CHECK(b.shown.older, ==, false);
    CHECK(from_afar(&b, cookie + 1, '6', &bell), ==, false);
    CHECK(shs_lock_try(&env, &dir->wlock, who.lock_word), ==, SHS_LOCKED);
    CHECK(from_afar(&b, cookie, '6', &bell), ==, false); /* without waiting */
    shs_unlock(&dir->wlock);
    int n = 0;
    while (from_afar(&b, cookie, (char)('a' + n % 26), &bell))
        n++;
    CHECK(n, >, 1000); /* it grows */
    for (int i = 0; i < n; i++)
        CHECK(take(&b, false), ==, 'a' + i % 26);
    for (int i = 0; i < 6; i++)
        shs_native_cool(w.stack, w.arena, 1);
    CHECK(from_afar(&b, cookie, '7', &bell), ==, true); /* it keeps its memory */
    CHECK(take(&b, false), ==, '7');
    shs_store32(&b.end.ep->wire, 1 << SHS_WIRE_GEN_SHIFT);
    for (int i = 0; i < 6; i++)
        shs_native_cool(w.stack, w.arena, 1);
    CHECK(w.arena->units_used, ==, 0);
    drop(&a);
    drop(&b);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv, 30);
    world_make(&w, SHS_N_UNITS);
    world_join(&w, &env);
    who = world_who(&env, 1);
    w.stack->helper = env.slot1;
    after_a_connection();
    permission();
    any_address();
    parked();
    dead_inside();
    two_of_a_kind();
    idle();
    late_receiver();
    dead_taker();
    wanted_is_doubted();
    native_take();
    not_under_count();
    mark_of_another();
    dead_before_ringing();
    shown_is_next();
    shown_and_taken();
    other_hosts();
    CHECK(w.stack->endpoints_used, ==, 0);
    CHECK(w.stack->links_used, ==, 0);
    CHECK(w.arena->pairs_used, ==, 0);
    CHECK(w.arena->units_used, ==, 0);
    world_check_arena(&w);
    world_leave(&env);
    world_drop(&w);
    return 0;
}
