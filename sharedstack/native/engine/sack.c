/*
 * Selective acknowledgment: the scoreboard (RFC 2018 section 5, RFC 6675 section 3), duplicates reported by the peer (RFC 2883), loss by
 * what was SACKed above (RFC 6675 section 4, IsLost), and the blocks that we send (RFC 2018 section 4, RFC 2883 section 4).
 */
#include "engine/tcp.h"

#define DUP_THRESH 3

/* RFC 2883 section 4: the first block is a duplicate if it lies below the acknowledgment, or inside the second one. */
static bool is_dsack(const struct shs_segment *s)
{
    if (!shs_before(s->sack[0].from, s->sack[0].to))
        return false;
    if (shs_upto(s->sack[0].to, s->ack))
        return true;
    return s->sacks > 1 && shs_upto(s->sack[1].from, s->sack[0].from) && shs_upto(s->sack[0].to, s->sack[1].to);
}

static void mark(struct shs_engine *e, struct shs_tcp *t, uint32_t from, uint32_t to, struct shs_acked *a)
{
    struct shs_txseg *s = shs_seg_at(e, t->seg_head);
    for (uint32_t i = 0; s && i <= e->n.n_seg; s = shs_seg_at(e, s->next), i++) {
        if (!shs_before(s->seq, to))
            return;
        if (s->flags & SHS_SEG_SACKED || shs_upto(s->seq + s->len, from))
            continue;
        if (shs_before(s->seq, from)) { /* cut in two where the block begins: the second is next */
            if (!shs_seg_split(e, t, s, from - s->seq))
                return;
            continue;
        }
        if (shs_before(to, s->seq + s->len) && !shs_seg_split(e, t, s, to - s->seq))
            return;
        if (!(s->flags & SHS_SEG_RETRANS))
            a->rtt = shs_max64(e->now - s->sent_ns, 1);
        shs_rack_delivered(e, t, s);
        shs_pmtu_arrived(e, t, s);
        a->sacked += s->len;
        shs_seg_flags(t, s, SHS_SEG_SACKED, SHS_SEG_LOST | SHS_SEG_RETX_OUT);
    }
}

void shs_sack_input(struct shs_engine *e, struct shs_tcp *t, const struct shs_segment *s, struct shs_acked *a)
{
    uint32_t first = 0;
    a->has_sack = true;
    if (is_dsack(s)) {
        a->dsack = true;
        a->dsack_from = s->sack[0].from;
        a->dsack_to = s->sack[0].to;
        shs_wire_count(e, SHS_WCTR_DSACK_IN);
        first = 1;
    }
    for (uint32_t i = first; i < s->sacks; i++) {
        uint32_t from = s->sack[i].from, to = s->sack[i].to;
        if (!shs_before(from, to) || shs_before(t->snd_nxt, to) || shs_before(from, t->snd_una - t->max_wnd)) {
            shs_wire_count(e, SHS_WCTR_SACK_BAD);
            continue;
        }
        if (shs_before(t->snd_una, to))
            mark(e, t, shs_later(from, t->snd_una), to, a);
    }
}

/*
 * RFC 6675 section 4, IsLost: three separate ranges, or more than two segments' bytes, were SACKed above. Where packets were seen to
 * overtake each other, time decides alone (RFC 8985 section 6.2, step 4).
 */
void shs_sack_mark_lost(struct shs_engine *e, struct shs_tcp *t)
{
    if (!t->sacked || t->flags & SHS_TF_REORDERED)
        return;
    uint32_t ranges = 0, below = 0, n = 0;
    bool inside = false;
    struct shs_txseg *s = shs_seg_at(e, t->seg_head);
    for (; s && n <= e->n.n_seg; s = shs_seg_at(e, s->next), n++) {
        ranges += !inside && s->flags & SHS_SEG_SACKED;
        inside = s->flags & SHS_SEG_SACKED;
    }
    inside = false;
    s = shs_seg_at(e, t->seg_head);
    for (n = 0; s && n <= e->n.n_seg; s = shs_seg_at(e, s->next), n++) {
        if (s->flags & SHS_SEG_SACKED) {
            ranges -= !inside;
            inside = true;
            below += s->len;
            if (below == t->sacked)
                return;
            continue;
        }
        inside = false;
        if (ranges < DUP_THRESH && t->sacked - below <= (DUP_THRESH - 1) * t->mss)
            return;
        if (!(s->flags & (SHS_SEG_LOST | SHS_SEG_RETRANS)))
            shs_seg_flags(t, s, SHS_SEG_LOST, 0);
    }
}

/* A duplicate first (RFC 2883), then the range that changed last, then the others (RFC 2018 section 4). */
uint32_t shs_sack_blocks(const struct shs_tcp *t, struct shs_segment *s, uint32_t most)
{
    uint32_t n = 0, ranges = shs_min32(t->n_ooo, SHS_N_OOO);
    if (!(t->flags & SHS_TF_SACK))
        return 0;
    if (t->dsack_from != t->dsack_to && n < most) {
        s->sack[n].from = t->dsack_from;
        s->sack[n++].to = t->dsack_to;
    }
    for (uint32_t i = 0; i < ranges && n < most; i++) {
        uint32_t k = (t->ooo_last + i) % ranges;
        s->sack[n].from = t->ooo_from[k];
        s->sack[n++].to = t->ooo_to[k];
    }
    s->sacks = n;
    return n;
}
