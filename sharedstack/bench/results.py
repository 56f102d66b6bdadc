"""Medians of the rounds, ratios, and the verdict: did the bytes of the shared side go by shared memory?"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from .cases import FIGURES, Case
from .runner import SIDES, Measured, Plan, Sample

ACCELERATED = 0.05  # TCP segments of an operation, fewer than this
MOSTLY = 0.5  # and more than this part of the bytes by ring


@dataclass(frozen=True)
class Proof:
    """Which way the bytes of the shared side went. Segments: the least of all rounds, as other traffic of the host only adds."""

    segments: float
    own_segments: float
    by_ring: float

    @property
    def accelerated(self) -> bool:
        """By the host's count of segments, or, where others are at work, by the count of the case's own connections."""
        return min(self.segments, self.own_segments) < ACCELERATED and self.by_ring > MOSTLY

    @property
    def others(self) -> bool:
        """The host's count is too high because of others."""
        return self.accelerated and self.segments >= ACCELERATED


@dataclass(frozen=True)
class Row:
    """A figure of a case: medians (None: not measured), `ratio` (above 1: shared is better), `floors` (cache-line round trips)."""

    case: Case
    figure: str
    kernel: float | None
    shared: float | None
    ratio: float | None
    floors: float | None


class Results:
    """What `report` prints and JSON holds."""

    def __init__(self, plan: Plan, measured: Measured) -> None:
        self.plan, self.measured = plan, measured
        self.cases = [case for case in plan.cases if case.name not in measured.failures]
        self.floors = {name: median(floors[name] for floors in measured.floors) for name in ("cache_line_ns", "syscall_ns")}

    def samples(self, case: Case, side: str) -> list[Sample]:
        """One for each round."""
        return self.measured.samples[case.name, side]

    def medians(self, case: Case, side: str) -> dict[str, float]:
        """All that was measured, as medians of the rounds."""
        samples = self.samples(case, side)
        return {name: median(s.values[name] for s in samples) for name in samples[0].values if all(name in s.values for s in samples)}

    def rows(self, case: Case) -> list[Row]:
        """The figures of a case, in its order."""
        kernel, shared = (self.medians(case, side) for side in SIDES)
        return [self._row(case, name, kernel.get(name), shared.get(name)) for name in case.figures]

    def _row(self, case: Case, name: str, kernel: float | None, shared: float | None) -> Row:
        figure, ratio = FIGURES[name], None
        if kernel and shared:
            ratio = kernel / shared if figure.low else shared / kernel
        line = self.floors["cache_line_ns"]
        return Row(case, name, kernel, shared, ratio, shared * 1000 / line if figure.floor and shared and line else None)

    def proof(self, case: Case) -> Proof:
        """Path proof of the shared side."""
        samples = self.samples(case, "shared")
        local, kernel = sum(s.local for s in samples), sum(s.kernel for s in samples)
        by_ring = local / (local + kernel) if local + kernel else 0.0
        return Proof(min(s.segments for s in samples), min(s.own_segments for s in samples), by_ring)

    def slow(self) -> list[Case]:
        """Cases that must be accelerated and were not."""
        return [case for case in self.cases if case.must and not self.proof(case).accelerated]

    def good(self) -> bool:
        """Nothing failed, and all that must be accelerated was."""
        return not self.measured.failures and not self.slow()

    def as_dict(self, machine: dict[str, Any]) -> dict[str, Any]:
        """For JSON."""
        plan = self.plan
        return {
            "format": "sharedstack bench",
            "version": 1,
            "machine": machine,
            "plan": {
                "rounds": plan.rounds,
                "seconds": plan.seconds,
                "idle_seconds": plan.idle_seconds,
                "quick": plan.quick,
                "profile": plan.profile or "default",
                "server_cpu": plan.server_cpu,
                "client_cpu": plan.client_cpu,
            },
            "floors": self.floors,
            "cases": {case.name: self._case(case) for case in self.cases},
            "failed": self.measured.failures,
            "not_accelerated": [case.name for case in self.slow()],
            "good": self.good(),
        }

    def _case(self, case: Case) -> dict[str, Any]:
        proof = self.proof(case)
        sides: dict[str, Any] = {}
        for side in SIDES:
            samples = self.samples(case, side)
            sides[side] = {
                "medians": self.medians(case, side),
                "ops": [s.ops for s in samples],
                "segments_per_op": [s.segments for s in samples],
                "own_segments_per_op": [s.own_segments for s in samples],
                "rounds": [s.values for s in samples],
            }
        return {
            "title": case.title,
            "connections": self.plan.connections(case),
            "must_be_accelerated": case.must,
            "accelerated": proof.accelerated,
            "segments_per_op": proof.segments,
            "own_segments_per_op": proof.own_segments,
            "bytes_by_ring": sum(s.local for s in self.samples(case, "shared")),
            "bytes_by_kernel": sum(s.kernel for s in self.samples(case, "shared")),
            "ratios": {row.figure: row.ratio for row in self.rows(case) if row.ratio is not None},
            "floor_ratio": next((row.floors for row in self.rows(case) if row.floors is not None), None),
            **sides,
        }
