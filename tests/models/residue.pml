/* A ring is recalled for a holder outside the library: its bytes, and kernel bytes that belong behind them, are sent again by the kernel.
 *
 * Code: native/endpoint/residue. One direction. A process sends by ring or by the kernel, as it likes, and may send on at any time; another one
 * of its end takes over when it dies. A reader takes some, then recalls the ring (and sends residue, by a descriptor of the writer's, if it has
 * one); it may die at any step, and another process that holds the end recalls then. Afterwards a holder outside reads the kernel's queue.
 * Holds: every byte comes, once, in the order written, whoever dies; the writer is never stuck.
 *
 * Bytes are numbered in the order written. The kernel's stream is kern, of which `ktot` were given and `kread` taken, as the kernel itself
 * counts; ksent and taken are the library's counts, read from the kernel again after a death.
 *
 * Mutants: NO_COLLECT (kernel bytes stay where they are), SEND_EARLY (the residue is sent before all are out), OWN_FIRST (the writer sends
 * its own before the residue), RD_FIRST (the ring is emptied before the residue is declared), NO_RD_REPAIR (who takes rlock over leaves rd as it
 * is), RD_LEFT (so does who sends the last byte), NO_RECOUNT (ksent is believed after a death), OWN_PROGRESS (how much was sent is a number of its own), NO_STICKY.
 */
#ifndef N
#define N 3
#endif

byte w, rd; bit open, sticky;
byte rv[N]; byte rk[N];
chan kern = [2 * N] of { byte };
byte ktot, kread;
byte ksent, taken;
bit wlock, rlock, w_dead, r_dead;              /* held; its holder died */
bit re_on, mixed; byte re_rd, re_base, re_ksent;
byte moved[2 * N];                             /* by stream position */
#ifdef OWN_PROGRESS
byte resent;
#define SENT_AGAIN resent
#else
#define SENT_AGAIN (ksent - re_ksent)
#endif
byte next_out, got;                            /* bytes written, bytes that came */
bit outside;                                   /* the outside holder has it */
bit writer_died, reader_died;

inline lock_w() {
    atomic { !wlock || w_dead -> wlock = 1; xd = w_dead; w_dead = 0 };
    if
    :: xd ->
#ifndef NO_RECOUNT
        atomic { ksent = ktot; xd = 0 }
#else
        xd = 0
#endif
    :: else
    fi
}

inline lock_r() {
    atomic { !rlock || r_dead -> rlock = 1; yd = r_dead; r_dead = 0 };
    if
    :: yd ->
        taken = kread;
#ifndef NO_RD_REPAIR
        if :: re_on -> rd = w :: else fi;
#endif
        yd = 0
    :: else
    fi
}

/* Killed here: what it holds is the dead one's. */
inline may_end() {
    if
    :: may_die && !reads && !writer_died -> atomic { writer_died = 1; w_dead = 1 }; goto over
    :: may_die && reads && !reader_died -> atomic { reader_died = 1; r_dead = 1; if :: has_w -> w_dead = 1 :: else fi }; goto over
    :: true
    fi
}

/* Under wlock: one byte of the residue, the SENT_AGAIN-th in the order of the stream; re_on := 0 after the last. */
inline send_one() {
#ifndef SEND_EARLY
    if
    :: mixed && taken < re_ksent -> skip       /* not all is out of the kernel's queue */
    :: else ->
#else
    if
    :: true ->
#endif
        d_step {
            xi = re_rd; xp = re_ksent; xn = 0; xv = 255;
            if :: mixed -> xp = re_base :: else fi;
            do
            :: xp < re_ksent && (xi == w || rk[xi] > xp) -> if :: xn == SENT_AGAIN -> xv = moved[xp]; break :: else -> xn++; xp++ fi
            :: xi < w && !(xp < re_ksent && rk[xi] > xp) -> if :: xn == SENT_AGAIN -> xv = rv[xi]; break :: else -> xn++; xi++ fi
            :: xi == w && xp == re_ksent -> break
            od;
            xi = 0; xp = 0; xn = 0
        };
        if
        :: xv == 255 ->
#ifndef RD_LEFT
            rd = w;                            /* who recalled may have died before it, and nobody came to rlock since */
#endif
            re_on = 0
        :: else -> atomic { kern!xv; ktot++ }; may_end(); ksent++;
#ifdef OWN_PROGRESS
            resent++
#endif
        fi;
        xv = 0
    fi
}

