"""`inspect --check`: an independent checker of a stack, over the declared layout.

It shares no code with the C core's repairs, and takes no lock. A live stack moves while it is copied: a finding counts
only if a second copy, a moment later, shows it too.

What is checked is in one module per segment part: `check_stack` (headers, slots), `check_endpoints` (records, flow table),
`check_links` (permissions of datagram senders), `check_pairs` (pairs, directions, chunks, units, ring records).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .check_endpoints import check_endpoints
from .check_links import check_links
from .check_pairs import check_pairs
from .check_stack import check_arena_header, check_slots, check_stack_header
from .findings import Finding, Findings
from .snapshot import Snapshot

RECHECK_AFTER = 0.020


def check(shot: Snapshot) -> list[Finding]:
    """All findings in one snapshot, in the order of the segments."""
    found = Findings()
    if not check_stack_header(found, shot) or not check_arena_header(found, shot):
        return list(found)  # nothing beyond a header of another layout can be read
    check_slots(found, shot)
    check_endpoints(found, shot)
    check_links(found, shot)
    check_pairs(found, shot)
    return list(found)


def check_live(take: Callable[[], Snapshot], wait: Callable[[float], None] = time.sleep, rounds: int = 3) -> list[Finding]:
    """Findings that stay over `rounds` further snapshots, RECHECK_AFTER seconds apart; the values shown are the last ones."""
    found = check(take())
    for _ in range(rounds):
        if not found:
            break
        wait(RECHECK_AFTER)
        before = {f.identity for f in found}
        found = [f for f in check(take()) if f.identity in before]
    return found
