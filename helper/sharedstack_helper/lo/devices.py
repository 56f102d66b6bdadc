"""What else the kernel does to packets on lo: queueing disciplines, filters of traffic control, XDP programs; and iptables-legacy.

Reading the first three needs no privilege. Programs that are attached by a link of bpf(2) (tcx) are in no list of netlink's.
"""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from .packet import Network
from .walk import Finding

_NO_QUEUE = "noqueue"
_HOLDERS = {"clsact": (0xFFFFFFF2, 0xFFFFFFF3), "ingress": (0xFFFF0000,)}  # whose filters count: they themselves do nothing
_GET_INFO = 64  # IPT_SO_GET_INFO, IP6T_SO_GET_INFO
_INFO = struct.Struct("=32sI5I5III")  # struct ipt_getinfo
_HOOKS = (0, 1, 3, 4)  # NF_INET_*: all but forward, which packets on lo do not see
_LEGACY = ((4, socket.AF_INET, socket.IPPROTO_IP, "ip"), (6, socket.AF_INET6, socket.IPPROTO_IPV6, "ip6"))


def look() -> tuple[list[Finding], list[Network], int]:
    """What keeps packets in the kernel; this host's own addresses; the number of lo. Raises OSError."""
    with IPRoute() as asking:
        lo = int(asking.link_lookup(ifname="lo")[0])
        own: list[Network] = []
        for message in asking.get_addr():
            address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            if address:  # of lo, the whole network is this host
                length = f"/{message['prefixlen']}" if message["index"] == lo else ""
                own.append(ipaddress.ip_network(f"{address}{length}", strict=False))
        return [*_of_lo(asking, lo), *legacy()], own, lo


def _of_lo(asking: Any, lo: int) -> Iterator[Finding]:
    for message in asking.get_qdiscs(index=lo):
        kind = str(message.get_attr("TCA_KIND"))
        if message["index"] != lo or kind == _NO_QUEUE:
            continue
        if kind not in _HOLDERS:
            yield Finding(0, f"tc qdisc {kind} on lo queues, delays or drops packets")
        for parent in _HOLDERS.get(kind, ()):
            for one in asking.get_filters(index=lo, parent=parent):
                yield Finding(0, f"tc filter {one.get_attr('TCA_KIND')} on lo, parent {parent:#x}")
    xdp = asking.get_links(lo)[0].get_attr("IFLA_XDP")
    if xdp is not None and xdp.get_attr("IFLA_XDP_ATTACHED"):
        yield Finding(0, "an XDP program on lo")


def legacy() -> Iterator[Finding]:
    """Tables of iptables-legacy that have rules on the way of packets on lo; which ones is not looked at."""
    for version, family, level, name in _LEGACY:
        with suppress(OSError):  # not there, or not to be read
            for table in Path(f"/proc/net/{name}_tables_names").read_text().split():
                if table != "nat" and has_rules(_info(family, level, table)):
                    yield Finding(version, f"iptables-legacy: table {table} of {name}tables has rules, into which nobody looks")


def _info(family: int, level: int, table: str) -> bytes:
    """IPT_SO_GET_INFO of a table. Raises OSError."""
    buffer = ctypes.create_string_buffer(table.encode(), _INFO.size)
    size = ctypes.c_uint(_INFO.size)
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.getsockopt(asking.fileno(), level, _GET_INFO, buffer, ctypes.byref(size)) != 0:
            raise OSError(ctypes.get_errno(), f"cannot look at table {table}")
    return buffer.raw


def has_rules(info: bytes) -> bool:
    """Is there any, or another policy than to accept, where packets on lo come by?"""
    _, hooks, *places, _, _ = _INFO.unpack(info)
    entries, last = places[:5], places[5:10]
    return any(hooks >> hook & 1 and entries[hook] != last[hook] for hook in _HOOKS)
