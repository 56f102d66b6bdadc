"""A client that is told what to do: `client.py FIRST`; its connections are numbered from FIRST on.

A line "PORT COUNT WIDTH REQUESTS UNTIL" on its standard input is one load: at least COUNT connections, and until the file UNTIL exists
(`-`: COUNT is all), WIDTH of them at a time, REQUESTS by turns on each. It answers by a line of JSON: for each connection its number, who
answered (0: nobody, before it ended), how many requests, what ended it ("" where it was the client), and how many bytes were asked and
answered. A wrong or another process's answer ends it by an assertion; hanging, by faulthandler.
"""

from __future__ import annotations

import faulthandler
import json
import os
import socket
import sys

import words

HANGS = 30  # seconds


class Connection:
    """One of the load's, and what became of it."""

    def __init__(self, number: int, port: int) -> None:
        self.number, self.pid, self.answered, self.bytes, self.end = number, 0, 0, 0, ""
        self.socket = socket.socket()
        self.socket.bind((words.address(number), 0))
        try:
            self.socket.connect(("127.0.0.1", port))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except ConnectionError as e:
            self.over(e)

    def over(self, why: ConnectionError) -> None:
        self.end = type(why).__name__
        self.socket.close()

    def ask(self, number: int) -> None:
        try:
            self.socket.sendall(words.request(self.number, number))
        except ConnectionError as e:
            self.over(e)

    def hear(self, number: int) -> None:
        size = len(words.request(self.number, number))
        try:
            answer = words.receive(self.socket, size)
            if not answer:
                raise ConnectionError
        except ConnectionError as e:
            self.over(e)
            return
        pid = words.answerer(answer, self.number, number)
        assert self.pid in (0, pid), f"connection {self.number} is answered by {self.pid}, then by {pid}"
        self.pid = pid
        self.answered += 1
        self.bytes += 2 * size

    def line(self) -> list[int | str]:
        self.socket.close()
        return [self.number, self.pid, self.answered, self.end, self.bytes]


def load(first: int, port: int, count: int, width: int, requests: int, until: str) -> list[list[int | str]]:
    done: list[list[int | str]] = []
    while len(done) < count or (until != "-" and not os.path.exists(until)):
        some = [Connection(first + len(done) + i, port) for i in range(width)]
        for number in range(requests):
            for c in some:
                if not c.end:
                    c.ask(number)
            for c in some:
                if not c.end:
                    c.hear(number)
        done += [c.line() for c in some]
    return done


def main(first: int) -> None:
    for line in sys.stdin:
        faulthandler.dump_traceback_later(HANGS, exit=True)
        port, count, width, requests, until = line.split()
        done = load(first, int(port), int(count), int(width), int(requests), until)
        first += len(done)
        print(json.dumps(done), flush=True)
        faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main(int(sys.argv[1]))
