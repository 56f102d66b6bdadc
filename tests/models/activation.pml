/* Activation of one side of a direction: from native calls that nobody counts to calls counted under the lock.
 *
 * Code: native/endpoint (activate), the hazard slots of native/wait and native/ring. Three threads of one process: two
 * that make M native calls each (send: the kernel's count is what was given to it; -DRX: recv, the count is what was
 * taken), the first of which may activate; -DRX also has one that sleeps in native poll. Stores of hazards sit in a
 * store buffer until they drain; membarrier drains those of all threads. The activator may die between any two steps;
 * who finds the lock's owner dead sets ACTIVATING back.
 * Holds: from the moment the count is on it is the kernel's (at every unlocked moment), and when the ring may open nobody
 * sleeps natively uncounted.
 *
 * The kernel's count is the sum (tx: acknowledged + unacknowledged) or difference (rx: received - unread) of two numbers
 * read one after the other, while the peer or the network changes them: read until the first number is the same again.
 *
 * Mutants: NO_MEMBARRIER, NO_RECHECK (sender does not look at the state after its hazard), NO_ACTIVATING (the lock alone:
 * a sender that comes after the scan finds OFF and is not seen), SCAN_FIRST (hazards scanned before the state is set), COUNT_TORN (two numbers read once), ON_BEFORE_COUNT, and with RX
 * POLL_WITHOUT_HAZARD (hazards only around calls that take, not around native poll and epoll_wait).
 */
#ifndef M
#define M 2
#endif
#define OFF 0
#define ACTIVATING 1
#define ON 2

byte state;
bit hazard[3]; bit buffered[3];           /* as others see it; still in the store buffer */
byte a, b;                                /* tx: acknowledged, unacknowledged. rx: received, unread */
byte done;                                /* the truth: bytes given to or taken from the kernel */
byte count;                               /* ksent or taken */
byte lock;                                /* 0 free, thread + 1 */
bit dead; bit polling;                    /* the activator's process; somebody sleeps in native poll, uncounted */

#ifdef RX
#define FIRST b
#define SECOND a
inline native() { atomic { b > 0 -> b--; done++ } }
active proctype Peer() { byte n; do :: n < 2 * M -> atomic { a++; b++; n++ } :: else -> break od }
#else
#define FIRST a
#define SECOND b
inline native() { atomic { b++; done++ } }
active proctype Peer() { end: do :: atomic { b > 0 -> b--; a++ } od }
#endif

active proctype Drain() {
end:
    do
    :: atomic { buffered[0] -> buffered[0] = 0; hazard[0] = 1 }
    :: atomic { buffered[1] -> buffered[1] = 0; hazard[1] = 1 }
    :: atomic { buffered[2] -> buffered[2] = 0; hazard[2] = 1 }
    od
}

inline clear_hazard() { atomic { buffered[me] = 0; hazard[me] = 0 } }

inline scan() {
    busy = 0;
    if :: hazard[1 - me] -> busy = 1 :: else fi;
    if :: hazard[2] -> busy = 1 :: else fi
}

#define MAYDIE if :: atomic { !dead -> dead = 1 }; goto gone :: true fi

inline activate() {
    atomic { lock == 0 -> lock = me + 1 };
    if
    :: state == OFF ->
#ifdef SCAN_FIRST
        scan();
#endif
#ifndef NO_ACTIVATING
        state = ACTIVATING;
#endif
        MAYDIE;
#ifndef NO_MEMBARRIER
        atomic {
            hazard[0] = hazard[0] | buffered[0]; buffered[0] = 0;
            hazard[1] = hazard[1] | buffered[1]; buffered[1] = 0;
            hazard[2] = hazard[2] | buffered[2]; buffered[2] = 0
        };
#endif
#ifndef SCAN_FIRST
        scan();
#endif
        MAYDIE;
        if
        :: busy -> state = OFF                            /* later */
        :: else ->
#ifdef ON_BEFORE_COUNT
            state = ON;
            MAYDIE;
#endif
#ifdef COUNT_TORN
            x = FIRST; y = SECOND;
#else
            x = FIRST; y = SECOND;
            do :: x != FIRST -> x = FIRST; y = SECOND :: else -> break od;
#endif
#ifdef RX
            count = y - x;
#else
            count = x + y;
#endif
            x = 0; y = 0;
            MAYDIE;
#ifndef ON_BEFORE_COUNT
            state = ON;
#endif
            assert(!polling)
        fi;
        busy = 0
    :: else
    fi;
    lock = 0
}

/* One call of the program: send, or recv. */
inline call() {
    buffered[me] = 1;                                     /* the hazard; no fence here, membarrier stands in for it */
#ifdef NO_RECHECK
    s = seen;
#else
    s = state;
#endif
    if
    :: s == OFF -> native(); clear_hazard()
    :: else ->
        clear_hazard();
        atomic { lock == 0 || dead && lock == 1 -> if :: lock && state == ACTIVATING -> state = OFF :: else fi; lock = me + 1 };
        if
        :: state == ON -> assert(count == done); native(); count++; assert(count == done)
        :: else -> native()                               /* under the lock: no activator */
        fi;
        lock = 0
    fi;
    s = 0
}

proctype Caller(bit me) {
    byte n, s, seen, x, y; bit busy;
    do
    :: n < M ->
        seen = state;
        if
        :: me == 0 && state == OFF -> activate()
        :: true
        fi;
        call();
        seen = 0;
        n++
    :: else -> break
    od;
gone: skip
}

#ifdef RX
active proctype Poller() {                                /* thread 2: sleeps in poll until there is something */
    byte s;
#ifdef POLL_WITHOUT_HAZARD
    s = state;
#else
    buffered[2] = 1;
    s = state;
#endif
    if
    :: s == OFF ->
        polling = 1;                                      /* counted by nobody, so no ring may open */
        if :: b > 0 :: a == 2 * M fi;
        polling = 0
    :: else                                               /* by the book: takers + 1 */
    fi;
    atomic { buffered[2] = 0; hazard[2] = 0 }
}
#endif

init { atomic { run Caller(0); run Caller(1) } }
