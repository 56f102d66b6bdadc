/*
 * 1  the writer fills a record behind the write index and publishes it by a compare-and-swap of the word: it fails if the reader
 *    has shut the ring or a taker has come, and then nothing was written.
 * 2  the reader copies out and consumes by one store of rd (index and offset in the head record, packed).
 * 3  growing: wchunk := next chunk, whose base is just behind a switch record; then the switch record is published in the old chunk.
 *    A writer that finds wchunk's base ahead of the index knows that its predecessor died in between, and reverts to rchunk. The
 *    reader sets rchunk to the record's chunk, then rd to its base; finding rd one record behind rchunk's base it finishes that step.
 * 4  a base matters only modulo the chunk's size: each side moves its own up now and then, so that indices may wrap.
 */
#include "ring/ring.h"

#include "shm/lock.h"
#include "shm/probe.h"
#include "shm/slot.h"
#include "shm/units.h"

/* A writer cannot be further ahead than all the chunks that it may have gone through are large. */
#define MOST_AHEAD ((size_t)SHS_MAX_RING_UNITS * SHS_UNIT_BYTES * 2)

#define SMALLEST_PIECE 256 /* of a send that is cut: bytes, with its header */

void shs_cursor_init(struct shs_cursor *cur, const struct iovec *iov, int count)
{
    size_t left = 0;
    for (int i = 0; i < count; i++)
        left = SHS_LIKELY(iov[i].iov_len < SHS_CURSOR_MOST - left) ? left + iov[i].iov_len : SHS_CURSOR_MOST;
    *cur = (struct shs_cursor){iov, count, 0, left};
}

void shs_cursor_advance(struct shs_cursor *cur, size_t n)
{
    cur->left -= n;
    while (n) {
        size_t here = cur->iov->iov_len - cur->off;
        if (n < here) {
            cur->off += n;
            return;
        }
        n -= here;
        cur->iov++;
        cur->count--;
        cur->off = 0;
    }
}

size_t shs_cursor_rest(const struct shs_cursor *cur, struct iovec iov[SHS_CURSOR_PIECES], size_t limit, size_t *n)
{
    size_t bytes = 0, off = cur->off;
    *n = 0;
    for (int i = 0; i < cur->count && *n < SHS_CURSOR_PIECES && bytes < limit; i++, off = 0) {
        size_t here = cur->iov[i].iov_len - off;
        if (!here)
            continue;
        here = here < limit - bytes ? here : limit - bytes;
        iov[(*n)++] = (struct iovec){(uint8_t *)cur->iov[i].iov_base + off, here};
        bytes += here;
    }
    return bytes;
}

/* Copy len bytes between a ring position and the program's buffers, either of which may be in pieces. false: a bad pointer. */
static bool copy_ring(uint8_t *ring, size_t size, size_t at, struct shs_cursor *cur, size_t len, bool out)
{
    while (len) {
        size_t here = cur->iov->iov_len - cur->off, n = len < here ? len : here;
        if (n > size - at)
            n = size - at;
        if (n) {
            uint8_t *user = (uint8_t *)cur->iov->iov_base + cur->off;
            if (SHS_UNLIKELY(!(out ? shs_writable(user, n) : shs_readable(user, n))))
                return false;
            if (out)
                memcpy(user, ring + at, n);
            else
                memcpy(ring + at, user, n);
        }
        shs_cursor_advance(cur, n);
        if (n == 0) { /* an empty iovec */
            cur->iov++;
            cur->count--;
            cur->off = 0;
        }
        at = (at + n) & (size - 1);
        len -= n;
    }
    return true;
}

bool shs_cursor_put(struct shs_cursor *cur, const uint8_t *bytes, size_t len)
{
    return copy_ring((uint8_t *)(uintptr_t)bytes, SIZE_MAX / 2 + 1, 0, cur, len, true);
}

static struct shs_record *record_at(uint8_t *ring, uint64_t chunk, uint64_t index)
{
    return (struct shs_record *)(ring + ((index - shs_chunk_base(chunk)) & (shs_chunk_bytes(chunk) - 1)));
}

/* The chunk with its base brought near the index. */
static uint64_t rebased(uint64_t chunk, uint64_t index)
{
    uint64_t into = (index - shs_chunk_base(chunk)) & (shs_chunk_bytes(chunk) - 1);
    return shs_chunk_pack(shs_chunk_unit(chunk), shs_chunk_log(chunk), (index - into) & SHS_INDEX_MASK);
}

