"""What preloading costs a program that opens no internet socket: its start and its end."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import sys
import time

import pytest
from compat.fix_lab import Builder, Lab

pytest_plugins = ["compat.fix_paths"]

PAIRS = 40
BUDGET = 0.0005


def seconds(program: str, environ: dict[str, str]) -> float:
    """From spawn to the end; without Python's own work, which is as long as what is measured."""
    began = time.perf_counter()
    pid = os.posix_spawn(program, [program], environ)
    _, status = os.waitpid(pid, 0)
    took = time.perf_counter() - began
    assert status == 0
    return took


def test_a_program_without_internet_sockets_pays_half_a_millisecond_at_most(lab: Lab, build: Builder) -> None:
    """Interleaved pairs with a helper up, the faster half of each side: what else runs on the machine is not the library's doing."""
    program = build("nothing")
    plain = lab.environ("kernel")
    preloaded = plain | {"LD_PRELOAD": lab.library, "SHAREDSTACK_STACK": lab.stack}
    pairs = [(seconds(program, plain), seconds(program, preloaded)) for _ in range(PAIRS)]
    fast = [sorted(side)[: PAIRS // 2] for side in zip(*pairs, strict=True)]
    cost = statistics.median(fast[1]) - statistics.median(fast[0])
    print(f"preloading costs {cost * 1e6:.0f} us")
    assert cost <= BUDGET
    assert len(lab.state().participants) == 1, "it must not have attached: there is the helper alone"


CALLS = 20_000
INSTRUCTIONS = 75


def instructions(lab: Lab, program: str, environ: dict[str, str], calls: int) -> int:
    """That a run executes, as valgrind counts them: the same each time."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, str(calls)]
    done = lab.direct(command, environ)
    assert done.returncode == 0, done.stderr
    (found,) = re.findall(r"Collected : (\d+)", done.stderr)
    return int(found)


def test_a_system_call_that_is_nothing_to_us_costs_some_instructions(lab: Lab, build: Builder) -> None:
    """syscall(SYS_gettid): what the library adds to each."""
    if shutil.which("valgrind") is None:
        pytest.skip("needs valgrind")
    program, plain = build("plain_calls"), lab.environ("kernel")
    preloaded = plain | {"LD_PRELOAD": lab.library, "SHAREDSTACK_STACK": lab.stack}
    each = [(instructions(lab, program, env, 2 * CALLS) - instructions(lab, program, env, CALLS)) / CALLS for env in (plain, preloaded)]
    print(f"syscall() costs {each[1] - each[0]:.1f} instructions more")
    assert 0 < each[1] - each[0] <= INSTRUCTIONS


BARRIER = """
import ctypes, platform
number = {"x86_64": 324, "aarch64": 283}[platform.machine()]
print(ctypes.CDLL(None).syscall(number, 8, 0, 0))  # MEMBARRIER_CMD_PRIVATE_EXPEDITED: -1 unless registered
"""


def test_what_waits_for_the_kernel_is_done_before_there_are_threads(lab: Lab) -> None:
    """To register for membarrier(2) holds a process of several threads up for 12 to 50 ms: in a send, were it left to the first attach."""
    assert lab.run([sys.executable, "-c", BARRIER], "kernel").ok().out == "-1\n"
    assert lab.run([sys.executable, "-c", BARRIER], "default").ok().out == "0\n"
