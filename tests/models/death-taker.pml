/* Three readers of one end, each a process; readers 0 and 2 die at any step (both, as finders too), reader 1 lives.
 *
 * Code: native/ring (take, native sleep, shs_dir_repair_reader). The slot's takes entry is written before takers + 1 and
 * cleared after takers - 1, so the count of a process that died can be off by one either way: takers is not corrected by
 * arithmetic, it is rebuilt. The finder of a dead owner of rlock, or of a dead process's entry, under rlock:
 *   ring not empty -> taken := the kernel's (received - unread): nobody is between his recv and his taken += n, because
 *                     nothing is published while he is counted, and he found the ring empty;
 *   ring empty and no living reader has an entry for this direction -> the same;
 *   ring empty and one has -> later (else his bytes count twice); the kernel path goes on, the entry is the note;
 *   no living reader has an entry -> CAS takers := 0 (what it was before the scan), then clear the dead's entries.
 * Holds: order; nothing is taken twice or lost but what the dead took; EOF last; reader 1 is never stuck; takers does
 * not go below zero.
 *
 * Mutants: LIVE_TAKER (PROTOCOL.md: taken := kernel's at once, the count corrected exactly by magic,
 * one process dies), DECREMENT (takers - 1 for each dead entry), NO_TAKEN,
 * NO_REPAIR_OF_BOUNDED.
 */
#ifndef N
#define N 3
#endif
#define R 2
#define S 1                               /* the survivor */

byte w; bit open; byte takers;
byte rv[R]; byte rk[R]; byte rd;
byte kv[N]; byte sent, kr; bit fin;
byte ksent, taken;
bit entry[3]; bit dead[3];
#ifdef LIVE_TAKER
#define COUNTED(i, v) counted[i] = v
bit counted[3];                           /* what no finder can know: only for this mutant */
#else
#define COUNTED(i, v) skip
#endif
byte rlock;                               /* reader + 1 */
byte nx;

#ifdef LIVE_TAKER
#define MAYDIE if :: me == 0 -> goto gone :: true fi
#else
#define MAYDIE if :: me != S -> goto gone :: true fi
#endif
#define LIVES(i) (entry[i] && !dead[i])
#define DEAD_ENTRY ((entry[0] && dead[0]) || (entry[2] && dead[2]))

active proctype Writer() {
    byte i, xw; bit ok;
    do
    :: i < N ->
        if
        :: atomic { xw = w; ok = open && takers == 0 };
            if
            :: ok && xw - rd < R ->
                atomic { rv[xw % R] = i; rk[xw % R] = ksent };
                atomic { if :: w == xw && open && takers == 0 -> w++; i++ :: else -> ok = 0 fi }
            :: else
            fi
        :: true -> atomic { kv[sent] = i; sent++; i++ }; ksent++
        fi
    :: else -> break
    od;
    if :: true -> nx == N :: true fi;
    fin = 1
}

inline recv1() { atomic { assert(kv[kr] == nx); kr++; nx++ } }

inline uncount() {
    MAYDIE;
    atomic { assert(takers > 0); takers--; COUNTED(me, 0) };
    MAYDIE;
    entry[me] = 0
}

/* Under rlock; entry[me] is 0. `found`: rlock's owner was dead. */
inline repair() {
    if
    :: DEAD_ENTRY || found ->
        xt = takers;
        live = LIVES(0) || LIVES(1) || LIVES(2);
#ifndef NO_TAKEN
        if
#ifdef LIVE_TAKER
        :: true -> taken = kr
#else
#ifndef NO_REPAIR_OF_BOUNDED
        :: rd != w -> taken = kr                          /* nobody is between recv and taken += n */
#endif
        :: rd == w && !live -> taken = kr
#endif
        :: else
        fi;
#endif
        MAYDIE;
#ifdef DECREMENT
        if :: entry[0] && dead[0] -> atomic { assert(takers > 0); takers-- }; MAYDIE; entry[0] = 0 :: else fi;
        if :: entry[2] && dead[2] -> atomic { assert(takers > 0); takers-- }; MAYDIE; entry[2] = 0 :: else fi;
#else
#ifdef LIVE_TAKER
        if :: entry[0] && dead[0] -> atomic { takers = takers - counted[0]; counted[0] = 0; entry[0] = 0 } :: else fi;
        if :: entry[2] && dead[2] -> atomic { takers = takers - counted[2]; counted[2] = 0; entry[2] = 0 } :: else fi;
#else
        if
        :: !live ->
            atomic { if :: takers == xt -> takers = 0 :: else fi };
            MAYDIE;
            if :: dead[0] -> entry[0] = 0 :: else fi;
            if :: dead[2] -> entry[2] = 0 :: else fi
        :: else                                           /* later */
        fi;
#endif
#endif
        found = 0; xt = 0; live = 0
    :: else
    fi
}

proctype Reader(byte me) {
    byte k, xt; bit eof, found, live;
    do
    :: eof -> break
    :: !eof && me != S -> break
    :: !eof ->
        atomic {
            rlock == 0 || dead[rlock - 1];
            if :: rlock -> found = 1 :: else fi;
            rlock = me + 1
        };
        MAYDIE;
        repair();
        if
        :: rd != w && rk[rd % R] <= taken ->
            MAYDIE;
            atomic { assert(rv[rd % R] == nx); nx++; rd++ };
            MAYDIE; rlock = 0
        :: rd != w && rk[rd % R] > taken ->
            k = rk[rd % R];
            if
            :: atomic { kr < sent -> recv1() }; MAYDIE; taken++; MAYDIE; rlock = 0
            :: kr == sent ->
                rlock = 0;
                (kr < sent || fin || taken >= k || (rlock && dead[rlock - 1]) || DEAD_ENTRY)
            fi;
            k = 0
        :: rd == w ->
            if
            :: true ->                                    /* a look at the kernel's queue, under rlock */
                entry[me] = 1;
                MAYDIE;
                atomic { takers++; COUNTED(me, 1) };
                MAYDIE;
                if
                :: rd != w
                :: else ->
                    if
                    :: atomic { kr < sent -> recv1() }; MAYDIE; taken++
                    :: kr == sent && fin -> assert(nx == N && rd == w); eof = 1
                    :: kr == sent && !fin
                    fi
                fi;
                uncount();
                MAYDIE;
                atomic { if :: takers == 0 -> open = 1 :: else fi };
                MAYDIE;
                rlock = 0
            :: true ->                                    /* sleep in recv */
                entry[me] = 1;
                MAYDIE;
                atomic { takers++; COUNTED(me, 1) };
                MAYDIE;
                if
                :: rd != w -> uncount(); rlock = 0
                :: else ->
                    rlock = 0;
                    if
                    :: atomic { kr < sent -> recv1() }; MAYDIE; taken++
                    :: kr == sent && fin -> assert(nx == N && rd == w); eof = 1
                    fi;
                    uncount()
                fi
            fi
        fi
    od;
gone:
    dead[me] = 1
}

init { atomic { run Reader(0); run Reader(1); run Reader(2) } }
