/* Two senders, one receiving socket: a datagram goes by the ring or the kernel, as it likes, and the ring opens and shuts.
 *
 * Code: native/endpoint (dgram_rx, dgram_tx), native/preload (dgram_send, dgram_recv), datagrams.md. Links are doubted and allowed again at
 * any moment. The kernel's queue is short: what finds it full is lost, and only that may be.
 * Holds: what was sent by one sender is taken in its order, none twice, none lost but by the kernel; a receiver that waits is woken
 * (else: invalid end state).
 * looks, empty and seen are numbers that only grow, seen[s] := looks always: so what matters is, for each sender, `begun` (looks > seen),
 * `gone` (empty > seen) and `marked` (mark > seen).
 *
 * BUSY: a receiver that never dozes, and learns from what the queue costs how many datagrams are left. DEATH: sender 1 dies at any step, the kernel
 * may refuse a datagram; the helper cools the ring, or buries the dead, in either order. TWO: two threads receive, the first calls are not under
 * count, and the second thread goes away at some time.
 *
 * Mutants: NOT_LATER (empty >= seen), SEEN_FIRST (seen is read before the kernel is given the datagram), SEEN_KEPT (a new permission goes on with
 * what was noted before it), LOOK_LATE (a look is numbered after the kernel was asked), TAKE_UNCOUNTED, NO_LOOK_AFTER_COUNT, SLEEP_UNCOUNTED (a
 * receiver sleeps in recv with the ring open), NO_BELL, ARM_LATE; BUSY: MARK_SHORT (one datagram too few until the mark is reached); DEATH:
 * NO_REPAIR (who finds the dead does not ring), COOL_SILENT (the helper takes a dead owner's lock as it cools, and does not ring); TWO:
 * NO_ON_CHECK (under rlock nobody looks whether the socket was brought under count).
 */
#ifndef N
#define N 2
#endif
#ifndef M
#define M 1
#endif
#define R 2
#define Q 2
#define GRAVE 3                           /* names nobody: its next user repairs */
#define HELPER 4

byte w, rd, takers; bit open;             /* the word, the read index */
byte ring[R];
chan kern = [Q] of { byte };
byte rlock, wlock;
#ifdef DEATH
byte wslot;                               /* who pushed last */
#endif
byte bell; bit armed[2], rung[2];
byte word[2];                             /* of each sender's link: its generation; odd: ALLOWED */
bit begun[2], gone[2];
#ifdef BUSY
bit marked[2]; byte left;
#define LEFT left
#else
#define LEFT 0
#endif
bit on, activating, inside[2];
bit dead;
byte sent, ended, got, nx[2];

#define OVER (ended == 2 && got == sent)
#define NOBODY_ASKS ((word[0] & 1) && (word[1] & 1 || M == 0))
#define SENDERS ((word[0] & 1) || (word[1] & 1))

#ifdef DEATH
#define MAYDIE if :: me == 1 -> goto dies :: true fi
#else
#define MAYDIE skip
#endif

inline ring_bell() { atomic { if :: bell && armed[bell - 1] -> rung[bell - 1] = 1; armed[bell - 1] = 0 :: else fi } }

inline note_seen() {
    atomic {
        begun[me] = 0; gone[me] = 0;
#ifdef BUSY
        marked[me] = 0
#endif
    }
}

inline push() {                            /* a record that is not published yet is nobody's business: one step with the look at the word */
    atomic {
        mine = 1; repair = 0; ok = 0; at = w;
        if
        :: wlock == 0 -> wlock = me + 1
        :: wlock == GRAVE || (wlock == 2 && dead) -> wlock = me + 1; repair = 1
        :: else -> mine = 0                                /* nobody waits for it */
        fi;
        if
        :: mine && word[me] == way && open && takers == 0 && w - rd < R -> ring[at % R] = me * 16 + i; ok = 1
        :: else -> at = 0
        fi
    };
    if
    :: mine ->
        MAYDIE;
#ifndef NO_REPAIR
        if :: repair -> repair = 0; ring_bell() :: else fi;
#endif
        if
        :: ok ->
            atomic { if :: w == at && open && takers == 0 -> w++; i++; sent++ :: else -> ok = 0 fi; at = 0 };
            MAYDIE;
#ifndef NO_BELL
            if :: ok -> ring_bell() :: else fi;
            MAYDIE;
#endif
        :: else
        fi;
        #ifdef DEATH
        if :: ok -> wslot = me + 1 :: else fi;
#endif
        atomic { wlock = 0; repair = 0; mine = 0 }
    :: else
    fi
}

