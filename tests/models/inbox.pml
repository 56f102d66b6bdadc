/* An inbox is given up by its socket X, parked, and used by another socket Y, while a sender and a thread of X's remember it.
 *
 * Code: native/endpoint (inbox, push_locked in dgram_tx, taker_enter and taker_leave in rx, meet in link). One block. X is closed by
 * another thread while one of its own receives; the record is freed and becomes Y's as well. The sender of X stops or dies at any step; the
 * helper sweeps the parked inbox. Whoever takes a lock from the dead repairs nothing but the bell (datagram.pml).
 * Holds: nothing of X's comes into Y's ring, or out of it to X's thread, nor does what X received allow anybody to push to Y; memory is written
 * only while the inbox has it; whoever was counted and noted as a taker counts itself off; Y's ring works.
 * Variants that hold: NO_GEN_CHECK (the sender does not look at the inbox's state and generation) and DOUBT_LATE (links are doubted when the inbox
 * may be another one's already): each makes up for the other.
 *
 * Mutants: both of these, NO_COOKIE (X's thread does not look under rlock whose the inbox is), NO_LOCKS (it is used again without its locks),
 * SWEEP_UNLOCKED (memory goes back without them), CLEAR_LOCK (who uses it again frees its wlock), TAKERS_BEFORE (takers are looked at before the locks
 * are taken only), TAKERS_IGNORED, MEET_LATE (what X received may allow Y's senders), STATE_FIRST (parked before the cookie is cleared).
 */
#define X 1
#define Y 2
#define LIVE 0
#define PARKED 1

byte state, gen = 1, cookie = X, record = X;
byte w, rd, takers; bit open = 1, sticky, memory = 1;
byte ring[2];
byte wlock, rlock;                        /* 1: the sender, 2: X's thread, 3: the owner, 4: the helper */
bit ctl;
bit doubted;                              /* the sender's link says something else */
bit dead, note;

#define FREE_W (wlock == 0 || (wlock == 1 && dead))

inline try_locks(me) {
    atomic {
        if :: FREE_W && rlock == 0 -> wlock = me; rlock = me; held = 1 :: else -> held = 0 fi
    }
}

inline unlock_both() { rlock = 0; wlock = 0 }

inline empty_it() { rd = w; memory = 0 }

active proctype Sender() {
    byte at; bit fits;
    do
    :: atomic { FREE_W -> wlock = 1 };
        if :: goto dies :: true fi;
        fits = !doubted;
#ifndef NO_GEN_CHECK
        fits = fits && state == LIVE;
        fits = fits && gen == 1;
#endif
        if :: goto dies :: true fi;
        if
        :: fits ->
            atomic { at = w; fits = open && !sticky && takers == 0 && w == 0 };
            if
            :: fits ->
                assert(memory);
                ring[at] = X;
                atomic {
                    if
                    :: w == at && open && !sticky && takers == 0 -> assert(cookie != Y); w++
                    :: else
                    fi
                };
                at = 0
            :: else
            fi
        :: else
        fi;
        fits = 0;
        if :: goto dies :: true fi;
        assert(wlock == 1);
        wlock = 0
    :: break
    od;
    goto over;
dies:
    dead = 1;
over:
    skip
}

active proctype Thread() {                     /* of X; what it takes from the kernel was sent to X */
    byte g;
    do
    :: atomic { rlock == 0 -> rlock = 2 };
#ifndef NO_COOKIE
        if :: cookie != X -> rlock = 0; break :: else fi;
#endif
        if
        :: w != rd -> assert(ring[rd] == X); rd++; rlock = 0
        :: w == rd ->
            note = 1;
            takers++;
            if
            :: w != rd -> takers--; note = 0; rlock = 0
            :: else ->
                g = gen;
                rlock = 0;                     /* in recv */
                atomic { rlock == 0 -> rlock = 2 };
                if :: gen == g -> assert(takers); takers--; note = 0 :: else fi;
                g = 0;
                rlock = 0
            fi
        fi;
        if                                     /* it took one: meet */
        :: atomic {
                ctl == 0 ->
#ifdef MEET_LATE
                assert(record != Y)
#else
                if :: cookie == X -> assert(record == X) :: else fi
#endif
            }
        :: true
        fi
    :: break
    od;
    assert(!note)
}

active proctype Helper() {
    bit held;
    if
    :: atomic { ctl == 0 && state == PARKED -> ctl = 1 };
#ifdef SWEEP_UNLOCKED
        empty_it();
#else
        try_locks(4);
        if :: held -> empty_it(); unlock_both() :: else fi;
#endif
        ctl = 0
    :: true
    fi
}

active proctype Owner() {
    bit held;
    atomic { ctl == 0 -> ctl = 1 };            /* X is closed */
    sticky = 1;
#ifndef DOUBT_LATE
    doubted = 1;
#endif
#ifdef STATE_FIRST
    state = PARKED;
    ctl = 0;
    atomic { ctl == 0 -> ctl = 1 };
#else
    cookie = 0;
    state = PARKED;
#endif
    try_locks(3);
    if :: held -> empty_it(); unlock_both(); held = 0 :: else fi;
    record = 0;
    ctl = 0;
    atomic { ctl == 0 -> ctl = 1 };            /* Y is recorded */
#ifdef TAKERS_IGNORED
    held = 1;
#else
    held = (takers == 0);
#endif
    if
    :: held ->
#ifndef NO_LOCKS
        try_locks(3);
#endif
#ifndef TAKERS_BEFORE
#ifndef TAKERS_IGNORED
        if :: held && takers -> unlock_both(); held = 0 :: else fi;
#endif
#endif
        if
        :: held ->
            gen++;
            empty_it();
            atomic { open = 0; sticky = 0; takers = 0 };
#ifndef NO_LOCKS
            unlock_both();
#endif
#ifdef CLEAR_LOCK
            wlock = 0;
#endif
            record = Y;
            cookie = Y;
            state = LIVE
        :: else
        fi
    :: else
    fi;
    ctl = 0;
    if
    :: held ->
        atomic { rlock == 0 -> rlock = 3 };
        assert(cookie == Y && takers == 0 && w == rd);
        memory = 1;
        open = 1;
        rlock = 0;
        atomic { FREE_W -> wlock = 3 };
        ring[w] = Y; w++;
        wlock = 0;
#ifdef DOUBT_LATE
        doubted = 1;
#endif
        atomic { rlock == 0 -> rlock = 3 };
        if :: w != rd -> assert(ring[rd] == Y); rd++ :: else fi;
        assert(takers == 0 && w == rd);
        rlock = 0
    :: else
    fi
}
