/* One direction, one writer, two readers of the same end: rlock, sleepers in native recv and poll without it, one dozer.
 *
 * Code: native/ring (take, open) and native/wait (doze, native sleep). Reader 0 reads to EOF; reader 1 reads as long as
 * it likes and then does something else for ever: what reader 1 leaves, reader 0 must be woken for.
 * Holds: order, no loss, EOF after the last byte, no reader asleep while there is something for it.
 *
 * The rule on a record whose kernel bytes are not there yet (K > taken, nothing to receive): nothing announces that
 * another reader has taken them, so the wait must end by itself (a short time-out) and look again.
 *
 * Mutants: WAIT_FOR_K_NATIVELY (PROTOCOL.md's "poll unlocked": no time-out), TWO_DOZERS (a bell replaces another armed
 * one), ARM_UNLOCKED (claiming dir.bell and arming are not one step under rlock), TAKEN_AFTER_TAKERS, POLL_WITHOUT_TAKERS,
 * NO_LOOK_AFTER_TAKERS, NO_RLOCK_BOUNDED (bounded take outside rlock).
 */
#ifndef N
#define N 3
#endif
#define R 2

byte w; bit open; byte takers;
byte rv[R]; byte rk[R]; byte rd;
byte kv[N]; byte sent, vis, kr; bit fin;
byte ksent, taken;
byte bell;                                /* dir.bell: reader + 1 */
bit armed[2]; bit rung[2];
bit rlock;
byte nx;

#define EOF_THERE (fin && vis == sent)
#define KREADABLE (kr < vis || fin && vis == sent)

active proctype Writer() {
    byte i, xw; bit ok, xa; byte b;
    do
    :: i < N ->
        if
        :: atomic { xw = w; ok = open && takers == 0 };
            if
            :: ok && xw - rd < R ->
                rv[xw % R] = i;
                rk[xw % R] = ksent;
                atomic { if :: w == xw && open && takers == 0 -> w++; i++; ok = 1 :: else -> ok = 0 fi };
                if
                :: ok && bell ->
                    b = bell - 1;
                    if
                    :: armed[b] -> atomic { xa = armed[b]; armed[b] = 0 }; if :: xa -> rung[b] = 1 :: else fi
                    :: else
                    fi;
                    b = 0; xa = 0
                :: else
                fi
            :: else
            fi
        :: true -> atomic { kv[sent] = i; sent++; i++ }; ksent++
        fi
    :: else -> break
    od;
    if :: true -> nx == N :: true fi;
    fin = 1;
    ksent++
}

active proctype Net() {
end:
    do :: vis < sent -> vis++ od
}

inline recv1() { atomic { assert(kv[kr] == nx); kr++; nx++ } }

proctype Reader(bit me) {
    byte k; bit eof;
    do
    :: eof -> break
    :: !eof && me == 1 -> break                           /* reader 1 has enough */
    :: !eof ->
        atomic { !rlock -> rlock = 1 };
        if
        :: rd != w && rk[rd % R] <= taken ->
            atomic { assert(rv[rd % R] == nx); nx++ }; rd++; rlock = 0
        :: rd != w && rk[rd % R] > taken ->
            k = rk[rd % R];
#ifdef NO_RLOCK_BOUNDED
            rlock = 0;
#endif
            if
            :: kr < vis -> atomic { if :: kr < vis -> recv1(); taken++ :: else fi }; rlock = 0
            :: kr == vis ->
                rlock = 0;
#ifdef WAIT_FOR_K_NATIVELY
                KREADABLE
#else
                (KREADABLE || taken >= k)                 /* a time-out finds it */
#endif
            fi;
            k = 0
        :: rd == w ->
            /* look at the kernel's queue, under rlock */
            takers++;
#ifndef NO_LOOK_AFTER_TAKERS
            if :: rd != w -> takers--; rlock = 0; goto again :: else fi;
#endif
            if
            :: atomic { kr < vis -> recv1() };
#ifdef TAKEN_AFTER_TAKERS
                takers--; taken++;
#else
                taken++; takers--;
#endif
                rlock = 0; goto again
            :: kr == vis && EOF_THERE -> assert(nx == N && rd == w); eof = 1; takers--; rlock = 0; goto again
            :: kr == vis && !EOF_THERE -> takers--
            fi;
            atomic { if :: takers == 0 -> open = 1 :: else fi };
            if
            :: open ->                                    /* doze, if no other does */
#ifdef ARM_UNLOCKED
                if :: bell == 2 - me && armed[1 - me] -> goto sleep :: else -> bell = me + 1 fi;
                rlock = 0;
                armed[me] = 1;
#else
#ifndef TWO_DOZERS
                if :: bell == 2 - me && armed[1 - me] -> goto sleep :: else fi;
#endif
                bell = me + 1;
                armed[me] = 1;
                rlock = 0;
#endif
                if :: rd != w -> armed[me] = 0; goto again :: else fi;
                if :: rung[me] :: KREADABLE fi;
                armed[me] = 0;
                rung[me] = 0
            :: true ->
sleep:          if
                :: true ->                                /* in recv: counted under rlock, sleeps without it */
                    takers++;
                    if :: rd != w -> takers--; rlock = 0; goto again :: else fi;
                    rlock = 0;
                    if
                    :: atomic { kr < vis -> recv1() };
#ifdef TAKEN_AFTER_TAKERS
                        takers--; taken++
#else
                        taken++; takers--
#endif
                    :: kr == vis && EOF_THERE -> assert(nx == N && rd == w); eof = 1; takers--
                    fi
                :: true ->                                /* in poll */
                    rlock = 0;
#ifndef POLL_WITHOUT_TAKERS
                    takers++;
                    if :: rd != w -> takers--; goto again :: else fi;
#else
                    if :: rd != w -> goto again :: else fi;
#endif
                    KREADABLE;
#ifndef POLL_WITHOUT_TAKERS
                    takers--
#endif
                fi
            fi
        fi;
again:  skip
    od
}

init { atomic { run Reader(0); run Reader(1) } }
