"""`sharedstack bench`: a short run of one case, bad usage, what an interrupted one leaves, and how the proof is judged."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sharedstack.bench import cli, report
from sharedstack.bench.cases import CASES, FIGURES
from sharedstack.bench.results import Results
from sharedstack.bench.runner import Measured, Plan, Sample, percentiles
from sharedstack.cli.main import main as sharedstack

BENCH = [sys.executable, "-m", "sharedstack", "bench"]
PINGPONG = next(case for case in CASES if case.name == "pingpong")
STACK = re.compile(r"^stack (bench[0-9a-f]+)", re.MULTILINE)
FLOORS = {"cache_line_ns": 250.0, "syscall_ns": 80.0}


def left_of(stack: str) -> list[str]:
    """Segments, and processes that name the stack."""
    found = [path.name for path in Path("/dev/shm").glob(f"*{stack}*")]
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if stack.encode() in cmdline.read_bytes():
                found.append(cmdline.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return found


def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SHAREDSTACK_")}
    return {**kept, "TERM": "dumb", "TMPDIR": str(tmp_path)}


@pytest.mark.timeout(60)
def test_a_short_ping_pong_is_accelerated_and_leaves_nothing(tmp_path):
    (tmp_path / "tmp").mkdir()
    target = tmp_path / "bench.json"
    command = [*BENCH, "--quick", "--only", "pingpong", "--json", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, cwd="/", env=environment(tmp_path / "tmp"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b" not in done.stdout
    for word in ("Linux ", "congestion control", "load average", "nothing pinned", "segs/op", "Accelerated: "):
        assert word in done.stdout
    result = json.loads(target.read_text())
    assert result["good"] and not result["failed"] and not result["not_accelerated"]
    assert result["floors"]["syscall_ns"] > 1
    case = result["cases"]["pingpong"]
    assert list(result["cases"]) == ["pingpong"]
    for side in ("kernel", "shared"):
        figures = case[side]["medians"]
        assert 0 < figures["p50_us"] <= figures["p90_us"] <= figures["p99_us"] <= figures["p99.9_us"] <= figures["max_us"]
        assert figures["cpu_us"] > 0
        assert case[side]["ops"][0] > 100
    assert case["kernel"]["own_segments_per_op"][0] >= 1
    assert case["accelerated"] and min(case["segments_per_op"], case["own_segments_per_op"]) < 0.05
    assert case["bytes_by_ring"] > case["bytes_by_kernel"]
    assert left_of(STACK.search(done.stdout)[1]) == []
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.timeout(60)
def test_an_interrupted_bench_leaves_nothing(tmp_path):
    command = [*BENCH, "--only", "pingpong", "--seconds", "30"]
    with subprocess.Popen(
        command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**environment(tmp_path), "PYTHONUNBUFFERED": "1"}
    ) as bench:
        while not (named := STACK.search(line := bench.stdout.readline())):
            assert line, bench.stderr.read()
        time.sleep(0.5)
        bench.send_signal(signal.SIGTERM)
        errors = bench.communicate(timeout=30)[1]
    assert bench.returncode == 130, errors
    assert left_of(named[1]) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "argv",
    [
        ["--nonsense"],
        ["--only", "pingpong,nonsense"],
        ["--only", ""],
        ["--rounds", "0"],
        ["--rounds", "many"],
        ["--seconds", "0"],
        ["--seconds", "nan"],
        ["--profile", "nonsense"],
        ["--pin", "--one-cpu"],
        ["--json", "/nonsense/file"],
        ["word"],
    ],
)
def test_bad_usage_is_2(argv, capsys):
    assert cli.main(argv) == 2
    assert "sharedstack bench" in capsys.readouterr().err


def test_help_names_all_cases(capsys):
    assert sharedstack(["bench", "--help"]) == 0
    said = "".join(capsys.readouterr().out.split())
    assert all(case.name in said for case in CASES)


def test_cases_are_well_formed():
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(name in FIGURES for case in CASES for name in case.figures)


def test_percentiles_of_pairs():
    found = percentiles([[1000, 98], [5000, 1], [2_000_000, 1]])
    assert found["p50_us"] == pytest.approx(1, rel=0.002)
    assert found["p99_us"] == pytest.approx(5, rel=0.002)
    assert found["max_us"] == pytest.approx(2000, rel=0.002)
    assert percentiles([]) == {}


def results(*shared: Sample, failures: dict[str, str] | None = None) -> Results:
    kernel = Sample({"p50_us": 10.0, "p99_us": 20.0, "cpu_us": 3.0}, 1000, 2.0, 2.0)
    samples = {("pingpong", "kernel"): [kernel] * len(shared), ("pingpong", "shared"): list(shared)}
    return Results(Plan((PINGPONG,), rounds=len(shared)), Measured(samples, [FLOORS], failures or {}))


def sample(segments: float, own: float, local: int, kernel: int, p50: float = 1.0) -> Sample:
    return Sample({"p50_us": p50, "p99_us": 2.0, "cpu_us": 1.0}, 1000, segments, own, local, kernel)


@pytest.mark.parametrize(
    ("segments", "own", "local", "kernel", "good", "others"),
    [
        (0.01, 0.01, 1 << 20, 640, True, False),
        (0.70, 0.01, 1 << 20, 640, True, True),  # somebody else uses TCP here
        (0.70, 0.70, 1 << 20, 1 << 18, False, False),
        (0.01, 0.01, 640, 1 << 20, False, False),  # few segments, but large ones
        (0.01, 0.01, 0, 0, False, False),
    ],
)
def test_judging_the_proof(segments, own, local, kernel, good, others, capsys):
    judged = results(sample(segments, own, local, kernel))
    assert (judged.good(), judged.proof(PINGPONG).others) == (good, others)
    out = report.console(sys.stdout)
    report.show(out, judged)
    report.notes(out, judged)
    report.verdict(out, judged)
    printed = capsys.readouterr().out
    assert ("NOT ACCELERATED: pingpong" in printed) != good
    assert ("others use TCP" in printed) == others


def test_medians_ratios_and_floors():
    judged = results(sample(0, 0, 9, 1, 0.9), sample(0, 0, 9, 1, 5.0), sample(0.5, 0, 9, 1, 1.0))
    row = judged.rows(PINGPONG)[0]
    assert (row.kernel, row.shared, row.ratio, row.floors) == (10.0, 1.0, 10.0, 4.0)
    assert judged.proof(PINGPONG).segments == 0
    assert json.loads(json.dumps(judged.as_dict({})))["cases"]["pingpong"]["ratios"]["p50_us"] == 10.0


def test_a_failed_case_is_left_out_and_said(capsys):
    judged = results(sample(0, 0, 9, 1), failures={"pingpong": "it broke"})
    assert not judged.good() and judged.cases == []
    report.verdict(report.console(sys.stdout), judged)
    assert "FAILED: pingpong: it broke" in capsys.readouterr().out
