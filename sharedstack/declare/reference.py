"""Write the reference pages from the declarations: `python -m sharedstack.declare.reference docs/reference`.

Written pages: options.md, counters.md, reasons.md, intercepts.md, messages.md, layout.md, locks.md. They are committed;
tests/unit/test_reference.py fails where a page differs from what the declarations say.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import layout, wire
from .counters import COUNTERS
from .intercepts import INTERCEPTS, SPECIAL, Intercept
from .kernel_options import CALL_FLAGS, IPPROTO_TCP, KERNEL_OPTIONS
from .locks import LOCKS
from .messages import ERROR_CODES, MAX_MESSAGE, MESSAGES, PROTOCOL_VERSION, in_words
from .model import Line, Placed, Struct
from .names import BELL_PREFIX, SHM_PREFIX
from .options import OPTIONS, PROFILES
from .raw import SYSTEM_CALLS, SystemCall
from .reasons import REASONS

HEAD = "<!-- Written by `python -m sharedstack.declare.reference docs/reference`; change sharedstack/declare, not this page. -->\n"

# What a wrapper does for a descriptor that is lifted; on any other it is libc's own function, after one look at a table.
AREAS: dict[str, str] = {
    "receive": "by the ring, and by the kernel as far as the order allows; waits by spinning, dozing or in the kernel",
    "send": "by the ring while its reader keeps it open and there is room; else by the kernel, counted",
    "descriptor": "the kernel does it; the table of descriptors follows",
    "option": "the kernel does it; what the library must know is noted",
    "wait": "rings are looked at, all else is asked of the kernel; one wait for both",
    "signal": "handlers run through one of the library's, so that its waits know of interruptions; the program is told of its own",
    "identity": "the process leaves its stack first, and attaches again as who it is then",
    "aside": "the connection is handed over to the kernel first: what is in its ring is sent again; else libc's function",
    "epoll": "the kernel's set is the set; members with open rings are reported beside it",
}

_WHEN = {"ALWAYS": "always", "NONZERO": "unless 0", "ABOVE_ONE": "above 1", "NOT_NEGATIVE": "unless negative"}

# Functions of which there is more to say than of their area.
DOES: dict[str, str] = {
    "recvmmsg": "lifted: one message after the other, as recvmsg; its time-out is then not looked at",
    "sendmsg": "without control data as send; with control data, or flags other than MSG_DONTWAIT, MSG_NOSIGNAL and MSG_MORE, by"
    " the kernel, counted; descriptors that are passed are marked as shared, or handed over to a receiver outside the library",
    "sendmmsg": "lifted: one message after the other, as sendmsg",
    "sendfile": "to a lifted socket: read into a buffer of the library, and as send; what was not sent stays in the file",
    "sendfile64": "as sendfile",
    "splice": "out of a lifted socket, or into one: through a buffer of the library; what could not be passed on stays where it was",
    "preadv2": "with offset -1 as readv, and RWF_NOWAIT as MSG_DONTWAIT; else the kernel says what is wrong",
    "preadv64v2": "as preadv2",
    "pwritev2": "with offset -1 as writev, and RWF_NOWAIT as MSG_DONTWAIT; else the kernel says what is wrong",
    "pwritev64v2": "as pwritev2",
    "posix_spawn": "a program that will be preloaded goes on with lifted sockets; to any other those that it gets are handed over, and"
    " what is in their rings is sent again by the kernel. Sockets that are descriptors 0 to 2 are handed over to any",
    "posix_spawnp": "as posix_spawn",
    "posix_spawn_file_actions_adddup2": "that socket is handed over: which program will have it is not known yet",
    "execve": "as posix_spawn, in a vfork child too",
    "execv": "as execve",
    "execvp": "as execve",
    "execvpe": "as execve",
    "fexecve": "as execve",
    "system": "as posix_spawn of /bin/sh",
    "popen": "as posix_spawn of /bin/sh",
    "recvmsg": "as recv; descriptors that are received are looked at anew",
    "socket": "a TCP socket is noted as new; it is a candidate once it is connected",
    "accept": "a connection of a listener that this program made is a candidate",
    "accept4": "a connection of a listener that this program made is a candidate",
    "connect": "the socket becomes a candidate; also while the connection is being made (EINPROGRESS)",
    "shutdown": "counted as the end of what was sent; SHUT_RD shuts the ring",
    "close": "last descriptor: the ring is shut; unread ring bytes turn the close into a reset; the record is freed",
    "close_range": "as close, for each; with CLOSE_RANGE_CLOEXEC nothing is done",
    "closefrom": "as close_range",
    "dup": "both numbers name one endpoint; directions that are not under count yet stay with the kernel",
    "dup2": "as close, then dup; a socket that becomes a standard stream is handed over: stdio uses it natively",
    "dup3": "as dup2",
    "fdopen": "the connection is handed over to stdio, which reads and writes inside libc; what is in the ring is sent again by the kernel",
    "fclose": "as close",
    "getsockopt": "SO_ERROR of a connection that an engine ended; all else is the kernel's, byte counts of TCP_INFO those of its stream",
    "setsockopt": "options that only the kernel can honour lower the connection for good: see [reasons](reasons.md#options)",
    "fcntl": "O_NONBLOCK is noted; F_DUPFD and F_DUPFD_CLOEXEC as dup",
    "fcntl64": "as fcntl",
    "ioctl": "FIONBIO is noted; to FIONREAD (SIOCINQ) the bytes in the ring are added",
    "setuid": "with another real uid: the process leaves its stack first, and attaches again as who it is then",
    "setreuid": "as setuid",
    "setresuid": "as setuid",
    "unshare": "CLONE_NEWNET and CLONE_NEWUSER: as setuid; CLONE_FILES with more than one thread: the kernel's path from then on",
    "setns": "as unshare, where it may be about either",
    "prctl": "PR_SET_SECCOMP: the process leaves its stack first, and every wrapper is libc's function from then on",
    "syscall": "by the number: see [below](#by-syscall); all others are the kernel's alone",
    "execveat": "as execve",
    "freopen": "as close; what is opened is nothing of the library's",
    "freopen64": "as freopen",
    "daemon": "in the child: descriptors 0 to 2 are /dev/null now",
    "login_tty": "descriptors 0 to 2 are the terminal now",
    "forkpty": "as fork, and as login_tty in the child",
    "pidfd_getfd": "of the process itself as dup; of another one as a descriptor that is received by SCM_RIGHTS",
    "sockatmark": "as ioctl of SIOCATMARK: not at the mark while bytes that were sent before it are in the ring",
    "select": "as poll",
    "pselect": "as select",
    "epoll_create": "the set gets an entry",
    "epoll_create1": "the set gets an entry",
    "epoll_ctl": "interest and data are noted; the rings of members of a shared or nested set stay shut",
}


@dataclass(frozen=True)
class Missing:
    """Functions that reach a socket and are not intercepted; `consequence` is what a program sees that uses them on a lifted one."""

    names: tuple[str, ...]
    consequence: str


_NO_EFFECT = "none: what they say or do is the kernel's, and stays right"
_NATIVE = "read or write natively, uncounted: on a lifted socket they miss, or overtake, bytes in the ring"
_SPAWN = "children that get a lifted socket use it natively at the same time, unnoticed; close such sockets, or mark them close-on-exec"

NOT_INTERCEPTED: tuple[Missing, ...] = (
    Missing(("listen", "getsockname", "getpeername", "isfdtype", "socketpair", "openpty"), _NO_EFFECT),
    Missing(("fprintf and all other stdio on a stream of fdopen",), "none: fdopen has lowered the connection"),
    Missing(("getchar, printf and all other stdio on standard streams",), "none: sockets there are not lifted, or were handed over"),
    Missing(("fcloseall",), "none: it writes out what streams hold, and closes no descriptor"),
    Missing(("system calls by instructions of the program's own (Go, liburing, libaio, musl)",), _NATIVE),
    Missing(
        ("io_uring that was set up by such an instruction",),
        f"{_NATIVE}; a poll request does not see a ring. Set up by `syscall()` it is noticed",
    ),
    Missing(("__pread64", "__pwrite64", "__open", "__fork", "__clone"), "as those without underscores: none, but for `__clone`"),
    Missing(("vmsplice", "tee", "copy_file_range"), "none: they do not take sockets"),
    Missing(("clone",), _SPAWN),
    Missing(
        ("seteuid", "setfsuid", "setgid and kin", "setgroups", "initgroups", "capset", "chroot", "pivot_root"),
        "none: the real uid and the network namespace decide on a stack, and these change neither",
    ),
    Missing(("sigignore", "sigpause", "sigvec"), "none: they install no handler, or are not there any more"),
    Missing(("sctp_sendmsg and other protocols' functions",), "none: only TCP over IPv4 and IPv6 is lifted"),
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; vertical bars in cells are escaped."""
    lines = [list(head), ["---"] * len(head), *(list(row) for row in rows)]
    return "".join("| " + " | ".join(_cell(cell) for cell in line) + " |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _number(value: int) -> str:
    """Decimal, and beside it hexadecimal where that is easier to read."""
    if value < 4096:
        return str(value)
    power = value.bit_length() - 1
    return f"{value:#x} (2^{power})" if value == 1 << power else f"{value:#x} ({value})"


def options() -> str:
    """The page of options and profiles."""
    rows = [(f"`{o.env}`", str(o.default), f"{o.low} to {o.high}", o.unit, o.meaning) for o in OPTIONS]
    names = sorted({name for values in PROFILES.values() for name in values}, key=[o.name for o in OPTIONS].index)
    profiles = [(f"`{p}`", *(str(values.get(name, "")) for name in names)) for p, values in PROFILES.items()]
    return (
        HEAD
        + "# Options\n\nA process reads its options from the environment when the library is loaded. A value out of bounds is brought to"
        " the nearest bound; one that is no decimal number is ignored.\n\n"
        + table(("variable", "default", "bounds", "unit", "meaning"), rows)
        + "\n`SHAREDSTACK_STACK` names the stack (`main`), `SHAREDSTACK_PROFILE` the profile.\n\n## Profiles\n\n"
        "A profile sets several options; a variable that is set wins over it. An empty cell: the default.\n\n"
        + table(("profile", *(f"`{n}`" for n in names)), profiles)
    )


def counters() -> str:
    """The page of counters."""
    rows = [(str(i), f"`{c.name}`", c.unit, c.meaning) for i, c in enumerate(COUNTERS)]
    return (
        HEAD + "# Counters\n\nEach participant counts in its slot, in this order; `sharedstack inspect --counters` shows them. Threads of"
        " one process that count the same event at the same instant may lose an increment. When a participant has gone, its counts are"
        " added to the"
        " stack's totals.\n\n"
        + table(("place", "name", "one is", "counted"), rows)
        + "\n## Of an engine\n\nAn engine of the wire path counts in the header of its area.\n\n"
        + table(("place", "name", "counted"), ((str(i), f"`{name}`", text) for i, (name, text) in enumerate(wire.COUNTERS)))
    )


def reasons() -> str:
    """The page of reasons."""
    rows = [(str(i), f"`{r.name}`", r.text, r.advice) for i, r in enumerate(REASONS)]
    levels = {IPPROTO_TCP: "IPPROTO_TCP"}
    option_rows = [(levels.get(o.level, "SOL_SOCKET"), f"`{o.name}`", str(o.number), _WHEN[o.when]) for o in KERNEL_OPTIONS]
    return (
        HEAD + "# Reasons\n\nWhy a direction of a connection is on the kernel's path. Each end notes its own reason for what it sends and"
        " for what it"
        " receives (`why_tx`, `why_rx` of the endpoint); `sharedstack inspect --why` shows them, and finds out from outside what a socket"
        " without a record has to say.\n\n"
        + table(("code", "name", "meaning", "what to do"), rows)
        + "\n## Options\n\nThe options of the reason `option`, which `inspect --why` names (`opt_level`, `opt_name` of the endpoint). They"
        f" reach the kernel as always; the connection stays with it from then on. Flags of a call do the same: {', '.join(CALL_FLAGS)}, and"
        " any that the library does not know.\n\n" + table(("level", "option", "number", "lowers"), option_rows)
    )


def signature(i: Intercept) -> str:
    """The C prototype."""
    return f"{i.ret}{'' if i.ret.endswith('*') else ' '}{i.name}({', '.join(i.params)})"


def does(i: Intercept) -> str:
    """What the wrapper does for a lifted descriptor."""
    if i.twin:
        return f"as {i.twin}: 32-bit programs with 64-bit time (`_TIME_BITS=64`) call it"
    if i.same:
        return f"as {i.same}"
    if i.name in DOES:
        return DOES[i.name]
    return f"as {i.note.removeprefix('fortified ')}" if i.note.startswith("fortified ") else AREAS[i.area]


def intercepts() -> str:
    """The coverage table."""
    yes = {True: "yes", False: ""}
    rows = [(f"`{i.name}`", i.area, f"`{signature(i)}`", i.error or "none", yes[i.cancel], yes[i.vfork], does(i)) for i in INTERCEPTS]
    return (
        HEAD + "# Intercepted functions\n\nWhat the preload library takes over, and what it does on a lifted socket. On every other"
        " descriptor a wrapper"
        " is libc's own function. All wrappers go straight to libc in a vfork child; *vfork* marks those that programs call there. A"
        " *cancellation point* acts on a request where it waits; while it holds a lock, or only moves bytes in memory, it does not.\n\n"
        + table(("function", "area", "signature", "on error", "cancellation point", "vfork", "what is done"), rows)
        + "\nWithout a wrapper of this shape:\n\n"
        + table(("function", "what is done"), ((f"`{n}`", text) for n, text in SPECIAL.items()))
        + "\n## By syscall\n\nThe numbers of `syscall()` that are taken over, where a machine has them. Each goes to the library's own"
        " function for that call, with the arguments and meaning of the system call; where the library has no say, it is the system call"
        " that the program made. None is a cancellation point, as `syscall()` is none. *Confined*: still taken over after seccomp, since"
        " no other system call is made. In a vfork child all are the kernel's.\n\n"
        + table(("number", "as", "confined", "what is done"), (_raw_row(s) for s in SYSTEM_CALLS))
        + "\n## Not intercepted yet\n\nThe rest of what reaches a socket, and what it means for a program that uses it on a lifted one.\n\n"
        + table(
            ("function", "consequence"),
            ((", ".join(f"`{n}`" if " " not in n else n for n in m.names), m.consequence) for m in NOT_INTERCEPTED),
        )
    )


def _raw_row(s: SystemCall) -> tuple[str, ...]:
    names = ", ".join(f"`SYS_{name}`" for name in s.names) + (f" ({s.bits} bits)" if s.bits else "")
    done = s.note or (does(s.function) if s.by in DOES else AREAS[s.function.area])
    return names, f"`{s.by}`" if s.by else "", "yes" if s.quiet or s.way == "receive" else "", done


def messages() -> str:
    """The page of the control protocol."""
    rows = [
        (
            f"`{m.name}`",
            m.meaning,
            ", ".join(f"`{k}` {in_words(t)}" for k, t in m.fields.items()),
            ", ".join(m.fds),
            f"`{m.reply}`" if m.reply else "",
        )
        for m in MESSAGES
    ]
    return (
        HEAD + f"# The control protocol\n\nThe helper listens on the abstract `SOCK_SEQPACKET` socket `{SHM_PREFIX}/<uid>/<stack>`. One"
        f" packet is one"
        f" message: a msgpack map of at most {MAX_MESSAGE} bytes with `v` ({PROTOCOL_VERSION}, the version), `t` (the message's name)"
        f" and the"
        " fields below. Both sides check the other's uid by `SO_PEERCRED`: the helper serves the stack's user and root, a client trusts"
        " a helper"
        " of its own user or root. Descriptors travel beside the packet by `SCM_RIGHTS`, in the given order; the helper accepts none.\n\n"
        + table(("message", "meaning", "fields", "descriptors", "answer"), rows)
        + "\nA message that is not understood is answered by `error`, and its sender is cut off; so is a client that is silent for 2"
        " seconds.\n\n"
        + table(("code of an error", "meaning"), ((f"`{c}`", text) for c, text in ERROR_CODES.items()))
        + f"\nBeside it, the datagram socket `{SHM_PREFIX}/<uid>/<stack>/nudge` takes `slot <number>`: a slot was taken without asking,"
        f" or a shared socket was"
        " met or given up. It is a hint, from anybody; the helper looks at all slots and believes nothing of it.\n\n"
        f"A doorbell is an abstract datagram socket `{BELL_PREFIX}<name, 16 hexadecimal digits>`; what is sent there means nothing but"
        f' "look".\n'
    )


def _field_row(p: Placed) -> tuple[str, ...]:
    kind = p.field.type if p.field.count == 1 else f"{p.field.type}[{p.field.count}]"
    return (
        str(p.offset),
        f"`{p.field.name}`",
        kind,
        p.field.unit,
        p.owner,
        p.field.lock,
        "yes" if p.field.derived else "",
        p.field.meaning,
    )


def _struct(s: Struct) -> str:
    whys = [f"{part.owner or 'nobody'}: {part.why}" for part in s.parts if isinstance(part, Line) and part.why]
    note = f"\nCache lines: {'; '.join(whys)}.\n" if whys else ""
    head = ("offset", "field", "type", "unit", "written by", "lock", "derived", "meaning")
    return f"\n## {s.name}\n\n{s.meaning} {s.size} bytes.\n{note}\n{table(head, (_field_row(p) for p in s.placed()))}"


def layout_page() -> str:
    """The page of the layout."""
    fixed = [
        ("stack", "header", 0, layout.STACK.size),
        ("stack", "slots", layout.STACK_SLOTS, layout.CONSTANTS["N_SLOTS"] * layout.SLOT.size),
        ("stack", "flow table: u32, first endpoint plus one of each bucket", layout.STACK_FLOWS, layout.CONSTANTS["N_FLOW_BUCKETS"] * 4),
        ("stack", "endpoints", layout.STACK_ENDPOINTS, layout.CONSTANTS["N_ENDPOINTS"] * layout.ENDPOINT.size),
        ("arena", "header", 0, layout.ARENA.size),
        ("arena", "pairs", layout.ARENA_PAIRS, layout.CONSTANTS["N_PAIRS"] * layout.PAIR.size),
        ("bulk", "units of ring memory", 0, layout.BULK_BYTES),
    ]
    return (
        HEAD + "# The layout of shared memory\n\n"
        f"Layout hash `{layout.HASH:#018x}`: two builds with the same hash can share memory; attaching to another is refused.\n\n"
        "Little-endian, fixed widths, the same offsets in 32- and 64-bit processes. No pointers: an index is stored plus one, and 0"
        " means none."
        " *lock* names the lock under which a field is written; without one, it changes by single atomic stores of who is named under"
        " *written by*. *Derived* fields can be rebuilt from the others.\n\n"
        + table(("segment", "part", "offset", "bytes"), ((a, b, str(c), str(d)) for a, b, c, d in fixed))
        + "".join(_struct(s) for s in layout.STRUCTS)
        + "\n## Constants\n\n"
        + table(("name", "value"), ((f"`{k}`", _number(v)) for k, v in layout.CONSTANTS.items()))
    )


def locks() -> str:
    """The page of locks."""
    rows = [(str(i), f"`{lock.name}`", f"`{lock.where}`", lock.guards, f"`{lock.repair}`") for i, lock in enumerate(LOCKS, 1)]
    return (
        HEAD + "# Locks in shared memory\n\nA thread may wait for a lock only if it holds none that comes later here; merely trying one is"
        " always"
        " allowed. A lock word is 0, or names its owner: slot plus one in the upper 16 bits, then the thread's tag, lowest a bit that"
        " says that"
        " somebody waits. Who finds a dead owner takes the lock over and runs its repair before anything else.\n\n"
        + table(("order", "lock", "where", "guards", "repair"), rows)
        + "\nWithin one process, and not in shared memory: the lock of an epoll set (before any of these for a thread that goes to"
        " sleep in the set;"
        " a thread that holds rlock only tries it) and the lock of the list of threads (last).\n"
    )


PAGES: dict[str, Callable[[], str]] = {
    "options.md": options,
    "counters.md": counters,
    "reasons.md": reasons,
    "intercepts.md": intercepts,
    "messages.md": messages,
    "layout.md": layout_page,
    "locks.md": locks,
}


def main(argv: list[str]) -> int:
    """Write all pages into the directory `argv[1]`."""
    if len(argv) != 2:
        print("usage: python -m sharedstack.declare.reference DIR", file=sys.stderr)
        return 2
    target = Path(argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        (target / name).write_text(make(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
