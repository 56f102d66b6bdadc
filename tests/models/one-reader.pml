/* One direction, one writer, one reader: ring or kernel for each byte, dozing behind a bell, full ring, FIN.
 *
 * Code: native/ring (publish, take, open) and native/wait (doze, native sleep in recv).
 * Holds: bytes arrive in the order written, none lost or twice; EOF only after the last byte; a reader that waits
 * is woken (else: invalid end state, the writer may wait for the reader before its FIN, as in request and reply).
 *
 * Bytes are numbered in the order written. The kernel's stream is kv[0..sent), of which vis have arrived and kr were
 * received; a byte may be under way (Net). The word is {w, open, takers}: each access to it is one step.
 *
 * Mutants: LOOK_BEFORE_ARM (no fence between arming and looking), DRAIN_AFTER_ARM, NO_BELL, TAKE_WITHOUT_TAKERS,
 * NO_LOOK_AFTER_TAKERS, NO_K_CHECK, K_LATE (record made before ksent of the last kernel send is added), NO_ROOM_CHECK,
 * CAS_INDEX_ONLY (publishing ignores open and takers).
 *
 * NAP: the reader may also sleep on the bell's word alone (futex), blind to the kernel's stream; so whoever sends by the kernel rings too.
 * Its mutants: BLIND (bytes may be under way in the kernel when it falls asleep), KERNEL_UNRUNG, FIN_UNRUNG, RUNG_BEFORE_KSENT, WAKE_FIRST.
 */
#ifndef N
#define N 4
#endif
#define R 2
#define Q 2
#define FIN 99

byte w; bit open; byte takers;            /* the word */
byte rv[R]; byte rk[R]; byte rd;          /* ring: value and K of each record; read index */
byte kv[N + 1]; byte sent, vis, kr;       /* the kernel's stream */
byte ksent, taken;
bit bell, armed, rung;                    /* dir.bell is set; bell.armed; a datagram waits in the bell */
byte nx;                                  /* next byte due to the program */
#ifdef NAP
bit napping, asleep, woken;               /* armed for a nap; the futex's sleeper; its wake-up */

inline wake() { atomic { if :: asleep -> woken = 1 :: else fi } }

inline ring_nap() {
    if
    :: bell && napping ->
#ifdef WAKE_FIRST
        wake();
        napping = 0
#else
        atomic { xn = napping; napping = 0 };
        if :: xn -> wake() :: else fi
#endif
    :: else
    fi
}
#else
#define ring_nap() skip
#endif

inline publish(v) {
    atomic { xw = w; ok = open && takers == 0 };
#ifdef NO_ROOM_CHECK
    if
    :: ok ->
#else
    if
    :: ok && xw - rd < R ->
#endif
        rv[xw % R] = v;
        rk[xw % R] = ksent;
#ifdef CAS_INDEX_ONLY
        atomic { if :: w == xw -> w++; ok = 1 :: else -> ok = 0 fi };
#else
        atomic { if :: w == xw && open && takers == 0 -> w++; ok = 1 :: else -> ok = 0 fi };
#endif
#ifndef NO_BELL
        if
        :: ok && bell ->
            if
            :: armed -> atomic { xa = armed; armed = 0 }; if :: xa -> rung = 1 :: else fi
            :: else
            fi
        :: else
        fi;
        if :: ok -> ring_nap() :: else fi
#endif
    :: else -> ok = 0
    fi
}

active proctype Writer() {
    byte i, xw; bit ok, xa, xn;
    do
    :: i < N ->
        if
        :: publish(i); if :: ok -> i++ :: else fi
        :: true ->                                        /* not pushable, full, or as it likes */
            atomic { sent - kr < Q -> kv[sent] = i; sent++; i++ };
#ifdef K_LATE
            if :: i < N -> publish(i); if :: ok -> i++ :: else fi :: else fi;
#endif
#ifdef RUNG_BEFORE_KSENT
            ring_nap();
            ksent++
#else
            ksent++;
#ifndef KERNEL_UNRUNG
            ring_nap()
#endif
#endif
        fi
    :: else -> break
    od;
    if :: true -> nx == N :: true fi;                           /* may wait for the reader first */
    atomic { kv[sent] = FIN; sent++ };
    ksent++;
#ifndef FIN_UNRUNG
    ring_nap()
#endif
}

active proctype Net() {
end:
    do :: vis < sent -> vis++ od
}

inline take() {                                           /* recv(2): one byte, or EOF */
    atomic { v = kv[kr]; kr++; if :: v == FIN -> assert(nx == N); fin = 1 :: else -> assert(v == nx); nx++ fi; v = 0 }
}

active proctype Reader() {
    byte v; bit fin;
    do
    :: fin -> break
    :: else ->
        if
        :: rd != w ->
#ifdef NO_K_CHECK
            if
            :: true ->
#else
            if
            :: rk[rd % R] <= taken ->
#endif
                atomic { v = rv[rd % R]; assert(v == nx); nx++; v = 0 }; rd++
            :: rk[rd % R] > taken -> kr < vis; take(); taken++
            fi
        :: else ->
            /* look at the kernel's queue */
#ifdef TAKE_WITHOUT_TAKERS
            if
            :: kr < vis -> take(); taken++; goto again
            :: kr == vis
            fi;
#else
            takers++;
#ifndef NO_LOOK_AFTER_TAKERS
            if :: rd != w -> takers--; goto again :: else fi;
#endif
            if
            :: kr < vis -> take(); taken++; takers--; goto again
            :: kr == vis -> takers--
            fi;
#endif
            /* nothing: open, or shut again as it cools, then wait one way or the other */
            atomic { if :: takers == 0 -> open = 1 :: open = 0 fi };
            if
            :: open ->                                    /* doze */
                bell = 1;
#ifdef LOOK_BEFORE_ARM
                if :: rd != w -> goto again :: else fi;
                armed = 1;
#else
                armed = 1;
                if :: rd != w -> armed = 0; goto again :: else fi;
#endif
#ifdef DRAIN_AFTER_ARM
                rung = 0;
#endif
                if :: rung :: kr < vis fi;
                armed = 0;
#ifndef DRAIN_AFTER_ARM
                rung = 0
#endif
#ifdef NAP
            :: open ->
                bell = 1;
                napping = 1;
                if
                :: rd != w -> napping = 0; goto again
#ifndef BLIND
                :: rd == w && ksent != taken -> napping = 0; goto again
#endif
                :: else
                fi;
                atomic { if :: napping -> asleep = 1 :: else fi };
                if :: asleep -> woken; atomic { asleep = 0; woken = 0 } :: else fi;
                napping = 0
#endif
            :: true ->                                    /* sleep in recv */
                takers++;
                if
                :: rd != w -> takers--
                :: else -> kr < vis; take(); taken++; takers--
                fi
            fi
        fi;
again:  skip
    od;
    assert(rd == w)
}
