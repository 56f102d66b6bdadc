"""Next hops: the link-layer address to which packets for a lifted flow's peer go, kept true while routes and neighbours change.

The kernel decides: its route says which neighbour (RTM_GETROUTE), its table of neighbours says where that is; where it does not
know, it is asked to find out, as it would for a packet of its own. `look` follows what has changed since, by the kernel's notices.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from contextlib import suppress

from pyroute2 import IPRoute, NetlinkError

from ..environment import HelperError
from .segment import Segment
from .steering import Address

# neighbour states of rtnetlink(7) whose address is believed: REACHABLE, STALE, DELAY, PROBE, NOARP, PERMANENT
_BELIEVED = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80
_USE = 0x01  # NTF_USE: resolve it
_NO_WAY = (6, 7, 8)  # RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class Hops:
    """Next hops of one interface, written into its segment."""

    def __init__(self, segment: Segment, ifindex: int) -> None:
        self._segment = segment
        self._ifindex = ifindex
        self._route = IPRoute()
        self._notices = IPRoute()
        self._notices.bind(groups=_groups())
        self._wanted: set[Address] = set()
        self.most_mtu = 1 << 16

    def fileno(self) -> int:
        """Readable when the kernel has something to tell; then `look`."""
        return int(self._notices.fileno())

    def close(self) -> None:
        """Give both netlink sockets back."""
        self._route.close()
        self._notices.close()

    def want(self, remote: Address) -> bool:
        """Keep the next hop for `remote` known; True if it is known now.

        Raises HelperError where the kernel's route to it does not go by this interface, there is none, or packets may be larger than
        `most_mtu`.
        """
        if (mtu := self._segment.get("mtu")) > self.most_mtu:
            raise HelperError(f"an MTU of {mtu} is more than the {self.most_mtu} that the helper was started for: start it again")
        found = self._way(remote)
        if found is None:
            raise HelperError(f"the route to {remote} does not go by this interface: see `ip route get {remote}`")
        self._wanted.add(remote)
        return self._resolve(remote, *found)

    def keep(self, remote: Address) -> None:
        """The next `renew` renews its next hop, or says that its route goes another way."""
        self._wanted.add(remote)

    def forget(self, remote: Address) -> None:
        """No flow goes there any more."""
        if remote in self._wanted:
            self._wanted.remove(remote)
            self._segment.set_hop(remote, None)

    def look(self) -> list[Address]:
        """Take the kernel's notices, and `renew`."""
        with suppress(NetlinkError):
            self._notices.get()
        return self.renew()

    def renew(self) -> list[Address]:
        """Renew all that may have changed; returns those whose route goes another way now.

        Where there is no route at all nothing is sent until there is one again.
        """
        gone = []
        self._segment.set_link(*self._link())
        for remote in list(self._wanted):
            try:
                self.want(remote)
            except HelperError:
                self._segment.set_hop(remote, None)
                if self.reaches(remote):
                    gone.append(remote)
        return gone

    @property
    def wanted(self) -> list[Address]:
        """Those whose next hop is kept known."""
        return list(self._wanted)

    def own(self) -> set[Address]:
        """Addresses of this host that its kernel has now, on whatever interface."""
        return {ipaddress.ip_address(one.get_attr("IFA_LOCAL") or one.get_attr("IFA_ADDRESS")) for one in self._route.get_addr()}

    def hold(self, remote: Address) -> None:
        """Nothing is sent there until the next `want`."""
        self._segment.set_hop(remote, None)

    def reaches(self, remote: Address, local: Address | None = None) -> bool:
        """Has the kernel a way there (from that address), by whatever interface?"""
        try:
            found = self._route.route("get", dst=str(remote), family=_FAMILIES[remote.version])[0]
        except NetlinkError:
            return False
        return found["type"] not in _NO_WAY and (local is None or local in self.own())

    def _link(self) -> tuple[int, bytes, bool]:
        """MTU, own address, and whether it is up."""
        try:
            found = self._route.get_links(self._ifindex)[0]
        except (NetlinkError, IndexError) as error:
            raise HelperError(f"interface {self._ifindex} is gone: {error}") from error
        address = bytes.fromhex(str(found.get_attr("IFLA_ADDRESS")).replace(":", ""))
        return int(found.get_attr("IFLA_MTU")), address, found.get_attr("IFLA_OPERSTATE") in ("UP", "UNKNOWN")

    def refresh(self) -> None:
        """Write down what the interface is now."""
        self._segment.set_link(*self._link())

    def _way(self, remote: Address) -> tuple[Address, int] | None:
        """The neighbour by which it goes there, and the path's MTU, as the route says it or a router has told."""
        try:
            found = self._route.route("get", dst=str(remote), family=_FAMILIES[remote.version])[0]
        except NetlinkError as error:
            raise HelperError(f"no route to {remote}: {error}") from error
        if found.get_attr("RTA_OIF") != self._ifindex:
            return None
        gateway, metrics = found.get_attr("RTA_GATEWAY"), found.get_attr("RTA_METRICS")
        mtu = int((metrics and metrics.get_attr("RTAX_MTU")) or self._segment.get("mtu"))
        return ipaddress.ip_address(gateway) if gateway else remote, mtu

    def _resolve(self, remote: Address, gateway: Address, mtu: int) -> bool:
        for entry in self._route.get_neighbours(family=_FAMILIES[gateway.version], ifindex=self._ifindex, dst=str(gateway)):
            address = entry.get_attr("NDA_LLADDR")
            if address and entry["state"] & _BELIEVED:
                self._segment.set_hop(remote, bytes.fromhex(str(address).replace(":", "")), mtu)
                return True
        try:
            self._route.neigh("replace", dst=str(gateway), ifindex=self._ifindex, family=_FAMILIES[gateway.version], flags=_USE, state=0)
        except NetlinkError as error:
            if error.code not in (errno.ENETDOWN, errno.ENODEV, errno.EINVAL):
                raise HelperError(f"cannot ask for the neighbour {gateway}: {error}") from error
        return False


def _groups() -> int:
    """RTMGRP_* of links, neighbours, addresses and routes of both families."""
    return 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400
