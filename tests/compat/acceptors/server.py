"""A server of one or several processes that accept from one port.

    server.py own HOW NOTES PORT          its own listener, with SO_REUSEPORT
    server.py prefork HOW NOTES CHILDREN  a listener, and children that accept from it
    server.py given HOW NOTES PATH        takes the listener of the server that is told `pass PATH`
    server.py inherited HOW NOTES FD      was executed by the server that is told `exec`

HOW: `block` (accept waits, one connection at a time), or all connections at once, the listener without waiting, by `poll`, epoll's
`level`, `edge`, or `exclusive` (EPOLLEXCLUSIVE). NOTES: a file; a line for each connection that is accepted. It prints "ready PORT" first,
and for children their process ids; then it does what is said on its standard input, a line each:

    kill N      (prefork) SIGKILL for child N, and another one in its place, whose process id is printed
    stop        accept what waits, close the listener, serve what is established to its end, exit
    pass PATH   (single) send the listener to who connects there, then as stop, but what waits is left to the other one
    exec        (single) fork and execute a server that inherits the listener, then the same
"""

from __future__ import annotations

import array
import os
import select
import signal
import socket
import sys
from typing import NoReturn

import words

EXCLUSIVE = getattr(select, "EPOLLEXCLUSIVE", 1 << 28)


def say(*what: object) -> None:
    os.write(1, (" ".join(map(str, what)) + "\n").encode())


def tuned(s: socket.socket) -> socket.socket:
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def serve_one_by_one(listener: socket.socket, notes: words.Notes) -> NoReturn:
    """Accept waits; a connection is served to its end before the next one."""
    while True:
        s, (peer, _) = listener.accept()
        notes("accept", words.connection_of(peer))
        tuned(s)
        try:
            while head := words.receive(s, words.HEAD.size):
                length = words.HEAD.unpack(head)[2]
                s.sendall(words.reply(head + words.receive(s, length), os.getpid()))
        except ConnectionError:
            pass
        s.close()


class Connection:
    """What came and is not answered yet, and what is to be sent."""

    def __init__(self, s: socket.socket) -> None:
        self.socket = s
        self.came = bytearray()
        self.answer = bytearray()

    def turn(self, edge: bool) -> bool:
        """Receive (with edges: all there is), answer, send; false: it is over."""
        try:
            while True:
                more = self.socket.recv(words.BLOCK)
                if not more:
                    return False
                self.came += more
                self.replies()
                if not edge:
                    break
        except BlockingIOError:
            pass
        except ConnectionError:
            return False
        return self.send()

    def replies(self) -> None:
        size = words.HEAD.size
        while len(self.came) >= size and len(self.came) >= (whole := size + words.HEAD.unpack_from(self.came)[2]):
            self.answer += words.reply(bytes(self.came[:whole]), os.getpid())
            del self.came[:whole]

    def send(self) -> bool:
        try:
            while self.answer:
                del self.answer[: self.socket.send(self.answer)]
        except BlockingIOError:
            pass
        except ConnectionError:
            return False
        return True


