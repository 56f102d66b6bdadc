"""What libc does with sockets by itself, past every wrapper, goes on beside lifted ones: the resolver and syslog(3)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from compat.fix_lab import MODES, Lab

pytest_plugins = ["compat.fix_paths"]

ASKED = 40

SERVER = """
import socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 53))
print("ready", flush=True)
while True:
    query, peer = s.recvfrom(2000)
    end = query.index(0, 12) + 5
    kind = struct.unpack("!H", query[end - 4 : end - 2])[0]
    number = int(query[13 : 13 + query[12]][1:] or b"0") if kind == 1 else 0
    answer = struct.pack("!HHHIH4B", 0xC00C, 1, 1, 60, 4, 10, 0, 0, number) if kind == 1 else b""
    s.sendto(query[:2] + struct.pack("!HHHHH", 0x8180, 1, bool(answer), 0, 0) + query[12:end] + answer, peer)
"""

# between the questions lifted connections come and go, so that the resolver gets numbers that were theirs
CLIENT = f"""
import socket
l = socket.create_server(("127.0.0.1", 0))
def talk(a, b):
    for _ in range(20):
        for x, y in ((a, b), (b, a)):
            x.sendall(b"t" * 100)
            assert y.recv(100, socket.MSG_WAITALL) == b"t" * 100
kept = socket.create_connection(l.getsockname()); other, _ = l.accept()
talk(kept, other)
right = 0
for i in range({ASKED}):
    a = socket.create_connection(l.getsockname()); b, _ = l.accept()
    talk(a, b)
    a.close(); b.close()
    right += socket.getaddrinfo(f"h{{i}}.test", 80, socket.AF_INET, socket.SOCK_STREAM)[0][4][0] == f"10.0.0.{{i}}"
    talk(kept, other)
print(right)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="allowed: a file system namespace, and port 53, need root")
@pytest.mark.parametrize("mode", MODES)
def test_the_resolver(lab: Lab, tmp_path: Path, mode: str) -> None:
    """It asks a preloaded server, which sees a plain peer."""
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 127.0.0.1\noptions timeout:5 attempts:1\n")
    names = tmp_path / "nsswitch.conf"
    names.write_text("hosts: dns\n")
    bind = 'mount --bind "$0" /etc/resolv.conf && mount --bind "$1" /etc/nsswitch.conf && shift && exec "$@"'
    with lab.start([sys.executable, "-u", "-c", SERVER], mode) as server:
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        ran = lab.run(["unshare", "--mount", "sh", "-c", bind, str(conf), str(names), sys.executable, "-c", CLIENT], mode)
        server.kill()
    assert ran.ok().out == f"{ASKED}\n"
    if mode != "kernel":
        assert ran.sent.local > 0.9 * (ran.sent.local + ran.sent.kernel), f"{ran.sent}"


LOGGING = """
import ctypes, os, socket, sys
libc = ctypes.CDLL(None)
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); log.bind(sys.argv[1])
l = socket.create_server(("127.0.0.1", 0))
a = socket.create_connection(l.getsockname()); b, _ = l.accept()
libc.openlog(b"test", 8, 8)
got = []
for i in range(20):
    a.sendall(b"t" * 100)
    assert b.recv(100, socket.MSG_WAITALL) == b"t" * 100
    libc.syslog(6, b"number %d", ctypes.c_int(i))
    libc.dprintf(a.fileno(), b"%03d", ctypes.c_int(i))
    said = log.recv(200).rpartition(b"number ")[2].rstrip(b"\\0\\n").decode()
    got.append(said == str(i) and b.recv(3, socket.MSG_WAITALL) == b"%03d" % i)
print(sum(got))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="allowed: a file system namespace needs root")
@pytest.mark.parametrize("mode", MODES)
def test_syslog_and_dprintf(lab: Lab, tmp_path: Path, mode: str) -> None:
    """syslog(3) keeps a Unix socket of its own; dprintf(3) writes to a lifted connection."""
    bind = 'mount -t tmpfs none /dev && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", bind, "sh", sys.executable, "-c", LOGGING, "/dev/log"]
    assert lab.run(argv, mode).ok().out == "20\n"
