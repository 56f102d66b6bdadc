/* An epoll set with one member: E waits in epoll_wait (dozing or natively) and hands what it finds to T, which makes one
 * read call, blocking or not, takes one byte, and may leave the rest to E (level-triggered). T also reads unasked.
 *
 * Code: native/wait (epoll: doze, native sleep, list of opened rings), native/ring (open, bell).
 * Holds: who sleeps in the set, natively or dozing, is woken for every byte that no reader will take unasked; order.
 *
 * As built here, opening and going to sleep exclude each other by the set's lock (held for a few
 * instructions): under it E counts itself in `sleepers` and shuts (native) or claims (doze) all rings
 * on the list; under it T opens only if nobody sleeps. T holds rlock by then, which E
 * takes under the set's lock, so T only tries, and does not open if the lock is held. So while anybody sleeps natively in the set all its rings are shut
 * and empty, and while anybody dozes no ring opens behind his back.
 *
 * -DFENCE: PROTOCOL.md's way instead (E: sleepers + 1, fence, shut; T: open, fence, sleepers? shut again, look again). It
 * holds for readers that drain (-DDRAIN: T reads until EAGAIN), not for others: what was written between T's open and its
 * second look stays in the ring, T takes a part of it, and E sleeps.
 * -DDEATH: T is a process of its own that shares the set, and dies at any step; E's process reads from then on.
 *
 * Mutants, with the lock: NO_SLEEPERS (T opens whoever sleeps), DOZE_UNCOUNTED (dozers do not count as sleepers), NO_SHUT,
 * NO_LOOK, ARM_AFTER_CLAIM (dir.bell claimed before its bell is armed), NO_CLAIM_CHECK (E takes the bell of a dozing T),
 * -DDEATH -DOPEN_BEFORE_LIST. With -DFENCE: no DRAIN; DEATH; LIST_FIRST (PROTOCOL.md: on the list before OPEN is set, and E empties
 * the list: a ring open and on no list), DOZE_UNCOUNTED, NO_SLEEPERS,
 * REOPEN_UNCHECKED (a shut ring stays on the list, and sleepers are looked at only when a ring comes on the list).
 */
#ifndef N
#define N 3
#endif
#ifdef DEATH
#define MAYDIE if :: atomic { !dead -> dead = 1; goto gone } :: true fi
#else
#define MAYDIE skip
#endif
#define TB 1                              /* bells */
#define EB 2

byte w; bit open; byte takers;
byte rk[N]; byte rd;                      /* values are not needed: order follows from K */
byte sent, kr;
byte ksent, taken;
byte rlock, setlock;                      /* 0 free, TB, EB */
byte sleepers; bit listed;
byte bell; bit armed[3]; bit rung[3];
byte nx; bit job; bit dead;
byte unasked = 1;

#define LOCK(l, me) atomic { l == 0 || (dead && l == TB) -> l = me }
#define DONE (nx == N)

active proctype Writer() {
    byte i, xw, b; bit ok, xa;
    do
    :: i < N ->
        if
        :: atomic { xw = w; ok = open && takers == 0 };
            if
            :: ok ->
                rk[xw] = ksent;
                atomic { if :: w == xw && open && takers == 0 -> w++; i++ :: else -> ok = 0 fi };
                if
                :: ok && bell ->
                    b = bell;
                    if
                    :: armed[b] -> atomic { xa = armed[b]; armed[b] = 0 }; if :: xa -> rung[b] = 1 :: else fi
                    :: else
                    fi;
                    b = 0; xa = 0
                :: else
                fi
            :: else
            fi
        :: true -> atomic { sent++; i++ }; ksent++
        fi
    :: else -> break
    od
}

