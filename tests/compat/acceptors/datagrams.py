"""Receivers of one UDP port, and who sends to them.

    datagrams.py receive NOTES PORT   with SO_REUSEPORT; prints "ready PORT PID", notes and answers each datagram; at the end of its input
                                      it takes what waits, closes, and ends
    datagrams.py send                 is told lines "PORT FIRST LAST ROUNDS SECONDS": from each of those sources so many datagrams by
                                      turns, each answered before the next one

A source that gets no answer within TRY asks again, by a datagram of the next number, for SECONDS at most. The answer to a line is JSON:
for each datagram that was answered its source, number, who answered, which try it was, and how many seconds that took from the first one.
Even sources are connected.
"""

from __future__ import annotations

import faulthandler
import json
import os
import select
import socket
import sys
import time

import words

TRY = 0.1  # seconds
HANGS = 40
MOST = 65536
NUMBERS = 1 << 16  # of each source


def receive(path: str, port: int) -> None:
    notes = words.Notes(path)
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind(("127.0.0.1", port))
    s.setblocking(False)
    os.write(1, f"ready {s.getsockname()[1]} {os.getpid()}\n".encode())
    poller = select.poll()
    poller.register(s, select.POLLIN)
    poller.register(0, select.POLLIN)
    over = False
    while not over:
        over = any(fd == 0 for fd, _ in poller.poll())
        try:
            while True:
                asked, source = s.recvfrom(MOST)
                connection, number, _ = words.HEAD.unpack_from(asked)
                notes("datagram", connection * NUMBERS + number)
                s.sendto(words.reply(asked, os.getpid()), source)
        except BlockingIOError:
            pass
    s.close()


class Source:
    """A socket with an address of its own, and how many datagrams it has sent."""

    def __init__(self, number: int, port: int) -> None:
        self.number, self.sent = number, 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((words.address(number), 0))
        self.to = ("127.0.0.1", port)
        if number % 2 == 0:
            self.socket.connect(self.to)
        self.poller = select.poll()
        self.poller.register(self.socket, select.POLLIN)

    def heard(self) -> int:
        """Who answered the last datagram; 0: nobody did in time."""
        until = time.monotonic() + TRY
        while (left := until - time.monotonic()) > 0:
            if not self.poller.poll(left * 1000):
                continue
            answer = self.socket.recv(MOST)
            if words.HEAD.unpack_from(answer)[1] == self.sent:  # else it comes late
                return words.answerer(answer, self.number, self.sent)
        return 0

    def ask(self, seconds: float) -> list[float] | None:
        began, tries, pid = time.monotonic(), 0, 0
        while not pid and (not tries or time.monotonic() - began < seconds):
            self.sent += 1
            tries += 1
            asked = words.request(self.number, self.sent)
            self.socket.sendto(asked, self.to) if self.number % 2 else self.socket.send(asked)
            pid = self.heard()
        return [self.number, self.sent, pid, tries, time.monotonic() - began] if pid else None


def send() -> None:
    sources: dict[int, Source] = {}
    for line in sys.stdin:
        faulthandler.dump_traceback_later(HANGS, exit=True)
        port, first, last, rounds = map(int, line.split()[:4])
        sources |= {n: Source(n, port) for n in range(first, last) if n not in sources}
        some = [sources[n] for n in range(first, last)]
        done = [answer for _ in range(rounds) for source in some if (answer := source.ask(float(line.split()[4])))]
        print(json.dumps(done), flush=True)
        faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    receive(sys.argv[2], int(sys.argv[3])) if sys.argv[1] == "receive" else send()
