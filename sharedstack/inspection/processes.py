"""What /proc says of processes: who is alive, who is preloaded, which sockets they hold, and what those are.

Every function takes a missing or forbidden /proc entry for an empty one: processes come and go.
"""

from __future__ import annotations

import math
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..declare.layout import CONSTANTS as C

PROC = Path("/proc")
LIBRARY = "libsharedstack.so"
ESTABLISHED = 1  # TCP_ESTABLISHED, include/net/tcp_states.h
_SOCKET = "socket:["


@dataclass(frozen=True)
class InetSocket:
    """A TCP or UDP socket of a network namespace; addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d."""

    proto: str
    state: int
    laddr: bytes
    lport: int
    raddr: bytes
    rport: int
    uid: int
    inode: int


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def pids() -> Iterator[int]:
    """All processes that /proc shows."""
    return (int(p.name) for p in PROC.iterdir() if p.name.isdigit())


def alive(pid: int) -> bool:
    """There is such a process, and it is no zombie."""
    stat = _read(PROC / str(pid) / "stat")
    return bool(stat) and stat.rsplit(b")", 1)[-1].split()[0] not in (b"Z", b"X")


def state(pid: int) -> str:
    """State of a process as in /proc/PID/stat: `T` stopped, `t` stopped by a tracer, S, R, D; empty if it is gone.

    `t` where a tracer has stopped any of its threads: that one may hold what others wait for.
    """
    states = {_state(PROC / str(pid))}
    try:
        states |= {_state(task) for task in (PROC / str(pid) / "task").iterdir()}
    except OSError:
        return ""
    return "t" if "t" in states else _state(PROC / str(pid))


def _state(folder: Path) -> str:
    stat = _read(folder / "stat")
    return stat.rsplit(b")", 1)[-1].split()[0].decode() if stat else ""


def comm(pid: int) -> str:
    """Name of the program, empty if it is gone."""
    return _read(PROC / str(pid) / "comm").decode("utf-8", "replace").rstrip("\n")


def uid(pid: int) -> int:
    """Real uid, -1 if it is gone."""
    found = re.search(rb"^Uid:\s+(\d+)", _read(PROC / str(pid) / "status"), re.M)
    return int(found[1]) if found else -1


def namespace(pid: int | str, kind: str) -> int:
    """Inode of a namespace of a process, 0 if it cannot be seen."""
    try:
        return os.stat(PROC / str(pid) / "ns" / kind).st_ino
    except OSError:
        return 0


def outside_pid(pid: int, pidns: int) -> int:
    """Our number of the process that is `pid` in pid namespace `pidns`; 0 if it cannot be seen from here."""
    if pidns == namespace("self", "pid"):
        return pid
    for candidate in pids():
        if namespace(candidate, "pid") == pidns:
            found = re.search(rb"^NSpid:.*\b(\d+)$", _read(PROC / str(candidate) / "status"), re.M)
            if found and int(found[1]) == pid:
                return candidate
    return 0


def preloaded(pid: int) -> bool:
    """The process has our library mapped."""
    return LIBRARY.encode() in _read(PROC / str(pid) / "maps")


def environ(pid: int) -> dict[str, str]:
    """The environment that the process was started with."""
    pairs = (e.split(b"=", 1) for e in _read(PROC / str(pid) / "environ").split(b"\0") if b"=" in e)
    return {os.fsdecode(k): os.fsdecode(v) for k, v in pairs}


def _limit(pid: int, name: str) -> float:
    found = re.search(rf"^{name}\s+(\d+|unlimited)".encode(), _read(PROC / str(pid) / "limits"), re.M)
    return int(found[1]) if found and found[1] != b"unlimited" else math.inf


def address_space(pid: int) -> tuple[int, float]:
    """Bytes that a process has mapped, and may map (RLIMIT_AS)."""
    found = re.search(rb"^VmSize:\s+(\d+) kB", _read(PROC / str(pid) / "status"), re.M)
    return int(found[1]) << 10 if found else 0, _limit(pid, "Max address space")


def descriptors(pid: int) -> tuple[int, float]:
    """Descriptors that a process has, and may have (RLIMIT_NOFILE)."""
    try:
        return len(os.listdir(PROC / str(pid) / "fd")), _limit(pid, "Max open files")
    except OSError:
        return 0, math.inf


def sockets(pid: int) -> dict[int, list[int]]:
    """Inodes of the sockets that a process holds, with their descriptors."""
    held: dict[int, list[int]] = {}
    try:
        folder = os.open(PROC / str(pid) / "fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return held
    try:
        for name in os.listdir(folder):
            try:
                link = os.readlink(name, dir_fd=folder)  # not by its path, which takes longer: there may be thousands
            except FileNotFoundError:
                continue
            if link.startswith(_SOCKET):
                held.setdefault(int(link[len(_SOCKET) : -1]), []).append(int(name))
    except OSError:
        return held
    finally:
        os.close(folder)
    return {inode: sorted(fds) for inode, fds in held.items()}


def inet_sockets(pid: int | str = "self") -> dict[int, InetSocket]:
    """TCP and UDP sockets of the network namespace of a process, by inode."""
    found = {}
    for name in ("tcp", "tcp6", "udp", "udp6"):
        for line in _read(PROC / str(pid) / "net" / name).decode("ascii", "replace").splitlines()[1:]:
            words = line.split()
            if len(words) < 10:
                continue
            (laddr, lport), (raddr, rport) = _address(words[1]), _address(words[2])
            one = InetSocket(name, int(words[3], 16), laddr, lport, raddr, rport, int(words[7]), int(words[9]))
            found[one.inode] = one
    found.pop(0, None)  # sockets that no process holds
    return found


def _address(word: str) -> tuple[bytes, int]:
    """`0100007F:1F90`: 32-bit words in host order, port in hexadecimal."""
    digits, port = word.split(":")
    raw = b"".join(int(digits[i : i + 8], 16).to_bytes(4, "little") for i in range(0, len(digits), 8))
    return (raw if len(raw) == 16 else bytes(10) + b"\xff\xff" + raw), int(port, 16)


def printable(addr: bytes, port: int) -> str:
    """`127.0.0.1:80`, `[::1]:80`."""
    if addr[:12] == bytes(10) + b"\xff\xff":
        return f"{socket.inet_ntop(socket.AF_INET, addr[12:])}:{port}"
    return f"[{socket.inet_ntop(socket.AF_INET6, addr)}]:{port}"


def slot_dead(robust: int, flags: int) -> bool:
    """What the robust futex of a live slot says: its home thread ended and nobody took over."""
    died = not robust & 0x3FFFFFFF or bool(robust & 0x40000000)
    return died and not flags & C["SLOT_UNWITNESSED"]
