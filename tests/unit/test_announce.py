"""What the helper says goes where it can at once, and nowhere else: a pipe that nobody reads does not hold it up."""

from __future__ import annotations

import os

import pytest

from sharedstack_helper import announce


@pytest.mark.timeout(10)
def test_a_full_pipe_does_not_block() -> None:
    reader, writer = os.pipe()
    saved = os.dup(2)
    try:
        os.dup2(writer, 2)
        for _ in range(3000):  # more than any pipe takes
            announce.complain("x" * 100)
        os.set_blocking(reader, False)
        first = os.read(reader, 1 << 20)
        announce.complain("there is room again")
        rest = b"".join(iter(lambda: _some(reader), b""))
    finally:
        os.dup2(saved, 2)
        for fd in (saved, reader, writer):
            os.close(fd)
    assert first.startswith(b"sharedstack-helper: xxx")
    assert rest.endswith(b"sharedstack-helper: there is room again\n")


def _some(fd: int) -> bytes:
    try:
        return os.read(fd, 1 << 20)
    except BlockingIOError:
        return b""


def test_a_long_line_is_cut_where_it_would_block() -> None:
    reader, writer = os.pipe()
    announce._write(writer, "y" * 100000)
    assert 0 < len(os.read(reader, 1 << 20)) <= 4096
    os.close(reader)
    os.close(writer)


def test_nowhere_to_write() -> None:
    announce._write(-1, "nobody hears it")
