"""Checks of the segment headers and of the participants' slots."""

from __future__ import annotations

from ..declare import binary, layout, names
from ..declare.binary import View
from ..declare.counters import COUNTERS
from ..declare.layout import CONSTANTS as C
from ..declare.options import OPTIONS
from ..declare.reasons import REASONS
from .findings import Findings
from .snapshot import Snapshot
from .words import LockWord

PID_MAX = 1 << 22  # PID_MAX_LIMIT, linux/threads.h
CPUS_MAX = 8192
GEN_MAX = 1 << 31
COUNT_MAX = 1 << 60
FUTEX_OWNER_DIED = 0x40000000
FUTEX_TID_MASK = 0x3FFFFFFF
INVALID_UID = 0xFFFFFFFF


def check_stack_header(found: Findings, shot: Snapshot) -> bool:
    """Check the header of the stack segment; False if the rest cannot be read."""
    s, at = binary.stack(shot.stack), "stack"
    same = [found.equal(at, s, f, v) for f, v in (("magic", C["STACK_MAGIC"]), ("layout_hash", layout.HASH), ("version", C["VERSION"]))]
    if not all(same):
        return False
    found.expect(s["uid"] != INVALID_UID, f"{at}.uid", s["uid"], "a uid")
    found.within(at, s, "made_ns", 1, shot.taken_ns)
    found.within(at, s, "n_cpus", 1, CPUS_MAX)
    found.within(at, s, "state", C["STACK_READY"], C["STACK_RETIRED"])
    found.within(at, s, "pair_ok", 0, 1)
    found.within(at, s, "probes", 0, GEN_MAX)
    found.within(at, s, "n_nics", 0, C["N_NICS"])
    found.within(at, s, "kept", 0, C["KEPT_INET"] | C["KEPT_INET6"])
    found.within(at, s, "slots_top", 0, C["N_SLOTS"])
    found.within(at, s, "endpoints_top", 0, shot.endpoints_there)
    found.within(at, s, "endpoints_used", 0, C["N_ENDPOINTS"])
    found.within(at, s, "links_top", 0, C["N_LINKS"])
    found.within(at, s, "endpoint_hint", 0, C["N_ENDPOINTS"])
    if s["helper"] and found.within(at, s, "helper", 1, shot.slots_top):
        slot = binary.slot(shot.stack, s["helper"] - 1)
        named = slot["state"] != C["SLOT_DEAD"] and slot["flags"] & C["SLOT_HELPER"]
        found.expect(bool(named), f"{at}.helper", s["helper"], "a slot with SLOT_HELPER")
    check_lock(found, shot, f"{at}.ctl", s["ctl"])
    _options(found, s)
    _counts(found, f"{at}.totals", s["totals"])
    _names(found, shot, s)
    return True


def _options(found: Findings, s: View) -> None:
    for i, value in enumerate(s["options"]):
        if i < len(OPTIONS):
            o = OPTIONS[i]
            found.expect(o.low <= value <= o.high, f"stack.options[{i}] ({o.name})", value, f"{o.low} to {o.high}")
        else:
            found.expect(value == 0, f"stack.options[{i}]", value, "0: no such option")


def _counts(found: Findings, where: str, values: tuple[int, ...]) -> None:
    for i, value in enumerate(values):
        if i < len(COUNTERS):
            found.expect(value < COUNT_MAX, f"{where}[{i}] ({COUNTERS[i].name})", value, "a plausible count, below 2^60")
        else:
            found.expect(value == 0, f"{where}[{i}]", value, "0: no such counter")


def _names(found: Findings, shot: Snapshot, s: View) -> None:
    """The three names agree with uid, network namespace and stack name; a name not needed may be empty."""
    name = binary.text(s["stack_name"]).lstrip("/").removesuffix(".stack").rsplit(".", 1)[-1]
    huge = binary.arena(shot.arena)["bulk_kind"] == C["BULK_SYSV_HUGE"]
    for part in ("stack", "arena", "bulk"):
        raw: bytes = s[f"{part}_name"]
        text = binary.text(raw)
        expected = names.segment(s["uid"], s["netns"], name, part)
        ok = raw.rstrip(b"\0") == text.encode() and text.lstrip("/") == expected.lstrip("/")
        found.expect(ok or (huge and part == "bulk" and not any(raw)), f"stack.{part}_name", raw.rstrip(b"\0"), expected)


