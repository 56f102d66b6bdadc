"""Debian's programs, unmodified, with default options: right output, and hardly a TCP segment for the kernel.

Each pair of server and client runs for about a second on the module's stack; the segments of its network namespace are counted over
the client's run, and divided by what it did.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from compat.fix_lab import Lab, Namespace

from sharedstack.demo.children import free_port
from sharedstack.inspection import processes

pytest_plugins = ["compat.fix_paths"]

SEGMENTS_PER_OPERATION = 0.05
BLOCK = 131072  # bytes: iperf3's writes
LISTENING = 10  # TCP_LISTEN, include/net/tcp_states.h

ECHO = """
import asyncio, sys
async def serve(r, w):
    while data := await r.read(65536):
        w.write(data)
        await w.drain()
    w.close()
async def main():
    async with await asyncio.start_server(serve, '127.0.0.1', int(sys.argv[1])) as server:
        await server.serve_forever()
asyncio.run(main())
"""
TURNS = """
import asyncio, sys
async def one(count):
    r, w = await asyncio.open_connection('127.0.0.1', int(sys.argv[1]))
    for i in range(count):
        sent = str(i).encode().ljust(64)
        w.write(sent)
        assert await r.readexactly(64) == sent
    w.close()
    await w.wait_closed()
async def main():
    await asyncio.gather(*(one(3000) for _ in range(8)))
    print('right')
asyncio.run(main())
"""


class SeldomLooking(Lab):
    """Two programs that spin have the two CPUs for themselves, nearly."""

    look_every = 0.5


@pytest.fixture(scope="module")
def lab(namespace: Namespace) -> Iterator[Lab]:
    with SeldomLooking(namespace, "apps") as made:
        yield made


@pytest.fixture(autouse=True)
def own_namespace(lab: Lab) -> None:
    if not lab.namespace.own:
        pytest.skip("allowed: without root there is no network namespace of our own, and others' segments are counted too")


class Served:
    """A server in the background, until the end of its `with` block."""

    def __init__(self, lab: Lab, argv: Sequence[str], port: int, folder: Path) -> None:
        self.lab, self.port = lab, port
        self.log = folder / "server.log"
        with self.log.open("w") as out:
            self.process = lab.start(argv, "default", stdout=out, stderr=out, start_new_session=True)

    def __enter__(self) -> Served:
        for _ in range(500):
            assert self.process.poll() is None, self.log.read_text()
            if any(s.lport == self.port and s.state == LISTENING for s in processes.inet_sockets(self.process.pid).values()):
                return self
            time.sleep(0.01)
        raise AssertionError(f"nobody listens: {self.log.read_text()}")

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(3)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def programs(*names: str) -> list[str]:
    """Their paths; skips where one is not installed."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    found = [shutil.which(name, path=path) for name in names]
    missing = [name for name, where in zip(names, found, strict=True) if where is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    return [str(where) for where in found]


def client(lab: Lab, argv: Sequence[str], operations: int | str, unit: int = 1) -> str:
    """Run it, and check segments for each operation: how many, or what finds their number (in so many of a unit) in the output, which is
    returned.
    """
    ran = lab.run(argv, "default", timeout=40).ok()
    text = re.sub(r"\x1b\[[0-9;]*m", "", ran.out + ran.err)
    found = None if isinstance(operations, int) else re.search(operations, text, re.S)
    made = int(found[1]) // unit if found else operations
    assert isinstance(made, int), text
    assert made > 1000, text
    print(f"{Path(argv[0]).name}: {ran.segments} segments for {made} operations, {ran.sent}")
    assert ran.segments / made < SEGMENTS_PER_OPERATION
    return text


@pytest.fixture
def port() -> Iterator[int]:
    yield free_port()


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("connections", "pipeline", "count"), [(1, 1, 12_000), (20, 1, 30_000), (20, 16, 120_000)])
def test_redis(lab: Lab, tmp_path: Path, port: int, connections: int, pipeline: int, count: int) -> None:
    server, benchmark, shell = programs("redis-server", "redis-benchmark", "redis-cli")
    options = ["--save", "", "--appendonly", "no", "--dir", str(tmp_path), "--bind", "127.0.0.1"]
    with Served(lab, [server, "--port", str(port), *options], port, tmp_path):
        at = ["-p", str(port)]
        sizes = ["-n", str(count), "-c", str(connections), "-P", str(pipeline)]
        out = client(lab, [benchmark, *at, "-t", "set,get", *sizes, "--csv"], 2 * count)
        assert re.search(r'^"GET","\d', out, re.M)
        assert lab.run([shell, *at, "SET", "key", "value with spaces"], "default").ok().out == "OK\n"
        assert lab.run([shell, *at, "GET", "key"], "kernel").ok().out == "value with spaces\n"


