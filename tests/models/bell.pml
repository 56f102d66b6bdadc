/* One doorbell behind which a thread dozes on two rings, A and B, of two connections; B's writer dies at any step.
 *
 * Code: native/wait (doze, an epoll set's one bell) and native/ring (ringing after publishing).
 * Holds (DESIGN 4): "a connection that the dead process was not an end of does not notice": what A's writer publishes
 * wakes the dozer, with nobody there to repair B.
 *
 * So the writer rings first and disarms after it, and armed is a generation, so that a late writer disarms only the
 * doze that it rang for: a = armed; a != 0 -> datagram (full: rung); compare-and-swap armed a -> 0. Two writers may both
 * ring: a spare datagram, drained before the next arming.
 *
 * Mutants: EXCHANGE_FIRST (exchange(armed, 0) == 1, then the datagram: B's writer dies between them, and A's finds the
 * bell unarmed), CLEAR_BLINDLY (armed := 0 after the datagram, without the generation), LOOK_ONE (the second look sees
 * only B), DRAIN_AFTER_ARM.
 */
#define NA 3
#define NB 3

byte wa, ra, wb, rb;
byte armed;                               /* generation of the doze; 0: awake */
bit rung;

#define MAYDIE(mortal) if :: mortal -> goto gone :: true fi

inline ring(mortal) {
    a = armed;
    MAYDIE(mortal);
#ifdef EXCHANGE_FIRST
    if
    :: a -> atomic { a = armed; armed = 0 }; MAYDIE(mortal); if :: a -> rung = 1 :: else fi
    :: else
    fi;
#else
    if
    :: a ->
        rung = 1;
        MAYDIE(mortal);
#ifdef CLEAR_BLINDLY
        armed = 0
#else
        atomic { if :: armed == a -> armed = 0 :: else fi }
#endif
    :: else
    fi;
#endif
    a = 0
}

active proctype WriterA() {
    byte a;
    do :: wa < NA -> wa++; ring(0) :: else -> break od;
gone: skip
}

active proctype WriterB() {
    byte a;
    do :: wb < NB -> MAYDIE(1); wb++; MAYDIE(1); ring(1) :: else -> break od;
gone: skip
}

active proctype Dozer() {
    byte gen;
    do
    :: ra == NA -> break
    :: else ->
        if
        :: ra != wa -> ra++
        :: rb != wb -> rb++
        :: ra == wa && rb == wb ->
            gen++;
            armed = gen;
#ifdef DRAIN_AFTER_ARM
            rung = 0;
#endif
#ifdef LOOK_ONE
            if
            :: rb != wb
            :: else -> rung
            fi;
#else
            if
            :: ra != wa || rb != wb
            :: else -> rung
            fi;
#endif
            armed = 0;
#ifndef DRAIN_AFTER_ARM
            rung = 0
#endif
        fi
    od
}
