"""The ways in which a socket comes to another process, or its process becomes another one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matrix.case import HOLDER, OTHER, TARGET, Case, Place
from matrix.sockets import connected
from matrix.worlds import NOBODY, PEER

FAR = 40  # numbers that nobody has


def _fds(case: Case) -> list[int]:
    return case.places[0].fds


def _child(case: Case, slot: int = TARGET, parent: int = HOLDER, way: str = "fork {}") -> None:
    case.process(slot, parent, way)
    case.places.append(Place(slot, list(_fds(case))))


def _holder_closes(case: Case) -> None:
    for fd in _fds(case):
        case.both(HOLDER, f"close {fd}")
    case.places.pop(0)


def fork(case: Case) -> None:
    _child(case)


def fork_and_close(case: Case) -> None:
    _child(case)
    _holder_closes(case)


def fork_twice(case: Case) -> None:
    """As a daemon does: the first two processes end."""
    _child(case)
    _child(case, OTHER, TARGET)
    case.exit(TARGET)
    case.exit(HOLDER)


def vfork(case: Case) -> None:
    _child(case, way="spawn {} 0 1")


def spawn(case: Case) -> None:
    _child(case, way="spawn {} 0 2")


def clone(case: Case) -> None:
    _child(case, way="clone {}")


def _does(*commands: str) -> Callable[[Case], None]:
    """HOLDER does that, and has the socket still."""

    def go(case: Case) -> None:
        for command in commands:
            case.both(HOLDER, command)

    return go


def execute_closing(case: Case) -> None:
    """Close-on-exec: the step meets a number that is nothing."""
    for fd in _fds(case):
        case.both(HOLDER, f"cloexec {fd} 1")
    case.both(HOLDER, "exec 0")
    case.subject.lost = True


def execute_alone(case: Case) -> None:
    case.helpers(False)
    case.both(HOLDER, "exec 0")


def _another(case: Case) -> tuple[int, int]:
    """A second connection of HOLDER's, to whoever is the peer then."""
    if case.subject.gone:
        case.process(PEER)
    made = connected(case)
    case.learn(_fds(case)[case.subject.stream])
    return made


def _copied(case: Case, *commands: str) -> None:
    case.places.append(Place(HOLDER, [case.both(HOLDER, command).result for command in commands]))


def dup(case: Case) -> None:
    _copied(case, *(f"dup {fd}" for fd in _fds(case)))


def dup_over(case: Case) -> None:
    """dup2 over a descriptor that was a busy connection's, whose peer sees the end."""
    replaced, peer = _another(case)
    first, *others = _fds(case)
    _copied(case, f"dup {first} {replaced}", *(f"dup {fd}" for fd in others))
    case.both(PEER, f"drain {peer} 0 1")


def dup3(case: Case) -> None:
    _copied(case, *(f"dup3 {fd} {FAR + i}" for i, fd in enumerate(_fds(case))))


def dup_fcntl(case: Case) -> None:
    _copied(case, *(f"dup3 {fd}" for fd in _fds(case)))


def close_range(case: Case) -> None:
    """A copy stays; the number that was used is closed by close_range(2)."""
    dup(case)
    for fd in _fds(case):
        case.both(HOLDER, f"closerange {fd} {fd} 0")
    case.places.pop(0)


def _hand(case: Case, to: int, sender: Place, files: int = 0, more: tuple[int, ...] = ()) -> None:
    numbers = [*sender.fds, *more]
    case.both(sender.slot, f"hand {to} {files} {' '.join(map(str, numbers))}")


def _fetch(case: Case, slot: int, count: int) -> list[int]:
    """The first so many are the subject's."""
    got = case.fds(case.both(slot, "fetch"))
    case.places.append(Place(slot, got[:count]))
    return got


def _receiver(case: Case, slot: int, way: str = "fork {}") -> None:
    case.process(slot, way=way)
    case.both(slot, "door")


