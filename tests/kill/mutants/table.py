"""One repair, order or lock of the library's taken away at a time: what is wrong then, and in which operations it must be noticed.

`old` stands exactly once in the file; with `new` in its place a kill point of one of the operations must show it.
"""

from __future__ import annotations

from typing import NamedTuple

ENGINE = ("engine",)  # played by tests/native/test_kill_points.c

_PUBLISH = "        if (SHS_LIKELY(shs_cas64(&dir->word, word, (word & ~SHS_INDEX_MASK) | shs_index_add(index, shs_record_size(len))))) {\n"


class Mutant(NamedTuple):
    """One change: its name, the file below sharedstack/native, and the operations that must notice."""

    name: str
    file: str
    old: str
    new: str
    operations: tuple[str, ...]


MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "the locks of the dead stay theirs",
        "shm/lock.c",
        "    if (shs_slot_alive(env->stack, held >> SHS_LOCK_SLOT_SHIFT))",
        "    if (held)",
        ("pair", "send_shared"),
    ),
    Mutant(
        "the dead keep their slots",
        "endpoint/admin.c",
        "    shs_store32(&slot->state, SHS_SLOT_FREE);\n    shs_admin_drop_tables(&env);",
        "    shs_admin_drop_tables(&env);",
        ("attach",),
    ),
    Mutant(
        "the flow table is not made anew",
        "shm/flow.c",
        "void shs_stack_rebuild(struct shs_stack *stack)\n{\n",
        "void shs_stack_rebuild(struct shs_stack *stack)\n{\n    if (stack)\n        return;\n",
        ("pair", "attach"),
    ),
    Mutant(
        "pairs and units are not counted anew",
        "shm/units.c",
        "void shs_arena_rebuild(struct shs_arena *arena)\n{\n",
        "void shs_arena_rebuild(struct shs_arena *arena)\n{\n    if (arena)\n        return;\n",
        ("lift", "pair"),
    ),
    Mutant(
        "a record is published before its bytes are there",
        "ring/ring.c",
        _PUBLISH,
        "        memset(ring + ((index - shs_chunk_base(chunk) + sizeof *rec) & (size - 1)), 0, len ? 1 : 0);\n"
        + _PUBLISH
        + "            after = *cur;\n"
        "            copy_ring(ring, size, (index - shs_chunk_base(chunk) + sizeof *rec) & (size - 1), &after, len, false);\n",
        ("send",),
    ),
    Mutant(
        "what only the dead one knew to be sent is not sent again",
        "engine/area.c",
        "    if (shs_before(t->snd_nxt, edge))\n        t->snd_nxt = edge;\n",
        "    (void)edge;\n",
        ENGINE,
    ),
    Mutant(
        "what was in flight is taken as it stands",
        "engine/area.c",
        "    shs_seg_cover(e, t);\n    if (shs_flight(t)",
        "    if (shs_flight(t)",
        ENGINE,
    ),
    Mutant(
        "states do not follow from sequence numbers",
        "engine/area.c",
        "    shs_state_fix(t);\n",
        "",
        ENGINE,
    ),
)
