/* The pair of an idle connection is given back and taken by another one, while threads of the first remember it.
 *
 * Code: native/endpoint (unpair, lift, rx, tx), end.h. One block. Connection X (cookie 1): a writer, a reader that takes from the ring,
 * from the kernel, sleeps as a taker or uses the kernel uncounted, and a poller that looks without a lock. Connection Y (cookie 2) takes
 * the block whenever it is free, sends a record to itself in it, and gives it back. The helper shuts and un-pairs X; whoever of X comes next
 * pairs it again and brings its side under count. Every thread may stop between any two steps.
 * Holds: X's bytes come in order and once; what is in Y's ring is Y's, nobody of X is counted as a taker there; the poller reports a
 * record only if it was X's.
 *
 * Mutants: NO_CHECK (no look at the cookie under the lock), NO_ON_CHECK (nor whether the side is under count: the same block may be X's again),
 * NO_LOCKS (un-pairing without the pair's locks), CLEAR_LATE (the cookie cleared after they are left), NOT_EMPTY (without a look at the
 * ring), LEAVE_BLINDLY (a taker counts itself off whoever has the block), COOKIE_ONLY (the poller looks at the read index once),
 * INDEX_ANEW (indices begin again with each use).
 */
#ifndef N
#define N 3
#endif
#define NOBODY 255

byte cookie;                                   /* whose: 0 nobody, 1 X, 2 Y */
bit taken_up;                                  /* the block is in use (pair.state) */
byte gen, w, r, takers, ksent, taken;
bit open, tx_on, rx_on;
byte seq[N + 1]; byte K[N + 1];                /* records */
byte rlock, wlock;
bit paired;                                    /* X's records name the pair */
chan kern = [N] of { byte };                   /* X's stream in the kernel */
byte ktot, kread;                              /* given to it, taken from it */
byte sent, got;

inline pair_up() {                             /* under the tables' locks */
    atomic {
        if
        :: !paired && !taken_up ->
            taken_up = 1; paired = 1; gen++;
            tx_on = 0; rx_on = 0; open = 0; takers = 0; ksent = 0; taken = 0;
#ifdef INDEX_ANEW
            w = 0;
#endif
            r = w; cookie = 1
        :: else
        fi
    }
}

#ifdef NO_CHECK
#define MINE true
#else
#define MINE (cookie == 1)
#endif
#ifdef NO_ON_CHECK
#define TX_ON true
#define RX_ON true
#else
#define TX_ON tx_on
#define RX_ON rx_on
#endif

active proctype Writer() {
    bit ring;
    do
    :: sent < N ->
        ring = 0;
        if :: !paired -> pair_up() :: true fi;
        if
        :: cookie == 1 && tx_on -> ring = 1
        :: cookie == 1 && !tx_on ->            /* activation: this is the only thread that sends */
            atomic { wlock == 0 -> wlock = 1 };
            if :: cookie == 1 && !tx_on -> ksent = ktot; tx_on = 1 :: else fi;
            ring = 1;
            wlock = 0
        :: !(cookie == 1 && tx_on)             /* not paired, or not brought under count this time */
        fi;
        if
        :: ring ->
            atomic { wlock == 0 -> wlock = 1 };
            if
            :: MINE && TX_ON ->
                if
                :: open && takers == 0 && w < N + 1 ->
                    seq[w] = sent; K[w] = ksent;
                    atomic { if :: open && takers == 0 -> w++; sent++ :: else fi }
                :: else -> atomic { kern!sent; ktot++; sent++ }; ksent++
                fi;
                wlock = 0
            :: else -> wlock = 0; ring = 0
            fi
        :: else
        fi;
        if :: !ring -> atomic { kern!sent; ktot++; sent++ } :: else fi
    :: else -> break
    od
}

