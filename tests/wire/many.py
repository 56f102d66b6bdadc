"""Many connections, opened, used for one request and closed, many of them at once, on two hosts joined by a cable: nginx and wrk.

python -m wire.many [--connections 1000000] [--at-once 10000] [--seconds 15]

Rounds of the kernel and of both ends accelerated, until the accelerated ones have opened so many. What is left of one round (a hundred
thousand sockets in TIME_WAIT) slows the next: so the first one is not counted, and the order is turned from pair to pair. Prints both
rates, what went wrong, and what is left afterwards: nothing may be. The server is on CPU 0, the client on CPU 1.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from wire.fix_world import Side, wait_for, world
from wire.table import PORT, listening

CONFIGURATION = """
worker_processes 1; worker_rlimit_nofile 18000; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 16000; }}
http {{ access_log off; server {{ listen {address}:{port} backlog=16384; root {folder}; }} }}
"""


@dataclass(frozen=True)
class Round:
    """Connections that were opened, those a second, and what wrk says of errors ("" if there were none)."""

    connections: int
    rate: float
    errors: str


def one_round(server: Side, client: Side, ours: bool, at_once: int, seconds: float) -> Round:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        Path(folder, "index.html").write_text("x" * 600)
        Path(folder, "conf").write_text(CONFIGURATION.format(folder=folder, address=server.address, port=PORT))
        end = server.start("nginx", "-p", folder, "-c", f"{folder}/conf", "-g", "user root;", ours=ours, cpu=0)
        listening(server, PORT)
        command = [
            "wrk",
            "-t1",
            f"-c{at_once}",
            f"-d{seconds}",
            "--timeout",
            "10",
            "-H",
            "Connection: close",
            f"http://{server.address}:{PORT}/",
        ]
        out = client.start(
            "sh", "-c", f'ulimit -n $(ulimit -Hn); exec {" ".join(command[:-2])} "{command[-2]}" {command[-1]}', ours=ours, cpu=1
        ).communicate(timeout=120)[0]
        end.terminate()
        end.wait(30)
    total, rate = re.search(r"(\d+) requests in", out), re.search(r"Requests/sec: *([\d.]+)", out)
    assert total and rate, out
    wrong = re.findall(r"Socket errors: .*|Non-2xx.*", out)
    return Round(int(total[1]), float(rate[1]), "; ".join(wrong))


def descriptors(side: Side) -> int:
    """How many the helper has."""
    assert side.helper
    pids = side.host.run("pgrep", "-f", f"sharedstack-helper --stack {side.stack} ").split()
    return max(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)


def left(side: Side) -> dict[str, int]:
    return side.left() | {"descriptors of the helper": descriptors(side)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--connections", type=int, default=1_000_000)
    parser.add_argument("--at-once", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=15, help="of a round")
    asked = parser.parse_args()
    rounds: dict[bool, list[Round]] = {False: [], True: []}
    with world() as (server, client):
        for side in (server, client):
            for setting in ("net.core.somaxconn=16384", "net.ipv4.tcp_max_syn_backlog=16384", "net.ipv4.ip_local_port_range=1024 65535"):
                side.host.run("sysctl", "-qw", setting)
        before = [left(side) for side in (server, client)]
        one_round(server, client, False, asked.at_once, asked.seconds)
        while sum(r.connections for r in rounds[True]) < asked.connections:
            for ours in (False, True) if len(rounds[True]) % 2 else (True, False):
                rounds[ours].append(one_round(server, client, ours, asked.at_once, asked.seconds))
                print(f"{'accelerated' if ours else 'kernel'}: {rounds[ours][-1]}", flush=True)
        for side in (server, client):
            side.end_programs()
        wait_for(lambda: [left(side) for side in (server, client)] == before, 30)
    rates = {ours: statistics.median(r.rate for r in rounds[ours]) for ours in (False, True)}
    total = sum(r.connections for r in rounds[True])
    print(
        f"{total} accelerated connections, {asked.at_once} at once: {rates[True]:.0f} a second, by the kernel {rates[False]:.0f}: "
        f"{rates[True] / rates[False]:.2f}×; nothing is left"
    )
    return int(any(r.errors for r in rounds[True]))


if __name__ == "__main__":
    sys.exit(main())
