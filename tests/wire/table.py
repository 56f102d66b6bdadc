"""`make wire`: the wire path beside the kernel, on two hosts joined by a veth pair, as a table (and JSON by --json FILE).

python -m wire.table [--rounds N] [--only CASE,…] [--json FILE]

Each case runs with both ends on the kernel, both accelerated, and each end alone, in turn, N rounds; medians are shown. Ends are
pinned apart, the server on CPU 0 and the client on CPU 1. The machine must be quiet.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wire.fix_end import End
from wire.fix_veth import hosts
from wire.fix_world import Side, world
from wire.test_nic import joined

WAYS = {"kernel": (False, False), "both": (True, True), "client": (True, False), "server": (False, True)}
PORT = 9000
TALK = str(Path(__file__).with_name("talk.py"))
PYTHON = sys.base_prefix + "/bin/python3"
GIB = 1 << 30


@dataclass
class Case:
    """`run` returns one figure; `better` says which way, `unit` of what."""

    name: str
    unit: str
    better: str
    run: Callable[[Side, Side, bool, bool], float]
    ways: tuple[str, ...] = ("kernel", "both", "client", "server")


def _started(program: subprocess.Popen[str], word: str) -> None:
    assert program.stdout
    for line in program.stdout:
        if word in line:
            return
    raise AssertionError(f"{program.args}: ended without {word!r}")


def listening(side: Side, port: int, udp: bool = False) -> None:
    """Wait until a program does."""
    until = time.monotonic() + 10
    while f":{port} " not in side.host.run("ss", "-Hlnu" if udp else "-Hlnt"):
        assert time.monotonic() < until, f"nothing listens on {port}"
        time.sleep(0.05)


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found, text
    return float(found[1])


def pingpong(*flags: str) -> Callable[[Side, Side, bool, bool], float]:
    """64 bytes by sockperf, one way, median."""

    def run(server: Side, client: Side, there: bool, here: bool) -> float:
        end = server.start("sockperf", "server", *flags, "-i", server.address, "-p", str(PORT), ours=there, cpu=0)
        listening(server, PORT, udp=not flags)
        command = ["sockperf", "ping-pong", *flags, "-i", server.address, "-p", str(PORT), "-t", "3", "-m", "64"]
        out = client.start(*command, ours=here, cpu=1).communicate(timeout=60)[0]
        end.terminate()
        return _number(r"percentile 50\.000 = *([\d.]+)", out)

    return run


def datagrams(server: Side, client: Side, there: bool, here: bool) -> float:
    """64 bytes by sockperf one way as fast as may be: how many a second the server received."""
    end = server.start("sockperf", "server", "-i", server.address, "-p", str(PORT), ours=there, cpu=0)
    listening(server, PORT, udp=True)
    command = ["sockperf", "throughput", "-i", server.address, "-p", str(PORT), "-t", "3", "-m", "64"]
    out = client.start(*command, ours=here, cpu=1).communicate(timeout=60)[0]
    seconds = _number(r"messages sent in ([\d.]+) sec", out)
    end.send_signal(signal.SIGINT)
    return _number(r"Total (\d+) messages received", end.communicate(timeout=20)[0]) / seconds


def redis(flags: str) -> Callable[[Side, Side, bool, bool], float]:
    """GETs a second."""

    def run(server: Side, client: Side, there: bool, here: bool) -> float:
        end = server.start(
            "redis-server", "--bind", server.address, "--port", str(PORT), "--save", "", "--protected-mode", "no", ours=there, cpu=0
        )
        _started(end, "eady to accept")
        command = ["redis-benchmark", "-h", server.address, "-p", str(PORT), "-t", "get", "--csv", *flags.split()]
        out = client.start(*command, ours=here, cpu=1).communicate(timeout=120)[0]
        end.terminate()
        return _number(r'"GET","([\d.]+)"', out)

    return run


NGINX = """
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 1000000; client_body_temp_path {folder}; client_max_body_size 2g;
  server {{ listen {address}:{port}; root {folder};
    location /up {{ dav_methods PUT; create_full_put_path on; }} }} }}
