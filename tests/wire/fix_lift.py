"""A connection of the kernel's goes to the engine and comes back, many times; its peer, on a plain kernel, echoes what it gets."""

from __future__ import annotations

import ctypes
import hashlib
import ipaddress
import os
import random
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

from sim.fix_engine import QUEUE, view
from wire.fix_end import Station
from wire.fix_veth import Host

from sharedstack.declare import wire

PORT = 5001


def library(station: Station) -> ctypes.CDLL:
    lib, u32, pointer = station.lib, ctypes.c_uint32, ctypes.c_void_p
    for name, arguments in (
        ("repair_begin", (ctypes.c_int,)),
        ("repair_end", (ctypes.c_int, ctypes.c_int, ctypes.c_char_p, u32)),
        ("repair_read", (ctypes.c_int, pointer)),
        ("repair_write", (ctypes.c_int, pointer, ctypes.c_char_p, u32, ctypes.c_char_p, u32)),
    ):
        function = getattr(lib, f"shs_native_{name}")
        function.restype, function.argtypes = ctypes.c_int, arguments
    return lib


def echo(station: Station, family: int) -> None:
    """A server of this host's kernel, in a thread: everything comes back."""
    listener = socket.create_server((station.host.address(family), PORT), family=socket.AF_INET if family == 4 else socket.AF_INET6)

    def serve() -> None:
        while True:
            s = listener.accept()[0]
            with s:
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while b := s.recv(65536):
                    s.sendall(b)

    threading.Thread(target=serve, daemon=True).start()


@dataclass
class Told:
    """What happened to a connection."""

    lifts: int = 0
    put_off: int = 0
    unread: int = 0
    unsent: int = 0
    lift_us: list[int] = field(default_factory=list)
    lower_us: list[int] = field(default_factory=list)
    stall_ms: float = 0.0
    good: bool = False
    by_engine: int = 0
    strays: int = 0


