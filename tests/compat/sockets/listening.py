"""Listeners: full backlogs, several threads and processes in accept, SO_REUSEPORT groups of both kinds."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections import Counter

from compat.sockets import calls as c
from compat.sockets.stage import Stage, scene


@scene(lifts=False)
def full_backlog(stage: Stage) -> None:
    """A queue of one: a connect that finds it full waits until somebody is accepted."""
    listener = stage.listener(backlog=0)
    address = c.inet(listener.getsockname()[1])
    first, second = socket.socket(), socket.socket()
    stage.say("first", c.connect(first, address))
    second.setblocking(False)
    stage.say("second", c.connect(second, address))
    stage.say("it waits", c.poll(second, select.POLLOUT, 30))
    stage.say("the first sends before it is accepted", c.send(first, b"early"))
    stage.say("readable", c.poll(listener, select.POLLIN, 0))
    a, _ = listener.accept()
    stage.say("received", c.recv(a, 10))
    stage.say("then the second comes", c.poll(second, select.POLLOUT, 3000))
    stage.say("error", c.error_of(second))
    b, _ = listener.accept()
    second.setblocking(True)
    stage.warm(second, b)
    stage.say("talks", (c.send(second, b"late"), c.recv(b, 10)))
    stage.say("backlog anew", (c.call("listen", listener, 5), listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)))


@scene(lifts=False)
def closed_with_unaccepted(stage: Stage) -> None:
    """A listener is closed over a connection that nobody accepted: reset."""
    listener = stage.listener()
    a = socket.create_connection(listener.getsockname())
    for _ in range(10):
        c.send(a, b"early")
    listener.close()
    stage.say("events", c.poll(a, select.POLLIN | select.POLLRDHUP, 1000))
    stage.say("receives", c.recv(a, 10))
    stage.say("sends", c.send(a, b"x", socket.MSG_NOSIGNAL))


@scene(lifts=False)
def threads_in_accept(stage: Stage) -> None:
    listener = stage.listener()
    waiters = [stage.thread(lambda: c.call("accept4", listener, None, None, os.O_CLOEXEC)).asleep() for _ in range(4)]
    clients = [socket.create_connection(listener.getsockname()) for _ in range(4)]
    fds = [w.result() for w in waiters]
    stage.say("each got one", len(set(fds)) == 4 and all(isinstance(fd, int) for fd in fds))
    served = {s.getpeername(): s for s in (socket.socket(fileno=fd) for fd in fds)}
    for client in clients:
        stage.warm(client, served[client.getsockname()])
    stage.say("all talk", [c.recv(client, 1, socket.MSG_DONTWAIT) for client in clients])


def serve(listener: socket.socket, name: bytes) -> None:
    """In a child: answers each connection's messages with its name, until one says so."""
    while True:
        s, _ = listener.accept()
        while text := s.recv(100):
            if text == b"stop":
                os._exit(0)
            s.sendall(name)
        s.close()


@scene(lifts=False)
def processes_in_accept(stage: Stage) -> None:
    """Three children accept on one inherited listener; connections are lifted in each."""
    listener = stage.listener()
    pids = []
    for i in range(3):
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(OSError):
                serve(listener, bytes([65 + i]))
            os._exit(1)
        pids.append(pid)
    clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
    answers: Counter[bytes] = Counter()
    for _ in range(40):
        for client in clients:
            client.sendall(b"who?")
            answers[client.recv(10)] += 1
    stage.say("answered by", sorted(answers.values()))
    if stage.ours:
        stage.look(*clients)
    for client in clients:
        client.sendall(b"stop")
    stage.say("ended", sorted(os.waitpid(pid, 0)[1] for pid in pids))


def group(kind: int, port: int = 0) -> socket.socket:
    s = socket.socket(socket.AF_INET, kind)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind(("127.0.0.1", port))
    return s


@scene(lifts=False)
def a_group_of_listeners(stage: Stage) -> None:
    """SO_REUSEPORT: each process has a listener of its own on one port; all connections are served."""
    first = group(socket.SOCK_STREAM)
    port = first.getsockname()[1]
    pids = []
    for i in range(2):
        r, w = os.pipe()
        pid = os.fork()
        if pid == 0:
            mine = group(socket.SOCK_STREAM, port)
            first.close()
            mine.listen(64)
            os.write(w, b"x")
            while True:
                s, _ = mine.accept()
                s.recv(100)
                for _ in range(20):
                    s.sendall(bytes([65 + i]))
                    s.recv(100)
                s.close()
        pids.append(pid)
        os.read(r, 1)
    first.close()
    who: Counter[bytes] = Counter()
    for _ in range(24):
        with socket.create_connection(("127.0.0.1", port)) as s:
            s.sendall(b"hi")
            for _ in range(20):
                answer = s.recv(10)
                s.sendall(b"more")
            who[answer] += 1
    stage.say("served", sum(who.values()))
    stage.say("by both", len(who))
    for pid in pids:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@scene(lifts=False)
def a_group_of_datagram_sockets(stage: Stage) -> None:
    """Of a group of UDP sockets each sender has one, always the same, until the group changes."""
    members = [group(socket.SOCK_DGRAM)]
    members += [group(socket.SOCK_DGRAM, members[0].getsockname()[1]) for _ in range(2)]
    address = members[0].getsockname()
    senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(6)]
    for s in senders:
        s.bind(("127.0.0.1", 0))
    homes: dict[int, set[int]] = {}
    for n in range(30):
        for i, s in enumerate(senders):
            s.sendto(b"%d %d" % (i, n), address)
            ready, _, _ = select.select(members, [], [], 2)
            for m in ready:
                who, _number = m.recv(100).split()
                homes.setdefault(int(who), set()).add(members.index(m))
    stage.say("one home each", [len(homes[i]) for i in range(6)])
    gone = members.pop(0)
    gone.close()
    got = 0
    for _ in range(10):
        for s in senders:
            s.sendto(b"again", address)
            ready, _, _ = select.select(members, [], [], 2)
            got += sum(len(m.recv(100)) == 5 for m in ready)
    stage.say("when one has left, all arrive", got)
    members.append(group(socket.SOCK_DGRAM, address[1]))
    got = 0
    for _ in range(10):
        for s in senders:
            s.sendto(b"again", address)
            ready, _, _ = select.select(members, [], [], 2)
            got += sum(len(m.recv(100)) == 5 for m in ready)
    stage.say("when one has come, too", got)