/* Far enough from a wrap to be told from "behind", and seldom. */
static bool far_from_base(uint64_t chunk, uint64_t index)
{
    return shs_index_diff(index, shs_chunk_base(chunk)) > (int64_t)1 << 40;
}

/* The chunk that the writer writes to, after a predecessor's unfinished growth was undone. */
static uint64_t writer_chunk(struct shs_direction *dir, uint64_t index)
{
    uint64_t chunk = shs_peek64(&dir->wchunk);
    if (SHS_UNLIKELY(shs_index_diff(index, shs_chunk_base(chunk)) < 0)) {
        chunk = shs_load64(&dir->rchunk);
        shs_store64(&dir->wchunk, chunk);
    }
    if (SHS_UNLIKELY(far_from_base(chunk, index))) {
        chunk = rebased(chunk, index);
        shs_store64(&dir->wchunk, chunk);
    }
    return chunk;
}

/* kind REC_DATA: bytes of a stream, which may be cut; else a datagram, with `tag` in its record. */
static inline __attribute__((always_inline)) long push(struct shs_env *env, struct shs_direction *dir, struct shs_cursor *cur,
                                                       uint32_t kind, uint64_t tag, bool shut)
{
    for (;;) {
        uint64_t word = shs_load64(&dir->word), index = shs_word_index(word);
        if (shut ? word & SHS_WORD_STICKY : !shs_word_pushable(word))
            return SHS_RING_SHUT;
        if (SHS_UNLIKELY(!shut && !shs_slot_alive(env->stack, shs_peek32(&dir->opener))))
            return SHS_RING_DEAD;
        uint64_t chunk = writer_chunk(dir, index);
        size_t size = shs_chunk_bytes(chunk), len = cur->left;
        uint32_t most = shs_peek32(&dir->most);
        size_t limit = SHS_UNLIKELY(most && most < size) ? most : size;
        bool valid = shs_chunk_valid(env->arena, chunk) && index % SHS_RECORD_ALIGN == 0;
        uint8_t *ring = valid ? shs_unit_memory(env, shs_chunk_unit(chunk)) : NULL;
        if (SHS_UNLIKELY(!ring))
            return valid ? SHS_RING_UNMAPPED : SHS_RING_BROKEN;
        /* one record's room stays free for a switch; rd_seen spares us the reader's cache line while there is room */
        int64_t used = shs_index_diff(index, shs_peek64(&dir->rd_seen));
        if (used < 0 || used + (int64_t)shs_record_size(len) + 16 > (int64_t)limit) {
            shs_set64(&dir->rd_seen, shs_rd_index(shs_load64(&dir->rd)));
            used = shs_index_diff(index, shs_peek64(&dir->rd_seen));
            if (used < 0 || used > (int64_t)size)
                return SHS_RING_BROKEN;
            if (used + shs_record_size(len) + 16 > limit) {
                size_t room = (size_t)used < limit ? limit - (size_t)used : 0;
                if (kind != SHS_REC_DATA || len <= limit / 2 || room < limit / 4 || room < SMALLEST_PIECE)
                    return SHS_RING_FULL;
                len = room - 16 - sizeof(struct shs_record);
            }
        }
        struct shs_record *rec = record_at(ring, chunk, index);
        *rec = (struct shs_record){.len = (uint32_t)len, .kind = kind, .ksent = kind == SHS_REC_DATA ? shs_peek64(&dir->ksent) : tag};
        struct shs_cursor after = *cur;
        if (SHS_UNLIKELY(!copy_ring(ring, size, (index - shs_chunk_base(chunk) + sizeof *rec) & (size - 1), &after, len, false)))
            return -EFAULT;
        if (SHS_LIKELY(shs_cas64(&dir->word, word, (word & ~SHS_INDEX_MASK) | shs_index_add(index, shs_record_size(len))))) {
            *cur = after;
            return (long)len;
        }
    }
}

long shs_ring_push(struct shs_env *env, struct shs_direction *dir, struct shs_cursor *cur)
{
    return push(env, dir, cur, SHS_REC_DATA, 0, false);
}

long shs_ring_push_datagram(struct shs_env *env, struct shs_direction *dir, struct shs_cursor *cur, uint32_t kind, uint64_t tag, bool shut)
{
    return push(env, dir, cur, kind, tag, shut);
}

/*
 * A direction is about to name a chunk no more: the arena's lock, if it can be had in time. Whose holder is stopped, and has nothing to do with us,
 * must not stop us too: then the chunk's units stay marked until somebody has the lock.
 */