class Travelling:
    """One connection, on the kernel's path or the engine's."""

    def __init__(self, station: Station, other: Host, family: int) -> None:
        self.station, self.lib = station, library(station)
        self.socket = socket.create_connection((other.address(family), PORT), 5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.flow = tuple((ipaddress.ip_address(a[0]), a[1]) for a in (self.socket.getsockname(), self.socket.getpeername()))
        self.handle = 0
        self.told = Told()
        self._buffer = ctypes.create_string_buffer(65536)
        assert station.interface
        self.interface = station.interface
        self.lib.shs_test_nic_strays(station.port, self._buffer)

    def lift(self) -> bool:
        """False: something is under way, and the kernel goes on."""
        fd, start = self.socket.fileno(), time.monotonic_ns()
        image, memory = view(wire.IMAGE)
        self.reuse = self.check(self.lib.shs_native_repair_begin(fd))
        self.interface.lift(socket.IPPROTO_TCP, *self.flow)
        self.interface.steering.settle()
        r = self.lib.shs_native_repair_read(fd, memory)
        if r == -11:
            self.interface.steering.remove_flow(socket.IPPROTO_TCP, *self.flow)
            self.interface.steering.settle()
            self.check(self.lib.shs_native_repair_end(fd, self.reuse, None, 0))
            self.told.put_off += 1
            return False
        self.check(r)
        image["tx_off"], image["rx_off"], image["tx_size"], image["rx_size"] = 0, QUEUE, QUEUE, QUEUE
        self.station.drive(0)
        self.handle = self.lib.shs_test_tap_open(self.station.tap.tap, memory)
        assert self.handle
        self.told.lifts += 1
        self.told.lift_us.append((time.monotonic_ns() - start) // 1000)
        return True

    def lower(self, patience: float) -> None:
        """What is not acknowledged after `patience` seconds goes into the kernel's send queue."""
        fd, tap = self.socket.fileno(), self.station.tap.tap
        image, memory = view(wire.IMAGE)
        until = time.monotonic() + patience
        while True:
            self.check(self.lib.shs_test_tap_export(tap, self.handle, memory))
            if not image["tx_len"] or time.monotonic() > until:
                break
            self.station.drive(0.0001)
        start = time.monotonic_ns()
        unsent, unread = ctypes.create_string_buffer(QUEUE), ctypes.create_string_buffer(QUEUE)
        n_unsent = self.lib.shs_test_tap_unsent(tap, self.handle, unsent, QUEUE)
        n_unread = image["rx_len"]
        if n_unread:
            assert self.lib.shs_test_tap_recv(tap, self.handle, unread, n_unread) == n_unread
        sent = self.check(self.lib.shs_native_repair_write(fd, memory, unsent.raw, n_unsent, unread.raw, n_unread))
        assert self.lib.shs_test_tap_call(tap, 6, self.handle, 0, 0, 0) == 0
        self.interface.steering.remove_flow(socket.IPPROTO_TCP, *self.flow)
        self.interface.steering.settle()
        fresh = n_unsent - sent
        self.check(self.lib.shs_native_repair_end(fd, self.reuse, unsent.raw[sent:n_unsent], fresh))
        self.handle = 0
        self.give_back()
        self.told.unread += n_unread > 0
        self.told.unsent += n_unsent > 0
        self.told.lower_us.append((time.monotonic_ns() - start) // 1000)

    def give_back(self) -> None:
        """What was in the rings still belongs to the kernel's connection now."""
        self.station.drive(0)
        n = self.lib.shs_test_nic_strays(self.station.port, self._buffer)
        frames, at = self._buffer.raw[:n], 0
        while at < n:
            (size,) = struct.unpack_from("=I", frames, at)
            self.interface.steering.give_back(frames[at + 4 : at + 4 + size], self.interface.ifindex)
            at += 4 + size
            self.told.strays += 1

    def send(self, data: bytes) -> int:
        if self.handle:
            n = int(self.lib.shs_test_tap_send(self.station.tap.tap, self.handle, data, len(data)))
            self.told.by_engine += max(n, 0)
            return n if n != -11 else 0
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0

    def receive(self) -> bytes:
        if self.handle:
            self.station.drive(0)
            n = int(self.lib.shs_test_tap_recv(self.station.tap.tap, self.handle, self._buffer, 65536))
            assert n > 0 or n == -11, f"end of the stream: {n}"
            self.told.by_engine += max(n, 0)
            return self._buffer.raw[: max(n, 0)]
        try:
            got = self.socket.recv(65536)
            assert got, "end of the stream"
            return got
        except BlockingIOError:
            return b""

    @staticmethod
    def check(result: int) -> int:
        assert result >= 0, os.strerror(-result)
        return result


def travel(station: Station, other: Host, family: int, seed: int, turns: int, ahead: int) -> Told:
    """Lift and lower at random, with up to `ahead` bytes on their way to the echo and back."""
    chance = random.Random(seed)
    c = Travelling(station, other, family)
    out, back, sent, got = hashlib.sha256(), hashlib.sha256(), 0, 0
    last, until = time.monotonic(), time.monotonic() + 100

    def step(more: bool) -> None:
        nonlocal sent, got, last
        if more and sent - got < ahead:
            data = chance.randbytes(chance.choice((1, 64, 1500, 9000)))[: ahead - (sent - got)]
            n = c.send(data)
            out.update(data[:n])
            sent += n
        data = c.receive()
        back.update(data)
        got += len(data)
        now = time.monotonic()
        if data or sent == got:
            c.told.stall_ms = max(c.told.stall_ms, (now - last) * 1000)
            last = now
        assert now < until, f"it does not end: sent {sent}, received {got}"

    while c.told.lifts < turns:
        for _ in range(chance.randrange(1, 40)):
            step(True)
        if c.handle:
            c.lower(chance.choice((0, 0.01)))
        else:
            while sent > got:  # the kernel's queues have to be empty
                step(False)
            c.lift()
    while sent > got:
        step(False)
    c.told.good = out.digest() == back.digest()
    if c.handle:
        c.lower(1)
    c.socket.close()
    return c.told


def resets(host: Host) -> int:
    """RST segments that the host's kernel has sent."""
    text = host.run("cat", "/proc/net/snmp")
    head, values = (line.split() for line in text.splitlines() if line.startswith("Tcp:"))
    return int(values[head.index("OutRsts")])
