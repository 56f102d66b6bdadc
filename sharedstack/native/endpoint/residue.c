/*
 * The recall of a ring, in the order of events (docs/internals/protocol.md, Residue):
 * 1  under rlock: STICKY. Nothing in the ring: done, what the kernel has is in order;
 * 2  under wlock too: re_base, re_ksent and re_rd say what the residue is, re_chunks where kernel bytes that belong behind ring bytes will
 *    be; then re_on: from this store on the ring's bytes are residue. rd becomes the write index: for readers the ring is empty;
 * 3  the kernel's bytes up to re_ksent are taken out into re_chunks, if any of them belongs behind a ring byte; `taken` says how many are;
 * 4  the residue is sent on the writer's descriptor, and ksent grows: by it, and by nothing else, until all is sent. So ksent says how far
 *    that is, also where it had to be read from the kernel after a death.
 */
#include "endpoint/residue.h"

#include "endpoint/anchor.h"
#include "endpoint/bell.h"
#include "endpoint/lift.h"
#include "shm/lock.h"
#include "shm/sys.h"
#include "shm/units.h"

#define CHUNK_LOG 6
#define CHUNK_BYTES ((uint64_t)SHS_UNIT_BYTES << CHUNK_LOG)
#define COLLECT_MS 1000 /* a corked remainder comes after 200 ms */
#define PIECES 256

/* The memory for the stream's kernel byte at `position`, and how much follows it there; NULL: none. */
static uint8_t *kernel_bytes(struct shs_env *env, const struct shs_direction *dir, uint64_t position, size_t *len)
{
    uint64_t off = position - dir->re_base;
    uint64_t chunk = off / CHUNK_BYTES < SHS_N_RE_CHUNKS ? dir->re_chunks[off / CHUNK_BYTES] : 0;
    uint64_t into = off % CHUNK_BYTES;
    if (!shs_chunk_valid(env->arena, chunk) || into >= shs_chunk_bytes(chunk))
        return NULL;
    uint8_t *memory = shs_unit_memory(env, shs_chunk_unit(chunk));
    uint64_t left = dir->re_ksent - position;
    *len = shs_chunk_bytes(chunk) - into < left ? shs_chunk_bytes(chunk) - into : (size_t)left;
    return memory ? memory + into : NULL;
}

/* Are kernel bytes part of the residue? If not, all that the kernel had when the ring was recalled comes before it. */
static bool mixed(const struct shs_direction *dir)
{
    return dir->re_chunks[0] != 0;
}

bool shs_residue_collect(struct shs_env *env, struct shs_direction *dir, int fd)
{
    uint64_t taken;
    while (mixed(dir) && (int64_t)(dir->re_ksent - (taken = shs_load64(&dir->taken))) > 0) {
        struct iovec iov;
        iov.iov_base = kernel_bytes(env, dir, taken, &iov.iov_len);
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
        long r = iov.iov_base ? shs_sys_recvmsg(fd, &msg, MSG_DONTWAIT) : -ENOMEM;
        if (r <= 0)
            return r == 0; /* the stream is over: nothing more will come */
        shs_add64(&dir->taken, (uint64_t)r);
    }
    return true;
}

/* Under both locks: make room for `bytes` of the kernel's. */
static long take_chunks(struct shs_env *env, const struct shs_who *who, struct shs_direction *dir, uint64_t bytes)
{
    bool locked = shs_arena_lock(env, who->lock_word);
    long done = !locked ? -EAGAIN : bytes > CHUNK_BYTES * SHS_N_RE_CHUNKS ? -ENOMEM : 0;
    for (int i = 0; done == 0 && i < SHS_N_RE_CHUNKS; i++) {
        uint64_t from = (uint64_t)i * CHUNK_BYTES, left = bytes > from ? bytes - from : 0;
        unsigned log = 0;
        while (log < CHUNK_LOG && (uint64_t)SHS_UNIT_BYTES << log < left)
            log++;
        shs_units_drop(env->arena, dir->re_chunks[i]); /* of a recall that died */
        dir->re_chunks[i] = 0;
        int unit = left ? shs_units_take(env, log) : 0;
        if (unit < 0)
            done = unit;
        else if (left)
            __atomic_store_n(&dir->re_chunks[i], (uint16_t)shs_chunk_pack((uint32_t)unit, log, 0), __ATOMIC_RELEASE);
    }
    for (int i = 0; done < 0 && locked && i < SHS_N_RE_CHUNKS; i++) {
        shs_units_drop(env->arena, dir->re_chunks[i]);
        dir->re_chunks[i] = 0;
    }
    if (locked)
        shs_unlock(&env->arena->lock);
    return done;
}

