"""The packed words, against values worked out by hand and round trips."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sharedstack.inspection.flows import bucket, fnv1a
from sharedstack.inspection.words import Chunk, DirectionWord, LockWord, ReadIndex, ahead, bell_ref, take_ref

INDEX = st.integers(0, (1 << 42) - 1).map(lambda n: n * 16)


def test_fnv1a_has_the_published_values() -> None:
    assert fnv1a(b"") == 0x811C9DC5
    assert fnv1a(b"a") == 0xE40C292C
    assert fnv1a(b"foobar") == 0xBF9CF968


@given(st.binary(min_size=16, max_size=16), st.integers(0, 65535), st.binary(min_size=16, max_size=16), st.integers(0, 65535))
def test_both_ends_share_a_bucket(a: bytes, p: int, b: bytes, q: int) -> None:
    assert bucket(2, (a, p), (b, q)) == bucket(2, (b, q), (a, p))


def test_values_worked_out_by_hand() -> None:
    assert DirectionWord.decode(3 << 48 | 1 << 47 | 1 << 46 | 160) == DirectionWord(160, True, True, 3)
    assert ReadIndex.decode(10 << 22 | 7) == ReadIndex(160, 7)
    assert Chunk.decode(5 << 16 | 2 << 12 | 9) == Chunk(8, 2, 80)
    assert Chunk.decode(0) is None
    assert LockWord.decode(4 << 16 | 5 << 1 | 1) == LockWord(3, 5, True)
    assert LockWord.decode(0) == LockWord(None, 0, False)
    assert (take_ref(3, 1), bell_ref(2, 5)) == (8, 134)


@given(INDEX, st.booleans(), st.booleans(), st.integers(0, 65535))
def test_direction_word_round_trip(index: int, is_open: bool, sticky: bool, takers: int) -> None:
    word = DirectionWord(index, is_open, sticky, takers)
    assert DirectionWord.decode(word.encode()) == word


@given(INDEX, st.integers(0, (1 << 22) - 1))
def test_read_index_round_trip(index: int, consumed: int) -> None:
    rd = ReadIndex(index, consumed)
    assert ReadIndex.decode(rd.encode()) == rd


@given(st.integers(0, 2047), st.integers(0, 6), INDEX)
def test_chunk_round_trip(first: int, log: int, base: int) -> None:
    chunk = Chunk(first, log, base)
    assert Chunk.decode(chunk.encode()) == chunk


def test_a_record_is_found_again_after_the_ring_has_gone_round() -> None:
    chunk = Chunk(2, 0, 64)
    assert chunk.place(64) == 2 * 16384
    assert chunk.place(64 + 16384 + 32) == 2 * 16384 + 32


def test_indices_wrap() -> None:
    assert ahead(16, (1 << 46) - 16) == 32