def check_arena_header(found: Findings, shot: Snapshot) -> bool:
    """Check the header of the arena segment; False if the rest cannot be read."""
    a, s, at = binary.arena(shot.arena), binary.stack(shot.stack), "arena"
    if not all([found.equal(at, a, "magic", C["ARENA_MAGIC"]), found.equal(at, a, "layout_hash", layout.HASH)]):
        return False
    found.expect(a["uid"] == (s["uid"], s["uid"]), f"{at}.uid", a["uid"], f"({s['uid']}, {s['uid']}), the stack's uid")
    if found.within(at, a, "bulk_kind", C["BULK_POSIX"], C["BULK_SYSV_HUGE"]):
        posix = a["bulk_kind"] == C["BULK_POSIX"]
        ok = (a["bulk_id"] == -1) == posix and a["bulk_id"] >= -1
        found.expect(ok, f"{at}.bulk_id", a["bulk_id"], "-1 with POSIX, else an identifier")
    found.within(at, a, "n_units", 1, C["N_UNITS"])
    found.within(at, a, "pair_hint", 0, C["N_PAIRS"])
    found.within(at, a, "pairs_top", 0, shot.pairs_there)
    check_lock(found, shot, f"{at}.lock", a["lock"])
    return True


def check_slots(found: Findings, shot: Snapshot) -> None:
    """Check the slots, and the sums that the header keeps of them."""
    s = binary.stack(shot.stack)
    sums = {"spinning": 0}
    for i in range(shot.slots_top):
        slot, at = binary.slot(shot.stack, i), f"slot[{i}]"
        state = slot["state"] & (1 << C["SLOT_STATE_BITS"]) - 1
        claimed = state == C["SLOT_CLAIMED"]
        found.expect(
            claimed or slot["state"] <= C["SLOT_DEAD"], f"{at}.state", slot["state"], f"0 to {C['SLOT_DEAD']}, or claimed by a process"
        )
        found.within(at, slot, "gen", 1, GEN_MAX)
        if state == C["SLOT_FREE"]:
            found.equal(at, slot, "pid", 0)
            found.equal(at, slot, "robust", 0)
        elif state == C["SLOT_LIVE"]:
            _live_slot(found, shot, slot, at)
            if slot["flags"] & C["SLOT_HELPER"] and not slot["robust"] & FUTEX_OWNER_DIED:
                found.equal("stack", s, "helper", i + 1)
            for field in sums:
                sums[field] += slot[field]
    if shot.slots_top < C["N_SLOTS"]:
        beyond = binary.slot(shot.stack, shot.slots_top)
        found.expect(beyond["gen"] == 0, f"slot[{shot.slots_top}].gen", beyond["gen"], "0: beyond slots_top, never used")
    found.equal("stack", s, "spinners", sums["spinning"])


