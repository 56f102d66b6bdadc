"""`sharedstack run` as a process: exit codes, pid, environment, the helper that it starts, and what it costs.

The commands run in a fresh interpreter in which the library and the helper's command line are replaced by stand-ins (SEAM), so
that neither the C library nor the helper need be there.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sharedstack.cli.run import Request, UsageError, parse, preload
from sharedstack.declare.names import control_socket

STACK = f"r{os.getpid()}"[:16]
ROOT = Path(__file__).resolve().parents[2]
BUDGET = 0.060
PR_CAPBSET_DROP, CAP_SYS_NICE = 24, 1 << 23

# argv: library ("" for none), helper's command line as JSON, then the arguments of `sharedstack`
SEAM = """
import json, pathlib, sys, types
paths = types.ModuleType("sharedstack.paths")
def library():
    if not sys.argv[1]:
        raise FileNotFoundError("libsharedstack.so is not here")
    return pathlib.Path(sys.argv[1])
paths.library, paths.for_all_architectures = library, str
sys.modules["sharedstack.paths"] = paths
from sharedstack.cli import launch
from sharedstack.cli.main import main
launch.HELPER = tuple(json.loads(sys.argv[2]))
sys.exit(main(sys.argv[3:]))
"""

# a helper that binds the control socket, says that it is ready, and reports what it inherited
HELPER = """
import json, os, resource, signal, socket, sys
ready = int(sys.argv[sys.argv.index("--ready-fd") + 1])
stack = sys.argv[sys.argv.index("--stack") + 1]
from sharedstack.declare.names import control_socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.bind(control_socket(os.getuid(), stack)); s.listen(1)
umask = os.umask(0)
json.dump({
    "pid": os.getpid(), "ppid": os.getppid(), "sid": os.getsid(0), "cwd": os.getcwd(), "umask": umask,
    "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:5], "cpus": sorted(os.sched_getaffinity(0)),
    "stdin": os.readlink("/proc/self/fd/0"), "preload": os.environ.get("LD_PRELOAD"), "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
    "mask": [int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, [])], "usr1": signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL,
    "spin": os.environ.get("SHAREDSTACK_SPIN_US"), "nice": os.getpriority(os.PRIO_PROCESS, 0),
}, open(os.environ["REPORT"], "w"))
os.write(ready, b"ready\\n"); os.close(ready)
signal.alarm(20); signal.pause()
"""

BROKEN = [sys.executable, "-c", "raise SystemExit(3)"]
ABSENT = ["/nonexistent/helper"]
Done = subprocess.CompletedProcess[str]


def sharedstack(*args: str, library: str = "", helper: list[str] | None = None, **kw: object) -> Done:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("SHAREDSTACK_") and k != "LD_PRELOAD"}
    environ |= {"PYTHONPATH": str(ROOT), "SHAREDSTACK_STACK": STACK} | kw.pop("env", {})  # type: ignore[operator]
    command = [sys.executable, "-c", SEAM, library, json.dumps(helper or ABSENT), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, env=environ, check=False, **kw)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def library(tmp_path: Path) -> str:
    """Something that LD_PRELOAD can name: the dynamic loader only warns of it, or it is a copy of a harmless library."""
    path = tmp_path / "libsharedstack.so"
    source = tmp_path / "empty.c"
    source.write_text("")
    if subprocess.run(["cc", "-shared", "-o", path, source], capture_output=True, check=False).returncode:
        pytest.skip("needs a C compiler for a stand-in of the library")
    return str(path)


@pytest.fixture
def present() -> Iterator[None]:
    """A control socket that answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(control_socket(os.getuid(), STACK))
        server.listen(64)
        yield


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.mark.parametrize(
    ("command", "code"),
    [(["true"], 0), (["sh", "-c", "exit 7"], 7), (["no-such-program"], 127), (["/no/such"], 127), (["/etc/passwd"], 126), (["/"], 126)],
)
def test_exit_codes(command: list[str], code: int) -> None:
    assert sharedstack("run", "--", *command).returncode == code


@pytest.mark.parametrize(
    "args",
    [[], ["--"], ["--nonsense", "true"], ["-p"], ["-p", "fast", "true"], ["--stack", "a/b", "true"], ["--require=1", "true"]],
)
def test_bad_usage_is_125_in_one_line(args: list[str]) -> None:
    done = sharedstack("run", *args)
    assert done.returncode == 125
    assert done.stdout == ""
    assert done.stderr.startswith("sharedstack: ")
    assert done.stderr.count("\n") == 1


def test_a_signal_is_the_programs_end() -> None:
    assert sharedstack("run", *python("import os; os.kill(os.getpid(), 9)")).returncode == -signal.SIGKILL


