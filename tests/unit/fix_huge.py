"""Huge pages for a test, reserved and given back. Used as a plugin."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

RESERVED = Path("/proc/sys/vm/nr_hugepages")


def free_huge_pages() -> int:
    """Huge pages that are reserved and not used."""
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("HugePages_Free"))
    return int(line.split()[1])


@pytest.fixture
def huge_pages() -> Iterator[Callable[[], int]]:
    """16 huge pages of 2 MiB, given back afterwards; counts those that are free."""
    if os.getuid() != 0 or not os.access(RESERVED, os.W_OK):
        pytest.skip("allowed: huge pages are root's to reserve, where /proc/sys can be written")
    before = RESERVED.read_text()
    RESERVED.write_text(str(int(before) + 16))
    try:
        if int(RESERVED.read_text()) < int(before) + 16:
            pytest.skip("allowed: the kernel has no 16 huge pages to reserve")
        yield free_huge_pages
    finally:
        RESERVED.write_text(before)
