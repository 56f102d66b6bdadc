/* Two processes hold the reading end; each opens the ring in its read calls. Process 0 dies at any step, process 1 closes
 * its descriptor at some time (and lives on). The writer must learn that nobody is left, as the kernel would tell it.
 *
 * Code: native/ring (open, publish), native/preload (close).
 * The opener's slot is stored before OPEN is set; the writer looks at it after loading the word; dead: CAS OPEN away, go
 * by the kernel (EPIPE, or a living reader's socket). A process that closes (or passes on, or execs) while others hold the
 * end clears OPEN: it may be the opener, alive, and yet no reader any more. The last one also sets STICKY.
 * Holds: with both gone the writer publishes at most the record it was in the middle of, and then gets the kernel's error.
 *
 * Mutants: NO_OPENER_CHECK, OPENER_AFTER_OPEN, CLOSE_LEAVES_OPEN.
 */
byte w; bit open;
byte opener;                              /* process + 1 */
bit dead0; bit gone[2];
byte rlock;
byte late;                                /* records published when nobody was left */
bit epipe;

#define MAYDIE if :: me == 0 -> goto dies :: true fi

active proctype Writer() {
    byte xw; bit ok;
    do
    :: epipe || w == 5 -> break
    :: else ->
        atomic { xw = w; ok = open };
        if
#ifndef NO_OPENER_CHECK
        :: ok && opener == 1 && dead0 -> atomic { if :: w == xw && open -> open = 0 :: else fi }; ok = 0
#endif
        :: ok && !(opener == 1 && dead0) ->
            atomic { if :: w == xw && open -> w++; if :: gone[0] && gone[1] -> late++ :: else fi :: else fi };
            assert(late <= 1)
#ifdef NO_OPENER_CHECK
        :: ok && opener == 1 && dead0 ->
            atomic { if :: w == xw && open -> w++; if :: gone[0] && gone[1] -> late++ :: else fi :: else fi };
            assert(late <= 1)
#endif
        :: !ok -> if :: gone[0] && gone[1] -> epipe = 1 :: else fi
        fi
    od
}

proctype Reader(bit me) {
    byte n;
    do
    :: n < 3 ->
        n++;
        atomic { rlock == 0 || (rlock == 1 && dead0) -> rlock = me + 1 };
        MAYDIE;
        if
        :: open
        :: else ->
#ifdef OPENER_AFTER_OPEN
            open = 1;
            MAYDIE;
            opener = me + 1
#else
            opener = me + 1;
            MAYDIE;
            open = 1
#endif
        fi;
        MAYDIE;
        rlock = 0
    :: true -> break
    od;
    if
    :: me == 1 ->                                         /* close, under rlock */
        atomic { rlock == 0 || (rlock == 1 && dead0) -> rlock = me + 1 };
#ifndef CLOSE_LEAVES_OPEN
        open = 0;
#endif
        rlock = 0;
        gone[1] = 1
    :: else ->
dies:   atomic { if :: me == 0 -> dead0 = 1 :: else fi; gone[me] = 1 }
    fi
}

init { atomic { run Reader(0); run Reader(1) } }