def _passed(receiver: str = "fork {}") -> Callable[[Case], None]:
    """To a process that comes to be so."""

    def go(case: Case) -> None:
        _receiver(case, TARGET, receiver)
        _hand(case, TARGET, case.places[0])
        _fetch(case, TARGET, len(_fds(case)))

    return go


def pass_twice(case: Case) -> None:
    _passed()(case)
    _receiver(case, OTHER)
    _hand(case, OTHER, case.places[1])
    _fetch(case, OTHER, len(_fds(case)))


def pass_to_oneself(case: Case) -> None:
    case.both(HOLDER, "door")
    _hand(case, HOLDER, case.places[0])
    _fetch(case, HOLDER, len(_fds(case)))


def pass_and_exit(case: Case) -> None:
    """In flight while its sender exits."""
    count = len(_fds(case))
    _receiver(case, TARGET)
    _hand(case, TARGET, case.places[0])
    case.exit(HOLDER)
    _fetch(case, TARGET, count)


def pass_several(case: Case) -> None:
    """With another connection and ordinary files in one message."""
    fd, peer = _another(case)
    _receiver(case, TARGET)
    _hand(case, TARGET, case.places[0], 1, (fd,))
    got = _fetch(case, TARGET, len(_fds(case)))
    case.converse(TARGET, got[-1], PEER, peer)


def take(case: Case) -> None:
    """By pidfd_getfd(2)."""
    case.process(TARGET)
    got = []
    for fd in _fds(case):
        answers = case.ask(TARGET, *(f"getfd {world.pids[HOLDER]} {fd}" for world in case.worlds))
        case.same(answers, "pidfd_getfd")
        got.append(answers[0].result)
    case.places.append(Place(TARGET, got))


@dataclass(frozen=True)
class Way:
    """`lowers`: by then a connection is the kernel's again, whatever path it was on.

    An engine's is one process's alone: what shares it, or puts another program in that process's place, lowers it sooner or later; `wired`:
    this does not. `copies`: others have the number of an epoll set too, to whom the kernel has to report what is unread in a member's ring.
    """

    go: Callable[[Case], None]
    lowers: bool = False
    wired: bool = False
    copies: bool = False
    both_read: bool = False


WAYS: dict[str, Way] = {
    "fork": Way(fork),
    "fork, parent closes": Way(fork_and_close),
    "fork, both read": Way(fork, both_read=True),
    "double fork": Way(fork_twice),
    "vfork and exec": Way(vfork),
    "posix_spawn": Way(spawn),
    "clone": Way(clone),
    "exec": Way(_does("exec 0")),
    "exec, environment cleared": Way(_does("exec 4")),
    "exec into another stack": Way(_does("exec 3"), lowers=True),
    "exec, close-on-exec": Way(execute_closing),
    "exec without a helper": Way(execute_alone),
    "exec of a static program": Way(_does("exec 1"), lowers=True),
    "exec of a setuid program": Way(_does("exec 2"), lowers=True),
    "exec after setuid": Way(_does(f"setuid {NOBODY}", "exec 0"), lowers=True),
    "dup": Way(dup, copies=True),
    "dup2 over another": Way(dup_over, copies=True),
    "dup3": Way(dup3, copies=True),
    "F_DUPFD_CLOEXEC": Way(dup_fcntl, copies=True),
    "close_range": Way(close_range, copies=True),
    "SCM_RIGHTS": Way(_passed(), copies=True),
    "SCM_RIGHTS twice": Way(pass_twice, copies=True),
    "SCM_RIGHTS to oneself": Way(pass_to_oneself, copies=True),
    "SCM_RIGHTS, sender exits": Way(pass_and_exit, copies=True),
    "SCM_RIGHTS of several": Way(pass_several, copies=True),
    "SCM_RIGHTS to another stack": Way(_passed("spawn {} 3 0"), lowers=True),
    "SCM_RIGHTS to a plain program": Way(_passed("spawn {} 1 0"), lowers=True),
    "pidfd_getfd": Way(take),
    "threads": Way(_does("thread"), wired=True),
    "setns": Way(_does("setns"), lowers=True),
    "seccomp": Way(_does("confine"), lowers=True),
}
