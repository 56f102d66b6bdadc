"""What the host must have for any link: the kernel, capabilities, programs, limits, memory. What can be tried without harm is tried."""

from __future__ import annotations

import errno
import os
import platform
import resource
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sharedstack_helper.environment import HelperError, kernel_at_least
from sharedstack_helper.lo.watch import look
from sharedstack_helper.nic.interface import FRAME_BYTES, QUEUE_FRAMES
from sharedstack_helper.nic.steering import Steering

from .. import paths

OK, WARN, FAIL = "ok", "warn", "fail"
_AF_XDP = 44
_TCP_REPAIR, _REPAIR_OFF = 19, 0
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_BPF": 39}
_SYS_ADMIN = 21
_OLDEST = (5, 18)  # BPF_PROG_RUN on live frames
_MEMORY = 512 << 20


@dataclass(frozen=True)
class Finding:
    """One precondition: `state` is ok, warn or fail; `advice` says what to do, empty where there is nothing to do."""

    what: str
    state: str
    found: str
    advice: str = ""


def host() -> list[Finding]:
    """Everything that does not depend on an interface that is lent."""
    return [*_kernel(), *_capabilities(), _sockets(), _repair(), _program(), _memlock(), _memory(), _programs(), _lo()]


def _kernel() -> Iterator[Finding]:
    if kernel_at_least(_OLDEST):
        yield Finding("kernel", OK, platform.release())
    else:
        yield Finding("kernel", FAIL, platform.release(), "the wire path needs Linux 5.18 or later")


def _capabilities() -> Iterator[Finding]:
    line = next((text for text in Path("/proc/self/status").read_text().splitlines() if text.startswith("CapEff:")), "CapEff: 0")
    held = int(line.split()[1], 16)
    for name, bit in _CAPABILITIES.items():
        if held >> bit & 1 or (name == "CAP_BPF" and held >> _SYS_ADMIN & 1):
            yield Finding(name, OK, "held")
        else:
            yield Finding(name, FAIL, "not held", "run the helper (not the programs) as root, or give it this capability")


def _sockets() -> Finding:
    try:
        socket.socket(_AF_XDP, socket.SOCK_RAW).close()
        return Finding("AF_XDP", OK, "sockets can be made")
    except PermissionError:
        return Finding("AF_XDP", FAIL, "not allowed", "it needs CAP_NET_RAW; a container's seccomp list may forbid it too")
    except OSError as error:
        advice = "the kernel has no CONFIG_XDP_SOCKETS: use one that has" if error.errno == errno.EAFNOSUPPORT else "see `dmesg`"
        return Finding("AF_XDP", FAIL, os.strerror(error.errno or 0), advice)


def _repair() -> Finding:
    with socket.socket() as s:
        try:
            s.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
            s.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, _REPAIR_OFF)
            return Finding("TCP_REPAIR", OK, "can be used")
        except OSError as error:
            return Finding(
                "TCP_REPAIR", FAIL, os.strerror(error.errno or 0), "it needs CAP_NET_ADMIN in the network namespace's own user namespace"
            )


def _program() -> Finding:
    """Libbpf, the object file, bpf(2) and the kernel's verifier, all at once: the program is loaded, and attached to nothing."""
    try:
        Steering().close()
        return Finding("bpf", OK, "the steering program loads")
    except FileNotFoundError as error:
        return Finding("bpf", FAIL, str(error), "build the package where clang and the headers of libbpf are (Debian: clang, libbpf-dev)")
    except HelperError as error:
        what, _, advice = str(error).partition(";")
        return Finding("bpf", FAIL, what.strip(), advice.strip() or "see /proc/sys/kernel/unprivileged_bpf_disabled, and `dmesg`")


def _memlock() -> Finding:
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    need = QUEUE_FRAMES * FRAME_BYTES
    shown = "unlimited" if limit == resource.RLIM_INFINITY else f"{limit >> 10} KiB"
    if limit == resource.RLIM_INFINITY or limit >= need or os.geteuid() == 0:
        return Finding("locked memory", OK, shown)
    return Finding("locked memory", FAIL, shown, f"raise it to {need >> 10} KiB for each queue (ulimit -l; LimitMEMLOCK= of a unit)")


def _memory() -> Finding:
    try:
        space = os.statvfs("/dev/shm")
    except OSError as error:
        return Finding("/dev/shm", FAIL, os.strerror(error.errno or 0), "mount a tmpfs there")
    free = space.f_bavail * space.f_frsize
    if free >= _MEMORY:
        return Finding("/dev/shm", OK, f"{free >> 20} MiB free")
    return Finding(
        "/dev/shm", WARN, f"{free >> 20} MiB free", "each lifted connection takes 256 KiB there; mount a larger one if there are many"
    )


def _programs() -> Finding:
    """For which programs there is a preload library; without a 32-bit loader there are none of 32 bits but static ones."""
    try:
        one = str(paths.library())
    except FileNotFoundError as error:
        return Finding("programs", FAIL, "no preload library", str(error))
    if paths.for_all_architectures(one) != one:
        return Finding("programs", OK, "of 64 and 32 bits")
    if os.path.exists(paths.LOADERS[1]):
        advice = "32-bit programs stay on the kernel's path: build the package here, where `gcc -m32` can link (Debian: gcc-multilib)"
        return Finding("programs", WARN, f"of {platform.machine()} only", advice)
    return Finding("programs", OK, f"of {platform.machine()}; there is no loader of 32-bit programs")


def _lo() -> Finding:
    """Rules of the kernel's that keep what goes by lo there."""
    seen = look()
    if seen.found:
        advice = "accept packets on lo, or established ones, before these rules, or ignore them (docs/policy.md, [lo])"
        return Finding("rules on lo", WARN, f"what goes by lo stays in the kernel: {seen.text}", advice)
    if seen.hidden:
        return Finding("rules on lo", WARN, seen.hidden, "a helper with CAP_NET_ADMIN sees them; one without supposes that there are none")
    return Finding("rules on lo", OK, "none that counts, changes or drops packets of established connections")
