"""Python: multiprocessing, whose processes pass connections through queues, and a server that is restarted by handoff (fdstore)."""

from __future__ import annotations

import re

from compat.processes.load import echo
from compat.processes.stage import PYTHON, Case, Said, Stage, until
from compat.test_handoff import CLIENT, SERVER

CONNECTIONS, CLIENTS = 6, 3


def multiprocessing(method: str) -> Case:
    """Connections go from the process that accepts them to workers, by a queue."""

    def play(stage: Stage) -> Said:
        port = stage.port()
        server = stage.python("pool.py", method, port, CONNECTIONS)
        stage.listens(port)
        said = echo(stage, port, connections=CONNECTIONS)
        said.output["the server"] = server.result()
        return said

    return Case(f"multiprocessing-{method}", (), play)


def handoff(stage: Stage) -> Said:
    """Each server stores its listener and its connections when it has echoed enough, and ends; the next one takes them."""
    messages = round(30_000 * max(1, stage.seconds))
    each = str(CLIENTS * messages * 64 // 4)
    server = stage.start(PYTHON, "-uc", SERVER, stage.lab.stack, each)
    port = until(lambda: re.match(r"(\d+)\n", server.said()), "the server has said its port")[1]
    clients = [stage.start(PYTHON, "-uc", CLIENT, port, str(messages)) for _ in range(CLIENTS)]
    restarts = 0
    while "over" not in server.result(60):
        restarts += 1
        server = stage.start(PYTHON, "-uc", SERVER, stage.lab.stack, each)
        if restarts == 1:
            stage.look()
    said = [client.result(60) for client in clients]
    output = {"clients": said, "the last server": server.said(), "restarted three times": restarts >= 3}
    return Said(output, done=len(clients) * messages, note=f"{restarts} restarts")


CASES = [*(multiprocessing(method) for method in ("fork", "spawn", "forkserver")), Case("python-handoff", (), handoff)]