"""


def _nginx(server: Side, ours: bool, folder: str) -> subprocess.Popen[str]:
    Path(folder, "conf").write_text(NGINX.format(folder=folder, address=server.address, port=PORT))
    Path(folder).chmod(0o755)
    end = server.start("nginx", "-p", folder, "-c", f"{folder}/conf", "-g", "user root;", ours=ours, cpu=0)
    listening(server, PORT)
    return end


def nginx(server: Side, client: Side, there: bool, here: bool) -> float:
    """Requests a second by wrk, 20 connections kept alive."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "index.html").write_text("x" * 600)
        end = _nginx(server, there, folder)
        out = client.start("wrk", "-t1", "-c20", "-d3", f"http://{server.address}:{PORT}/", ours=here, cpu=1).communicate(timeout=60)[0]
        end.terminate()
        end.wait()
    return _number(r"Requests/sec: *([\d.]+)", out)


def curl(up: bool) -> Callable[[Side, Side, bool, bool], float]:
    """1 GiB by HTTP, checked by its hash: MiB/s."""

    def run(server: Side, client: Side, there: bool, here: bool) -> float:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            data = Path(folder, "data")
            block = hashlib.shake_128(b"curl").digest(1 << 20)
            with data.open("wb") as f:
                for _ in range(1024):
                    f.write(block)
            end = _nginx(server, there, folder)
            start = time.monotonic()
            url = f"http://{server.address}:{PORT}"
            command = (
                ["curl", "-s", "-S", "-T", str(data), f"{url}/up/got"] if up else ["curl", "-s", "-S", "-o", f"{folder}/got", f"{url}/data"]
            )
            done = client.start(*command, ours=here, cpu=1)
            assert done.wait(120) == 0
            took = time.monotonic() - start
            got = Path(folder, "up/got" if up else "got")
            assert hashlib.sha256(got.read_bytes()).digest() == hashlib.sha256(data.read_bytes()).digest()
            end.terminate()
            end.wait()
        return 1024 / took

    return run


def iperf(*flags: str, family: int = 4, field: str = "sum_received") -> Callable[[Side, Side, bool, bool], float]:
    """Gbit/s."""

    def run(server: Side, client: Side, there: bool, here: bool) -> float:
        end = server.start("iperf3", "-s", "-1", "-p", str(PORT), ours=there, cpu=0)
        listening(server, PORT)
        command = ["iperf3", "-c", server.host.address(family), "-p", str(PORT), "-t", "3", "-J", *flags]
        out = json.loads(client.start(*command, ours=here, cpu=1).communicate(timeout=60)[0])
        end.wait(20)
        return float(out["end"][field]["bits_per_second"]) / 1e9

    return run


LOSS = """
add table inet loss
add chain inet loss in {{ type filter hook prerouting priority -300; }}
add chain inet loss out {{ type filter hook postrouting priority 300; }}
add rule inet loss in tcp dport {port} numgen random mod 100 < 5 drop
add rule inet loss out tcp sport {port} numgen random mod 100 < 5 drop
"""


def pour(loss: bool) -> Callable[[Side, Side, bool, bool], float]:
    """One stream to a plain kernel, Mbit/s; the client's engine is made to keep it. With loss: 5 of 100 packets each way there."""

    def run(server: Side, client: Side, there: bool, here: bool) -> float:
        if loss:
            server.host.run("sh", "-c", f"echo '{LOSS.format(port=PORT)}' | nft -f -")
        try:
            end = server.start(PYTHON, TALK, "sink", server.address, str(PORT), ours=there, cpu=0)
            _started(end, "ready")
            # the engine has CUBIC; an end of the kernel's is told to use it
            environment = {"SHAREDSTACK_WIRE_BULK": str(1 << 30)} if here else {"TALK_CONGESTION": "cubic"}
            done = client.start(PYTHON, TALK, "pour", server.address, str(PORT), "6", ours=here, cpu=1, **environment)
            assert done.wait(60) == 0
            return float(end.communicate(timeout=60)[0])
        finally:
            if loss:
                server.host.run("nft", "delete", "table", "inet", "loss")

    return run


