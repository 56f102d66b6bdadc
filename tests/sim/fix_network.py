"""Scenarios of the `sim` link from Python."""

from __future__ import annotations

import ctypes
from functools import cache

from sim.fix_engine import library, load, view

from sharedstack.declare import sim
from sharedstack.declare.binary import View


@cache
def _memory() -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(load(library()).shs_test_sim_bytes() + 64)


def _place() -> int:
    return (ctypes.addressof(_memory()) + 63) & ~63


def scenario_of(seed: int) -> View:
    """What the seeded run does for this number."""
    declared, memory = view(sim.SCENARIO)
    load(library()).shs_test_sim_scenario(seed, ctypes.addressof(memory))
    return declared


def run(values: dict[str, int | tuple[int, int]] | View, capture: int = 0) -> tuple[View, bytes]:
    """One scenario; the result, and the packets if `capture` bytes are wanted."""
    given, memory = view(sim.SCENARIO)
    for name, value in values.items():
        given[name] = value
    result, into = view(sim.RESULT)
    buffer = ctypes.create_string_buffer(max(capture, 1))
    used = load(library()).shs_test_sim_run(_place(), ctypes.addressof(memory), ctypes.addressof(into), ctypes.addressof(buffer), capture)
    return result, buffer.raw[:used]


def many(seed: int, connections: int) -> tuple[View, int, int]:
    """Scenarios from `seed` on, until so many connections have been: the sum, the first seed that failed plus one, connections."""
    result, into = view(sim.RESULT)
    done = ctypes.c_uint64()
    failed = load(library()).shs_test_sim_many(_place(), seed, connections, ctypes.addressof(into), ctypes.addressof(done))
    return result, failed, done.value


def verdict(result: View) -> str:
    """In words; empty: all as it must be."""
    bits = [k for k, v in sim.CONSTANTS.items() if k.startswith("SIM_") and result["verdict"] & v]
    return " ".join([*bits, f"check.c:{result['line']}"] if bits else [])
