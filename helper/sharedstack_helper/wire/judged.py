"""What the policy says of what an engine may carry."""

from __future__ import annotations

from collections.abc import Callable

from sharedstack.declare import binary
from sharedstack.declare.layout import CONSTANTS

from ..policy.table import End

# Of the participant in a slot, on a connection between two ends: 0, a rule plus one, or a VERDICT_*.
Verdict = Callable[[int, End, End], int]
# Does the policy deny a record these two ends?
Denied = Callable[[binary.View, End, End], int]


class Judge:
    """Asks `verdict`, which allows everything until somebody sets it."""

    def __init__(self) -> None:
        self.verdict: Verdict = lambda *_: 0

    def denied(self, record: binary.View, local: End, remote: End) -> int:
        """What denies the record these two ends, 0 if nothing does; a datagram socket's says so from now on."""
        verdict = self.verdict(int(record["slot"]) - 1, local, remote)
        if verdict and record["family"] & CONSTANTS["FAMILY_DATAGRAM"]:  # of a connection the core says it
            record["denied"] = verdict
        return verdict
