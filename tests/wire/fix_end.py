"""One end of the wire in a process of its own: an interface lent by what the helper uses, and an engine driven over it."""

from __future__ import annotations

import ctypes
import gc
import ipaddress
import mmap
import multiprocessing
import os
import socket
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sim.fix_engine import QUEUE, C, Tap, load, view
from wire.fix_veth import INTERFACE, Host

from sharedstack import paths
from sharedstack.declare import wire
from sharedstack_helper.nic.interface import Interface
from sharedstack_helper.nic.steering import mapped

PORTS = (4001, 4002)
_SPAWN = multiprocessing.get_context("fork")


def _library() -> ctypes.CDLL:
    lib = load(paths.native_library())
    u32, u64, pointer = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p
    for name, result, arguments in (
        ("tap_device", pointer, (pointer, pointer)),
        ("nic_bytes", u64, ()),
        ("nic_attach", ctypes.c_int, (pointer, pointer, pointer, u64, pointer)),
        ("nic_detach", None, (pointer,)),
        ("nic_device", pointer, (pointer,)),
        ("nic_repair", None, (pointer,)),
        ("nic_lose", None, (pointer, u32)),
        ("nic_strays", u32, (pointer, pointer)),
        ("nic_send_by", None, (pointer, u32)),
        ("nic_drive", u64, (pointer, pointer, u64)),
        ("nic_pingpong", u32, (pointer, pointer, u64, u32, u32, u32, pointer)),
    ):
        function = getattr(lib, f"shs_test_{name}")
        function.restype, function.argtypes = result, arguments
    return lib


