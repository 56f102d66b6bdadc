"""An interface that is lent: opened, steered, taken back."""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path

from sharedstack.declare.layout import CONSTANTS

from .. import shm
from ..environment import HelperError
from ..native import open_xsk
from .hops import Hops
from .segment import BYTES, Segment
from .steering import Address, Steering

FRAMES, FRAME_BYTES = 2048, 2048


class Interface:
    """All queues of an interface, each with an AF_XDP socket; descriptors and two segments are what is lent.

    Raises HelperError where the interface, the kernel or the caller's capabilities do not do.
    """

    def __init__(self, name: str, segment: str, frames: int = FRAMES) -> None:
        try:
            self.ifindex = socket.if_nametoindex(name)
        except OSError as error:
            raise HelperError(f"there is no interface {name}: see `ip link`") from error
        self.name, self.frames = name, frames
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
        self.packets = shm.create(segment + "-frames", 2 * queues * frames * FRAME_BYTES)
        self.header.reserve(BYTES)
        self.packets.reserve(self.packets.size)
        self.segment = Segment(self.header.map())
        self._memory = self.packets.map()
        self.hops = Hops(self.segment, self.ifindex)
        try:
            self._describe(queues)
            self._open(queues)
            self.mode = self._steering.attach(self.ifindex)
        except HelperError:
            self.close()
            raise

    @property
    def steering(self) -> Steering:
        """What decides which packets come here."""
        return self._steering

    def close(self) -> None:
        """Take it back: packets are the kernel's again, sockets and segments are gone when nobody holds them."""
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
        self.segment.set("n_frames", self.frames)
        self.segment.set("frame_bytes", FRAME_BYTES)
        self.segment.set("flags", CONSTANTS["NIC_VIRTUAL"] if is_virtual(self.name) else 0)
        self.segment.set_name(self.name)
        self.hops.refresh()
        self.segment.set("magic", CONSTANTS["NIC_MAGIC"])

    def _open(self, queues: int) -> None:
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        for queue in range(queues):
            at = base + 2 * queue * self.frames * FRAME_BYTES
            fd, zero_copy = open_xsk(at, self.frames, FRAME_BYTES, self.ifindex, queue)
            self.fds.append(fd)
            self.segment.set_queue_flags(queue, zero_copy)
            self._steering.set_socket(queue, fd)


def receive_queues(name: str) -> int:
    """How many receive queues an interface has."""
    return max(1, len(list(Path(f"/sys/class/net/{name}/queues").glob("rx-*"))))


def is_virtual(name: str) -> bool:
    """Has it no device behind it? Then its frames may come with half a checksum."""
    return not Path(f"/sys/class/net/{name}/device").exists() or driver(name) in ("virtio_net", "xen_netfront", "hv_netvsc")


def driver(name: str) -> str:
    """The driver's name; empty for an interface that has no device."""
    link = Path(f"/sys/class/net/{name}/device/driver")
    return link.resolve().name if link.exists() else ""