/* Under wlock: nothing of it is left to send, or nothing can be sent any more. */
static void done_with(struct shs_env *env, const struct shs_who *who, struct shs_direction *dir)
{
    /* its recaller may have died before this store, and nobody came to rlock since; then its repair has to be seen by re_on */
    shs_store64(&dir->rd, shs_rd_pack(shs_word_index(shs_load64(&dir->word)), 0));
    shs_store32(&dir->re_on, 0);
    if (!shs_arena_lock(env, who->lock_word))
        return; /* they go with the pair */
    shs_chunks_drop(env->arena, dir);
    shs_unlock(&env->arena->lock);
}

void shs_residue_tidy(struct shs_env *env, struct shs_direction *dir, uint32_t me)
{
    if (shs_load32(&dir->re_on) || !mixed(dir) || !shs_arena_try(env, me))
        return;
    for (int i = 0; i < SHS_N_RE_CHUNKS; i++) {
        shs_units_drop(env->arena, dir->re_chunks[i]);
        dir->re_chunks[i] = 0;
    }
    shs_unlock(&env->arena->lock);
}

/* The residue from its `skip`th byte on, in the order of the stream: *n pieces. false: what others wrote there makes no sense. */
static bool pieces(struct shs_env *env, const struct shs_direction *dir, uint64_t skip, struct iovec iov[PIECES], size_t *n)
{
    struct shs_walk walk = {.index = shs_rd_index(dir->re_rd),
                            .off = shs_rd_off(dir->re_rd),
                            .end = shs_word_index(shs_load64(&dir->word)),
                            .chunk = shs_load64(&dir->rchunk)};
    uint64_t position = mixed(dir) ? dir->re_base : dir->re_ksent;
    *n = 0;
    while (*n < PIECES) {
        uint8_t *at;
        size_t len;
        uint64_t before, ahead = dir->re_ksent - position;
        int in_ring = shs_ring_walk(env, &walk, &at, &len, &before);
        if (in_ring < 0)
            return false;
        bool kernel = ahead && (!in_ring || (int64_t)(before - position) > 0);
        if (kernel) {
            uint64_t most = in_ring && before - position < ahead ? before - position : ahead;
            at = kernel_bytes(env, dir, position, &len);
            if (!at)
                return false;
            len = len < most ? len : (size_t)most;
            position += len;
        } else if (in_ring) {
            walk.off += (uint32_t)len;
        } else {
            return true;
        }
        if (skip >= len) {
            skip -= len;
            continue;
        }
        iov[(*n)++] = (struct iovec){at + skip, len - skip};
        skip = 0;
    }
    return true;
}

long shs_residue_send(struct shs_env *env, const struct shs_who *who, struct shs_direction *dir, int fd)
{
    while (shs_load32(&dir->re_on)) {
        struct iovec iov[PIECES];
        struct msghdr msg = {.msg_iov = iov};
        uint64_t sent = shs_peek64(&dir->ksent);
        /* what must come out of the kernel's queue first is not all out: its reader died, or the bytes were held back */
        if (mixed(dir) && (int64_t)(dir->re_ksent - shs_load64(&dir->taken)) > 0)
            return -EAGAIN;
        bool sound = pieces(env, dir, sent - dir->re_ksent, iov, &msg.msg_iovlen);
        if (!sound || !msg.msg_iovlen) {
            done_with(env, who, dir);
            return sound ? 0 : -EIO;
        }
        long r = shs_sys_sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (r < 0) {
            if (r != -EAGAIN && r != -ENOBUFS && r != -ENOMEM)
                done_with(env, who, dir);
            return r;
        }
        shs_store64(&dir->ksent, sent + (uint64_t)r);
        shs_count(env, SHS_CTR_RESIDUE, (uint64_t)r);
        shs_fence();
        if (shs_load32(&dir->bell))
            shs_bell_ring(env, dir, shs_load32(&dir->bell));
    }
    return 0;
}

