/* A full ring moves to another chunk: two writers and two readers (processes); writer 0 and reader 0 die at any step.
 *
 * Code: native/ring (grow, switch, shs_dir_repair_writer, shs_dir_repair_reader).
 * Writer, ring full, rchunk == wchunk: wchunk := {new, base = index + 1}; SWITCH record into the old chunk's last, always
 * reserved, place, published by CAS (failed: wchunk := old). A writer that finds index < wchunk.base takes rchunk back.
 * Reader at SWITCH: rchunk := its chunk; rd := base; frees the old one. A reader that finds rd < rchunk.base sets rd :=
 * base. A chunk word {chunk, base} is written in one step. A chunk that the dead had in hand leaks (units are derived).
 * Holds: order, nothing lost, no access to a chunk that is not in use, no overwriting, never stuck.
 *
 * Mutants: RD_FIRST (rd before rchunk), FREE_FIRST, NO_RD_REPAIR, PUBLISH_FIRST (SWITCH before wchunk), NO_REVERT,
 * GROW_TWICE (without rchunk == wchunk), NO_RESERVE (no place kept for SWITCH). (Keeping wchunk after a failed CAS is no
 * error: the next writer takes rchunk back.)
 */
#ifndef N
#define N 5
#endif
#define SZ 3                              /* records in a chunk */
#define C 4                               /* chunks */
#define SWITCH 100

byte w; bit takers;
byte mem[12]; bit used[C];
byte wc, wb, rc, rb, rd;                  /* wchunk {chunk, base}, rchunk {chunk, base}, rd */
byte wlock, rlock; bit wdead, rdead;
byte next, nx;

#define MAYDIE if :: me == 0 -> goto gone :: true fi
#define HEAD(b) (rd > b -> rd : b)
#define FREECHUNK (!used[0] || !used[1] || !used[2] || !used[3])
#ifdef NO_RESERVE
#define DATA SZ
#else
#define DATA (SZ - 1)
#endif
#ifdef GROW_TWICE
#define MAYGROW true
#else
#define MAYGROW (wc == rc)
#endif

proctype Writer(bit me) {
    byte x, h, c, oc, ob; bit ok;
    do
    :: next < N ->
        atomic { wlock == 0 || (wlock == 1 && wdead) -> wlock = me + 1 };
        MAYDIE;
        atomic { x = w; ok = !takers };
#ifndef NO_REVERT
        if :: x < wb -> atomic { wc = rc; wb = rb } :: else fi;
#endif
        MAYDIE;
        h = HEAD(wb);
        if
        :: next == N || !ok
        :: next < N && ok && x - h < DATA ->
            atomic { assert(used[wc]); mem[wc * SZ + (x - wb) % SZ] = next };
            MAYDIE;
            atomic { if :: w == x && !takers -> w++; next++ :: else fi }
        :: next < N && ok && x - h >= DATA && MAYGROW && FREECHUNK ->
            atomic { if :: !used[0] -> c = 0 :: else -> if :: !used[1] -> c = 1 :: else -> if :: !used[2] -> c = 2
                :: else -> c = 3 fi fi fi; used[c] = 1; oc = wc; ob = wb };
            MAYDIE;
#ifndef PUBLISH_FIRST
            atomic { wc = c; wb = x + 1 };
            MAYDIE;
#endif
            atomic { assert(used[oc]); mem[oc * SZ + (x - ob) % SZ] = SWITCH + c };
            MAYDIE;
            atomic { if :: w == x && !takers -> w++ :: else -> ok = 0 fi };
            MAYDIE;
#ifdef PUBLISH_FIRST
            if :: ok -> atomic { wc = c; wb = x + 1 } :: else -> used[c] = 0 fi;
#else
            if :: !ok -> atomic { wc = oc; wb = ob }; MAYDIE; used[c] = 0 :: else fi;
#endif
            c = 0; oc = 0; ob = 0
        :: else                                           /* the kernel takes it */
        fi;
        MAYDIE;
        x = 0; ok = 0; h = 0;
        wlock = 0;
        (next == N || (wlock == 1 && wdead) || w < wb || w - HEAD(wb) < DATA || (MAYGROW && FREECHUNK))
    :: else -> break
    od;
gone:
    if :: me == 0 -> wdead = 1 :: else fi
}

proctype Reader(bit me) {
    byte v, oc;
    do
    :: nx < N ->
        atomic { rlock == 0 || (rlock == 1 && rdead) -> rlock = me + 1 };
        MAYDIE;
#ifndef NO_RD_REPAIR
        if :: rd < rb -> rd = rb :: else fi;
#endif
        MAYDIE;
        if
        :: rd != w ->
            atomic { assert(used[rc]); v = mem[rc * SZ + (rd - rb) % SZ] };
            if
            :: v < SWITCH -> MAYDIE; atomic { assert(v == nx); nx++; rd++; v = 0 }
            :: else ->
                oc = rc;
#ifdef FREE_FIRST
                used[oc] = 0;
                MAYDIE;
#endif
#ifdef RD_FIRST
                rd++;
                MAYDIE;
                atomic { rc = v - SWITCH; rb = rd; v = 0 };
#else
                atomic { rc = v - SWITCH; rb = rd + 1; v = 0 };
                MAYDIE;
                rd = rb;
#endif
                MAYDIE;
#ifndef FREE_FIRST
                used[oc] = 0;
#endif
                oc = 0
            fi
        :: else -> takers = 1; takers = 0                 /* a look at the kernel's queue: publishing fails meanwhile */
        fi;
        rlock = 0;
        (rd != w || nx == N || (rlock == 1 && rdead))
    :: else -> break
    od;
gone:
    if :: me == 0 -> rdead = 1 :: else fi
}

init { atomic { used[0] = 1; run Writer(0); run Writer(1); run Reader(0); run Reader(1) } }
