"""`pool.py METHOD PORT CONNECTIONS`: an echo server whose workers get each connection through a queue."""

from __future__ import annotations

import multiprocessing
import socket
import sys
from typing import Any

WORKERS = 2


def work(connections: Any, answers: Any) -> None:
    """Serve one connection after the other; say how many, at the end."""
    served = 0
    while (s := connections.get()) is not None:
        with s:
            while data := s.recv(65536):
                s.sendall(data)
        served += 1
    answers.put(served)


def main() -> None:
    """Accept as many as were said, and then have the workers end."""
    context = multiprocessing.get_context(sys.argv[1])
    connections, answers = context.Queue(), context.Queue()
    workers = [context.Process(target=work, args=(connections, answers)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    with socket.create_server(("127.0.0.1", int(sys.argv[2]))) as listener:
        for _ in range(int(sys.argv[3])):
            connections.put(listener.accept()[0])
    for _ in workers:
        connections.put(None)
    served = sum(answers.get() for _ in workers)
    for worker in workers:
        worker.join()
    print("served", served, [worker.exitcode for worker in workers])


if __name__ == "__main__":
    main()