static bool leave_chunk(struct shs_env *env, uint32_t me)
{
    bool locked = shs_arena_lock(env, me);
    if (!locked)
        shs_arena_adrift(env->arena);
    return locked;
}

static void left_chunk(struct shs_env *env, uint64_t chunk, bool locked)
{
    if (!locked) { /* once more: a rebuild in between still found it */
        shs_arena_adrift(env->arena);
        return;
    }
    shs_units_drop(env->arena, chunk);
    shs_unlock(&env->arena->lock);
}

/*
 * A larger chunk, whose first record is the datagram in cur, if cur is not NULL: published with the switch by one compare-and-swap, since a
 * ring of datagrams that holds a switch alone would be readable, and have nothing. Length (0 without cur), SHS_RING_FULL or -EFAULT.
 */
static long grow(struct shs_env *env, struct shs_direction *dir, uint32_t me, struct shs_cursor *cur, uint32_t kind, uint64_t tag,
                 bool shut)
{
    uint64_t word = shs_load64(&dir->word), index = shs_word_index(word), old = writer_chunk(dir, index);
    unsigned log = shs_chunk_log(old) + 2;
    size_t len = cur ? cur->left : 0, more = cur ? shs_record_size(len) : 0;
    bool may = shut ? !(word & SHS_WORD_STICKY) : shs_word_pushable(word);
    if (!may || shs_chunk_unit(shs_load64(&dir->rchunk)) != shs_chunk_unit(old) || shs_chunk_log(old) >= 6)
        return SHS_RING_FULL;
    /* what is unread counts as well, wherever it is: see push */
    size_t need = (size_t)shs_index_diff(index, shs_rd_index(shs_load64(&dir->rd))) + more + 2 * sizeof(struct shs_record);
    while (cur && ((size_t)SHS_UNIT_BYTES << log) < need && log < 6)
        log += 2;
    size_t size = (size_t)SHS_UNIT_BYTES << log;
    uint32_t most = shs_peek32(&dir->most);
    if (size > env->opt.ring_max || (most && size > most) || (cur && size < need))
        return SHS_RING_FULL;
    if (!shs_arena_try(env, me))
        return SHS_RING_FULL;
    int unit = shs_units_take(env, log);
    uint64_t next = unit < 0 ? 0 : shs_chunk_pack((uint32_t)unit, log, shs_index_add(index, sizeof(struct shs_record)));
    if (next)
        shs_store64(&dir->wchunk, next); /* named before the lock is left: a rebuild of the units must find them */
    shs_unlock(&env->arena->lock);
    if (!next) {
        shs_count(env, SHS_CTR_EXHAUSTED, 1);
        return SHS_RING_FULL;
    }
    bool good = true;
    if (cur) {
        uint8_t *ring = shs_unit_memory(env, (uint32_t)unit);
        *(struct shs_record *)ring = (struct shs_record){.len = (uint32_t)len, .kind = kind, .ksent = tag};
        good = copy_ring(ring, size, sizeof(struct shs_record), cur, len, false);
    }
    struct shs_record *rec = record_at(shs_unit_memory(env, shs_chunk_unit(old)), old, index);
    *rec = (struct shs_record){.len = 0, .kind = SHS_REC_SWITCH, .ksent = next};
    if (good && shs_cas64(&dir->word, word, (word & ~SHS_INDEX_MASK) | shs_index_add(index, sizeof *rec + more))) {
        shs_count(env, SHS_CTR_GROWN, 1);
        return (long)len;
    }
    bool locked = leave_chunk(env, me);
    shs_store64(&dir->wchunk, old);
    left_chunk(env, next, locked);
    return good ? SHS_RING_FULL : -EFAULT;
}

bool shs_ring_grow(struct shs_env *env, struct shs_direction *dir, uint32_t me)
{
    return grow(env, dir, me, NULL, 0, 0, false) == 0;
}

long shs_ring_grow_datagram(struct shs_env *env, struct shs_direction *dir, struct shs_cursor *cur, uint32_t kind, uint64_t tag,
                            uint32_t me, bool shut)
{
    return grow(env, dir, me, cur, kind, tag, shut);
}

/* Does a switch record at `index` name a chunk that may follow: a larger one, which begins just behind it? Who only looks goes no other way. */
static bool goes_on(struct shs_env *env, uint64_t chunk, uint64_t next, uint64_t index)
{
    return shs_chunk_valid(env->arena, next) && shs_chunk_log(next) > shs_chunk_log(chunk) &&
           shs_chunk_base(next) == shs_index_add(index, sizeof(struct shs_record));
}