void shs_residue_finish(struct shs_env *env, const struct shs_who *who, struct shs_end *end, int most_ms)
{
    struct shs_direction *dir = shs_end_tx(end);
    uint64_t until = shs_now() + (uint64_t)most_ms * 1000000;
    while (shs_load32(&dir->re_on) && shs_end_writes(end, dir)) {
        long r = shs_end_send_residue(env, who, end);
        uint64_t now = shs_now();
        if (r != -EAGAIN || now >= until)
            return;
        struct pollfd room = {.fd = end->fd, .events = POLLOUT};
        shs_sys_poll(&room, 1, 10);
    }
}

/* Under both locks: what the residue is. re_on is set last. Without a descriptor of the reader's no kernel bytes can be part of it: -EPIPE. */
static long declare_residue(struct shs_env *env, const struct shs_who *who, struct shs_direction *dir, int fd)
{
    struct shs_walk walk = {.index = shs_rd_index(dir->rd),
                            .off = shs_rd_off(dir->rd),
                            .end = shs_word_index(shs_load64(&dir->word)),
                            .chunk = shs_load64(&dir->rchunk)};
    uint8_t *at;
    size_t len;
    uint64_t before, ksent = shs_load64(&dir->ksent), taken = shs_load64(&dir->taken);
    if (shs_ring_walk(env, &walk, &at, &len, &before) != 1)
        return -EIO;
    /* kernel bytes before the first ring byte stay where they are, unless others come behind that: a queue has one way out */
    uint64_t behind = (int64_t)(ksent - before) > 0 ? ksent - taken : 0;
    if (behind && fd < 0)
        return -EPIPE;
    shs_store64(&dir->re_base, taken);
    shs_store64(&dir->re_ksent, ksent);
    shs_store64(&dir->re_rd, shs_load64(&dir->rd));
    long r = take_chunks(env, who, dir, behind);
    if (r < 0)
        return r;
    shs_store32(&dir->re_on, 1);
    shs_store64(&dir->rd, shs_rd_pack(walk.end, 0));
    return 0;
}

/* Step 3, waiting for bytes that are still under way. */
static bool collect_all(struct shs_env *env, struct shs_end *end, struct shs_direction *dir)
{
    uint64_t until = shs_now() + COLLECT_MS * 1000000ull;
    while (!shs_residue_collect(env, dir, end->fd)) {
        struct pollfd p = {.fd = end->fd, .events = POLLIN};
        if (shs_now() >= until)
            return false;
        shs_sys_poll(&p, 1, 10);
    }
    return true;
}

/* Under rlock and, if `w` >= 0, wlock: by the descriptor `fd` of the writer's, which `sends` and may be -1. */
static long recall(struct shs_env *env, const struct shs_who *who, struct shs_end *end, struct shs_direction *dir, int w, bool sends,
                   int fd, bool surely)
{
    uint64_t sent;
    long r;
    if (fd >= 0 && shs_load32(&dir->tx_on) == SHS_RECOUNT && shs_anchor_sent(fd, &sent) == 0) { /* a writer died just now */
        shs_store64(&dir->ksent, sent);
        shs_store32(&dir->tx_on, SHS_ON);
    }
    bool certain = shs_load32(&dir->tx_on) == SHS_ON;
    if (w < 0)
        r = -EAGAIN;
    else if (shs_load32(&dir->re_on)) /* a recall that did not come to its end */
        r = 0;
    else if (!sends || (surely && (fd < 0 || !certain)))
        r = -EPIPE;
    else if (!certain) /* until the writer's next call */
        r = -EAGAIN;
    else
        r = declare_residue(env, who, dir, end->fd);
    if (r == 0 && !collect_all(env, end, dir))
        r = -EAGAIN;
    if (r == 0 && fd >= 0 && certain)
        (void)shs_residue_send(env, who, dir, fd);
    return r;
}

static int lock_writer(struct shs_env *env, const struct shs_who *who, struct shs_direction *dir)
{
    int w = shs_lock(env, &dir->wlock, who->lock_word);
    if (w == SHS_LOCK_REPAIR)
        shs_dir_repair_writer(dir);
    return w;
}

