"""An interface that is lent: opened, steered, taken back."""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path
from typing import Self

from pyroute2 import IPRoute
from pyroute2.ethtool import Ethtool

from sharedstack.declare.layout import CONSTANTS

from .. import announce, shm
from ..environment import HelperError, kernel_at_least
from ..native import WantedXsk, open_xsk
from .hops import Hops
from .segment import BYTES, Segment
from .steering import Address, Steering

FRAMES, FRAME_BYTES = 2048, 2048
_HEADROOM, _HEADER = 256, 14  # XDP_PACKET_HEADROOM of linux/bpf.h, which each frame begins with; Ethernet's
FRAME_MTU = FRAME_BYTES - _HEADROOM - _HEADER
MOST_MTU = CONSTANTS["NIC_PIECES"] * (FRAME_BYTES - _HEADROOM) - _HEADER
_NAPI_KNOWN_SINCE = (6, 14)
_PROGRAMS = 5  # descriptors of a Steering
QUEUE_FRAMES = 2 * FRAMES + CONSTANTS["NIC_PIECES"]


class Interface:
    """All queues of an interface, each with an AF_XDP socket; descriptors and two segments are what is lent.

    `busy_us`: who waits has the driver look for packets, for so long at a time (0: it looks by itself). Raises HelperError where the
    interface, the kernel or the caller's capabilities do not do.
    """

    def __init__(self, name: str, segment: str, busy_us: int = 0) -> None:
        try:
            self.ifindex = socket.if_nametoindex(name)
        except OSError as error:
            raise HelperError(f"there is no interface {name}: see `ip link`") from error
        self.name, self._busy_us = name, busy_us
        queues = receive_queues(name)
        if queues > CONSTANTS["N_NIC_QUEUES"]:
            raise HelperError(
                f"{name} has {queues} receive queues, more than {CONSTANTS['N_NIC_QUEUES']}: set fewer (ethtool -L {name} combined N)"
            )
        self.fds: list[int] = []
        self._steering = Steering()
        shm.unlink(segment)
        shm.unlink(segment + "-frames")
        self.header = shm.create(segment, BYTES)
        self.packets = shm.create(segment + "-frames", queues * QUEUE_FRAMES * FRAME_BYTES)
        self.header.reserve(BYTES)
        self.packets.reserve(self.packets.size)
        self.segment = Segment(self.header.map())
        self._memory = self.packets.map()
        self.hops = Hops(self.segment, self.ifindex)
        try:
            self.hops.refresh()
            self._parts = self.segment.get("mtu") > FRAME_MTU
            self.hops.most_mtu = MOST_MTU if self._parts else FRAME_MTU
            self._describe(queues)
            self._open(queues)
            self.mode = self._steering.attach(self.ifindex)
        except HelperError:
            self.close()
            raise

    @classmethod
    def adopted(cls, name: str, segment: str, busy_us: int, mode: str, fds: list[int]) -> Self:
        """One that another helper opened, by its `kept` descriptors. Raises HelperError where it is gone, or another one by that name."""
        made = cls.__new__(cls)
        made.name, made._busy_us, made.mode = name, busy_us, mode
        header, packets, *programs = fds[: 2 + _PROGRAMS]
        made.fds = fds[2 + _PROGRAMS :]
        made.header = shm.Shared(segment, header, os.fstat(header).st_size)
        made.packets = shm.Shared(segment + "-frames", packets, os.fstat(packets).st_size)
        made.segment = Segment(made.header.map())
        made._memory = made.packets.map()
        made.ifindex = made.segment.get("ifindex")
        made._steering = Steering(programs, made.ifindex)
        made._parts = bool(made.segment.get("flags") & CONSTANTS["NIC_PARTS"])
        made.hops = Hops(made.segment, made.ifindex)
        made.hops.most_mtu = MOST_MTU if made._parts else FRAME_MTU
        try:
            made.hops.refresh()
        except HelperError:
            made.close()
            raise
        return made

    @property
    def kept(self) -> list[int]:
        """All descriptors by which another helper can adopt it."""
        return [self.header.fd, self.packets.fd, *self._steering.fds, *self.fds]

    @property
    def steering(self) -> Steering:
        """What decides which packets come here."""
        return self._steering

    def close(self) -> None:
        """Take it back: packets are the kernel's again, sockets and segments are gone when nobody holds them."""
        self.segment.set("magic", 0)  # who has borrowed it borrows another one, next time
        self._steering.detach()
        self._steering.close()
        self.hops.close()
        for fd in self.fds:
            os.close(fd)
        self.fds = []
        for held in (self.header, self.packets):
            shm.unlink(held.name)
            held.close()

    def lift(self, protocol: int, local: tuple[Address, int], remote: tuple[Address, int]) -> None:
        """Packets of the flow come here from now on, and go out to where its route says."""
        self.hops.want(remote[0])
        self._steering.add_flow(protocol, local, remote)

    def _describe(self, queues: int) -> None:
        self.segment.set("ifindex", self.ifindex)
        self.segment.set("n_queues", queues)
        self.segment.set("n_frames", FRAMES)
        self.segment.set("frame_bytes", FRAME_BYTES)
        self._flag("NIC_VIRTUAL", is_virtual(self.name))
        self._flag("NIC_PARTS", self._parts)
        self.segment.set_name(self.name)
        self.segment.set("magic", CONSTANTS["NIC_MAGIC"])

    def _open(self, queues: int) -> None:
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        for queue in range(queues):
            at = base + queue * QUEUE_FRAMES * FRAME_BYTES
            wanted = WantedXsk(FRAMES, FRAME_BYTES, self.ifindex, queue, self._parts, self._busy_us)
            fd, kind = open_xsk(at, wanted)
            self.fds.append(fd)
            self.segment.set_queue_flags(queue, kind)
            self._steering.set_socket(queue, fd)
            if self._busy_us and not kind & CONSTANTS["QUEUE_NAPI"] and kernel_at_least(_NAPI_KNOWN_SINCE):
                announce.complain(f"the driver of {self.name} does not say what polls its queues: it is not polled busily")
                self._busy_us = 0
        self._flag("NIC_BUSY_POLL", self._busy_us > 0)

    def _flag(self, name: str, is_so: bool) -> None:
        if is_so:
            self.segment.set("flags", self.segment.get("flags") | CONSTANTS[name])


def receive_queues(name: str) -> int:
    """How many receive queues an interface has now. (Not from /sys, which may be that of another network namespace.)"""
    try:
        with Ethtool() as tool:
            channels = tool.get_channels(name)
        return max(1, int(channels.rx_count + channels.combined_count))
    except Exception:  # pyroute2 raises many kinds where the driver does not say; then it has as many as were made
        with IPRoute() as route:
            return int(route.get_links(ifname=name)[0].get_attr("IFLA_NUM_RX_QUEUES") or 1)


def is_virtual(name: str) -> bool:
    """Has it no device behind it? Then its frames may come with half a checksum."""
    return not Path(f"/sys/class/net/{name}/device").exists() or driver(name) in ("virtio_net", "xen_netfront", "hv_netvsc")


def driver(name: str) -> str:
    """The driver's name; empty for an interface that has no device."""
    link = Path(f"/sys/class/net/{name}/device/driver")
    return link.resolve().name if link.exists() else ""
