/* Three writers of one end, each a process: 0 and 1 die at any step, also as finders; 2 lives. One reader, dozing or asleep.
 * -DONE_DIES: without 1.
 *
 * Code: native/ring (publish, ring the bell, send by the kernel, shs_dir_repair_writer).
 * The finder of a dead owner of wlock: ksent := the kernel's count of what was sent, then rings the dozer's bell, as the
 * dead may have published without ringing. The bell is rung under wlock, so that a dead owner of wlock is the note.
 * Holds: order, nothing lost; the reader is woken, provided that somebody finds the dead (a later sender, or the helper).
 *
 * Mutants: NO_KSENT, NO_BELL (repair does not ring), BELL_AFTER_UNLOCK, UNLOCK_BEFORE_KSENT (ksent added after unlocking).
 */
#ifndef N
#define N 2
#endif
#define R 2
#define S 2

byte w; bit open; byte takers;
byte rv[R]; byte rk[R]; byte rd;
byte kv[N]; byte sent, kr;
byte ksent, taken;
bit bell, rung; byte armed;
byte wlock; bit dead[3];
byte next;                                /* next byte to write; the writers share the program's work */
byte nx;

#define MAYDIE if :: me != S -> goto gone :: true fi

inline ring() {
    if
    :: bell ->
        a = armed;
        if
        :: a -> rung = 1; MAYDIE; atomic { if :: armed == a -> armed = 0 :: else fi }
        :: else
        fi;
        a = 0
    :: else
    fi
}

inline lock() {
    atomic {
        wlock == 0 || dead[wlock - 1];
        if :: wlock -> found = 1 :: else fi;
        wlock = me + 1
    };
    MAYDIE;
    if
    :: found ->
        found = 0;
#ifndef NO_KSENT
        ksent = sent;
#endif
        MAYDIE;
#ifndef NO_BELL
        ring()
#endif
    :: else
    fi
}

proctype Writer(byte me) {
    byte xw, a; bit ok, found;
    do
    :: next < N ->
        lock();
        MAYDIE;
        if
        :: next == N -> wlock = 0
        :: next < N ->
            atomic { xw = w; ok = open && takers == 0 };
            if
            :: ok && xw - rd < R ->
                atomic { rv[xw % R] = next; rk[xw % R] = ksent };
                MAYDIE;
                atomic { if :: w == xw && open && takers == 0 -> w++; next++ :: else -> ok = 0 fi };
                MAYDIE;
#ifdef BELL_AFTER_UNLOCK
                wlock = 0;
                MAYDIE;
                if :: ok -> ring() :: else fi
#else
                if :: ok -> ring() :: else fi;
                MAYDIE;
                wlock = 0
#endif
            :: true ->
                atomic { kv[sent] = next; sent++; next++ };
                MAYDIE;
#ifdef UNLOCK_BEFORE_KSENT
                wlock = 0;
                MAYDIE;
                ksent++
#else
                ksent++;
                MAYDIE;
                wlock = 0
#endif
            fi
        fi;
        ok = 0; xw = 0
    :: me == S && wlock && dead[wlock - 1] -> lock(); wlock = 0
    :: next == N && (me != S || nx == N) -> break
    od;
gone:
    dead[me] = 1
}

inline recv1() { atomic { assert(kv[kr] == nx); kr++; nx++ } }

active proctype Reader() {
    byte gen;
    do
    :: nx == N -> break
    :: else ->
        if
        :: rd != w && rk[rd % R] <= taken -> atomic { assert(rv[rd % R] == nx); nx++; rd++ }
        :: rd != w && rk[rd % R] > taken -> atomic { kr < sent -> recv1(); taken++ }
        :: rd == w ->
            atomic { open = 1 };
            if
            :: true ->
                bell = 1; gen++; armed = gen;
                if :: rd != w :: else -> (rung || kr < sent) fi;
                armed = 0; rung = 0
            :: true
            fi;
            takers++;                                     /* a look, or a sleep, in recv */
            if
            :: rd != w
            :: else ->
                if
                :: atomic { kr < sent -> recv1(); taken++ }
                :: kr == sent
                fi
            fi;
            takers--
        fi
    od
}

init {
    atomic {
        run Writer(0);
#ifndef ONE_DIES
        run Writer(1);
#endif
        run Writer(2)
    }
}