active proctype Reader() {
    byte s; byte g; bit ring;
    do
    :: got < N ->
        ring = 0;
        if :: !paired -> pair_up() :: true fi;
        if
        :: cookie == 1 && rx_on -> ring = 1
        :: cookie == 1 && !rx_on ->
            atomic { rlock == 0 -> rlock = 1 };
            if :: cookie == 1 && !rx_on -> taken = kread; rx_on = 1 :: else fi;
            ring = 1;
            rlock = 0
        :: !(cookie == 1 && rx_on)
        fi;
        if
        :: ring ->
            atomic { rlock == 0 -> rlock = 1 };
            if
            :: MINE && RX_ON ->
                if
                :: w != r && K[r] <= taken -> atomic { assert(seq[r] == got); got++; r++ }
                :: w != r && K[r] > taken -> if :: atomic { kern?s -> kread++; assert(s == got); got++ }; taken++ :: empty(kern) fi
                :: w == r && !open && takers == 0 -> open = 1
                :: w == r ->                   /* count as a taker, look again */
                    takers++;
                    if
                    :: w != r -> takers--
                    :: else ->
                        g = gen;
                        rlock = 0;
                        if                     /* the native call; another may end without bytes (poll) */
                        :: atomic { kern?s -> kread++; assert(s == got); got++ }; s = 1
                        :: true -> s = 0
                        fi;
                        atomic { rlock == 0 -> rlock = 1 };
#ifdef LEAVE_BLINDLY
                        taken = taken + s; takers--;
#else
                        if :: gen == g -> taken = taken + s; takers-- :: else fi;
#endif
                        s = 0; g = 0
                    fi
                fi;
                rlock = 0
            :: else -> rlock = 0; ring = 0
            fi
        :: else
        fi;
        if
        :: !ring -> if :: atomic { kern?s -> kread++; assert(s == got); got++ }; s = 0 :: empty(kern) fi
        :: else
        fi
    :: else -> break
    od
}

#ifdef POLLER
active proctype Poller() {
    byte r1; bit waiting, its;
    r1 = r;
    atomic { waiting = (w != r1); its = (cookie == 1) };
    if
    :: waiting && cookie == 1 ->
#ifndef COOKIE_ONLY
        if
        :: r == r1 -> assert(its)
        :: else
        fi
#else
        assert(its)
#endif
    :: else
    fi
}
#endif

active proctype Helper() {
    byte n;
    do
    :: n < 2 && paired ->
#ifndef NO_LOCKS
        atomic { rlock == 0 -> rlock = 2 };
        atomic { if :: wlock == 0 -> wlock = 2 :: else -> rlock = 0; goto next fi };
#endif
        if
        :: w == r -> open = 0
        :: else
        fi;
        if
#ifdef NOT_EMPTY
        :: !open || w != r ->
            open = 0;
#else
        :: !open && w == r ->
#endif
            n++;
#ifdef CLEAR_LATE
            rlock = 0; wlock = 0;
#endif
            cookie = 0;
            gen++;
            atomic { paired = 0; taken_up = 0 }
        :: else
        fi;
#ifndef NO_LOCKS
#ifndef CLEAR_LATE
        rlock = 0; wlock = 0;
#else
        if :: rlock == 2 -> rlock = 0 :: else fi;
        if :: wlock == 2 -> wlock = 0 :: else fi;
#endif
#endif
next:   skip
    :: break
    od
}

active proctype Other() {                      /* Y: its reader and writer in turn; it has no takers */
    byte at;
end:
    if
    :: atomic {
            !taken_up -> taken_up = 1; gen++;
            tx_on = 0; rx_on = 0; open = 0; takers = 0; ksent = 0; taken = 0;
#ifdef INDEX_ANEW
            w = 0;
#endif
            r = w; at = w; cookie = 2
        };
        atomic { tx_on = 1; rx_on = 1; open = 1 };
        atomic { wlock == 0 -> wlock = 3 };
        assert(w == at && takers == 0);
        if :: w < N + 1 -> seq[w] = NOBODY; K[w] = 0; w++ :: else fi;
        wlock = 0;
        atomic { rlock == 0 -> rlock = 3 };
        assert(takers == 0);
        if :: w != r -> assert(seq[r] == NOBODY && w == r + 1); r++ :: else fi;
        rlock = 0;
        assert(takers == 0 && w == r);
        open = 0;
        cookie = 0;
        atomic { gen++; taken_up = 0 }
    :: true
    fi
}
