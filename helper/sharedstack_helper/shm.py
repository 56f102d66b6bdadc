"""One POSIX shared-memory object: created for this user alone, or opened and checked; mapped; unlinked.

Pages of a sparse object that the helper is going to touch are reserved first (`reserve`): where /dev/shm is full, touching
a page that is not there would be a SIGBUS.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import posix_ipc

from .environment import HelperError

FOLDER = Path("/dev/shm")
PAGE = 4096


class UnfitError(Exception):
    """What was found under a name cannot be used by this helper; the text says why."""


@dataclass
class Shared:
    """An open object: its descriptor stays open to be lent."""

    name: str
    fd: int
    size: int

    def map(self, size: int = 0) -> mmap.mmap:
        """Map it for reading and writing, wholly or its first `size` bytes."""
        try:
            return mmap.mmap(self.fd, size or self.size)
        except OSError as error:
            raise failure(f"map {self.name}", error) from error

    def reserve(self, size: int, at: int = 0) -> None:
        """Make `size` bytes from `at` on present (nothing happens to those that are)."""
        if not size:
            return
        try:
            os.posix_fallocate(self.fd, at, size)
        except OSError as error:
            raise failure(f"reserve {size} bytes of {self.name}", error) from error

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)


def create(name: str, size: int) -> Shared:
    """A new, sparse object of mode 0600; HelperError where that fails."""
    try:
        made = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600, size=size)
        os.fchmod(made.fd, 0o600)  # whatever the umask
    except (OSError, posix_ipc.Error) as error:
        raise failure(f"create {name}", error) from error
    return Shared(name, int(made.fd), size)


def find(name: str) -> Shared | None:
    """The object of that name, not yet checked; None if there is none; UnfitError if it cannot be opened."""
    try:
        found = posix_ipc.SharedMemory(name)
    except posix_ipc.ExistentialError:
        return None
    except (OSError, ValueError, posix_ipc.Error) as error:
        raise UnfitError(f"{name} cannot be opened: {error}") from error
    return Shared(name, int(found.fd), os.fstat(found.fd).st_size)


def check(found: Shared, uid: int, size: int) -> None:
    """UnfitError unless it is a file of this user alone (0600), of exactly `size` bytes."""
    status = os.fstat(found.fd)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != uid:
        raise UnfitError(f"{found.name} belongs to uid {status.st_uid}")
    if status.st_mode & 0o777 != 0o600:
        raise UnfitError(f"{found.name} has mode {status.st_mode & 0o777:04o} instead of 0600")
    if status.st_size != size:
        raise UnfitError(f"{found.name} has {status.st_size} bytes instead of {size}")


def unlink(name: str) -> None:
    """Remove the name if it is there; who has it mapped keeps it. HelperError where it is not ours to remove."""
    try:
        posix_ipc.unlink_shared_memory(name)
    except posix_ipc.ExistentialError:
        pass
    except (OSError, posix_ipc.Error) as error:
        raise HelperError(f"cannot remove {FOLDER}{name}: {_words(error)}; it is not this user's: have its owner remove it") from error


def address(memory: mmap.mmap) -> int:
    """Where a mapping lies. It must never be closed: the core keeps pointers into it."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def failure(what: str, error: Exception) -> HelperError:
    """A HelperError that names the cause and what to do about it."""
    text = f"cannot {what} in shared memory: {_words(error)}"
    if not FOLDER.is_dir():
        return HelperError(f"{text}; {FOLDER} does not exist: mount a tmpfs there")
    with contextlib.suppress(OSError):
        space = os.statvfs(FOLDER)
        if space.f_bavail * space.f_frsize < 1 << 20 or (space.f_files and not space.f_ffree):
            return HelperError(f"{text}; {FOLDER} is full: remove what is not needed there, or mount a larger tmpfs")
    return HelperError(f"{text}; see that {FOLDER} is a tmpfs that this user may write to")


def _words(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
