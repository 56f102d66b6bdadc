"""What an interface must be to be lent: kind, state, driver, queues, MTU, offloads, and nobody else's program on it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.ethtool import Ethtool

from sharedstack.declare.layout import CONSTANTS
from sharedstack_helper.environment import kernel_at_least
from sharedstack_helper.nic.interface import FRAME_MTU, MOST_MTU, driver, is_virtual, receive_queues

from .checks import FAIL, OK, WARN, Finding

# Those whose maintainers document native XDP; others are driven by generic XDP, which copies and costs more.
NATIVE = frozenset(
    [
        "bnxt_en",
        "ena",
        "fm10k",
        "gve",
        "hv_netvsc",
        "i40e",
        "iavf",
        "ice",
        "igb",
        "igc",
        "ixgbe",
        "ixgbevf",
        "mlx4_en",
        "mlx5_core",
        "mvneta",
        "mvpp2",
        "nfp",
        "qede",
        "sfc",
        "stmmac",
        "thunderx",
        "tsnep",
        "tun",
        "veth",
        "virtio_net",
    ]
)
_ETHERNET = 1  # ARPHRD_ETHER
_PARTS_SINCE = (6, 6)  # XDP_USE_SG
_WRONG_OFFLOADS = ("rx-lro", "rx-gro-hw")


def interface(name: str) -> list[Finding]:
    """Everything that is asked of one interface."""
    try:
        number = socket.if_nametoindex(name)
    except OSError:
        return [Finding(name, FAIL, "there is no such interface", "see `ip link`")]
    with IPRoute() as route:
        link = route.get_links(number)[0]
    found = [*_kind(name, link), *_driver(name, link), *_size(name, link), *_programs(name, link), *_offloads(name)]
    return [Finding(f"{name}: {one.what}", one.state, one.found, one.advice) for one in found]


def _kind(name: str, link: Any) -> Iterator[Finding]:
    if link["ifi_type"] != _ETHERNET:
        yield Finding("kind", FAIL, f"link type {link['ifi_type']}", "only Ethernet can be lent; connections on this host need no link")
    state = link.get_attr("IFLA_OPERSTATE")
    if state in ("UP", "UNKNOWN"):
        yield Finding("state", OK, str(state))
    else:
        yield Finding("state", WARN, str(state), f"nothing is lifted while it is down: ip link set {name} up, and see its cable")


def _driver(name: str, link: Any) -> Iterator[Finding]:
    info = link.get_attr("IFLA_LINKINFO")
    found = driver(name) or (info.get_attr("IFLA_INFO_KIND") if info else "") or "unknown"
    if found in NATIVE:
        yield Finding("driver", OK, f"{found}, native XDP" + (", virtual: half checksums are accepted" if is_virtual(name) else ""))
    else:
        yield Finding("driver", WARN, str(found), "not known to have native XDP: generic XDP is used where it has not, which costs more")
    queues = receive_queues(name)
    if queues <= CONSTANTS["N_NIC_QUEUES"]:
        yield Finding("queues", OK, str(queues))
    else:
        yield Finding("queues", FAIL, str(queues), f"set at most {CONSTANTS['N_NIC_QUEUES']}: ethtool -L {name} combined N")


def _size(name: str, link: Any) -> Iterator[Finding]:
    mtu = int(link.get_attr("IFLA_MTU"))
    if mtu <= FRAME_MTU:
        yield Finding("MTU", OK, str(mtu))
    elif mtu <= MOST_MTU and kernel_at_least(_PARTS_SINCE):
        yield Finding("MTU", OK, f"{mtu}: packets take several frames")
    elif mtu <= MOST_MTU:
        yield Finding("MTU", FAIL, str(mtu), f"packets of more than {FRAME_MTU} bytes need Linux 6.6: ip link set {name} mtu 1500")
    else:
        yield Finding("MTU", FAIL, str(mtu), f"packets of more than {MOST_MTU} bytes are not taken: ip link set {name} mtu 9000")


def _programs(name: str, link: Any) -> Iterator[Finding]:
    xdp = link.get_attr("IFLA_XDP")
    number = xdp.get_attr("IFLA_XDP_PROG_ID") if xdp else None
    if number:
        yield Finding("XDP program", WARN, f"number {number} is there", f"if it is not a helper's: ip link set dev {name} xdp off")
    else:
        yield Finding("XDP program", OK, "none")
    if link.get_attr("IFLA_MASTER"):
        yield Finding(
            "master",
            WARN,
            "part of a bridge or bond",
            "packets that are bridged do not come by it: lend the interface that has the address",
        )


def _offloads(name: str) -> Iterator[Finding]:
    try:
        with Ethtool() as tool:
            features = tool.get_features(name)
    except Exception as error:  # pyroute2 raises many kinds where ethtool is not to be had, and nothing depends on it
        yield Finding("offloads", WARN, f"cannot be read: {error}", f"see `ethtool -k {name}`")
        return
    on = [feature for feature in _WRONG_OFFLOADS if _is_on(features, feature)]
    if on:
        yield Finding(
            "offloads",
            WARN,
            f"on: {', '.join(on)}",
            f"they merge packets before XDP sees them: ethtool -K {name} {' '.join(f'{f} off' for f in on)}",
        )
    else:
        yield Finding("offloads", OK, "none that merges packets before XDP")


def _is_on(features: Any, name: str) -> bool:
    one = features.features.get(name)
    return bool(one and one.enable)


def candidates() -> list[str]:
    """Interfaces of this namespace that could be lent: those of Ethernet."""
    found = []
    for path in sorted(Path("/sys/class/net").iterdir()):
        kind = path / "type"
        if kind.exists() and kind.read_text().strip() == str(_ETHERNET):
            found.append(path.name)
    return found
