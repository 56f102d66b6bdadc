"""Checks of residue: ring bytes that are sent again by the kernel, with kernel bytes that belong behind them."""

from __future__ import annotations

from collections.abc import Iterator

from ..declare.binary import View
from .findings import Findings
from .words import ALIGN, Chunk, DirectionWord, ReadIndex, unread

_FIELDS = ("re_rd", "re_base", "re_ksent")


def residue_chunks(d: View) -> Iterator[tuple[str, int]]:
    """(field, packed chunk) of all chunks with kernel bytes."""
    return ((f"re_chunks[{i}]", packed) for i, packed in enumerate(d["re_chunks"]) if packed)


def check_residue(found: Findings, d: View, at: str) -> None:
    """What there is without residue, and with it. A recall changes the fields one after the other, under both locks."""
    found.within(at, d, "re_on", 0, 1)
    if d["rlock"] or d["wlock"]:
        return
    if not d["re_on"]:
        for field in _FIELDS:
            found.equal(at, d, field, 0)
        # who died in a recall may have left chunks; the helper's next look gives them back
        dead = DirectionWord.decode(d["word"]).sticky and d["rchunk"]
        for field, packed in () if dead else residue_chunks(d):
            found.add(f"{at}.{field}", packed, "0, as there is no residue")
        return
    word, rd = DirectionWord.decode(d["word"]), ReadIndex.decode(d["rd"])
    found.expect(word.sticky, f"{at}.word (sticky)", word.sticky, "True, as there is residue")
    found.expect(not word.open, f"{at}.word (open)", word.open, "False, as there is residue")
    found.expect((rd.index, rd.consumed) == (word.index, 0), f"{at}.rd", d["rd"], f"{word.index}, as all else is residue")
    found.expect(unread(d).index % ALIGN == 0, f"{at}.re_rd", d["re_rd"], f"a multiple of {ALIGN}")
    found.expect(d["re_ksent"] <= d["ksent"], f"{at}.re_ksent", d["re_ksent"], f"at most ksent, {d['ksent']}")
    found.expect(d["re_base"] <= min(d["taken"], d["re_ksent"]), f"{at}.re_base", d["re_base"], "at most taken, and re_ksent")
    chunks = [chunk for _, packed in residue_chunks(d) if (chunk := Chunk.decode(packed))]
    room, bytes_ = sum(chunk.bytes for chunk in chunks), d["re_ksent"] - d["re_base"]
    found.expect(not chunks or bytes_ <= room, f"{at}.re_chunks", room, f"room for {bytes_} bytes")
