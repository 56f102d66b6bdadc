"""Bulk memory, that is ring chunks: in huge pages by System V shared memory where there are enough, else POSIX.

The helper creates it, names it in the arena's header, and removes it. Only who tends an engine maps it, for datagrams of other hosts.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from pathlib import Path

import sysv_ipc

from sharedstack.declare.layout import BULK_BYTES, CONSTANTS

UNIT_BYTES, N_UNITS = CONSTANTS["UNIT_BYTES"], CONSTANTS["N_UNITS"]
MIN_UNITS = 16
# What stack and arena may come to use of the same file system; they are sparse, too.
_RESERVE_BYTES = 8 << 20
_SHM_HUGETLB = 0o4000


def units_for(free_bytes: int) -> int:
    """Units that a POSIX bulk segment shall offer on a file system with so much free space (units of 16 KiB).

    A multiple of 64 (one word of the bitmap) from 64 up; below that a multiple of 16, and at least 16: participants make
    units present one by one and stay on the kernel path where there is no memory.
    """
    units = max(0, free_bytes - _RESERVE_BYTES) // UNIT_BYTES
    if units >= N_UNITS:
        return N_UNITS
    return units // 64 * 64 if units >= 64 else max(MIN_UNITS, units // 16 * 16)


def free_bytes(folder: str = "/dev/shm") -> int:
    """Free space of the file system of POSIX shared memory."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def huge_key(name: str) -> int:
    """The System V key that belongs to a POSIX segment name: by it, what a killed helper left is found again."""
    return (zlib.crc32(name.encode()) & 0x7FFF_FFFF) or 1


def create_huge(key: int) -> int | None:
    """Identifier of new System V memory of BULK_BYTES in huge pages (0600), or None where that cannot be had."""
    remove_huge(_find(key))
    if not _huge_pages_suffice():
        return None
    try:
        memory = sysv_ipc.SharedMemory(key, sysv_ipc.IPC_CREX | _SHM_HUGETLB, mode=0o600, size=BULK_BYTES, init_character=b"\0")
    except (sysv_ipc.Error, OSError, MemoryError, ValueError):
        return None
    memory.detach()
    return int(memory.id)


def owns_huge(identifier: int, uid: int, size: int) -> bool:
    """Is `identifier` memory that this user made for itself alone, of at least `size` bytes (IPC_STAT)?"""
    memory = _attach(identifier)
    if memory is None:
        return False
    try:
        return bool(memory.uid == memory.cuid == uid and memory.mode & 0o777 == 0o600 and memory.size >= size)
    finally:
        memory.detach()


def remove_huge(identifier: int | None) -> None:
    """Mark System V memory for removal if it is ours; processes that have it attached keep it."""
    if identifier is None or not owns_huge(identifier, os.getuid(), BULK_BYTES):
        return
    with contextlib.suppress(sysv_ipc.Error, OSError):
        sysv_ipc.remove_shared_memory(identifier)


def _find(key: int) -> int | None:
    try:
        memory = sysv_ipc.SharedMemory(key)
    except (sysv_ipc.Error, OSError, ValueError):
        return None
    memory.detach()
    return int(memory.id)


def _attach(identifier: int) -> sysv_ipc.SharedMemory | None:
    try:
        return sysv_ipc.attach(identifier)
    except (sysv_ipc.Error, OSError, ValueError, OverflowError):
        return None


def _huge_pages_suffice() -> bool:
    """Is BULK_BYTES free in huge pages? Where it is not, trying would only leave a complaint in the kernel's log."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return False
    values = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Huge")}
    free = values.get("HugePages_Free", 0) - values.get("HugePages_Rsvd", 0)
    page = values.get("Hugepagesize", 0) << 10
    return 0 < page <= BULK_BYTES and free * page >= BULK_BYTES