proctype Sender(byte me; byte n) {
    byte i, at, way; bit ok, mine, repair;
    do
    :: i < n ->
        atomic {
            if
            :: way != word[me] && (word[me] & 1) ->
                way = word[me];
#ifndef SEEN_KEPT
                note_seen()                                /* all that went by the kernel so far */
#endif
            :: else
            fi
        };
        if
        :: way == word[me] && gone[me] -> push(); if :: ok -> ok = 0; goto next :: else fi
        :: true                                            /* or as it likes */
        fi;
#ifdef SEEN_FIRST
        note_seen();
#endif
        atomic {
            if
            :: nfull(kern) -> kern!(me * 16 + i); sent++
            :: full(kern)
#ifdef DEATH
            :: true                                        /* refused: a bad pointer */
#endif
            fi;
            i++
        };
        MAYDIE;
#ifdef SEEN_KEPT
        if :: way -> note_seen() :: else fi;
#else
#ifndef SEEN_FIRST
        note_seen();
#endif
#endif
next:   skip
    :: i == n -> break
    od;
#ifdef DEATH
    goto over;
dies:
    dead = 1;
over:
#endif
    ended++
}

inline take(v) { assert((v & 15) >= nx[v >> 4]); nx[v >> 4] = (v & 15) + 1; got++ }

#ifdef TWO
#define LOCK atomic { rlock == 0 -> rlock = t + 1 };
#define UNLOCK rlock = 0;
#else
#define LOCK
#define UNLOCK
#endif

inline begin_look() { atomic { begun[0] = 1; begun[1] = 1 } }

inline is_empty() {
    atomic {
#ifdef BUSY
        left = 0;
#endif
#ifdef NOT_LATER
        gone[0] = 1; gone[1] = 1
#else
        gone[0] = begun[0]; gone[1] = begun[1]
#endif
    }
}

/* A look that takes nothing: some, or not. */
inline look() {
#ifndef LOOK_LATE
    begin_look();
#endif
    if
    :: nempty(kern) -> some = 1
    :: empty(kern) ->
        some = 0;
#ifdef LOOK_LATE
        begin_look();
#endif
        is_empty()
    fi
}

/* The kernel delivered v: its sender's link may be allowed now (permission.pml). */
inline meet() { if :: !(word[v >> 4] & 1) -> word[v >> 4]++ :: true fi; v = 0 }

/* A datagram was taken: how much memory those that are left cost says how many there can be. */
inline took() {
#ifdef BUSY
    atomic {
        if
        :: left -> left--; if :: !left -> gone[0] = gone[0] || marked[0]; gone[1] = gone[1] || marked[1] :: else fi
        :: else
        fi;
        begin_look()
    };
    if
    :: empty(kern) -> is_empty()
    :: atomic { nempty(kern) && !left ->
#ifdef MARK_SHORT
            left = len(kern) - 1;
            if :: !left -> is_empty() :: else fi;
#else
            left = len(kern);
#endif
            marked[0] = begun[0]; marked[1] = begun[1]
        }
    :: nempty(kern) && left
    fi
#else
    begin_look();
    if :: empty(kern) -> is_empty() :: nempty(kern) fi
#endif
}

