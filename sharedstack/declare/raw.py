"""The system calls that the library takes over when a program makes them by `syscall()`, each declared once.

From a declaration come an entry of the table that `preload/raw.c` looks numbers up in, and a row of the docs. The arguments are those of
the system call, which are not always those of libc's function of that name (syscall(2), and each call's own page under "C library/kernel
differences").
"""

from __future__ import annotations

from dataclasses import dataclass

from .intercepts import INTERCEPTS, Intercept


@dataclass(frozen=True)
class SystemCall:
    """One handler, and the numbers (`SYS_` left out) that it is for; a number that a machine does not have is left out there.

    `by`: the intercepted function that takes the same arguments; `own`: instead of that, a function `shs_raw_<own>` for arguments that
    differ.
    `way`: "receive" or "send": about the descriptor that is the first argument, and the program's own system call wherever the library
    has no say there; "call": always the handler. `quiet`: confined too, since it makes no other system call than the program's.
    `after`: what is looked at where the program's own system call received something. `bits`: for machines of so many bits alone.
    """

    names: tuple[str, ...]
    by: str = ""
    own: str = ""
    way: str = "call"
    quiet: bool = False
    after: str = ""
    bits: int = 0
    note: str = ""

    @property
    def handler(self) -> str:
        """What it is called in the table."""
        return self.own or self.by

    @property
    def function(self) -> Intercept:
        """The declaration of `by`."""
        return next(i for i in INTERCEPTS if i.name == self.by)


def _data(way: str, *names: str, after: str = "") -> tuple[SystemCall, ...]:
    return tuple(SystemCall((name,), by=name, way=way, after=after) for name in names)


def _calls(*names: str, quiet: bool = False) -> tuple[SystemCall, ...]:
    return tuple(SystemCall((name,), by=name, quiet=quiet) for name in names)


_SPLIT = "the offset is in two arguments, the upper half of no use where one holds it all"
_LEFT = "the time that is left is written back; the mask comes with its size"

SYSTEM_CALLS: tuple[SystemCall, ...] = (
    *_data("receive", "read", "readv", "recvfrom"),
    *_data("receive", "recvmsg", after="received_one"),
    *_data("receive", "recvmmsg", after="received_many"),
    SystemCall(("recvmmsg_time64",), own="recvmmsg64", way="receive", after="received_many", bits=32, note="64-bit time"),
    SystemCall(("preadv2",), own="preadv2", way="receive", note=_SPLIT),
    *_data("send", "write", "writev", "sendto"),
    SystemCall(("pwritev2",), own="pwritev2", way="send", note=_SPLIT),
    *_calls("sendmsg", "sendmmsg", "sendfile", "sendfile64", "splice"),
    *_calls(
        "socket",
        "accept",
        "accept4",
        "bind",
        "connect",
        "shutdown",
        "getsockopt",
        "setsockopt",
        "ioctl",
        "pidfd_getfd",
        "execve",
        "execveat",
    ),
    *_calls("close", "close_range", "dup", "dup2", "dup3", quiet=True),
    SystemCall(("fcntl", "fcntl64"), own="fcntl", quiet=True, note="F_SETFL, F_DUPFD and F_DUPFD_CLOEXEC; all else as it is"),
    *_calls("poll", "epoll_wait", quiet=True),
    SystemCall(("ppoll",), own="ppoll", note=_LEFT),
    SystemCall(("ppoll_time64",), own="ppoll64", bits=32, note=f"64-bit time; {_LEFT}"),
    SystemCall(("select",), own="select", bits=64, note="microseconds beyond a second count too"),
    SystemCall(("select",), own="select_packed", bits=32, note="all arguments in an array"),
    SystemCall(("_newselect",), own="select", note="as select, its arguments apart"),
    SystemCall(("pselect6",), own="pselect6", note=f"{_LEFT}, in a structure"),
    SystemCall(("pselect6_time64",), own="pselect64", bits=32, note=f"64-bit time; {_LEFT}, in a structure"),
    *_calls("epoll_create", "epoll_create1", "epoll_ctl"),
    SystemCall(("epoll_pwait",), own="epoll_pwait", note="the mask comes with its size"),
    SystemCall(("epoll_pwait2",), own="epoll_pwait2", note="64-bit time; the mask comes with its size"),
    SystemCall(("rt_sigaction",), own="rt_sigaction", quiet=True, note="the kernel's structure; its restorer is the program's own"),
    SystemCall(("fork", "clone", "clone3"), own="clone", note="as fork, where the child has memory of its own; else the kernel's alone"),
    SystemCall(("io_uring_setup",), own="io_uring_setup", note="all connections of the process are handed over, and later ones not lifted"),
    SystemCall(("io_submit",), own="io_submit", note="the connections of its requests are handed over first"),
    SystemCall(("socketcall",), own="socketcall", quiet=True, bits=32, note="as the call that it names"),
    SystemCall(("seccomp",), own="seccomp", note="as prctl of PR_SET_SECCOMP"),
    *_calls("prctl"),
    SystemCall(("unshare",), own="unshare", note="as unshare"),
    SystemCall(("setns",), own="setns", note="as setns"),
    SystemCall(
        ("setuid", "setreuid", "setresuid", "setuid32", "setreuid32", "setresuid32"), own="setuid", note="as setuid, of the thread alone"
    ),
)