/* Under both locks. */
static size_t read_on(struct shs_env *env, const struct shs_direction *dir, struct shs_cursor *cur)
{
    struct iovec iov[PIECES];
    size_t n, got = 0;
    if (mixed(dir) && (int64_t)(dir->re_ksent - shs_load64(&dir->taken)) > 0)
        return 0; /* its bytes of the kernel's never came */
    if (!pieces(env, dir, shs_peek64(&dir->ksent) - dir->re_ksent, iov, &n))
        return 0;
    for (size_t i = 0; i < n && cur->left; i++) {
        size_t len = iov[i].iov_len < cur->left ? iov[i].iov_len : cur->left;
        if (!shs_cursor_put(cur, iov[i].iov_base, len))
            break;
        got += len;
    }
    return got;
}

size_t shs_residue_read(struct shs_env *env, const struct shs_who *who, struct shs_direction *dir, struct shs_cursor *cur, bool peek)
{
    uint64_t taken = shs_load64(&dir->taken);
    size_t got = 0;
    int w = lock_writer(env, who, dir);
    if (w < 0)
        return 0;
    if (shs_load32(&dir->re_on)) {
        if ((int64_t)(taken - shs_peek64(&dir->ksent)) > 0) /* it died behind a send, before it was counted */
            shs_store64(&dir->ksent, taken);
        got = read_on(env, dir, cur);
        if (got && !peek)
            shs_store64(&dir->ksent, shs_peek64(&dir->ksent) + got);
    }
    shs_unlock(&dir->wlock);
    return got;
}

/* Under rlock: nothing is pushed any more; is there anything to recall? */
static bool shut(struct shs_direction *dir)
{
    __atomic_fetch_or(&dir->word, SHS_WORD_STICKY, __ATOMIC_SEQ_CST);
    return shs_load32(&dir->re_on) || shs_ring_waiting(dir);
}

static void unlock_both(struct shs_direction *dir, int w)
{
    if (w >= 0)
        shs_unlock(&dir->wlock);
    shs_unlock(&dir->rlock);
}

static struct shs_endpoint *peer_of(struct shs_env *env, const struct shs_endpoint *ep, uint32_t *peer1)
{
    *peer1 = shs_end_peer(env, ep);
    struct shs_endpoint *peer = shs_endpoint_at(env->stack, *peer1);
    return peer && shs_load32(&peer->state) == SHS_EP_LIVE ? peer : NULL;
}

void shs_end_recall_own(struct shs_env *env, const struct shs_who *who, struct shs_end *end)
{
    struct shs_direction *dir = shs_end_tx(end);
    struct shs_end other;
    uint32_t peer1;
    if (!shs_ring_waiting(dir) || (shs_load32(&end->ep->flags) & SHS_EPF_WRSHUT))
        return;
    struct shs_endpoint *peer = peer_of(env, end->ep, &peer1);
    if (!peer || !shs_end_of(env, peer1, &other) || other.rx != dir)
        return;
    other.fd = shs_borrow(env, peer);
    if (shs_end_lock_rx(env, who, &other, dir) == 0) {
        int w = shut(dir) ? lock_writer(env, who, dir) : -EAGAIN;
        (void)recall(env, who, &other, dir, w, shs_end_writes(end, dir), end->fd, true);
        unlock_both(dir, w);
    }
    if (other.fd >= 0)
        shs_sys_close(other.fd);
}

long shs_end_recall(struct shs_env *env, const struct shs_who *who, struct shs_end *end, bool surely)
{
    struct shs_direction *dir = shs_end_rx(end);
    uint32_t peer1;
    const struct shs_endpoint *peer = peer_of(env, end->ep, &peer1);
    long r = shs_end_lock_rx(env, who, end, dir);
    if (r < 0)
        return r == SHS_STALE ? 0 : r;
    if (!shut(dir)) {
        shs_unlock(&dir->rlock);
        return 0;
    }
    int w = lock_writer(env, who, dir);
    bool sends = w >= 0 && peer && peer->cookie == shs_load64(&dir->wcookie) && !(shs_load32(&peer->flags) & SHS_EPF_WRSHUT) &&
                 shs_anchor_peer_sends(end->fd);
    int fd = sends ? shs_borrow(env, peer) : -1;
    r = recall(env, who, end, dir, w, sends, fd, surely);
    if (fd >= 0)
        shs_sys_close(fd);
    unlock_both(dir, w);
    return r;
}