/* The reader has come to a switch record: go over to its chunk, give the old one back. */
static bool follow_switch(struct shs_env *env, struct shs_direction *dir, uint64_t old, uint64_t next, uint32_t me)
{
    if (!shs_chunk_valid(env->arena, next) || shs_chunk_log(next) <= shs_chunk_log(old) || !shs_unit_memory(env, shs_chunk_unit(next)))
        return false;
    /* the lock first: once rchunk is the next one, a rebuild of the units gives the old one to somebody else */
    bool locked = leave_chunk(env, me);
    shs_store64(&dir->rchunk, next);
    shs_store64(&dir->rd, shs_rd_pack(shs_chunk_base(next), 0));
    left_chunk(env, old, locked);
    return true;
}

long shs_ring_pull(struct shs_env *env, struct shs_direction *dir, struct shs_cursor *cur, uint64_t taken, bool peek, uint32_t me,
                   uint64_t *need)
{
    uint64_t rd = shs_peek64(&dir->rd), end = shs_word_index(shs_load64(&dir->word)), index = shs_rd_index(rd);
    uint32_t off = shs_rd_off(rd);
    long got = 0;
    if (index == end)
        return SHS_RING_EMPTY;
    uint64_t chunk = shs_peek64(&dir->rchunk);
    if (SHS_UNLIKELY(shs_index_add(index, sizeof(struct shs_record)) == shs_chunk_base(chunk))) {
        index = shs_chunk_base(chunk); /* a reader died between following a switch and consuming its record */
        off = 0;
    } else if (SHS_UNLIKELY(far_from_base(chunk, index))) {
        chunk = rebased(chunk, index);
        shs_store64(&dir->rchunk, chunk);
    }
    uint8_t *ring = shs_chunk_valid(env->arena, chunk) ? shs_unit_memory(env, shs_chunk_unit(chunk)) : NULL;
    if (SHS_UNLIKELY(!ring || end % SHS_RECORD_ALIGN))
        return SHS_RING_BROKEN;
    size_t size = shs_chunk_bytes(chunk);
    while (index != end && cur->left) {
        int64_t ahead = shs_index_diff(end, index);
        if (SHS_UNLIKELY(ahead < 0 || ahead > (int64_t)MOST_AHEAD))
            return SHS_RING_BROKEN;
        struct shs_record *rec = record_at(ring, chunk, index);
        uint32_t len = rec->len;
        if (SHS_UNLIKELY(rec->kind == SHS_REC_SWITCH)) {
            if (peek && got)
                break;
            if (!follow_switch(env, dir, chunk, rec->ksent, me))
                return SHS_RING_BROKEN;
            chunk = shs_peek64(&dir->rchunk);
            ring = shs_unit_memory(env, shs_chunk_unit(chunk));
            size = shs_chunk_bytes(chunk);
            index = shs_chunk_base(chunk);
            off = 0;
            continue;
        }
        if (SHS_UNLIKELY(len > size || off > len || (int64_t)shs_record_size(len) > shs_index_diff(end, index)))
            return SHS_RING_BROKEN;
        uint64_t behind = shs_peek64(&rec->ksent) - taken;
        if (SHS_UNLIKELY((int64_t)behind > 0)) {
            if (got)
                break;
            *need = behind;
            return SHS_RING_BEHIND;
        }
        size_t n = len - off < cur->left ? len - off : cur->left;
        struct shs_cursor after = *cur;
        if (SHS_UNLIKELY(!copy_ring(ring, size, (index - shs_chunk_base(chunk) + sizeof *rec + off) & (size - 1), &after, n, true))) {
            if (!got)
                return -EFAULT;
            break;
        }
        *cur = after;
        got += (long)n;
        off += (uint32_t)n;
        if (off == len) {
            index = shs_index_add(index, shs_record_size(len));
            off = 0;
        }
    }
    if (!peek)
        shs_store64(&dir->rd, shs_rd_pack(index, off));
    return got ? got : SHS_RING_EMPTY;
}

/* From memory that is no ring; false: a bad pointer. */
static bool copy_flat(const uint8_t *from, struct shs_cursor *cur, size_t len)
{
    return copy_ring((uint8_t *)(uintptr_t)from, (size_t)1 << (8 * sizeof(size_t) - 1), 0, cur, len, true);
}

