"""Programs of the wire tests, run by a plain interpreter: a server that sends everything back, and a client that checks what comes.

talk.py serve ADDRESS PORT HOW       HOW: blocking, threads, epoll, edge, nested, select, poll, asyncio
talk.py sink ADDRESS PORT            counts what is poured, and prints Mbit/s; both print a hash instead with TALK_HASH=1
talk.py pour ADDRESS PORT SECONDS
talk.py ask ADDRESS PORT HOW SEED MESSAGES MOST [DOZE]
    messages of 1 to MOST bytes, each of which must come back; a pause of DOZE seconds in the middle. Prints JSON: bytes, and the
    longest time that an answer took. With `keep` instead of `ask` it goes on until its input is closed, and then for MESSAGES more.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator


def echo_blocking(s: socket.socket) -> None:
    with s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while b := s.recv(65536):
            s.sendall(b)


class Echo:
    """One connection of a server that does not block."""

    def __init__(self, s: socket.socket) -> None:
        self.socket, self.out, self.over = s, b"", False
        s.setblocking(False)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def readable(self, once: bool) -> None:
        while not self.over and len(self.out) < 1 << 20:
            try:
                b = self.socket.recv(65536)
            except BlockingIOError:
                break
            self.out += b
            self.over = not b
            if once:
                break
        self.writable()

    def writable(self) -> None:
        while self.out:
            try:
                self.out = self.out[self.socket.send(self.out) :]
            except BlockingIOError:
                break

    @property
    def done(self) -> bool:
        return self.over and not self.out


class Nested:
    """A set of epoll that is itself a member of another one, after it was waited for `alone` times."""

    def __init__(self, alone: int) -> None:
        self.inner, self.outer, self.alone = select.epoll(), select.epoll(), alone
        self.register, self.modify, self.unregister = self.inner.register, self.inner.modify, self.inner.unregister

    def poll(self) -> list[tuple[int, int]]:
        self.alone -= 1
        if self.alone == 0:
            self.outer.register(self.inner, select.EPOLLIN)
        if self.alone <= 0:
            self.outer.poll()
        return self.inner.poll(0 if self.alone <= 0 else None)


def serve_epoll(listener: socket.socket, edge: bool, nested: bool = False) -> None:
    poller, clients = Nested(1000) if nested else select.epoll(), {}
    poller.register(listener, select.EPOLLIN)
    extra = select.EPOLLET if edge else 0
    while True:
        for fd, events in poller.poll():
            if fd == listener.fileno():
                s = listener.accept()[0]
                clients[s.fileno()] = Echo(s)
                poller.register(s, select.EPOLLIN | extra | (select.EPOLLOUT if edge else 0))
                continue
            c = clients[fd]
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                c.readable(once=not edge)
            if events & select.EPOLLOUT:
                c.writable()
                if edge:
                    c.readable(once=False)
            if not edge:
                poller.modify(fd, (select.EPOLLIN if len(c.out) < 1 << 20 else 0) | (select.EPOLLOUT if c.out else 0))
            if c.done:
                poller.unregister(fd)
                clients.pop(fd).socket.close()


def serve_lists(listener: socket.socket, how: str) -> None:
    clients: dict[int, Echo] = {}
    while True:
        reading = [listener.fileno(), *(fd for fd, c in clients.items() if not c.over and len(c.out) < 1 << 20)]
        writing = [fd for fd, c in clients.items() if c.out]
        if how == "select":
            ready_in, ready_out, _ = select.select(reading, writing, [])
        else:
            poller = select.poll()
            for fd in {*reading, *writing}:
                poller.register(fd, (select.POLLIN if fd in reading else 0) | (select.POLLOUT if fd in writing else 0))
            found = poller.poll()
            ready_in = [fd for fd, events in found if events & ~select.POLLOUT]
            ready_out = [fd for fd, events in found if events & select.POLLOUT]
        for fd in ready_in:
            if fd == listener.fileno():
                s = listener.accept()[0]
                clients[s.fileno()] = Echo(s)
            elif fd in clients:
                clients[fd].readable(once=True)
        for fd in ready_out:
            if fd in clients:
                clients[fd].writable()
        for fd in [fd for fd, c in clients.items() if c.done]:
            clients.pop(fd).socket.close()


async def serve_asyncio(listener: socket.socket) -> None:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while b := await reader.read(65536):
            writer.write(b)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(one, sock=listener)
    await server.serve_forever()


def serve(address: str, port: int, how: str) -> None:
    listener = socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET, backlog=128)
    print("ready", flush=True)
    if how == "asyncio":
        asyncio.run(serve_asyncio(listener))
    elif how in ("epoll", "edge", "nested"):
        serve_epoll(listener, how == "edge", how == "nested")
    elif how in ("select", "poll"):
        serve_lists(listener, how)
    while True:
        s = listener.accept()[0]
        if how == "threads":
            threading.Thread(target=echo_blocking, args=(s,), daemon=True).start()
        else:
            echo_blocking(s)


def receive(s: socket.socket, how: str, n: int) -> bytes:
    if how == "blocking":
        return s.recv(n)
    if how == "epoll":
        with select.epoll() as poller:
            poller.register(s, select.EPOLLIN)
            poller.poll()
    elif how == "poll":
        poller = select.poll()
        poller.register(s, select.POLLIN)
        poller.poll()
    else:
        select.select([s], [], [])
    return s.recv(n)


def turns(messages: int, keep: bool) -> Iterator[int]:
    i = 0
    while keep and not (i % 64 == 0 and select.select([0], [], [], 0)[0]):
        yield i
        i += 1
    yield from range(i, i + messages)


def ask(address: str, port: int, how: str, seed: int, messages: int, most: int, doze: float = 0, keep: bool = False) -> None:
    """With `keep` it goes on until its input is closed, and then for that many messages more."""
    chance = random.Random(seed)
    s = socket.create_connection((address, port), 10)
    s.settimeout(None if how == "blocking" else 30)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    out, back, total, longest = hashlib.sha256(), hashlib.sha256(), 0, 0.0
    for i in turns(messages, keep):
        data = chance.randbytes(chance.randrange(1, most + 1))
        start = time.monotonic()
        s.sendall(data)
        out.update(data)
        got = 0
        while got < len(data):
            b = receive(s, how, 65536)
            if not b:
                raise SystemExit(f"the end of the stream after {total + got} bytes, in message {i}")
            back.update(b)
            got += len(b)
        longest = max(longest, time.monotonic() - start)
        total += got
        if doze and i == messages // 2:
            time.sleep(doze)
    s.shutdown(socket.SHUT_WR)
    if s.recv(1):
        raise SystemExit("more came back than was sent")
    s.close()
    if out.digest() != back.digest():
        raise SystemExit(f"other bytes came back: {total} of them")
    print(json.dumps({"bytes": total, "longest_ms": longest * 1000}))


GREETINGS = 200


def sink(address: str, port: int) -> None:
    """Answers short greetings, so that the connection is lifted, and then counts what is poured. Prints Mbit/s."""
    listener = socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    print("ready", flush=True)
    s = listener.accept()[0]
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(GREETINGS):
        s.sendall(s.recv(8, socket.MSG_WAITALL))
    total, start, digest = 0, time.monotonic(), hashlib.sha256()
    while b := s.recv(1 << 20):
        total += len(b)
        if "TALK_HASH" in os.environ:
            digest.update(b)
    print(digest.hexdigest() if "TALK_HASH" in os.environ else total * 8 / 1e6 / (time.monotonic() - start), flush=True)


def pour(address: str, port: int, seconds: float) -> None:
    s = socket.create_connection((address, port), 10)
    s.settimeout(None)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if "TALK_CONGESTION" in os.environ:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, os.environ["TALK_CONGESTION"].encode())
    for _ in range(GREETINGS):
        s.sendall(b"greeting")
        s.recv(8, socket.MSG_WAITALL)
    until, block, digest = time.monotonic() + seconds, random.Random(1).randbytes(65537), hashlib.sha256()
    while time.monotonic() < until:
        s.sendall(block)
        if "TALK_HASH" in os.environ:
            digest.update(block)
    s.close()
    if "TALK_HASH" in os.environ:
        print(digest.hexdigest())


if __name__ == "__main__":
    if sys.argv[1] == "sink":
        sink(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1] == "pour":
        pour(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    elif sys.argv[1] == "serve":
        serve(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        keep = sys.argv[1] == "keep"
        ask(sys.argv[2], int(sys.argv[3]), sys.argv[4], *map(int, sys.argv[5:8]), *map(float, sys.argv[8:9]), keep=keep)
