/* The connection is reset (by the peer, by ss -K, by the kernel) at any moment, with bytes under way, bytes in the
 * kernel's queue and records in the ring. The program may take the error with getsockopt(SO_ERROR) before the library.
 *
 * Code: native/ring (take: error and gap), native/preload (close by the reader).
 * Linux: what is in the receive queue is read first, then the error once, then EOF; what was under way is gone.
 * Holds: the program gets a prefix of the stream in order; all that had arrived (kernel bytes, and records whose kernel
 * bytes had arrived) comes before the error; the error, or EOF if it was taken by SO_ERROR, comes once and ends it; nothing is
 * published after it; nobody is stuck.
 *
 * A bounded take that meets an error or EOF is a gap: the head record's kernel bytes never come. Then, and before any
 * error or EOF is returned, the reader sets STICKY (and clears OPEN), and drops what is in the ring.
 *
 * Mutants: ERROR_FIRST (the kernel's error is returned although the ring is not empty), GAP_IGNORED (waits for the kernel's bytes),
 * GAP_SKIPPED (the records behind it are given out), NO_STICKY, STICKY_LATE (after the ring was dropped).
 */
#ifndef N
#define N 4
#endif
#define R 2

byte w; bit open, sticky; byte takers;
byte rv[R]; byte rk[R]; byte rd;
byte kv[N]; byte sent, vis, kr;
byte ksent, taken;
bit reset, err;
bit bell, armed, rung;
byte nx; bit ended;

#define KREADABLE (kr < vis || reset)

active proctype Writer() {
    byte i, xw; bit ok, xa;
    do
    :: i < N ->
        if
        :: atomic { xw = w; ok = open && !sticky && takers == 0 };
            if
            :: ok && xw - rd < R ->
                atomic { rv[xw % R] = i; rk[xw % R] = ksent };
                atomic {
                    if
                    :: w == xw && open && !sticky && takers == 0 -> assert(!ended); w++; i++; ok = 1
                    :: else -> ok = 0
                    fi
                };
                if
                :: ok && bell && armed -> atomic { xa = armed; armed = 0 }; if :: xa -> rung = 1 :: else fi
                :: else
                fi
            :: else
            fi
        :: atomic { !reset -> kv[sent] = i; sent++; i++ }; ksent++
        :: reset -> break                                 /* EPIPE */
        fi
    :: else -> break
    od
}

active proctype Net() {                                   /* delivers, and resets once */
    do
    :: atomic { vis < sent && !reset -> vis++ }
    :: atomic { !reset -> reset = 1; err = 1 }; break
    od;
    if :: err = 0 :: true fi                              /* getsockopt(SO_ERROR) by the program, some time */
}

inline recv1() { atomic { assert(kv[kr] == nx); kr++; nx++ } }

inline end_of_stream() {
#ifdef STICKY_LATE
    ended = 1;
    rd = w;
    atomic { open = 0; sticky = 1 };
#else
#ifndef NO_STICKY
    atomic { open = 0; sticky = 1 };
#endif
    rd = w;
    ended = 1;
#endif
    err = 0
}

active proctype Reader() {
    do
    :: ended -> break
    :: else ->
        if
        :: rd != w && rk[rd % R] <= taken -> atomic { assert(rv[rd % R] == nx); nx++ }; rd++
        :: rd != w && rk[rd % R] > taken ->
            if
            :: atomic { kr < vis -> recv1() }; taken++
#ifndef GAP_IGNORED
            :: atomic { kr == vis && reset -> skip };     /* error or EOF: a gap */
#ifdef GAP_SKIPPED
                taken = rk[rd % R]
#else
                end_of_stream()
#endif
#endif
            fi
        :: rd == w ->
            takers++;
#ifndef ERROR_FIRST
            if :: rd != w -> takers--; goto again :: else fi;
#endif
            if
            :: atomic { kr < vis -> recv1() }; taken++; takers--; goto again
            :: atomic { kr == vis && reset -> assert(rd == w || rk[rd % R] > taken) }; end_of_stream(); takers--; goto again
            :: kr == vis && !reset -> takers--
            fi;
            atomic { if :: takers == 0 && !sticky -> open = 1 :: else fi };
            if
            :: open ->
                bell = 1; armed = 1;
                if :: rd != w -> armed = 0; goto again :: else fi;
                if :: rung :: KREADABLE fi;
                armed = 0; rung = 0
            :: true ->
                takers++;
                if
                :: rd != w -> takers--
                :: else ->
                    if
                    :: atomic { kr < vis -> recv1() }; taken++
                    :: atomic { kr == vis && reset -> skip }; end_of_stream()
                    fi;
                    takers--
                fi
            fi
        fi;
again:  skip
    od;
    assert(nx >= vis)
}