def test_a_script_without_interpreter_line_is_the_shells(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo $1; exit 3\n")
    script.chmod(0o755)
    done = sharedstack("run", str(script), "word")
    assert (done.returncode, done.stdout) == (3, "word\n")


@pytest.mark.usefixtures("present")
def test_the_program_takes_the_place_of_run(library: str) -> None:
    environ = os.environ | {"PYTHONPATH": str(ROOT), "SHAREDSTACK_STACK": STACK}
    command = [sys.executable, "-c", SEAM, library, "[]", "run", *python("import os; print(os.getpid())")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
        out, _ = process.communicate(timeout=30)
    assert int(out) == process.pid


@pytest.mark.usefixtures("present")
def test_the_environment(library: str) -> None:
    show = python("import os, json; print(json.dumps(dict(os.environ)))")
    done = sharedstack("run", "-p", "latency", "--stack", STACK, *show, library=library, env={"SHAREDSTACK_SPIN_US": "7", "LC_ALL": ""})
    assert (done.returncode, done.stderr) == (0, "")
    environ = json.loads(done.stdout)
    assert environ["LD_PRELOAD"] == library
    assert environ["SHAREDSTACK_STACK"] == STACK
    assert environ["SHAREDSTACK_LIFT_AFTER"] == "1"
    assert environ["SHAREDSTACK_SPIN_US"] == "7"


def test_the_library_goes_before_what_is_preloaded() -> None:
    environ = {"LD_PRELOAD": "/a.so /b.so"}
    preload(environ, "/l.so")
    assert environ["LD_PRELOAD"] == "/l.so:/a.so:/b.so"
    preload(environ, "/l.so")
    assert environ["LD_PRELOAD"] == "/l.so:/a.so:/b.so"


def test_what_pythons_start_changed_is_undone() -> None:
    show = ["sh", "-c", "echo ${LC_CTYPE-unset}; cat /proc/self/status"]
    done = sharedstack("run", *show, env={"LC_ALL": "", "LANG": "C"})
    lines = done.stdout.splitlines()
    assert lines[0] == os.environ.get("LC_CTYPE", "unset")
    ignored = next(int(line.split()[1], 16) for line in lines if line.startswith("SigIgn"))
    assert not ignored & 1 << signal.SIGPIPE - 1
    assert not ignored & 1 << signal.SIGXFSZ - 1


@pytest.mark.parametrize("helper", [ABSENT, BROKEN])
def test_without_a_helper_one_line_of_warning(library: str, helper: list[str]) -> None:
    done = sharedstack("run", "echo", "ran", library=library, helper=helper)
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert done.stderr.count("\n") == 1
    assert "helper" in done.stderr
    done = sharedstack("run", "--require", "echo", "ran", library=library, helper=helper)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("present")
def test_without_the_library_one_line_of_warning() -> None:
    done = sharedstack("run", "sh", "-c", "echo ${LD_PRELOAD-none}")
    assert (done.returncode, done.stdout) == (0, "none\n")
    assert done.stderr.count("\n") == 1
    assert sharedstack("run", "--require", "true").returncode == 125


def test_a_helper_that_hangs_costs_two_seconds(library: str) -> None:
    start = time.monotonic()
    hangs = [sys.executable, "-c", "import time; time.sleep(6)"]
    done = sharedstack("run", "true", library=library, helper=hangs)
    assert done.returncode == 0
    assert "not ready within 2 s" in done.stderr
    assert 1.9 < time.monotonic() - start < 5


def test_the_helper_that_is_started_inherits_nothing(library: str, tmp_path: Path) -> None:
    report, stack = tmp_path / "report", f"h{os.getpid()}"[:16]
    helper = [sys.executable, "-P", "-c", HELPER]
    env = {"REPORT": str(report), "LD_PRELOAD": library, "PYTHONDONTWRITEBYTECODE": "1"}
    one_cpu = {min(os.sched_getaffinity(0))}
    all_cpus = sorted(os.sched_getaffinity(0))

    def prepare() -> None:
        os.sched_setaffinity(0, one_cpu)
        os.umask(0)
        os.dup2(1, 40)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    args = ("run", "-p", "powersave", "--stack", stack, "--require", "sh", "-c", "taskset -p $$ 2>/dev/null; echo ran")
    done = sharedstack(*args, library=library, helper=helper, env=env, preexec_fn=prepare, pass_fds=())
    said = json.loads(report.read_text())
    try:
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert said["sid"] not in (os.getsid(0), said["pid"])
        assert said["ppid"] != os.getpid()
        assert (said["cwd"], said["umask"], said["stdin"], said["preload"]) == ("/", 0o077, "/dev/null", "")
        assert said["mask"] == []
        assert said["usr1"]
        assert said["cpus"] == all_cpus
        assert said["nofile"][0] == said["nofile"][1]
        assert said["spin"] is None
        assert 40 not in said["fds"]
        again = sharedstack("run", "--stack", stack, "--require", "true", library=library)
        assert (again.returncode, again.stderr) == (0, "")
    finally:
        os.kill(said["pid"], signal.SIGKILL)


def _may_lower_niceness() -> bool:
    """Does a child of ours have CAP_SYS_NICE, or a limit that lets it?"""
    status = Path("/proc/self/status").read_text()
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff"))
    return bool(effective & CAP_SYS_NICE) or resource.getrlimit(resource.RLIMIT_NICE)[1] >= 20


@pytest.mark.parametrize("privileged", [True, False])
def test_the_helper_is_not_nice_where_that_is_allowed(library: str, tmp_path: Path, privileged: bool) -> None:
    """Under `nice -n 5`: back to 0 with the privilege, else as nice as who started it, without a word."""
    if privileged and not _may_lower_niceness():
        pytest.skip("allowed: lowering the niceness needs CAP_SYS_NICE")
    report, stack = tmp_path / "report", f"n{os.getpid()}"[:16]

    def prepare() -> None:
        os.setpriority(os.PRIO_PROCESS, 0, 5)
        if not privileged:
            resource.setrlimit(resource.RLIMIT_NICE, (0, 0))
            ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_SYS_NICE.bit_length() - 1, 0, 0, 0)

    env = {"REPORT": str(report)}
    helper = [sys.executable, "-P", "-c", HELPER]
    done = sharedstack("run", "--stack", stack, "--require", "nice", library=library, helper=helper, env=env, preexec_fn=prepare)
    said = json.loads(report.read_text())
    os.kill(said["pid"], signal.SIGKILL)
    assert (done.returncode, done.stdout, done.stderr) == (0, "5\n", "")
    assert said["nice"] == (0 if privileged else 5)


def test_a_helper_that_lost_the_race_is_no_failure(library: str, tmp_path: Path) -> None:
    """Two at once: one helper stays, the other ends without a ready line; both programs run without a warning."""
    report, stack = tmp_path / "report", f"c{os.getpid()}"[:16]
    helper = json.dumps([sys.executable, "-P", "-c", HELPER])
    environ = os.environ | {"PYTHONPATH": str(ROOT), "REPORT": str(report)}
    command = [sys.executable, "-c", SEAM, library, helper, "run", "--stack", stack, "--require", "true"]
    both = [subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    results = [(p.communicate(timeout=30)[1], p.returncode) for p in both]
    os.kill(json.loads(report.read_text())["pid"], signal.SIGKILL)
    assert results == [("", 0), ("", 0)]


def _seconds(command: list[str], environ: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, env=environ, check=True)
    return time.perf_counter() - start


@pytest.mark.usefixtures("present")
def test_it_costs_at_most_60_ms(library: str) -> None:
    """Interleaved with plain `true`, compared by medians; where a busy machine exceeds that, three times as much fails."""
    environ = os.environ | {"PYTHONPATH": str(ROOT), "SHAREDSTACK_STACK": STACK}
    run = [sys.executable, "-c", SEAM, library, "[]", "run", "--", "true"]
    pairs = [(_seconds(["true"], environ), _seconds(run, environ)) for _ in range(15)]
    cost = statistics.median(r for _, r in pairs) - statistics.median(t for t, _ in pairs)
    best = min(r for _, r in pairs) - min(t for t, _ in pairs)
    assert best < BUDGET, f"at best {best * 1e3:.1f} ms"
    assert cost < 3 * BUDGET, f"median {cost * 1e3:.1f} ms"


@pytest.mark.usefixtures("present")
def test_nothing_heavy_is_imported(library: str) -> None:
    heavy = {"typer", "rich", "posix_ipc", "sysv_ipc", "msgpack", "asyncio", "pyroute2", "dataclasses", "json"}
    code = SEAM.replace("import json, pathlib, sys, types", "import pathlib, sys, types").replace("json.loads(sys.argv[2])", "()")
    code = code.replace("sys.exit(", "import os; os.execv = lambda *a: (print(*sys.modules), sys.stdout.flush(), os._exit(0)); sys.exit(")
    environ = os.environ | {"PYTHONPATH": str(ROOT), "SHAREDSTACK_STACK": STACK}
    command = [sys.executable, "-S", "-c", code, library, "", "run", "true"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert heavy & set(done.stdout.split()) == set()


def _parsed(*argv: str) -> Request:
    return parse(argv)


def test_options_end_at_the_command() -> None:
    request = _parsed("-platency", "--stack=two", "--require", "cmd", "-p", "80", "--", "x")
    assert (request.profile, request.stack, request.require) == ("latency", "two", True)
    assert request.command == ["cmd", "-p", "80", "--", "x"]
    assert _parsed("--", "-p").command == ["-p"]


def test_a_stack_name_has_16_characters_at_most() -> None:
    with pytest.raises(UsageError, match="1 to 16"):
        _parsed("--stack", "x" * 17, "true")