def connections(server: Side, client: Side, there: bool, here: bool) -> float:
    """Connections opened, used for one request, and closed, a second (wrk, Connection: close)."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "index.html").write_text("x" * 600)
        end = _nginx(server, there, folder)
        command = ["wrk", "-t1", "-c20", "-d3", "-H", "Connection: close", f"http://{server.address}:{PORT}/"]
        out = client.start(*command, ours=here, cpu=1).communicate(timeout=60)[0]
        end.terminate()
        end.wait()
    return _number(r"Requests/sec: *([\d.]+)", out)


CASES = [
    Case("sockperf TCP ping-pong 64 B, p50 one way", "µs", "less", pingpong("--tcp")),
    Case("sockperf UDP ping-pong 64 B, p50 one way", "µs", "less", pingpong()),
    Case("sockperf UDP throughput 64 B", "1/s", "more", datagrams),
    Case("redis c1", "GET/s", "more", redis("-c 1 -n 40000")),
    Case("redis c50", "GET/s", "more", redis("-c 50 -n 150000")),
    Case("redis c50 P16", "GET/s", "more", redis("-c 50 -P 16 -n 1000000")),
    Case("nginx keep-alive, 20 connections", "req/s", "more", nginx),
    Case("nginx, a connection a request", "req/s", "more", connections),
    Case("a stream that the engine keeps", "Mbit/s", "more", pour(loss=False), ("kernel", "client")),
    Case("the same, 5 % loss each way, CUBIC", "Mbit/s", "more", pour(loss=True), ("kernel", "client")),
    Case("iperf3", "Gbit/s", "more", iperf()),
    Case("iperf3 -R", "Gbit/s", "more", iperf("-R")),
    Case("iperf3 -P 8", "Gbit/s", "more", iperf("-P", "8")),
    Case("iperf3 --bidir", "Gbit/s", "more", iperf("--bidir")),
    Case("iperf3 IPv6", "Gbit/s", "more", iperf(family=6)),
    Case("iperf3 UDP", "Gbit/s", "more", iperf("-u", "-b", "1G", field="sum")),
    Case("curl, 1 GiB down", "MiB/s", "more", curl(up=False)),
    Case("curl, 1 GiB up", "MiB/s", "more", curl(up=True)),
]


def raw_frames() -> float:
    """Two engines by AF_XDP, no programs: p50 one way in µs, of 64 bytes by TCP."""
    with hosts() as pair:
        ends = [End(host) for host in pair]
        try:
            for end in ends:
                end.do("open")
            joined((ends[0], ends[1]))
            ends[1].begin("pingpong", 0, False, 20000)
            ends[0].begin("pingpong", 0, True, 20000)
            times = ends[0].finish()
            ends[1].finish()
        finally:
            for end in ends:
                end.end()
    return statistics.median(times) / 2000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="parts of cases' names, by commas")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    wanted = [c for c in CASES if not options.only or any(part in c.name for part in options.only.split(","))]
    found: dict[str, dict[str, float]] = {}
    if not options.only or "raw" in options.only:
        raw = statistics.median(raw_frames() for _ in range(options.rounds))
        print(f"the engines alone, without programs: 64 B, p50 one way {raw:.2f} µs", flush=True)
        found["raw"] = {"both": raw}
    print(f"{'case':44} {'kernel':>12}  accelerated: both ends, the client's, the server's", flush=True)
    with world() as (server, client):
        for case in wanted:
            figures: dict[str, list[float]] = {way: [] for way in case.ways}
            for _ in range(options.rounds):
                for way in case.ways:
                    here, there = WAYS[way]
                    figures[way].append(case.run(server, client, there, here))
                    for side in (server, client):
                        side.end_programs()
            medians = {way: statistics.median(values) for way, values in figures.items()}
            found[case.name] = medians
            shown = [f"{case.name + ', ' + case.unit:44} {medians['kernel']:>12,.2f}"]
            for way in case.ways[1:]:
                ratio = medians["kernel"] / medians[way] if case.better == "less" else medians[way] / medians["kernel"]
                shown.append(f"{way} {medians[way]:>12,.2f} ({ratio:4.2f}x)")
            print(" ".join(shown), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
