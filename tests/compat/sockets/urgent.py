"""Urgent data: the mark, inline or not, its signal and its readiness."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
from select import POLLIN, POLLPRI

from compat.sockets import calls as c
from compat.sockets.flags import arrive
from compat.sockets.stage import Stage, scene

OOB = socket.MSG_OOB


def wait_urgent(s: socket.socket) -> None:
    assert c.poll(s, POLLPRI, 1000) == POLLPRI


@scene()
def mark(stage: Stage) -> None:
    """Bytes before and behind the mark; receives stop at it."""
    a, b = stage.ends()
    stage.say("none yet", c.ioctl(b, c.SIOCATMARK))
    c.send(a, b"before")
    stage.say("sent", c.send(a, b"!", OOB))
    c.send(a, b"behind")
    wait_urgent(b)
    stage.say("events", c.poll(b, POLLIN | POLLPRI, 1000))
    stage.say("at the mark", c.ioctl(b, c.SIOCATMARK))
    stage.say("unread", c.ioctl(b, c.FIONREAD))
    stage.say("peeked", c.recv(b, 100, socket.MSG_PEEK))
    stage.say("received", c.recv(b, 3))
    stage.say("at the mark", c.ioctl(b, c.SIOCATMARK))
    stage.say("received", c.recv(b, 100))
    stage.say("at the mark", c.ioctl(b, c.SIOCATMARK))
    stage.say("urgent", c.recv(b, 10, OOB | socket.MSG_PEEK))
    stage.say("urgent", c.recv(b, 10, OOB))
    stage.say("again", c.recv(b, 10, OOB))
    stage.say("behind it", c.recv(b, 6, socket.MSG_WAITALL))
    stage.say("at the mark", c.ioctl(b, c.SIOCATMARK))
    c.send(b, b"back")
    stage.say("the other way", c.recv(a, 100))


@scene()
def inline(stage: Stage) -> None:
    a, b = stage.ends()
    c.send(a, b"ab")
    b.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    c.send(a, b"c!", OOB)
    c.send(a, b"de")
    wait_urgent(b)
    stage.say("urgent", c.recv(b, 10, OOB))
    stage.say("up to it", c.recv(b, 3, socket.MSG_WAITALL))
    stage.say("at the mark", c.ioctl(b, c.SIOCATMARK))
    stage.say("it, and on", c.recv(b, 3, socket.MSG_WAITALL))
    stage.say("at the mark", c.ioctl(b, c.SIOCATMARK))


@scene()
def all_across_the_mark(stage: Stage) -> None:
    """MSG_WAITALL stops at the mark too."""
    a, b = stage.ends()
    c.send(a, b"1234")
    c.send(a, b"!", OOB)
    c.send(a, b"5678")
    wait_urgent(b)
    stage.say("all of 8", c.recv(b, 8, socket.MSG_WAITALL))
    stage.say("the rest", c.recv(b, 4, socket.MSG_WAITALL))


@scene()
def two_marks(stage: Stage) -> None:
    a, b = stage.ends()
    c.send(a, b"x", OOB)
    wait_urgent(b)
    c.send(a, b"mid")
    c.send(a, b"y", OOB)
    arrive(b, 3)
    stage.say("the later one counts", c.recv(b, 1, OOB))
    stage.say("what was the first is data", c.recv(b, 100))
    stage.say("nothing", c.recv(b, 100, socket.MSG_DONTWAIT))


@scene()
def ready_for_urgent(stage: Stage) -> None:
    a, b = stage.ends()
    ready = select.epoll()
    ready.register(b, select.EPOLLPRI | select.EPOLLIN)
    c.send(a, b"n")
    stage.say("epoll", [events for _, events in ready.poll(1)])
    c.send(a, b"!", OOB)
    wait_urgent(b)
    stage.say("epoll", [events for _, events in ready.poll(1)])
    stage.say("select", [len(x) for x in select.select([b], [], [b], 1)])
    stage.say("poll", c.poll(b, POLLIN | POLLPRI, 1000))
    stage.say("taken", (c.recv(b, 1, OOB), c.poll(b, POLLPRI, 0)))
    stage.say("data", c.recv(b, 10))
    stage.say("poll", c.poll(b, POLLIN | POLLPRI, 0))


@scene()
def waits_for_urgent(stage: Stage) -> None:
    """A thread sleeps for the mark, in poll and in select."""
    for what in ("poll", "select"):
        a, b = stage.ends()
        waiter = stage.thread(
            lambda b=b, what=what: c.poll(b, POLLPRI, 5000) if what == "poll" else [len(x) for x in select.select([], [], [b], 5)]  # type: ignore[misc]
        ).asleep()
        c.send(a, b"!", OOB)
        stage.say(what, waiter.result())


@scene()
def signal_of_urgent(stage: Stage) -> None:
    a, b = stage.ends()
    got: list[int] = []
    signal.signal(signal.SIGURG, lambda number, _frame: got.append(number))
    c.send(a, b"!", OOB)
    wait_urgent(b)
    stage.say("nobody owns it", got)
    fcntl.fcntl(b, fcntl.F_SETOWN, os.getpid())
    stage.say("owner", fcntl.fcntl(b, fcntl.F_GETOWN) == os.getpid())
    stage.say("first", c.recv(b, 1, OOB))
    c.send(a, b"?", OOB)
    wait_urgent(b)
    stage.say("signals", got)
    stage.say("second", c.recv(b, 1, OOB))


@scene()
def not_urgent(stage: Stage) -> None:
    a, b = stage.ends()
    stage.say("nothing urgent", c.recv(b, 1, OOB))
    stage.say("not waiting", c.recv(b, 1, OOB | socket.MSG_DONTWAIT))
    c.send(a, b"plain")
    stage.say("received", c.recv(b, 5, socket.MSG_WAITALL))
    a.shutdown(socket.SHUT_WR)
    stage.say("after shutdown", c.send(a, b"!", OOB | socket.MSG_NOSIGNAL))
    stage.say("end", c.recv(b, 5))
    stage.say("urgent at the end", c.recv(b, 1, OOB))