class Loop:
    """All connections of one process, its listener, and a pipe with commands."""

    def __init__(self, how: str, listener: socket.socket, notes: words.Notes, commands: int = -1) -> None:
        self.how, self.notes, self.commands = how, notes, commands
        self.edge = select.EPOLLET if how == "edge" else 0
        self.listener: socket.socket | None = listener
        self.at: dict[int, Connection] = {}
        self.watch: select.poll | select.epoll = select.poll() if how == "poll" else select.epoll()
        listener.setblocking(False)
        # EPOLLIN and POLLIN are one number
        self.watch.register(listener, select.POLLIN | self.edge | (EXCLUSIVE if how == "exclusive" else 0))
        if commands >= 0:
            self.watch.register(commands, select.POLLIN)

    def run(self) -> None:
        """Until it does not accept any more, and all is served."""
        while self.listener or self.at:
            for fd, events in self.watch.poll():
                if self.listener and fd == self.listener.fileno():
                    self.accept()
                elif fd == self.commands:
                    self.obey(os.read(fd, 1000).decode().split())
                elif fd in self.at:
                    self.talk(fd, events)

    def accept(self) -> None:
        assert self.listener
        try:
            while True:
                s, (peer, _) = self.listener.accept()
                self.notes("accept", words.connection_of(peer))
                tuned(s).setblocking(False)
                self.at[s.fileno()] = Connection(s)
                self.watch.register(s, select.POLLIN | (self.edge | select.EPOLLOUT if self.edge else 0))
        except BlockingIOError:
            pass

    def talk(self, fd: int, events: int) -> None:
        connection = self.at[fd]
        waiting = bool(connection.answer)
        on = connection.send() if waiting and events & select.POLLOUT else True
        on = on and (connection.turn(bool(self.edge)) if events & ~select.POLLOUT else True)
        if not on:
            self.watch.unregister(fd)
            self.at.pop(fd).socket.close()
        elif not self.edge and waiting != bool(connection.answer):
            self.watch.modify(fd, select.POLLIN | (0 if waiting else select.POLLOUT))

    def obey(self, line: list[str]) -> None:
        what = line[0] if line else "stop"
        if what == "pass":
            self.hand_over(line[1])
        elif what == "exec":
            self.execute()
        elif self.listener:
            self.accept()
        self.leave()

    def leave(self) -> None:
        """Accept no more."""
        self.watch.unregister(self.commands)
        if self.listener:
            self.watch.unregister(self.listener)
            self.listener.close()
        self.listener = None

    def hand_over(self, path: str) -> None:
        assert self.listener
        with socket.socket(socket.AF_UNIX) as to:
            to.connect(path)
            to.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [self.listener.fileno()]))])

    def execute(self) -> None:
        assert self.listener
        fd = self.listener.fileno()
        if os.fork() == 0:
            os.set_inheritable(fd, True)
            os.execv(sys.executable, [sys.executable, __file__, "inherited", self.how, sys.argv[3], str(fd)])


class Prefork:
    """The parent: it only forks, and kills."""

    def __init__(self, how: str, path: str, children: int) -> None:
        self.how, self.notes = how, words.Notes(path)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        if how != "block":
            self.listener.setblocking(False)
        self.children = [self.child() for _ in range(children)]
        say("ready", self.listener.getsockname()[1], *self.children)

    def child(self) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                serve_one_by_one(self.listener, self.notes) if self.how == "block" else Loop(self.how, self.listener, self.notes).run()
            finally:
                os._exit(9)
        return pid

    def end(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), f"child {pid} had ended with status {os.waitstatus_to_exitcode(status)}"

    def run(self) -> None:
        for line in sys.stdin:
            if line.startswith("stop"):
                break
            n = int(line.split()[1])
            self.end(self.children[n])
            self.children[n] = self.child()
            say(self.children[n])
        for pid in self.children:
            self.end(pid)


def taken_from(path: str) -> socket.socket:
    """The listener of who connects there."""
    with socket.socket(socket.AF_UNIX) as at:
        at.bind(path)
        at.listen()
        say("waiting")
        with at.accept()[0] as other:
            _, control, _, _ = other.recvmsg(1, socket.CMSG_SPACE(4))
    return socket.socket(fileno=array.array("i", control[0][2])[0])


def main(kind: str, how: str, path: str, more: str) -> None:
    if kind == "prefork":
        Prefork(how, path, int(more)).run()
        return
    if kind == "own":
        listener = socket.create_server(("127.0.0.1", int(more)), backlog=128, reuse_port=True)
    else:
        listener = taken_from(more) if kind == "given" else socket.socket(fileno=int(more))
    loop = Loop(how, listener, words.Notes(path), 0)
    say("ready", listener.getsockname()[1], os.getpid())
    loop.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
