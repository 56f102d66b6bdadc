"""Real programs on the kernel and through the library, and which way their bytes went.

A `Lab` is a helper on a stack of its own, as root in a network namespace of its own too, so that nobody else's packets are counted there.
`Lab.run(argv, mode)` runs a program and says how many bytes it sent by ring and by the kernel: read from the live segment (counters of
participants that have gone are in the header's totals), and beside it how many TCP segments the kernel of that namespace received.
Each suite's sums are kept in a `Tally` and printed at the end of the session, by path and by reason.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import select
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from unit.fix_helper_daemon import Daemon, wait_until

from sharedstack import paths
from sharedstack.demo.children import program
from sharedstack.inspection import snapshot
from sharedstack.inspection.state import State, decode

PROGRAMS = Path(__file__).resolve().parents[1] / "programs"
MODES = ("kernel", "default", "eager")
EAGER_SHARE = 0.9
# names another library to be preloaded instead of the real one (test_mutant)
LIBRARY_SEAM = "SHAREDSTACK_TEST_LIBRARY"
WARNINGS = ("-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread")

_HOLD = "import sys; from sharedstack_helper.environment import netns_cookie; print(netns_cookie(), flush=True); sys.stdin.read()"


@dataclass(frozen=True)
class Bytes:
    """Bytes sent on registered connections, by path, as the participants counted them."""

    local: int = 0
    kernel: int = 0

    def __sub__(self, other: Bytes) -> Bytes:
        return Bytes(self.local - other.local, self.kernel - other.kernel)


@dataclass(frozen=True)
class Ran:
    """What a program did: exit status, output, its bytes by path, and the TCP segments that the kernel received meanwhile."""

    status: int
    out: str
    err: str
    sent: Bytes
    segments: int

    def ok(self) -> Ran:
        """Itself; fails the test unless the exit status is 0."""
        assert self.status == 0, f"exit status {self.status}\n{self.out}{self.err}"
        return self


@dataclass
class Tally:
    """Sums of one suite in one mode; `carried` is what its programs are known to have sent, where that is known."""

    local: int = 0
    kernel: int = 0
    segments: int = 0
    runs: int = 0
    why: Counter[str] = field(default_factory=Counter)

    @property
    def share(self) -> float:
        """Of all bytes, those that went by ring."""
        return self.local / ((self.local + self.kernel) or 1)

    def add(self, sent: Bytes, segments: int, carried: int) -> None:
        """One run. What nobody counted (before a connection was registered) went by the kernel."""
        self.local += sent.local
        self.kernel += max(sent.kernel, carried - sent.local)
        self.segments += segments
        self.runs += 1


tallies: dict[tuple[str, str], Tally] = {}


def state_of(pid: int) -> str:
    """The letter in /proc/PID/stat."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


