"""The program that picks lifted flows out of an interface's packets: loaded by libbpf, attached by netlink.

What it does is told in sharedstack/native/link/steer.bpf.c. Attached, it stays: a helper that is killed changes nothing for anybody,
since packets of flows that are not lifted are passed in any case.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress

from pyroute2 import IPRoute, NetlinkError

from sharedstack import paths

from ..environment import HelperError
from . import grace

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
_EGRESS = 0xFFFFFFF3  # parent of filters on the way out, of a clsact qdisc
_PRIORITY = 0xC0DE  # of our filter there: another program's stay as they are
_XDP_IF_NONE, _XDP_GENERIC, _XDP_DRIVER = 1 << 0, 1 << 1, 1 << 2  # XDP_FLAGS_* of linux/if_link.h
_LIVE_FRAMES = 1 << 1  # BPF_F_TEST_XDP_LIVE_FRAMES
MOST_GIVEN_BACK = 3000  # bytes: such a frame has to fit into a page, with what the kernel puts around it
_PROGRAM_NAME = 64  # offset in struct bpf_prog_info of linux/bpf.h


def mapped(address: Address) -> bytes:
    """An address as 16 bytes, IPv4 as ::ffff:a.b.c.d."""
    return b"\0" * 10 + b"\xff\xff" + address.packed if address.version == 4 else address.packed


def unmapped(address: bytes) -> Address:
    """The address that 16 bytes mean."""
    six = ipaddress.IPv6Address(address)
    return six.ipv4_mapped or six


def _flow(protocol: int, local: tuple[Address, int], remote: tuple[Address, int]) -> bytes:
    return mapped(local[0]) + mapped(remote[0]) + struct.pack("!HH", local[1], remote[1]) + struct.pack("=I", protocol)


def libbpf() -> ctypes.CDLL:
    """Raises HelperError where it is not installed."""
    try:
        return ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise HelperError(f"cannot load libbpf: {error}; install it (Debian: libbpf1)") from error


class _RunOptions(ctypes.Structure):
    """struct bpf_test_run_opts of libbpf."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("data_in", ctypes.c_char_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("context_in", ctypes.c_char_p),
        ("context_out", ctypes.c_void_p),
        ("context_size_in", ctypes.c_uint32),
        ("context_size_out", ctypes.c_uint32),
        ("result", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


class Steering:
    """Loaded programs and their maps; `attach` puts them to work on one interface.

    `adopted`: descriptors of those that another process loaded and attached to `ifindex`, as its `fds`. Errors of the kernel are
    HelperError with what to do. Not thread-safe.
    """

    def __init__(self, adopted: Sequence[int] = (), ifindex: int | None = None) -> None:
        self._lib = libbpf()
        self._object, self._attached = 0, ifindex
        self._adopted = list(adopted)
        if adopted:
            self._flows, self._sockets, self._in, self._out, self._back = adopted
            return
        path = paths.steering_program()
        open_file = self._function("bpf_object__open_file", ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        self._object = open_file(os.fsencode(path), None)
        if not self._object:
            raise HelperError(f"cannot read {path}: {os.strerror(ctypes.get_errno())}; install the package again")
        try:
            self._check(self._function("bpf_object__load", ctypes.c_int, ctypes.c_void_p)(self._object), "load the steering program")
            self._flows, self._sockets = (self._map(name) for name in ("flows", "sockets"))
            self._in, self._out, self._back = (self._program(name) for name in ("steer_in", "steer_out", "give_back"))
        except HelperError:
            self.close()
            raise

    @property
    def fds(self) -> list[int]:
        """The maps `flows` and `sockets`; the programs `steer_in`, `steer_out`, `give_back`."""
        return [self._flows, self._sockets, self._in, self._out, self._back]

    def close(self) -> None:
        """Give the programs back; attached ones stay attached."""
        for fd in self._adopted:
            os.close(fd)
        self._adopted = []
        if self._object:
            self._function("bpf_object__close", None, ctypes.c_void_p)(self._object)
            self._object = 0

    def attach(self, ifindex: int) -> str:
        """Put both programs on the interface; "native" or "generic", as the driver can.

        Raises HelperError, also where another XDP program is there already.
        """
        with IPRoute() as route:
            mode = self._attach_in(route, ifindex)
            try:
                self._attach_out(route, ifindex)
            except NetlinkError as error:
                with suppress(NetlinkError):
                    route.link("set", index=ifindex, xdp_fd=-1)
                raise HelperError(f"cannot attach the egress program: {error}; the kernel needs NET_CLS_BPF and NET_SCH_INGRESS") from error
        self._attached = ifindex
        return mode

    def detach(self) -> None:
        """Take both off; nothing, where the interface is gone."""
        if self._attached is None:
            return
        with IPRoute() as route, suppress(NetlinkError):
            route.link("set", index=self._attached, xdp={"attrs": [("IFLA_XDP_FD", -1)]})
            route.tc("del-filter", "bpf", self._attached, parent=_EGRESS, prio=_PRIORITY, info=_PRIORITY << 16)
        self._attached = None

    def _attach_in(self, route: IPRoute, ifindex: int) -> str:
        refused: NetlinkError | None = None
        if self._left_behind(route, ifindex):
            route.link("set", index=ifindex, xdp={"attrs": [("IFLA_XDP_FD", -1)]})
        for mode, flags in (("native", _XDP_DRIVER), ("generic", _XDP_GENERIC)):
            try:
                attrs = [("IFLA_XDP_FD", self._in), ("IFLA_XDP_FLAGS", flags | _XDP_IF_NONE)]
                route.link("set", index=ifindex, xdp={"attrs": attrs})
                return mode
            except NetlinkError as error:
                if error.code in (errno.EBUSY, errno.EEXIST):
                    raise HelperError(
                        "another XDP program is on the interface already; take it off first (ip link set dev NAME xdp off)"
                    ) from error
                refused = error
        raise HelperError(f"cannot attach the XDP program: {refused}") from refused

    def _left_behind(self, route: IPRoute, ifindex: int) -> bool:
        """Is the program there one of ours, whose helper was killed? Nobody drives its sockets: else its queues could not be opened."""
        found = route.get_links(ifindex)[0].get_attr("IFLA_XDP")
        number = found.get_attr("IFLA_XDP_PROG_ID") if found else None
        if not number:
            return False
        fd = self._function("bpf_prog_get_fd_by_id", ctypes.c_int, ctypes.c_uint32)(number)
        if fd < 0:
            return False
        info, size = ctypes.create_string_buffer(256), ctypes.c_uint32(256)
        look = self._function("bpf_obj_get_info_by_fd", ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        try:
            return look(fd, info, ctypes.byref(size)) == 0 and info.raw[_PROGRAM_NAME:].startswith(b"steer_in\0")
        finally:
            os.close(fd)

    def _attach_out(self, route: IPRoute, ifindex: int) -> None:
        try:
            route.tc("add", "clsact", ifindex)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise
        with suppress(NetlinkError):  # one that was left behind
            route.tc("del-filter", "bpf", ifindex, parent=_EGRESS, prio=_PRIORITY, info=_PRIORITY << 16)
        route.tc(
            "add-filter", "bpf", ifindex, fd=self._out, name="steer_out", parent=_EGRESS, prio=_PRIORITY, classid=1, direct_action=True
        )

    def add_flow(self, protocol: int, local: tuple[Address, int], remote: tuple[Address, int]) -> None:
        """From now on packets of this flow go to the socket of their queue."""
        self._update(self._flows, _flow(protocol, local, remote), struct.pack("=I", 1), "steer another flow")

    def remove_flow(self, protocol: int, local: tuple[Address, int], remote: tuple[Address, int]) -> None:
        """And back to the kernel; nothing, where it is not steered."""
        self._delete(self._flows, _flow(protocol, local, remote))

    def has_flow(self, protocol: int, local: tuple[Address, int], remote: tuple[Address, int]) -> bool:
        """Is it steered?"""
        look = self._function("bpf_map_lookup_elem", ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
        value = ctypes.c_uint32()
        return look(self._flows, _flow(protocol, local, remote), ctypes.addressof(value)) == 0

    def set_socket(self, queue: int, fd: int) -> None:
        """Packets of steered flows that arrive in `queue` go to this AF_XDP socket."""
        self._update(self._sockets, struct.pack("=I", queue), struct.pack("=I", fd), f"hand queue {queue} to its socket")

    def drop_socket(self, queue: int) -> None:
        """Steered flows lose their packets of that queue from now on."""
        self._delete(self._sockets, struct.pack("=I", queue))

    def give_back(self, frame: bytes, ifindex: int) -> None:
        """Have the kernel receive a frame, of MOST_GIVEN_BACK bytes at most, as if it had come by the interface just now.

        (BPF_PROG_RUN on live frames.)
        """
        context = struct.pack("=6I", 0, len(frame), 0, ifindex, 0, 0)  # struct xdp_md
        options = _RunOptions(
            size=ctypes.sizeof(_RunOptions), data_in=frame, data_size_in=len(frame), context_in=context, context_size_in=len(context),
            repeat=1, flags=_LIVE_FRAMES,
        )  # fmt: skip
        run = self._function("bpf_prog_test_run_opts", ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
        self._check(run(self._back, ctypes.addressof(options)), "give a packet back to the kernel")

    @staticmethod
    def settle() -> None:
        """Return when no CPU is handling a packet by what the maps held before."""
        grace.settle()

    def _function(self, name: str, result: type | None, *arguments: type) -> Callable[..., int]:
        function = self._lib[name]
        function.restype, function.argtypes = result, arguments
        return function

    def _map(self, name: str) -> int:
        found = self._function("bpf_object__find_map_by_name", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
            self._object, name.encode()
        )
        return self._check(self._function("bpf_map__fd", ctypes.c_int, ctypes.c_void_p)(found), f"find map {name}")

    def _program(self, name: str) -> int:
        found = self._function("bpf_object__find_program_by_name", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
            self._object, name.encode()
        )
        return self._check(self._function("bpf_program__fd", ctypes.c_int, ctypes.c_void_p)(found), f"find program {name}")

    def _update(self, fd: int, key: bytes, value: bytes, what: str) -> None:
        update = self._function("bpf_map_update_elem", ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint64)
        self._check(update(fd, key, value, 0), what)

    def _delete(self, fd: int, key: bytes) -> None:
        delete = self._function("bpf_map_delete_elem", ctypes.c_int, ctypes.c_int, ctypes.c_char_p)
        result = delete(fd, key)
        if result != -errno.ENOENT:
            self._check(result, "forget a flow")

    @staticmethod
    def _check(result: int, what: str) -> int:
        if result < 0:
            hint = "; it needs CAP_BPF and CAP_NET_ADMIN" if -result in (errno.EPERM, errno.EACCES) else ""
            raise HelperError(f"cannot {what}: {os.strerror(-result)}{hint}")
        return result
