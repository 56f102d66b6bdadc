"""Starting a helper where none runs, so that nothing of the starting program clings to it.

1  connect to the control socket: who answers is our user's helper, or the system's;
2  none there: fork twice, with a session in between, so that the helper is nobody's child but init's;
3  in the grandchild: reset what a process inherits (signals, affinity, priority, limits, directory, umask, descriptors);
4  wait for the ready line on a pipe, at most READY_WITHIN seconds. A pipe that ends without one means that another helper won the
   race, which a second look at the control socket tells.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import sys
import time
from contextlib import suppress

from ..declare.names import control_socket, segment

# The helper's command line, before its options; -P: the directory that it runs in is no place to import from.
HELPER: tuple[str, ...] = (sys.executable, "-P", "-m", "sharedstack_helper")
READY_WITHIN = 2.0
_SO_NETNS_COOKIE = 71

_STDIO = 3
_READY_FD = 3


def ensure(uid: int, stack: str) -> str:
    """Find a helper or start one; returns what is wrong, in one line, or an empty string."""
    present, problem = look(uid, stack)
    if present or problem:
        return problem
    try:
        return _start(uid, stack)
    except OSError as e:
        return f"no helper could be started: {e.strerror}"


def look(uid: int, stack: str) -> tuple[bool, str]:
    """Is there a helper, and if the control socket is somebody else's, what is to be said about it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(control_socket(uid, stack))
        except BlockingIOError:
            return True, ""  # its queue is full: it is there, and busy
        except OSError:
            return False, ""
        pid, owner, _ = struct.unpack("iii", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if owner not in (uid, 0):
        return False, f"the helper's control socket is held by process {pid} of uid {owner}, which is not to be trusted"
    return True, ""


def mismatch(uid: int, stack: str, library: str) -> str:
    """Does the library know the layout of the stack? What is wrong, in one line, or an empty string (also where it cannot be seen)."""
    try:
        with socket.socket(socket.AF_UNIX) as any_socket:
            netns = int.from_bytes(any_socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")
        with open(_beside(library, "layout.hash"), encoding="ascii") as file:
            ours = int(file.read(), 16)
        with open("/dev/shm" + segment(uid, netns, stack, "stack"), "rb") as file:
            theirs = int.from_bytes(file.read(16)[8:], "little")
    except (OSError, ValueError):
        return ""
    if ours == theirs:
        return ""
    return f"the stack has layout {theirs:016x}, the library {ours:016x}: restart the helper of the installed version"


def _beside(library: str, name: str) -> str:
    """In the library's folder, or one above, where it lies in one of its architecture's."""
    folder = os.path.dirname(library)
    for _ in range(2):
        if os.path.exists(os.path.join(folder, name)):
            break
        folder = os.path.dirname(folder)
    return os.path.join(folder, name)


def _start(uid: int, stack: str) -> str:
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                _become_helper(write_end, stack)
        finally:
            os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    try:
        ready = _wait_ready(read_end)
    finally:
        os.close(read_end)
    if ready is None:
        return f"the helper was not ready within {READY_WITHIN:.0f} s"
    if ready or look(uid, stack)[0]:
        return ""
    return f"the helper could not be started: {' '.join(HELPER)} --stack {stack} ended (run it to see why)"


def _wait_ready(fd: int) -> bool | None:
    """True: the ready line came; False: the pipe ended without one; None: neither within READY_WITHIN."""
    until = time.monotonic() + READY_WITHIN
    said = b""
    while b"\n" not in said:
        left = until - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            return None
        more = os.read(fd, 4096)
        if not more:
            break
        said += more
    return b"ready" in said.lower()


def _become_helper(ready: int, stack: str) -> None:
    """Reset what is inherited, then exec; the caller ends the process if that fails."""
    _reset_signals()
    _reset_scheduling()
    _reset_limits()
    os.chdir("/")
    os.umask(0o077)
    null = os.open("/dev/null", os.O_RDWR)
    ready = os.dup(ready) if ready < _STDIO else ready
    for fd in range(_STDIO):
        os.dup2(null, fd)
    os.dup2(ready, _READY_FD)
    os.closerange(_READY_FD + 1, 0x7FFFFFFF)
    environ = os.environ | {"LD_PRELOAD": ""}  # empty rather than absent: we may be preloaded ourselves, and followed (declare/options)
    os.execve(HELPER[0], [*HELPER, "--stack", stack, "--ready-fd", str(_READY_FD)], environ)


def _reset_signals() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _reset_scheduling() -> None:
    """All CPUs, the ordinary policy, nice 0: each as far as it is allowed."""
    cpus = range(max(os.cpu_count() or 1, os.sysconf("SC_NPROCESSORS_CONF")))
    with suppress(OSError):
        os.sched_setaffinity(0, cpus)
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)


def _reset_limits() -> None:
    """Soft limits up to the hard ones; not the stack's, whose size decides how memory is laid out."""
    import resource as r

    for limit in (r.RLIMIT_NOFILE, r.RLIMIT_CPU, r.RLIMIT_FSIZE, r.RLIMIT_AS, r.RLIMIT_DATA, r.RLIMIT_MEMLOCK):
        hard = r.getrlimit(limit)[1]
        with suppress(OSError, ValueError):
            r.setrlimit(limit, (hard, hard))