proctype Receiver(byte t) {
    byte v; bit some, uncounted;
    do
    :: OVER -> break
#ifdef TWO
    :: t == 1 -> break
#endif
    :: !OVER ->
#ifdef TWO
        inside[t] = 1;
        uncounted = 0;
        if
        :: on || activating
        :: !on && !activating && !NOBODY_ASKS ->
            LOCK
            if
            :: !on ->
                activating = 1;
                if :: inside[1 - t] -> uncounted = 1 :: else -> on = 1 fi;
                activating = 0
            :: else
            fi;
            rlock = 0
        :: !on && !activating && NOBODY_ASKS -> uncounted = 1     /* nobody asks to push */
        fi;
        if :: uncounted -> goto natively :: else fi;
#endif
again:
        LOCK
#ifdef TWO
#ifndef NO_ON_CHECK
        if :: !on -> UNLOCK goto natively :: else fi;
#endif
#endif
        if
        :: w != rd ->
            atomic { v = ring[rd % R]; take(v); rd++; v = 0 };
#if !defined(BUSY) && !defined(DEATH) && !defined(TWO)
            if
            :: true -> look(); if :: some -> open = 0; some = 0 :: else fi      /* fairness */
            :: true
            fi;
#endif
            UNLOCK
            goto done
        :: w == rd && open ->
            if
            :: UNLOCK goto wait                            /* looked a moment ago */
            :: look();
                if
                :: !some -> if :: !SENDERS -> open = 0 :: else fi; UNLOCK goto wait
                :: else -> some = 0
                fi
            fi
        :: w == rd && !open
        fi;
#ifdef TAKE_UNCOUNTED
        begin_look();
#else
#ifdef NO_LOOK_AFTER_COUNT
        atomic { takers++; begin_look() };
#else
        if :: atomic { w == rd -> takers++; begin_look() } :: w != rd -> UNLOCK goto again fi;
#endif
#endif
        if
        :: atomic { nempty(kern) -> kern?v; take(v); meet(); some = 1 }; took()
        :: empty(kern) -> is_empty()
        fi;
        atomic {
#ifndef TAKE_UNCOUNTED
            takers--;
#endif
            if :: (!some || !LEFT) && SENDERS && takers == 0 -> open = 1 :: else fi
        };
        UNLOCK
        if :: some -> some = 0; goto done :: else fi;
wait:
#if !defined(BUSY) && !defined(TWO)
        if
        :: open ->                                         /* doze */
            atomic {
                rlock == 0;
#ifndef ARM_LATE
                armed[t] = 1;
#endif
                if :: bell == 0 || bell == t + 1 || !armed[bell - 1] -> bell = t + 1; some = 1 :: else fi
            };
            if
            :: some && w == rd && open ->
#ifdef ARM_LATE
                armed[t] = 1;
#endif
                if :: rung[t] :: nempty(kern) :: OVER fi
            :: else
            fi;
            atomic { armed[t] = 0; rung[t] = 0; if :: some -> some = 0; goto again :: else fi }
        :: true
        fi;
#endif
#ifdef SLEEP_UNCOUNTED
        if :: w == rd :: w != rd -> goto again fi;
#else
        if :: atomic { rlock == 0 && w == rd -> takers++ } :: w != rd -> goto again fi;     /* sleep in recv */
#endif
        if
        :: atomic { nempty(kern) -> kern?v; take(v); meet() }
        :: OVER
        fi;
#ifndef SLEEP_UNCOUNTED
        atomic { rlock == 0 -> takers-- };
#endif
        goto done;
natively:
        if
        :: atomic { nempty(kern) -> kern?v; take(v); meet() }
        :: OVER
        fi;
done:
#ifdef TWO
        inside[t] = 0
#else
        skip
#endif
    od
}

/* Ports are bound, permissions grow old, idle rings give their memory back. */
active proctype Others() {
    do
#ifndef BUSY
    :: atomic { word[0] == 1 -> word[0]++ }
#endif
#if !defined(BUSY) && !defined(DEATH) && !defined(TWO)
    :: atomic { open && rlock == 0 && wlock == 0 && w == rd -> open = 0; break }
#endif
    :: break
    od
}

#ifdef DEATH
active proctype Helper() {
    bit wrote;
    if
    :: dead ->
        if
        :: atomic { wlock == 2 -> wlock = HELPER };       /* cools the ring */
#ifndef COOL_SILENT
            ring_bell();
#endif
            wlock = 0
        :: true
        fi;
        atomic { if :: wlock == 2 -> wlock = GRAVE; wrote = 1 :: else fi };
        if :: wrote || wslot == 2 -> ring_bell() :: else fi
    :: ended == 2 && !dead
    fi
}
#endif

init {
    atomic {
#ifndef TWO
        bell = 1; word[0] = 1; word[1] = 1; begun[0] = 1; begun[1] = 1; gone[0] = 1; gone[1] = 1;    /* it has been going on for some time */
#endif
        run Sender(0, N); run Sender(1, M);
        run Receiver(0);
#ifdef TWO
        run Receiver(1)
#endif
    }
}
