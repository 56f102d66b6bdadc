"""The order of locks: a thread may take a lock only if it holds none that comes later in this list."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Lock:
    """A lock word in shared memory; `repair` names the C function that whoever finds its owner dead must run."""

    name: str
    where: str
    guards: str
    repair: str


LOCKS: tuple[Lock, ...] = (
    Lock("wire", "wire.lock", "all of an engine's area and its queues", "shs_engine_rebuild"),
    Lock("rlock", "direction.rlock", "read side of a direction", "shs_dir_repair_reader"),
    Lock("wlock", "direction.wlock", "write side of a direction", "shs_dir_repair_writer"),
    Lock("ctl", "stack.ctl", "slots, endpoints, flow table, links", "shs_stack_rebuild"),
    Lock("arena", "arena.lock", "pairs and units of an arena", "shs_arena_rebuild"),
)
