/* Who may push: a link, its wish and doubt, and what a datagram that the kernel delivered proves.
 *
 * Code: native/endpoint/link.c (meet, way, doubt), native/shm/link.c, the looks of dgram_rx.c, take_native in preload/dgram_recv.c. Times are
 * as they are read from the clock. A port is bound: from then on the kernel decides otherwise (`era`), and whoever bound it doubts the link; the
 * helper doubts it too, because it is old. Two threads receive: one looks and takes under rlock, one sleeps in recv as a taker.
 * Holds: when bind has returned, nothing is pushed but by a permission that a datagram sent after it gave.
 *
 * Mutants: NOT_FRESH (any datagram proves), BEGUN_LATE (empty_ns is read after the kernel was asked), WISH_LATE (the wish's time is stored after the
 * word), WISH_BACK (whoever doubts later stores an earlier time), NATIVE_LATE (what a sleeper took is compared with a look that ended after
 * that), OLD_WORD (the word is not looked at again before the push), NO_DOUBT (bind doubts nothing), WANTED_KEPT (bind doubts no link that is only
 * WANTED: what it waits for may be in the queue already), MEET_STORES (allowing it is a store).
 */
#define SENT 2                            /* datagrams by the kernel */
#define LOOKS 2                           /* or takes, of the receiver */

byte now = 1;                             /* each reading of the clock is later than the one before */
byte word = 1, wanted, empty_ns;          /* the link (odd: ALLOWED) and its wish; the look before which nothing is left */
bit era, bound;                           /* the kernel decides otherwise; bind has returned */
bit proof;                                /* in which era the datagram was sent that gave the present permission */
chan kern = [2] of { bit };

inline read_clock(x) { atomic { x = now; now++ } }

#define NEXT(x) ((x) + 1 + !((x) & 1))       /* the next generation, WANTED */

inline change() { atomic { if :: word == old -> word = NEXT(old); ok = 1 :: else fi } }

/* Whose word `old` is: the wish is younger from now on, and whoever is about to allow it finds the word changed. */
inline doubt() {
#ifdef WISH_LATE
    change();
#endif
    read_clock(at);
#ifdef WISH_BACK
    wanted = at;
#else
    atomic { if :: at > wanted -> wanted = at :: else fi };
#endif
#ifndef WISH_LATE
    change();
#endif
    at = 0
}

/* Under ctl: v was delivered, and before it, at `fresh`, the queue was empty. */
inline meet(fresh) {
    old = word;
    if
#ifdef NOT_FRESH
    :: !(old & 1) ->
#else
    :: !(old & 1) && wanted < fresh ->
#endif
#ifdef MEET_STORES
        atomic { word = old + 1; proof = v }
#else
        atomic { if :: word == old -> word++; proof = v :: else fi }
#endif
    :: else
    fi;
    old = 0; v = 0
}

active proctype Binder() {
    byte at, old; bit ok;
    era = 1;
#ifndef NO_DOUBT
    do
    :: ok -> break
    :: else ->
        old = word;
#ifdef WANTED_KEPT
        if :: old & 1 -> doubt() :: else fi;
        ok = 1
#else
        doubt()
#endif
    od;
#endif
    bound = 1
}

active proctype Helper() {
    byte at, old; bit ok;
    old = word;
    if :: old & 1 -> doubt() :: true fi
}

active proctype Sender() {
    byte n, way; bit by;
    do
    :: n < SENT -> atomic { if :: nfull(kern) -> kern!era :: full(kern) fi; n++ }
    :: atomic { word & 1 -> way = word; by = proof };
        if :: bound :: true fi;                            /* it may be stopped for some time */
        atomic {
#ifdef OLD_WORD
            assert(!bound || by);
#else
            if :: word == way -> assert(!bound || by) :: else fi;
#endif
            way = 0; by = 0
        }
    :: n == SENT && bound -> break
    od;
    assert(!(word & 1) || proof)                           /* it may push now */
}

active proctype Receiver() {
    byte n, at, old; bit v;
    do
    :: n < LOOKS ->
        n++;
#ifdef BEGUN_LATE
        if
        :: empty(kern) -> read_clock(at); empty_ns = at
        :: atomic { kern?v }; meet(empty_ns)
        fi;
#else
        read_clock(at);
        if
        :: empty(kern) -> empty_ns = at
        :: atomic { kern?v }; meet(empty_ns)
        fi;
#endif
        at = 0
    :: n == LOOKS -> break
    od
}

active proctype Sleeper() {
    byte before, old; bit v;
    before = empty_ns;
    if
    :: atomic { kern?v };
#ifdef NATIVE_LATE
        meet(empty_ns)
#else
        meet(before)
#endif
    :: true
    fi
}
