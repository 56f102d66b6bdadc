"""The demo where little is allowed: an unprivileged user namespace, a 64 MiB /dev/shm, no terminal, no network but loopback."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit import confine

from sharedstack.demo import report, workload
from sharedstack.demo.rounds import Bytes, Results, Sample

DEMO = [sys.executable, "-m", "sharedstack.demo"]


def namespace(*command: str) -> list[str]:
    """`command` in namespaces of its own, where only loopback and a small /dev/shm exist; it prints what is left in that."""
    setup = "mount -t tmpfs -o size=64m tmpfs /dev/shm && ip link set lo up"
    inside = f"{setup} || exit 99; {shlex.join(command)}; status=$?; echo left: $(ls /dev/shm) $(ipcs -m | grep 0x); exit $status"
    return ["unshare", "--user", "--map-root-user", "--mount", "--net", "--ipc", "sh", "-c", inside]


def need_namespaces() -> None:
    probe = subprocess.run(namespace("true"), capture_output=True, text=True)
    if probe.returncode != 0:
        pytest.skip(f"allowed: unprivileged user namespaces are not to be had here: {probe.stderr.strip()}")


def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "TERM": "dumb", "TMPDIR": str(tmp_path)}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("options", [[], ["--own"]], ids=["redis", "own"])
def test_demo_in_a_user_namespace_with_little_shared_memory(tmp_path, options):
    need_namespaces()
    demo_in(namespace(*DEMO, "--quick", *options), tmp_path, options)


def demo_in(command: list[str], tmp_path: Path, options: list[str]) -> None:
    """Run the demo: it is accelerated, and nothing of it is left."""
    if not options and workload.choose(own=False) is not workload.REDIS:
        pytest.skip("redis-server and redis-benchmark are not installed")
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200, env=environment(tmp_path), cwd="/"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Accelerated: " in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stdout.splitlines()[-1].strip() == "left:"
    assert list(tmp_path.iterdir()) == []


CONFINE = [sys.executable, str(Path(__file__).with_name("confine.py"))]
X86_64 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="allowed: the filter has the numbers of x86-64")

# what confinement must be, seen from within
PROBE = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    return 0 if libc.syscall(*map(ctypes.c_long, arguments)) >= 0 else ctypes.get_errno()
refused = {name: call(number, 0, 0, 0, 0, 0) for name, number in NUMBERS.items()}
print({name for name, error in refused.items() if error != errno.EPERM} or "refused", call(324, 0, 0), end=" ")
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")))
"""


@X86_64
def test_confinement_is_as_in_docker():
    need_namespaces()
    wanted = {name: confine.DENIED[name] for name in ("keyctl", "bpf", "mount", "ptrace", "io_uring_setup", "userfaultfd", "kcmp")}
    probe = PROBE.replace("NUMBERS", repr(wanted))
    done = subprocess.run(namespace(*CONFINE, sys.executable, "-c", probe), capture_output=True, text=True, timeout=30)
    assert done.stdout.splitlines()[0].split() == ["refused", "0", "0" * 16], done.stdout + done.stderr


@X86_64
@pytest.mark.timeout(240)
@pytest.mark.parametrize("options", [[], ["--own"]], ids=["redis", "own"])
def test_demo_under_dockers_filter_and_without_capabilities(tmp_path, options):
    need_namespaces()
    demo_in(namespace(*CONFINE, *DEMO, "--quick", *options), tmp_path, options)


def children_of(pid: int) -> list[int]:
    """All descendants, whatever session they are in."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(") ")[2].split()[1])
        except (OSError, ValueError):
            continue
    found, wanted = [], {pid}
    while more := [child for child, parent in parents.items() if parent in wanted and child not in found]:
        found += more
        wanted = set(more)
    return found


@pytest.fixture
def default_signals() -> Iterator[None]:
    """A program that starts where SIGINT is ignored (in the background of a shell without job control) ignores it itself."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(tmp_path, number):
    with subprocess.Popen(
        [*DEMO, "--quick"],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(tmp_path),
    ) as demo:
        deadline = time.monotonic() + 30
        while len(children := children_of(demo.pid)) < 2 and demo.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        demo.send_signal(number)
        output, errors = demo.communicate(timeout=30)
    assert demo.returncode == 130, errors
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    assert list(tmp_path.iterdir()) == []
    stack = re.search(r"stack (demo[0-9a-f]+)", output)[1]
    assert not list(Path("/dev/shm").glob(f"*{stack}*"))


def results(segments: int) -> Results:
    made = Results()
    for case in workload.CASES:
        made.by_path[case] = Bytes(local=1 << 20, kernel=640)
        made.why[case] = "reader asleep"
        for side, seen in (("kernel", 2000), ("shared", segments)):
            operations = {name: workload.Operation(1000.0, 0.05, None) for name in workload.REDIS.operations}
            made.samples[side, case] = [Sample(operations, 1000, 0.5, seen), Sample(operations, 1000, 0.1, seen + 9000)]
    return made


@pytest.mark.parametrize(("segments", "status", "says"), [(10, 0, "Accelerated: "), (60, 1, "NOT ACCELERATED: -c 50 -P 16")])
def test_verdict(capsys, segments, status, says):
    out = report.console()
    report.show(out, workload.REDIS, results(segments))
    assert report.verdict(out, results(segments)) == status
    printed = capsys.readouterr().out
    assert says in printed
    assert "1 MiB" in printed
    assert ("reader asleep" in printed) == (status == 1)


def test_both_forms_of_redis_benchmark_csv():
    new = '"test","rps","avg_latency_ms","p50_latency_ms","p99_latency_ms"\n"SET","10.5","1","0.5","0.9"\n'
    assert workload.parse(new, ["SET"], Path("x")) == {"SET": workload.Operation(10.5, 0.5, 0.9)}
    assert workload.parse('"SET","10.5"\n', ["SET"], Path("x")) == {"SET": workload.Operation(10.5, None, None)}