class Namespace:
    """A network namespace in which loopback is up, for as long as its holder lives; the one that we are in without root."""

    def __init__(self, own: bool = True) -> None:
        self.holder: subprocess.Popen[str] | None = None
        self.prefix: list[str] = []
        self.netns = 0
        self.uid = os.getuid()
        self.own = own and os.getuid() == 0 and self._hold()
        if not self.own:
            from sharedstack_helper.environment import netns_cookie

            self.netns = netns_cookie()

    def _hold(self) -> bool:
        setup = 'ip link set lo up && exec "$0" -c "$1"'
        command = ["unshare", "--net", "sh", "-c", setup, sys.executable, _HOLD]
        self.holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.holder.stdout is not None
        line = self.holder.stdout.readline()
        if not line:
            self.close()
            return False
        self.netns = int(line)
        self.prefix = ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "--"]
        return True

    def of_user(self, uid: int) -> Namespace:
        """The same namespace for another user's programs, which may read (only) all that we may: this checkout may be in root's home."""
        other = copy.copy(self)
        other.uid = uid
        may = [f"--{kind}-caps=+dac_read_search" for kind in ("inh", "ambient")]
        other.prefix = [*self.prefix, "setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *may, "--"]
        return other

    @property
    def pid(self) -> int:
        """A process that is in it."""
        return self.holder.pid if self.own and self.holder else os.getpid()

    @property
    def path(self) -> Path:
        """The namespace's file, for setns(2)."""
        return Path(f"/proc/{self.pid}/ns/net")

    def segments(self) -> int:
        """TCP segments that this namespace has received (InSegs)."""
        table = Path(f"/proc/{self.pid}/net/snmp").read_text()
        names, values = (line.split() for line in table.splitlines() if line.startswith("Tcp:"))
        return int(values[names.index("InSegs")])

    def datagrams(self) -> int:
        """UDP datagrams that this namespace has sent (OutDatagrams), those over IPv6 too."""
        folder = Path(f"/proc/{self.pid}/net")
        names, values = (line.split() for line in (folder / "snmp").read_text().splitlines() if line.startswith("Udp:"))
        six = dict(line.split() for line in (folder / "snmp6").read_text().splitlines())
        return int(values[names.index("OutDatagrams")]) + int(six.get("Udp6OutDatagrams", 0))

    def close(self) -> None:
        """End the holder; the namespace goes with its last process."""
        if self.holder:
            self.holder.communicate()
            self.holder = None


class Actor:
    """A Python that does one statement after the other, as told; `do` returns what the last expression was."""

    SOURCE = (
        "import sys, os, socket, select, threading, time, ast\n"
        "space = globals()\n"
        "for line in sys.stdin:\n"
        "    code = ast.literal_eval(line)\n"
        "    try:\n"
        "        tree = ast.parse(code)\n"
        "        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None\n"
        "        exec(compile(tree, 'actor', 'exec'), space)\n"
        "        value = eval(compile(ast.Expression(last.value), 'actor', 'eval'), space) if last else None\n"
        "        try:\n"
        "            ast.literal_eval(repr(value))\n"
        "        except ValueError:\n"
        "            value = None\n"
        "        answer = ('ok', value)\n"
        "    except BaseException as e:\n"
        "        answer = ('error', type(e).__name__ + ': ' + str(e))\n"
        "    print(repr(answer), flush=True)\n"
    )

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    @property
    def pid(self) -> int:
        return self.process.pid

    def tell(self, code: str) -> None:
        """Begin something; `hear` waits for its end."""
        assert self.process.stdin is not None
        self.process.stdin.write(repr(code) + "\n")
        self.process.stdin.flush()

    def execute(self, code: str, sockets: str = "[s]") -> str:
        """Execute Python in its place with these sockets, whose descriptors are sys.argv[1:] there: the first line that prints."""
        argv = f"[{sys.executable!r}, '-uc', {code!r}, *(str(s.fileno()) for s in {sockets})]"
        self.tell(f"for s in {sockets}: s.set_inheritable(True)\nos.execv({sys.executable!r}, {argv})")
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def hear(self, timeout: float = 10) -> Any:
        """The answer to `tell`."""
        import ast

        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], timeout)
        assert ready, f"process {self.pid} does not answer"
        line = self.process.stdout.readline()
        assert line, f"process {self.pid} ended with status {self.process.wait(5)}"
        kind, value = ast.literal_eval(line)
        assert kind == "ok", value
        return value

    def do(self, code: str, timeout: float = 10) -> Any:
        """Tell and hear."""
        self.tell(code)
        return self.hear(timeout)

    def end(self) -> None:
        """Close its input, by which it ends; not for long."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self.process.communicate(timeout=2)
        self.process.kill()
        self.process.wait()


class Lab:
    """A helper, its stack, and programs run there.

    Every `look_every` seconds it looks why bytes go by the kernel: 2 ms of a CPU, by which it holds up a program that spins there.
    """

    look_every = 0.02

    def __init__(self, namespace: Namespace, suite: str, *helper_options: str) -> None:
        self.namespace, self.suite, self.helper_options = namespace, suite, helper_options
        self.daemon = Daemon()
        self.daemon.netns, self.daemon.uid = namespace.netns, namespace.uid
        self.actors: list[Actor] = []
        self._stop = threading.Event()
        self._seen: dict[int, int] = {}
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._looking = threading.Lock()
        self._running = Tally()

    def __enter__(self) -> Self:
        self.start_helper()
        self._sampler.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._sampler.join()
        for actor in self.actors:
            actor.end()
        self.daemon.clean()

    def start_helper(self) -> None:
        """Start the helper, or another one after the last one's death."""
        self.daemon.start(*self.helper_options, prefix=tuple(self.namespace.prefix), stdin=subprocess.DEVNULL, cwd="/")

    @property
    def stack(self) -> str:
        return self.daemon.stack

    @property
    def library(self) -> str:
        """The preload library under test."""
        return str(paths.library())

    @property
    def name(self) -> str:
        """Name of the segments, without `.stack`."""
        return self.daemon.path("stack").name.removesuffix(".stack")

    def environ(self, mode: str, **more: str) -> dict[str, str]:
        """Ours without anything of sharedstack, and what the mode needs."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("SHAREDSTACK_") and k != "LD_PRELOAD"}
        return clean | ({"SHAREDSTACK_EAGER": "2"} if mode == "eager" else {}) | more

    def command(self, argv: Sequence[str], mode: str) -> list[str]:
        """`argv` in our namespace, by `sharedstack run` but in mode kernel; the process id stays the same to the end."""
        run = [program("sharedstack"), "run", "--stack", self.stack, "--"]
        if other := os.environ.get(LIBRARY_SEAM):
            run = ["env", f"LD_PRELOAD={other}", f"SHAREDSTACK_STACK={self.stack}"]
        return [*self.namespace.prefix, *([] if mode == "kernel" else run), *argv]

    def start(self, argv: Sequence[str], mode: str, **options: Any) -> subprocess.Popen[str]:
        """A program in the background, with pipes; the caller ends it."""
        self._running = self.tally(mode)
        env = self.environ(mode, **options.pop("env", {}))
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        return subprocess.Popen(self.command(argv, mode), env=env, **options)

    def run(
        self, argv: Sequence[str], mode: str, *, carries: int = 0, apart: str = "", timeout: float = 30, env: dict[str, str] | None = None
    ) -> Ran:
        """Run to the end. `carries`: bytes that it is known to send, for the tally; `apart`: a tally of its own for this run."""
        sent, segments = self.sent(), self.namespace.segments()
        with self.start(argv, mode, env=env or {}) as process:
            self._running = self.tally(mode, apart)
            try:
                out, err = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
                err += f"\nno end within {timeout:.0f} s: {self.state().endpoints if mode != 'kernel' else ''}"
        if mode != "kernel":
            self._look()
            self.settle()
        ran = Ran(process.returncode, out, err, self.sent() - sent, self.namespace.segments() - segments)
        self.tally(mode, apart).add(ran.sent, ran.segments, carries)
        return ran

    def direct(self, argv: Sequence[str], env: dict[str, str], timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Run in our namespace with just that environment, without `sharedstack run`."""
        return subprocess.run([*self.namespace.prefix, *argv], env=env, capture_output=True, text=True, timeout=timeout)

    def actor(self, mode: str, **env: str) -> Actor:
        """A Python that is told what to do."""
        argv = [sys.executable, "-u", "-c", Actor.SOURCE]
        self.actors.append(Actor(self.start(argv, mode, env=env, stdin=subprocess.PIPE, stderr=None)))
        return self.actors[-1]

    def connected(self, mode: str) -> tuple[Actor, Actor]:
        """Server (its end is `c`) and client (`s`), whose connection has carried a few messages each way."""
        server, client = self.actor(mode), self.actor(mode)
        port = server.do("l = socket.create_server(('127.0.0.1', 0)); l.getsockname()[1]")
        client.do(f"s = socket.create_connection(('127.0.0.1', {port}))")
        server.do("c, _ = l.accept()")
        for _ in range(4):
            client.do("s.sendall(b'1')")
            server.do("c.recv(1); c.sendall(b'2')")
            client.do("s.recv(1)")
        return server, client

    def tally(self, mode: str, apart: str = "") -> Tally:
        return tallies.setdefault((f"{self.suite}, {apart}" if apart else self.suite, mode), Tally())

    def snapshot(self) -> snapshot.Snapshot:
        return snapshot.take(self.name)

    def state(self) -> State:
        return decode(self.snapshot(), live=False)

    def sent(self) -> Bytes:
        """Bytes sent by path since the stack began."""
        counters = self.state().counters
        return Bytes(counters["tx_local_bytes"], counters["tx_kernel_bytes"])

    def settle(self, seconds: float = 5) -> None:
        """Until the helper has cleaned up after all that have ended."""
        with contextlib.suppress(AssertionError):
            wait_until(lambda: all(p.helper or Path(f"/proc/{p.own_pid}").exists() for p in self.state().participants), seconds)

    def left(self) -> dict[str, int]:
        """What is in use: nothing, once all have exited."""
        memory = self.state().memory
        return {name: memory[name] for name in ("units_used", "pairs_used", "endpoints_used", "links_used") if memory[name]}

    def inspect(self, *options: str, stack: str = "") -> subprocess.CompletedProcess[str]:
        """`sharedstack inspect` on our stack."""
        command = [*self.namespace.prefix, program("sharedstack"), "inspect", "--stack", stack or self.stack, *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, env=self.environ("default"))

    def why(self, pid: int, *options: str, stack: str = "") -> list[dict[str, Any]]:
        """What `inspect --why` says of the sockets of a process."""
        done = self.inspect("--why", "--format", "json", *options, stack=stack)
        assert done.returncode == 0, done.stderr
        return [line for line in json.loads(done.stdout)["sockets"] if line["pid"] == pid]

    def assert_clean(self) -> None:
        """Nothing is in use, once all have exited, and `inspect --check` finds nothing."""
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self.left(), 5)
        assert self.left() == {}
        done = self.inspect("--check")
        assert done.returncode == 0, f"status {done.returncode}: {done.stdout}{done.stderr}"

    def _sample(self) -> None:
        while not self._stop.wait(self.look_every):
            with contextlib.suppress(snapshot.NoStackError, snapshot.LayoutError, ValueError, IndexError):
                self._look()

    def _look(self) -> None:
        """Note under which reason bytes go by the kernel: what was added since the last look, under the reason of now."""
        with self._looking:
            for e in self.state().endpoints:
                more = e.tx.kernel_bytes - self._seen.get(e.cookie, 0)
                if more > 0:
                    self._running.why[e.tx.why if e.tx.why != "none" else "local again"] += more
                    self._seen[e.cookie] = e.tx.kernel_bytes


class Builder:
    """Makes programs from tests/programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: dict[tuple[str, ...], str] = {}

    def __call__(self, name: str, *flags: str) -> str:
        """Path of the program made of `name`.c."""
        key = (name, *flags)
        if key not in self.made:
            target = str(self.folder / "-".join((name, *(f.strip("-").replace("=", "-") for f in flags))))
            command = [os.environ.get("CC", "cc"), *WARNINGS, *flags, "-o", target, str(PROGRAMS / f"{name}.c")]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            self.made[key] = target
        return self.made[key]
