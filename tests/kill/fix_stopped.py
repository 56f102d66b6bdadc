"""Stopping a process at the very instruction at which it has taken a lock (ptrace(2)), and what others use meanwhile.

A `Hold` has the CPU watch the lock's word in the memory of the process, which is about to do something: the process stops behind the
instruction that changed it. Then it stands still: stopped as by SIGSTOP ("T"), or as by a debugger ("t"). It is not asked to do anything,
and knows nothing of it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from compat.fix_lab import state_of

from sharedstack.declare.layout import CONSTANTS as C

PTRACE_POKEUSER, PTRACE_CONT, PTRACE_ATTACH, PTRACE_DETACH = 6, 7, 16, 17
DEBUG_REGISTERS = 848  # offsetof(struct user, u_debugreg), sys/user.h of x86-64
WATCH_WRITES = 1 | 0b1101 << 16  # of DR7: register 0 is on, for writes of four bytes
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def ptrace(request: int, pid: int, data: int = 0, at: int = 0) -> None:
    """ptrace(2); OSError where it fails."""
    if _libc.ptrace(request, pid, at, data) == -1:
        raise OSError(ctypes.get_errno(), f"ptrace {request} of {pid}")


def mapped(pid: int, segment: Path, offset: int) -> int:
    """Where in a process that byte of a segment is mapped."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        words = line.split(maxsplit=5)
        first, last = (int(end, 16) for end in words[0].split("-"))
        begin = int(words[2], 16)
        if len(words) > 5 and Path(words[5]).name == segment.name and begin <= offset < begin + last - first:
            return first + offset - begin
    raise AssertionError(f"process {pid} has not mapped {segment}")


def cpu_ns(pid: int) -> int:
    """CPU time of all threads of a process (the first figure of /proc/PID/task/TID/schedstat)."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())


class Share:
    """Of one CPU, what a process uses from now on."""

    def __init__(self, pid: int) -> None:
        self.pid, self.began, self.used = pid, time.monotonic_ns(), cpu_ns(pid)

    def __call__(self) -> float:
        return (cpu_ns(self.pid) - self.used) / (time.monotonic_ns() - self.began)


class Hold:
    """Process `pid`, of slot `slot`, stands still from when the word at `offset` of a segment names it.

    `begin` lets it begin what takes the lock: it is called when it is under control already.
    """

    def __init__(self, pid: int, slot: int, segment: Path, offset: int, begin: Callable[[], None], *, traced: bool) -> None:
        self.pid, self.traced = pid, traced
        ptrace(PTRACE_ATTACH, pid)
        self._wait()
        self._watch(mapped(pid, segment, offset))
        begin()
        with segment.open("rb") as file:
            memory = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        while int.from_bytes(memory[offset : offset + 4], "little") >> C["LOCK_SLOT_SHIFT"] != slot + 1:
            ptrace(PTRACE_CONT, pid)
            self._wait()
        self._watch(0)
        if not traced:
            ptrace(PTRACE_DETACH, pid, signal.SIGSTOP)
            while state_of(pid) != "T":
                time.sleep(0.001)
        self._held = True

    def _watch(self, address: int) -> None:
        ptrace(PTRACE_POKEUSER, self.pid, at=DEBUG_REGISTERS + 7 * 8)
        if address:
            ptrace(PTRACE_POKEUSER, self.pid, address, DEBUG_REGISTERS)
            ptrace(PTRACE_POKEUSER, self.pid, WATCH_WRITES, DEBUG_REGISTERS + 7 * 8)

    def _wait(self) -> None:
        _, status = os.waitpid(self.pid, 0x40000000)  # __WALL
        assert os.WIFSTOPPED(status), f"it ended: {status:#x}"

    @property
    def state(self) -> str:
        """What /proc says of it."""
        return "t" if self.traced else "T"

    def go_on(self) -> None:
        """Let it run again."""
        if self._held and self.traced:
            ptrace(PTRACE_DETACH, self.pid)
        elif self._held:
            os.kill(self.pid, signal.SIGCONT)
        self._held = False

    def kill(self) -> None:
        """SIGKILL, while it holds the lock."""
        os.kill(self.pid, signal.SIGKILL)
        self._held = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.go_on()
