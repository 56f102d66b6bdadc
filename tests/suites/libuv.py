"""libuv's own tests: Debian's source package, fetched and built in a folder of ours; each test in a run of its own.

The sources come by apt from where the machine's own packages come from, by lists of ours beside the system's. They are never part of this
project.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from suites.results import Result, Run
from suites.worlds import Worlds

PACKAGE = "libuv1"
_TAP = re.compile(r"^(ok|not ok) \d+ - (\S+)( # SKIP ?(.*))?", re.M)
# the runner's own time-outs, which suit a quiet machine, times this
ENVIRONMENT = {"UV_RUN_AS_ROOT": "1", "UV_TEST_TIMEOUT_MULTIPLIER": "4", "RES_OPTIONS": "attempts:0"}
LIMIT = 400.0


class NotThereError(Exception):
    """The sources cannot be had, or not be built; the message has the command and what it said."""


def _do(command: Sequence[str], cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise NotThereError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout[-2000:]}")


def _source_lists(folder: Path) -> list[str]:
    """The system's lists of packages, as lists of sources in `folder`: options for apt-get by which it uses them alone."""
    parts, lists, cache = folder / "sources.list.d", folder / "lists", folder / "cache"
    for made in (parts, lists / "partial", cache / "archives" / "partial"):
        made.mkdir(parents=True, exist_ok=True)
    etc = Path("/etc/apt")
    for path in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]:
        if path.suffix == ".sources":
            text = re.sub(r"(?m)^Types:.*$", "Types: deb-src", path.read_text())
        elif path.suffix == ".list" and path.is_file():
            text = re.sub(r"(?m)^deb\b", "deb-src", path.read_text())
        else:
            continue
        if "debian" in text:
            (parts / path.name).write_text(text)
    options = {"Dir::Etc::sourcelist": "/dev/null", "Dir::Etc::sourceparts": parts, "Dir::State::lists": lists, "Dir::Cache": cache}
    return [word for name, value in options.items() for word in ("-o", f"{name}={value}")]


def program(folder: Path) -> Path:
    """The test program, made in `folder` if it is not there; raises NotThereError."""
    folder.mkdir(parents=True, exist_ok=True)
    built = folder / "build" / "uv_run_tests"
    if built.exists():
        return built
    if not list(folder.glob("libuv1-*/CMakeLists.txt")):
        apt = ["apt-get", "-q", *_source_lists(folder)]
        _do([*apt, "update"], folder)
        _do([*apt, "source", PACKAGE], folder)
    (source,) = (path.parent for path in folder.glob("libuv1-*/CMakeLists.txt"))
    _do(["cmake", "-S", str(source), "-B", "build", "-DCMAKE_BUILD_TYPE=RelWithDebInfo", "-DLIBUV_BUILD_TESTS=ON"], folder)
    _do(["cmake", "--build", "build", "--target", "uv_run_tests"], folder)
    return built


def source_of(built: Path) -> Path:
    """Where the tests expect to be run: they open files of the source by relative names."""
    return next(path.parent for path in built.parents[1].glob("libuv1-*/CMakeLists.txt"))


def tests(built: Path) -> list[str]:
    """Names of all tests, helpers left out, in the program's order."""
    done = subprocess.run([built, "--list"], env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=True)
    # those that only show the machine, or are told what to do by another test
    lines = [line.split(" ")[0] for line in done.stdout.splitlines()]
    return [name for name in lines if name and name not in ("platform_output", "benchmark_sizes")]


def run(worlds: Worlds, world: str, built: Path, names: Sequence[str], logs: Path) -> Iterator[tuple[str, Run]]:
    """Each test by itself, as it ends."""
    logs.mkdir(parents=True, exist_ok=True)
    for name in names:
        log = logs / f"{name}.{world}.log"
        log.unlink(missing_ok=True)
        ended = worlds.run(world, [str(built), name], log, LIMIT, source_of(built), ENVIRONMENT)
        said = log.read_text(errors="replace")
        found = {m[2]: ("skip" if m[3] else "ok" if m[1] == "ok" else "fail", m[4] or "") for m in _TAP.finditer(said)}
        outcome, detail = found.get(name, ("lost", f"exit status {ended.status}{', killed' if ended.late else ''}"))
        if outcome == "fail":
            detail = " | ".join(line for line in said.splitlines() if "Assertion" in line or line.startswith("# "))[:300]
        yield name, Run({name: Result(outcome, detail, ended.seconds, ended.moved)}, ended.moved, ended.seconds, ended.why)
