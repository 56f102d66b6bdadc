"""Check of the unread records of a ring, where their headers are in the snapshot."""

from __future__ import annotations

from ..declare import layout
from ..declare.binary import View
from ..declare.layout import CONSTANTS as C
from .findings import Findings
from .snapshot import Snapshot
from .words import Chunk, DirectionWord, ahead, aligned, unread

_KINDS = tuple(C[name] for name in ("REC_DATA", "REC_SWITCH", "REC_DATAGRAM", "REC_DATAGRAM6"))


def check_chain(found: Findings, shot: Snapshot, d: View, at: str) -> None:
    """Walk from the read index to the write index: lengths, kinds, stream positions, and where the chain ends.

    Says nothing where the snapshot was taken without ring memory.
    """
    word, rd, chunk = DirectionWord.decode(d["word"]), unread(d), Chunk.decode(d["rchunk"])
    index, consumed, before = rd.index, rd.consumed, 0
    switched = d["rchunk"]
    while chunk is not None and index != word.index:
        raw = shot.bulk.get(chunk.place(index))
        if raw is None:
            if shot.bulk:
                found.add(f"{at}.rd", index, f"records up to the write index, {word.index}; the chain breaks here")
            return
        record, where = View(layout.RECORD, memoryview(raw)), f"{at} record at {index}"
        kind, length = record["kind"], record["len"]
        step = layout.RECORD.size + aligned(length)
        left = ahead(word.index, index)
        if not found.expect(kind in _KINDS, f"{where}.kind", kind, "a kind of record"):
            return
        fits = step <= min(left, chunk.bytes)
        if not found.expect(fits, f"{where}.len", length, f"a record that ends by the write index, {left} bytes on"):
            return
        if not found.expect(consumed <= length, f"{at}.rd (consumed)", consumed, f"at most the record's {length} bytes"):
            return
        if kind == C["REC_SWITCH"]:
            found.expect(length == 0, f"{where}.len", length, "0 in a switch")
            switched = record["ksent"]
            chunk = Chunk.decode(switched)
            index += step
            ok = chunk is not None and chunk.base == index & ((1 << C["WORD_INDEX_BITS"]) - 1) and switched == d["wchunk"]
            if not found.expect(ok, f"{where}.ksent", switched, f"the chunk written to, {d['wchunk']}, begun at {index}"):
                return
        elif kind != C["REC_DATA"]:
            needed = 16 if kind == C["REC_DATAGRAM6"] else 0
            found.expect(length >= needed, f"{where}.len", length, "room for the source's address")
            port, four = record["ksent"] >> 32 & 0xFFFF, record["ksent"] & 0xFFFFFFFF
            link = record["ksent"] >> C["TAG_LINK_SHIFT"] & C["TAG_LINK_MASK"]
            known = port > 0 and link <= C["N_LINKS"] and (four != 0) == (kind == C["REC_DATAGRAM"])
            found.expect(known, f"{where}.ksent", record["ksent"], "a source port, and an address if it is of IPv4")
            index += step
        else:
            found.expect(length > 0, f"{where}.len", length, "more than 0")
            found.expect(before <= record["ksent"] <= d["ksent"], f"{where}.ksent", record["ksent"], f"{before} to {d['ksent']}")
            before = max(before, record["ksent"])
            index += step
        index &= (1 << C["WORD_INDEX_BITS"]) - 1
        consumed = 0
    if chunk is not None and index == word.index and switched != d["wchunk"] and not d["wlock"]:
        found.add(f"{at}.wchunk", d["wchunk"], f"{switched}, where the records end, while nobody holds wlock")
