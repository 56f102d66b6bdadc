"""The operations: what the peer does before and during each, and what is then to be seen of its end."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Operation:
    """One operation of victim.c.

    `prepare`: what the peer does when the victim is ready (Python; the last message of the preparation is answered there).
    `during`: what it does while the operation goes on. `wake`: what it does, once, when the victim sleeps, where it does nothing else meanwhile.
    `accepted`: bytes that the victim has sent before it; `most`: with all of the operation. `env`: of the victim.
    """

    name: str
    prepare: str = "accept(); echo(7)"
    finish: str = "finish()"
    during: str = ""
    wake: str = ""
    accepted: int = 7
    most: int = 7
    env: tuple[str, ...] = ("SHAREDSTACK_EAGER=2",)


_ASLEEP = ("SHAREDSTACK_EAGER=0", "SHAREDSTACK_DOZE=0", "SHAREDSTACK_LIFT_AFTER=1")
_UNREAD = "accept(); echo(6); take(); give(1 + 3000)"
_ANOTHER = "accept(); echo(7); drain(); c.close(); accept()"
_UDP = "datagrams(6); u.recvfrom(10)"

OPERATIONS: tuple[Operation, ...] = (
    Operation("attach", prepare="accept()", during="drain()", accepted=0, most=1),
    Operation("pair", prepare=_ANOTHER, during="echo(1)", accepted=0, most=1),
    Operation("lift", prepare=_ANOTHER, during="echo(6)", accepted=0, most=6),
    Operation("lower", during="drain()", most=107),
    Operation("send", during="drain()", most=108),
    Operation("send_large", during="drain()", most=7 + 12000 + 6000),
    Operation("recv", prepare=_UNREAD),
    Operation("doze", wake="give(100)"),
    Operation("sleep", wake="give(100)", env=_ASLEEP),
    Operation("close", during="drain()"),
    Operation("close_unread", prepare=_UNREAD),
    Operation("shutdown", during="drain()"),
    Operation("shutdown_both", during="drain()"),
    Operation("epoll_ctl", prepare=_UNREAD),
    Operation("epoll_wait", prepare=_UNREAD),
    Operation("epoll_doze", wake="give(100)"),
    Operation("epoll_sleep", wake="give(100)", env=_ASLEEP),
    Operation("poll_doze", wake="give(100)"),
    Operation("fork", during="drain()", most=8),
    Operation("dup", during="drain()", most=8),
    Operation("exec", during="drain()"),
    Operation("exit", prepare=_UNREAD),
    Operation("sendto", prepare=f"{_UDP}; u.sendto(b'a', at)", finish="finish_datagrams()", accepted=0, most=3),
    Operation(
        "recvfrom",
        prepare=f"{_UDP}; u.sendto(b'a', at); [u.sendto(pattern(n, n), at) for n in (100, 700, 4900)]",
        finish="finish_datagrams()",
        accepted=0,
        most=0,
    ),
    Operation(
        "recvfrom_doze",
        prepare=f"{_UDP}; u.sendto(b'a', at)",
        wake="[u.sendto(pattern(n, n), at) for n in (100, 700, 4900)]",
        finish="finish_datagrams()",
        accepted=0,
        most=0,
    ),
    Operation("close_datagrams", prepare=f"{_UDP}; u.sendto(b'a', at)", finish="finish_datagrams()", accepted=0, most=0),
)