def _live_slot(found: Findings, shot: Snapshot, slot: View, at: str) -> None:
    s = binary.stack(shot.stack)
    helper = bool(slot["flags"] & C["SLOT_HELPER"])
    found.within(at, slot, "pid", 1, PID_MAX)
    _robust(found, slot, at)
    found.expect(slot["uid"] == s["uid"] or (helper and slot["uid"] == 0), f"{at}.uid", slot["uid"], f"{s['uid']}, the stack's")
    found.within(at, slot, "start_ns", s["made_ns"], shot.taken_ns)
    found.within(at, slot, "pidns", 1, 0xFFFFFFFF)
    found.expect(not slot["flags"] & ~(C["SLOT_UNWITNESSED"] | C["SLOT_HELPER"]), f"{at}.flags", slot["flags"], "known flags")
    found.expect(slot["bits"] in (32, 64), f"{at}.bits", slot["bits"], "32 or 64")
    comm: bytes = slot["comm"]
    text = comm.rstrip(b"\0")
    ok = 0 < len(text) < len(comm) and b"\0" not in text and all(c >= 32 and c != 127 for c in text)
    found.expect(ok, f"{at}.comm", comm, "a printable name, zero-terminated")
    found.within(at, slot, "spinning", 0, PID_MAX)
    found.within(at, slot, "sharing", 0, PID_MAX)
    gen = binary.policy(memoryview(shot.policy))["gen"]
    known = slot["rules_gen"] <= gen + 1 and not slot["rules_gen"] & 1
    found.expect(known, f"{at}.rules_gen", slot["rules_gen"], f"an even number, up to {gen}, the policy's")
    found.expect(not slot["rules"] or bool(slot["rules_gen"]), f"{at}.rules", slot["rules"], "0, as it is not judged yet")
    _bells(found, slot, at)
    _counts(found, f"{at}.counters", slot["counters"])
    for i, entry in enumerate(slot["told"]):
        inode, reason = entry >> C["TOLD_SHIFT"], entry & ((1 << C["TOLD_SHIFT"]) - 1)
        ok = not entry or (0 < inode < 1 << 32 and 0 < reason < len(REASONS))
        found.expect(ok, f"{at}.told[{i}]", entry, "0, or the inode of a socket and a reason")
    filled = sum(map(bool, slot["told"]))
    found.expect(filled == min(slot["told_at"], C["N_TOLD"]), f"{at}.told_at", slot["told_at"], f"as many as were told, {filled}")
    awaits = LockWord.decode(slot["awaits"])
    plausible = not slot["awaits"] or (awaits.tag != 0 and not awaits.waiters)
    found.expect(plausible, f"{at}.awaits", slot["awaits"], "0, or the word of a thread that has a lock")
    found.within(at, slot, "awaits_ns", s["made_ns"] if slot["awaits"] else 0, shot.taken_ns if slot["awaits"] else 0)
    for i, handle in enumerate(slot["takes"]):
        live = 0 < handle <= shot.pairs_top * 2 and binary.pair(shot.arena, (handle - 1) // 2)["state"] == C["PAIR_LIVE"]
        found.expect(handle == 0 or live, f"{at}.takes[{i}]", handle, "0 or a direction of a live pair")


def _robust(found: Findings, slot: View, at: str) -> None:
    """The thread id, or the kernel's mark of its death; a slot without a home thread must be flagged, or be found dead."""
    word = slot["robust"]
    tid = word & FUTEX_TID_MASK
    unwitnessed = slot["flags"] & C["SLOT_UNWITNESSED"] or word & FUTEX_OWNER_DIED
    ok = tid <= PID_MAX and bool(tid or unwitnessed)
    found.expect(ok, f"{at}.robust", word, "a thread id, or SLOT_UNWITNESSED")


def _bells(found: Findings, slot: View, at: str) -> None:
    for i, bell in enumerate(slot["bells"]):
        where = f"{at}.bells[{i}]"
        found.within(where, bell, "armed", 0, 0xFFFFFFFF)
        found.within(where, bell, "used", 0, PID_MAX)
        if not bell["used"]:
            found.equal(where, bell, "name", 0)
        if not bell["name"]:
            found.equal(where, bell, "armed", 0)


def check_lock(found: Findings, shot: Snapshot, where: str, word: int) -> None:
    """A lock word is 0, or names a live slot (whose process may be dead: its next user repairs), or is buried."""
    if word == 0:
        return
    lock = LockWord.decode(word)
    if lock.slot is not None and lock.slot + 1 == C["BURIED"] and lock.tag == 0:
        return
    live = lock.slot is not None and lock.slot < shot.slots_top and binary.slot(shot.stack, lock.slot)["state"] == C["SLOT_LIVE"]
    found.expect(live and lock.tag != 0, where, word, "0, or a live slot's word with a thread tag")