@pytest.mark.timeout(60)
def test_nginx(lab: Lab, tmp_path: Path, port: int) -> None:
    server, wrk = programs("nginx", "wrk")
    (tmp_path / "index.html").write_text("x" * 612)
    kinds = " ".join(f"{kind}_temp_path {tmp_path};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(
        f"daemon off; {'user root; ' if os.getuid() == 0 else ''}worker_processes 1; pid {tmp_path}/pid; error_log {tmp_path}/err;\n"
        f"events {{}}\nhttp {{ access_log off; keepalive_requests 1000000; {kinds} "
        f"server {{ listen 127.0.0.1:{port}; root {tmp_path}; }} }}\n"
    )
    with Served(lab, [server, "-e", f"{tmp_path}/err", "-c", str(configuration)], port, tmp_path):
        out = client(lab, [wrk, "-t1", "-c16", "-d1s", f"http://127.0.0.1:{port}/"], r"(\d+) requests in")
        assert "Non-2xx" not in out
        assert "Socket errors" not in out
        get = "import sys, urllib.request as u; print(len(u.urlopen(sys.argv[1]).read()))"
        assert lab.run([sys.executable, "-c", get, f"http://127.0.0.1:{port}/"], "default").ok().out == "612\n"


@pytest.mark.timeout(60)
def test_memcached(lab: Lab, tmp_path: Path, port: int) -> None:
    server, slap = programs("memcached", "memcslap")
    user = ["-u", "root"] if os.getuid() == 0 else []
    with Served(lab, [server, *user, "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-t", "2"], port, tmp_path):
        each = 5000
        argv = [slap, f"--servers=127.0.0.1:{port}", "--concurrency=4", f"--execute-number={each}", "--test=get"]
        assert "Time total" in client(lab, argv, 4 * each)


@pytest.mark.timeout(60)
def test_iperf3(lab: Lab, tmp_path: Path, port: int) -> None:
    (iperf,) = programs("iperf3")
    with Served(lab, [iperf, "-s", "-p", str(port)], port, tmp_path):
        argv = [iperf, "-c", "127.0.0.1", "-p", str(port), "-t", "1", "-J"]
        out = json.loads(client(lab, argv, r'"sum_received".*?"bytes":\s*(\d+)', BLOCK))
        received, sent = (out["end"][name]["bytes"] for name in ("sum_received", "sum_sent"))
        assert 0.9 * sent <= received <= sent


@pytest.mark.timeout(60)
def test_sockperf(lab: Lab, tmp_path: Path, port: int) -> None:
    (sockperf,) = programs("sockperf")
    with Served(lab, [sockperf, "sr", "--tcp", "-i", "127.0.0.1", "-p", str(port)], port, tmp_path):
        argv = [sockperf, "pp", "--tcp", "-i", "127.0.0.1", "-p", str(port), "-t", "1", "-m", "64"]
        out = client(lab, argv, r"SentMessages=(\d+)")
        assert "# dropped messages = 0; # duplicated messages = 0; # out-of-order messages = 0" in out


@pytest.mark.timeout(60)
def test_asyncio(lab: Lab, tmp_path: Path, port: int) -> None:
    with Served(lab, [sys.executable, "-c", ECHO, str(port)], port, tmp_path):
        assert client(lab, [sys.executable, "-c", TURNS, str(port)], 8 * 3000) == "right\n"


def test_nothing_is_left(lab: Lab) -> None:
    lab.assert_clean()