size_t shs_ring_peek(struct shs_env *env, struct shs_direction *dir, struct shs_cursor *cur, uint64_t taken, const uint8_t *kernel,
                     size_t n)
{
    uint64_t rd = shs_load64(&dir->rd), end = shs_word_index(shs_load64(&dir->word)), index = shs_rd_index(rd);
    uint64_t chunk = shs_load64(&dir->rchunk);
    size_t sum = 0, used = 0, off = shs_rd_off(rd);
    if (shs_index_add(index, sizeof(struct shs_record)) == shs_chunk_base(chunk)) { /* as in shs_ring_pull */
        index = shs_chunk_base(chunk);
        off = 0;
    }
    bool sane = shs_index_diff(end, index) >= 0 && shs_index_diff(end, index) <= (int64_t)MOST_AHEAD && shs_chunk_valid(env->arena, chunk);
    uint8_t *ring = sane ? shs_unit_memory(env, shs_chunk_unit(chunk)) : NULL;
    while (ring && shs_index_diff(end, index) > 0 && cur->left) {
        struct shs_record rec = *record_at(ring, chunk, index);
        size_t size = shs_chunk_bytes(chunk);
        if (rec.kind == SHS_REC_SWITCH) {
            if (!goes_on(env, chunk, rec.ksent, index) || !(ring = shs_unit_memory(env, shs_chunk_unit(rec.ksent))))
                return sum;
            chunk = rec.ksent;
            index = shs_chunk_base(chunk);
            continue;
        }
        if (rec.len > size || off > rec.len || (int64_t)shs_record_size(rec.len) > shs_index_diff(end, index))
            return sum;
        uint64_t behind = rec.ksent - taken;
        if ((int64_t)behind > 0 && behind > used) { /* kernel bytes come first: as many as there are */
            size_t here = behind - used < n - used ? (size_t)behind - used : n - used;
            here = here < cur->left ? here : cur->left;
            if (!copy_flat(kernel + used, cur, here))
                return sum;
            used += here;
            sum += here;
            if (used < behind)
                return sum;
            continue;
        }
        size_t here = rec.len - off < cur->left ? rec.len - off : cur->left;
        if (!copy_ring(ring, size, (index - shs_chunk_base(chunk) + sizeof rec + off) & (size - 1), cur, here, true))
            return sum;
        sum += here;
        off = 0;
        index = shs_index_add(index, shs_record_size(rec.len));
    }
    size_t rest = n - used < cur->left ? n - used : cur->left;
    return copy_flat(kernel + used, cur, rest) ? sum + rest : sum;
}

long shs_ring_pull_datagram(struct shs_env *env, struct shs_direction *dir, struct shs_cursor *cur, bool peek, uint32_t me,
                            struct shs_arrived *arrived)
{
    for (;;) {
        uint64_t index = shs_rd_index(shs_peek64(&dir->rd)), end = shs_peek64(&dir->wr_seen), chunk = shs_peek64(&dir->rchunk);
        /* the writer's cache line is asked for only when all that was seen of it is read */
        if (shs_index_diff(end, index) <= 0) {
            end = shs_word_index(shs_load64(&dir->word));
            shs_set64(&dir->wr_seen, end);
        }
        int64_t ahead = shs_index_diff(end, index);
        if (ahead == 0)
            return SHS_RING_EMPTY;
        if (SHS_UNLIKELY(shs_index_add(index, sizeof(struct shs_record)) == shs_chunk_base(chunk))) {
            shs_store64(&dir->rd, shs_rd_pack(shs_chunk_base(chunk), 0)); /* a reader died between its two steps to this chunk */
            continue;
        }
        if (SHS_UNLIKELY(far_from_base(chunk, index))) {
            chunk = rebased(chunk, index);
            shs_store64(&dir->rchunk, chunk);
        }
        uint8_t *ring = shs_chunk_valid(env->arena, chunk) ? shs_unit_memory(env, shs_chunk_unit(chunk)) : NULL;
        if (SHS_UNLIKELY(!ring || ahead < 0 || ahead > (int64_t)MOST_AHEAD || end % SHS_RECORD_ALIGN))
            return SHS_RING_BROKEN;
        size_t size = shs_chunk_bytes(chunk), prefix = 0;
        struct shs_record rec = *record_at(ring, chunk, index);
        if (SHS_UNLIKELY(rec.kind == SHS_REC_SWITCH)) {
            if (!follow_switch(env, dir, chunk, rec.ksent, me))
                return SHS_RING_BROKEN;
            continue;
        }
        if (rec.kind == SHS_REC_DATAGRAM6)
            prefix = sizeof arrived->addr;
        if (SHS_UNLIKELY((rec.kind != SHS_REC_DATAGRAM && !prefix) || rec.len > size || rec.len < prefix ||
                         (int64_t)shs_record_size(rec.len) > ahead))
            return SHS_RING_BROKEN;
        size_t at = (index - shs_chunk_base(chunk) + sizeof rec) & (size - 1);
        struct iovec iov = {arrived->addr, prefix};
        struct shs_cursor head = {&iov, 1, 0, prefix};
        copy_ring(ring, size, at, &head, prefix, true);
        arrived->kind = rec.kind;
        arrived->tag = rec.ksent;
        arrived->full = rec.len - prefix;
        size_t n = arrived->full < cur->left ? arrived->full : cur->left;
        bool good = copy_ring(ring, size, (at + prefix) & (size - 1), cur, n, true);
        if (!peek)
            shs_store64(&dir->rd, shs_rd_pack(shs_index_add(index, shs_record_size(rec.len)), 0));
        return SHS_LIKELY(good) ? 0 : -EFAULT;
    }
}