proctype Writer(bit may_die) {
    byte xi, xp, xn, xv; bit xd, reads, has_w;
    do
    :: next_out < N ->
        lock_w();
        if
        :: next_out == N
#ifndef OWN_FIRST
        :: re_on && next_out < N -> send_one()
        :: !re_on && next_out < N && !outside && open && !sticky ->
#else
        :: next_out < N && !outside && open && !sticky ->
#endif
            rv[w] = next_out; rk[w] = ksent;
            atomic { if :: open && !sticky -> w++; next_out++ :: else fi }
#ifndef OWN_FIRST
        :: !re_on && next_out < N ->
#else
        :: next_out < N ->
#endif
            atomic { kern!next_out; ktot++; next_out++ };
            may_end();
            ksent++
        fi;
        wlock = 0
    :: next_out == N && re_on ->
        lock_w();
        if :: re_on -> send_one() :: else fi;
        wlock = 0
    :: next_out == N && !re_on && outside -> break
    od;
over: skip
}

proctype Reader(bit may_die) {
    byte v, xi, xp, xn, xv; bit xd, yd, has_w, reads;
    reads = 1;
    if :: !may_die -> reader_died || outside :: may_die fi; /* the other one comes after its death */
    if :: outside -> goto over :: else fi;
    do
    :: true ->                                 /* takes some before the recall */
        lock_r();
        if
        :: rd < w && rk[rd] <= taken -> atomic { assert(rv[rd] == got); got++; rd++ }
        :: rd < w && rk[rd] > taken && nempty(kern) -> atomic { kern?v -> kread++; assert(v == got); got++; v = 0 }; taken++
        :: rd == w && re_on && mixed && taken < re_ksent -> atomic { kern?v -> kread++; moved[taken] = v; v = 0 }; taken++
        :: rd == w && re_on && !(mixed && taken < re_ksent) && nempty(kern) ->
            atomic { kern?v -> kread++; assert(v == got); got++; v = 0 }; taken++
        :: rd == w && !open && !sticky -> open = 1
        :: true
        fi;
        rlock = 0
    :: true -> break
    od;
    /* the recall */
    lock_r();
#ifndef NO_STICKY
    sticky = 1;
#endif
    if
    :: rd == w && !re_on
    :: else ->
        lock_w();
        has_w = 1;
        may_end();
        if
        :: !re_on && rd < w ->
            re_base = taken; re_ksent = ksent; re_rd = rd;
            mixed = (ksent > rk[rd]);
#ifdef NO_COLLECT
            mixed = 0;
#endif
#ifdef RD_FIRST
            rd = w;
            may_end();
            re_on = 1
#else
            re_on = 1;
            may_end();
            rd = w
#endif
        :: else
        fi;
        do
        :: re_on && mixed && taken < re_ksent ->
            atomic { kern?v -> kread++; moved[taken] = v; v = 0 };
            may_end();
            taken++
        :: else -> break
        od;
        do
        :: re_on -> send_one()
        :: true -> break
        od;
        has_w = 0;
        wlock = 0
    fi;
    outside = 1;
    rlock = 0;
over: skip
}

active proctype Outside() {
    byte v;
    outside;
    do
    :: got < N -> atomic { kern?v -> assert(v == got); got++; v = 0 }
    :: else -> break
    od
}

init {
    atomic {
        run Writer(1); run Writer(0);
        run Reader(1); run Reader(0)
    }
}