class Station:
    """What runs in the process: an engine on the lent interface."""

    def __init__(self, host: Host) -> None:
        host.enter()
        self.host = host
        self.lib = _library()
        self.interface: Interface | None = None
        self.tap = Tap(paths.native_library(), seed=host.number + 1, now=time.monotonic_ns())
        self.handles: dict[int, int] = {}

    def open(self, busy_us: int = 0) -> str:
        self.interface = Interface(INTERFACE, f"/shs-test-wire-{os.getpid()}-{self.host.number}", busy_us)
        self.attach()
        return self.interface.mode

    def attach(self) -> None:
        assert self.interface
        self._attach(self.interface.header.fd, self.interface.packets.fd, self.interface.fds)

    def _attach(self, header_fd: int, packets_fd: int, sockets: list[int]) -> None:
        self.port = ctypes.create_string_buffer(self.lib.shs_test_nic_bytes())
        self.maps = mmap.mmap(header_fd, 0), mmap.mmap(packets_fd, 0)
        header, packets = (ctypes.addressof(ctypes.c_char.from_buffer(m)) for m in self.maps)
        fds = (ctypes.c_int * len(sockets))(*sockets)
        assert self.lib.shs_test_nic_attach(self.port, header, packets, len(self.maps[1]), fds) == 0
        self.engine = self.lib.shs_test_tap_device(self.tap.tap, self.lib.shs_test_nic_device(self.port))

    def lend(self, path: str) -> None:
        """To who borrows at that path: descriptors alone, as a participant is lent them."""
        assert self.interface
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(path)
            socket.send_fds(s, [b"nic"], [self.interface.header.fd, self.interface.packets.fd, *self.interface.fds])

    def borrow(self, path: str) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            with listener.accept()[0] as s:
                _, fds, _, _ = socket.recv_fds(s, 16, 16)
        self._attach(fds[0], fds[1], fds[2:])

    def connect(self, other: Host, family: int = 4, flags: int = 0, index: int = 0, mss: int = 1400) -> bool:
        """A connection that both ends agree about, the index-th; it is steered here. True if the next hop is known already."""
        declared, memory = view(wire.IMAGE)
        me = self.host.number
        local, remote = (ipaddress.ip_address(h.address(family)) for h in (self.host, other))
        values: dict[str, Any] = {
            "laddr": mapped(local), "raddr": mapped(remote), "lport": PORTS[me] + 2 * index, "rport": PORTS[1 - me] + 2 * index,
            "family": family, "state": C["TCP_ESTABLISHED"], "flags": C["TF_NODELAY"] | flags, "snd_una": 1000 + me, "snd_nxt": 1000 + me,
            "rcv_nxt": 1001 - me, "snd_wl1": 1001 - me, "rcv_wup": 1001 - me, "snd_wnd": 60000, "rcv_wnd": 60000, "mss": mss,
            "mtu": mss + 100,
            "tx_off": 2 * index * QUEUE, "rx_off": (2 * index + 1) * QUEUE, "tx_size": QUEUE, "rx_size": 65536, "srtt_us": 20_000,
        }  # fmt: skip
        for name, value in values.items():
            declared[name] = value
        handle = self.lib.shs_test_tap_open(self.tap.tap, ctypes.addressof(memory))
        assert handle
        self.handles[index] = handle
        return self.steer(other, family, index)

    def steer(self, other: Host, family: int, index: int) -> bool:
        """What the helper does for a connection; nothing where the interface is borrowed."""
        local, remote = (ipaddress.ip_address(h.address(family)) for h in (self.host, other))
        if not self.interface:
            return True
        ports = [p + 2 * index for p in PORTS]
        self.interface.lift(socket.IPPROTO_TCP, (local, ports[self.host.number]), (remote, ports[1 - self.host.number]))
        self.interface.steering.settle()
        return self.interface.hops.want(remote)

    def drive(self, seconds: float) -> int:
        return int(self.lib.shs_test_nic_drive(self.port, self.engine, int(seconds * 1e9)))

    def talk(self, index: int, out: bytes, expected: int, seconds: float = 20.0) -> bytes:
        """Send `out` and receive so many bytes, both at once."""
        handle, got, until = self.handles[index], bytearray(), time.monotonic() + seconds
        buffer = ctypes.create_string_buffer(65536)
        while (out or len(got) < expected) and time.monotonic() < until:
            self.drive(0.0002)
            if out:
                n = self.lib.shs_test_tap_send(self.tap.tap, handle, out[:65536], min(len(out), 65536))
                out = out[max(n, 0) :]
            n = self.lib.shs_test_tap_recv(self.tap.tap, handle, buffer, 65536)
            if n > 0:
                got += buffer.raw[:n]
        self.drive(0.2)  # the last acknowledgments
        self.tap.check()
        return bytes(got)

    def pingpong(self, index: int, first: bool, n: int) -> list[int]:
        os.sched_setaffinity(0, {self.host.number % os.cpu_count()})  # type: ignore[operator]
        times = (ctypes.c_uint64 * n)()
        done = self.lib.shs_test_nic_pingpong(self.port, self.engine, self.handles[index], first, 64, n, times)
        assert done == n, f"{done} of {n}"
        return list(times)

    def lose(self, every: int) -> None:
        self.lib.shs_test_nic_lose(self.port, every)

    def counters(self) -> dict[str, int]:
        assert self.interface
        return self.interface.segment.queue(0)

    def engine_counter(self, name: str) -> int:
        return self.tap.counter(name)

    def close(self) -> None:
        if self.interface:
            self.lib.shs_test_nic_detach(self.port)
            self.interface.close()
        self.interface = None

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(self, *arguments)


def _serve(host: Host, pipe: Connection) -> None:
    gc.freeze()  # what the parent had is not looked through here, which takes longer than what is measured
    station = Station(host)
    while True:
        name, arguments = pipe.recv()
        if not name:
            station.close()
            os._exit(0)
        try:
            pipe.send((True, getattr(station, name)(*arguments)))
        except BaseException:
            pipe.send((False, traceback.format_exc()))


class End:
    """Handle of a station in another process: `end.do("drive", 0.1)`, or begin and finish, for two that work at once."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._pipe, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=_serve, args=(host, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def begin(self, name: str, *arguments: Any) -> None:
        self._pipe.send((name, arguments))

    def finish(self) -> Any:
        assert self._pipe.poll(60), "it does not answer"
        good, result = self._pipe.recv()
        assert good, result
        return result

    def do(self, name: str, *arguments: Any) -> Any:
        self.begin(name, *arguments)
        return self.finish()

    def end(self) -> None:
        with suppress(OSError):  # killed already
            self.begin("")
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        for left in Path("/dev/shm").glob(f"shs-test-wire-{self.process.pid}-*"):  # of one that was killed
            left.unlink()