active proctype E() {
    do
    :: DONE -> break
    :: else ->
        if
        :: rd != w -> goto report
        :: else
        fi;
        if
        :: true ->                                        /* doze */
            armed[EB] = 1;
#ifdef ARM_AFTER_CLAIM
            armed[EB] = 0;
#endif
#ifndef FENCE
            LOCK(setlock, EB);
#endif
#ifndef DOZE_UNCOUNTED
            sleepers++;
#endif
            if
            :: listed && open ->
                LOCK(rlock, EB);
                if
#ifdef NO_CLAIM_CHECK
                :: false
#else
                :: bell == TB && armed[TB] ->             /* T dozes on it: sleep natively */
                    rlock = 0;
#endif
#ifndef FENCE
                    setlock = 0;
#endif
                    armed[EB] = 0;
#ifndef DOZE_UNCOUNTED
                    sleepers--;
#endif
                    rung[EB] = 0;
                    goto native
                :: else -> bell = EB; rlock = 0
                fi
            :: else
            fi;
#ifndef FENCE
            setlock = 0;
#endif
#ifdef ARM_AFTER_CLAIM
            armed[EB] = 1;
#endif
            if
            :: rd != w
            :: else -> (rung[EB] || kr < sent || DONE)
            fi;
            armed[EB] = 0;
            rung[EB] = 0;
#ifndef DOZE_UNCOUNTED
            sleepers--
#endif
        :: true ->
native:
#ifndef FENCE
            LOCK(setlock, EB);
#endif
            sleepers++;
#ifndef NO_SHUT
#ifdef REOPEN_UNCHECKED
            if :: listed -> open = 0 :: else fi;
#else
            if :: listed -> listed = 0; open = 0 :: else fi;
#endif
#endif
#ifndef FENCE
            setlock = 0;
#endif
            if
#ifndef NO_LOOK
            :: rd != w
            :: else -> (kr < sent || DONE)
#else
            :: (kr < sent || DONE)
#endif
            fi;
            sleepers--
        fi;
        if
        :: rd != w || kr < sent ->
report:     if
            :: atomic { dead -> if                        /* T's process is gone: repaired (death-taker.pml), E reads */
                :: rd != w && rk[rd] <= kr -> rd++; nx++
                :: rd != w && rk[rd] > kr && kr < sent -> kr++; nx++
                :: rd == w && kr < sent -> kr++; nx++
                :: rd == w && kr == sent
                fi; taken = kr; takers = 0 }
            :: !dead -> job = 1; (job == 0 || DONE || dead)
            fi
        :: else
        fi
    od
}

active proctype T() {
    bit block;
    do
    :: DONE -> break
    :: atomic { job -> job = 0; block = 0 }; goto call
    :: atomic { !DONE && unasked > 0 -> unasked--; if :: block = 0 :: block = 1 fi }; goto call
    :: false ->
call:   MAYDIE;
        LOCK(rlock, TB);
        MAYDIE;
        if
        :: rd != w && rk[rd] <= taken -> atomic { rd++; nx++ }; MAYDIE; rlock = 0
        :: rd != w && rk[rd] > taken -> atomic { kr < sent -> kr++; nx++ }; MAYDIE; taken++; rlock = 0
        :: rd == w ->
            takers++;
            MAYDIE;
            if :: rd != w -> takers--; rlock = 0; goto call :: else fi;
            if
            :: atomic { kr < sent -> kr++; nx++ }; MAYDIE; taken++; MAYDIE; takers--; MAYDIE; rlock = 0; goto took
            :: kr == sent -> takers--
            fi;
            MAYDIE;
            if :: open -> goto wait :: else fi;           /* it is open, and on the list */
#ifdef FENCE
#ifdef LIST_FIRST
            listed = 1; MAYDIE;
            atomic { if :: takers == 0 -> open = 1 :: else fi };
            MAYDIE;
#else
            atomic { if :: takers == 0 -> open = 1 :: else fi };
            MAYDIE;
#ifdef REOPEN_UNCHECKED
            if :: listed -> goto wait :: else fi;
#endif
            listed = 1; MAYDIE;
#endif
#ifndef NO_SLEEPERS
            if :: sleepers -> open = 0 :: else fi;
#endif
            if :: rd != w -> rlock = 0; goto call :: else fi;
#else
            atomic { if :: setlock == 0 -> setlock = TB :: else -> goto wait fi };
            MAYDIE;
            if
#ifdef NO_SLEEPERS
            :: true ->
#else
            :: sleepers == 0 ->
#endif
#ifdef OPEN_BEFORE_LIST
                atomic { if :: takers == 0 -> open = 1 :: else fi };
                MAYDIE;
                listed = 1
#else
                listed = 1;
                MAYDIE;
                atomic { if :: takers == 0 -> open = 1 :: else fi }
#endif
#ifndef NO_SLEEPERS
            :: else
#endif
            fi;
            MAYDIE;
            setlock = 0;
#endif
wait:       if
            :: !block -> rlock = 0; goto idle             /* EAGAIN */
            :: block && open && !(bell == EB && armed[EB]) ->
                bell = TB;
                armed[TB] = 1;
                rlock = 0;
                if
                :: rd != w
                :: else -> (rung[TB] || kr < sent || DONE)
                fi;
                MAYDIE;
                armed[TB] = 0;
                rung[TB] = 0;
                if :: DONE -> goto idle :: else -> goto call fi
            :: block ->
                takers++;
                if :: rd != w -> takers--; rlock = 0; goto call :: else fi;
                rlock = 0;
                MAYDIE;
                if
                :: atomic { kr < sent -> kr++; nx++ }; MAYDIE; taken++; MAYDIE; takers--
                :: DONE -> takers--
                fi
            fi
        fi;
took:
#ifdef DRAIN
        if :: DONE :: else -> block = 0; goto call fi;
#endif
idle:   block = 0
    od;
gone: skip
}
