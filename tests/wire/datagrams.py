"""Datagram programs of the wire tests, run by a plain interpreter.

datagrams.py serve ADDRESS PORT HOW
    sends each datagram back to where it came from. HOW: blocking, threads, poll, select, epoll, edge, nested, asyncio; with PORT 0 any
    port. Prints `ready PORT`
datagrams.py ask ADDRESS PORT HOW SEED N
    N datagrams of random sizes, one at a time, each of which has to come back from there, whole and once. HOW: sendto, connected,
    keep (for ever). Prints JSON: lost, and the longest answer
datagrams.py flood ADDRESS PORT SEED N
    N numbered datagrams as fast as may be, then `end` until it is answered by what the sink saw: prints it
datagrams.py sink ADDRESS PORT
    counts numbered datagrams, and those that are older than the last one of their sender; wrong bytes end it
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import select
import socket
import struct
import sys
import threading
import time

from talk import Nested

HEAD = struct.Struct("!II")
LARGEST = 9000


def socket_of(address: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)


def back(s: socket.socket) -> None:
    try:
        while True:
            s.sendto(*s.recvfrom(LARGEST))
    except BlockingIOError:
        pass


def serve_poll(s: socket.socket) -> None:
    poller = select.poll()
    poller.register(s, select.POLLIN)
    while True:
        poller.poll()
        back(s)


def serve_select(s: socket.socket) -> None:
    while True:
        select.select([s], [], [])
        back(s)


def serve_epoll(s: socket.socket, events: int, nested: bool) -> None:
    poller = Nested(300) if nested else select.epoll()
    poller.register(s, events)
    while True:
        poller.poll()
        back(s)


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data, addr)


async def serve_asyncio(s: socket.socket) -> None:
    await asyncio.get_running_loop().create_datagram_endpoint(Echo, sock=s)
    await asyncio.Event().wait()


def serve(address: str, port: str, how: str) -> None:
    s = socket_of(address)
    s.bind((address, int(port)))
    print("ready", s.getsockname()[1], flush=True)
    if how not in ("blocking", "threads"):
        s.setblocking(False)
    if how == "blocking":
        back(s)
    elif how == "threads":
        threads = [threading.Thread(target=back, args=(s,), daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        threads[0].join()
    elif how == "poll":
        serve_poll(s)
    elif how == "select":
        serve_select(s)
    elif how in ("epoll", "edge", "nested"):
        serve_epoll(s, select.EPOLLIN | (select.EPOLLET if how == "edge" else 0), how == "nested")
    else:
        asyncio.run(serve_asyncio(s))


def ask(address: str, port: str, how: str, seed: str, n: str) -> None:
    rng = random.Random(int(seed))
    s = socket_of(address)
    s.settimeout(3)
    to = (address, int(port))
    if how == "connected":
        s.connect(to)
    lost, longest = 0, 0.0
    for i in itertools.count() if how == "keep" else range(int(n)):
        data = HEAD.pack(i, 0) + rng.randbytes(rng.choice((0, 1, 56, 500, 1400, 1464, 1465, 4000)))
        began = time.monotonic()
        if how == "connected":
            s.send(data)
        else:
            s.sendto(data, to)
        try:
            got, source = s.recvfrom(LARGEST)
            assert source[:2] == to, source
            assert got == data, f"datagram {i}: {len(got)} bytes came for {len(data)}, number {HEAD.unpack_from(got)[0]}"
        except TimeoutError:
            lost += 1
        longest = max(longest, time.monotonic() - began)
    print(json.dumps({"lost": lost, "longest": longest}), flush=True)


def flood(address: str, port: str, seed: str, n: str) -> None:
    s = socket_of(address)
    s.connect((address, int(port)))
    rng = random.Random(int(seed))
    filler = rng.randbytes(2000)
    for i in range(int(n)):
        size = rng.randrange(1300)
        s.send(HEAD.pack(i, size) + filler[:size])
    s.settimeout(0.2)
    for _ in range(50):
        s.send(b"end")
        try:
            print(s.recv(1000).decode(), flush=True)
            return
        except TimeoutError:
            continue
    raise SystemExit("the sink does not answer")


def sink(address: str, port: str) -> None:
    s = socket_of(address)
    s.bind((address, int(port)))
    print("ready", s.getsockname()[1], flush=True)
    last: dict[object, int] = {}
    seen = swapped = 0
    buffer = bytearray(LARGEST)
    while True:
        n, source = s.recvfrom_into(buffer)
        if n == 3:
            s.sendto(json.dumps({"seen": seen, "swapped": swapped}).encode(), source)
            continue
        number, size = HEAD.unpack_from(buffer)
        assert size == n - HEAD.size, f"datagram {number} has {n - HEAD.size} bytes, not {size}"
        swapped += number <= last.get(source, -1)
        last[source] = number
        seen += 1


if __name__ == "__main__":
    if sys.argv[1] in ("serve", "sink"):  # until nobody wants it any more
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    globals()[sys.argv[1]](*sys.argv[2:])
