"""Two hosts joined by a cable: network namespaces with a veth pair, made and removed here."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

CLONE_NEWNET = 0x40000000
ADDRESSES = {4: ("10.77.0.1", "10.77.0.2"), 6: ("fd77::1", "fd77::2")}
INTERFACE = "cable"


def need_root() -> None:
    """Skip where there is no root, whose part this is."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces and AF_XDP need root")


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Host:
    """A namespace, and its end of the cable."""

    namespace: str
    number: int

    def run(self, *command: str) -> str:
        return run("ip", "netns", "exec", self.namespace, *command)

    def enter(self) -> None:
        """Move the calling thread there."""
        libc = ctypes.CDLL(None, use_errno=True)
        fd = os.open(f"/run/netns/{self.namespace}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            assert libc.setns(fd, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        finally:
            os.close(fd)

    def address(self, family: int) -> str:
        return ADDRESSES[family][self.number]


@contextmanager
def hosts(queues: int = 1, mtu: int = 1500) -> Iterator[tuple[Host, Host]]:
    """Two hosts whose ends of the cable have so many queues each."""
    pair = tuple(Host(f"shs-wire-{os.getpid()}-{n}", n) for n in range(2))
    made: list[str] = []
    try:
        for host in pair:
            run("ip", "netns", "add", host.namespace)
            made.append(host.namespace)
        ends = [f"numtxqueues {queues} numrxqueues {queues} mtu {mtu} netns {host.namespace}".split() for host in pair]
        run("ip", "link", "add", INTERFACE, *ends[0], "type", "veth", "peer", "name", INTERFACE, *ends[1])
        for host in pair:
            for family, length in ((4, 24), (6, 64)):
                host.run("ip", "address", "add", f"{host.address(family)}/{length}", "dev", INTERFACE, *(["nodad"] if family == 6 else []))
            host.run("ip", "link", "set", INTERFACE, "up")
            host.run("ip", "link", "set", "lo", "up")
            host.run("sysctl", "-qw", "net.ipv4.tcp_max_tw_buckets=1000")  # else thousands of closed connections slow down those after them
        yield pair[0], pair[1]
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False)
            assert not Path(f"/run/netns/{name}").exists()