int shs_ring_walk(struct shs_env *env, struct shs_walk *walk, uint8_t **at, size_t *len, uint64_t *ksent)
{
    while (walk->index != walk->end) {
        int64_t ahead = shs_index_diff(walk->end, walk->index);
        uint64_t chunk = walk->chunk;
        uint8_t *ring = shs_chunk_valid(env->arena, chunk) ? shs_unit_memory(env, shs_chunk_unit(chunk)) : NULL;
        if (!ring || ahead < 0 || ahead > (int64_t)MOST_AHEAD)
            return SHS_RING_BROKEN;
        if (shs_index_add(walk->index, sizeof(struct shs_record)) == shs_chunk_base(chunk)) {
            walk->index = shs_chunk_base(chunk); /* as in shs_ring_pull */
            walk->off = 0;
            continue;
        }
        struct shs_record rec = *record_at(ring, chunk, walk->index);
        size_t size = shs_chunk_bytes(chunk);
        if (rec.kind == SHS_REC_SWITCH) {
            walk->chunk = rec.ksent;
            if (!shs_chunk_valid(env->arena, walk->chunk) || shs_chunk_log(walk->chunk) <= shs_chunk_log(chunk))
                return SHS_RING_BROKEN;
            walk->index = shs_chunk_base(walk->chunk);
            walk->off = 0;
            continue;
        }
        if (rec.len > size || walk->off > rec.len || (int64_t)shs_record_size(rec.len) > ahead)
            return SHS_RING_BROKEN;
        if (walk->off == rec.len) {
            walk->index = shs_index_add(walk->index, shs_record_size(rec.len));
            walk->off = 0;
            continue;
        }
        size_t from = (walk->index - shs_chunk_base(chunk) + sizeof rec + walk->off) & (size - 1), left = rec.len - walk->off;
        *at = ring + from;
        *len = left < size - from ? left : size - from;
        *ksent = rec.ksent;
        return 1;
    }
    return 0;
}

size_t shs_ring_pending(struct shs_env *env, struct shs_direction *dir)
{
    uint64_t rd = shs_load64(&dir->rd), end = shs_word_index(shs_load64(&dir->word)), index = shs_rd_index(rd);
    uint64_t chunk = shs_load64(&dir->rchunk);
    size_t sum = 0, off = shs_rd_off(rd);
    bool sane = shs_index_diff(end, index) > 0 && shs_index_diff(end, index) <= (int64_t)MOST_AHEAD && shs_chunk_valid(env->arena, chunk);
    uint8_t *ring = sane ? shs_unit_memory(env, shs_chunk_unit(chunk)) : NULL;
    while (ring && shs_index_diff(end, index) > 0) {
        struct shs_record *rec = record_at(ring, chunk, index);
        if (rec->kind == SHS_REC_SWITCH) {
            uint64_t next = shs_peek64(&rec->ksent);
            if (!goes_on(env, chunk, next, index))
                break;
            chunk = next;
            ring = shs_unit_memory(env, shs_chunk_unit(chunk));
            index = shs_chunk_base(chunk);
            continue;
        }
        if (rec->len > shs_chunk_bytes(chunk) || rec->len < off)
            break;
        sum += rec->len - off;
        off = 0;
        index = shs_index_add(index, shs_record_size(rec->len));
    }
    return sum;
}
