"""A policy compiled to what participants read (declare/policy.py), and asked: the same C code judges here and in every participant."""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from sharedstack.declare import binary, policy
from sharedstack.declare.layout import CONSTANTS

from .. import native
from .rules import Network, Policy, Side

Address = IPv4Address | IPv6Address
End = tuple[Address, int]  # with its port
_SIDES = {Side.EITHER: CONSTANTS["RULE_EITHER"], Side.LOCAL: CONSTANTS["RULE_LOCAL"], Side.REMOTE: CONSTANTS["RULE_REMOTE"]}
MOST_RULES, MOST_ADDRESSES, MOST_PORTS = (CONSTANTS[f"N_RULE{name}"] for name in ("S", "_ADDRESSES", "_PORTS"))
MOST_NAME = CONSTANTS["RULE_NAME_BYTES"] - 1
_V4 = 96


class _NativeFlow(ctypes.Structure):
    """struct shs_flow of native/shm/flow.h."""

    _fields_ = (
        ("laddr", ctypes.c_ubyte * 16),
        ("raddr", ctypes.c_ubyte * 16),
        ("lport", ctypes.c_uint16),
        ("rport", ctypes.c_uint16),
        ("family", ctypes.c_uint16),
    )


class Table:
    """The compiled rules of a policy; its size is checked where the file is read."""

    def __init__(self, of: Policy) -> None:
        self.policy = of
        self.bytes = bytearray(policy.POLICY.size)
        view = binary.View(policy.POLICY, memoryview(self.bytes))
        view["active"], view["default_deny"], view["n_rules"] = int(of.active), int(of.default_deny), len(of.rules)
        addresses, ports = iter(view["addresses"]), iter(view["ports"])
        first_address = first_port = 0
        for into, rule in zip(view["rules"], of.rules, strict=False):
            into["deny"], into["name"] = int(rule.deny), rule.name.encode()[:MOST_NAME]
            into["first_address"], into["n_addresses"] = first_address, len(rule.addresses)
            into["first_port"], into["n_ports"] = first_port, len(rule.ports)
            first_address += len(rule.addresses)
            first_port += len(rule.ports)
            for side, network in rule.addresses:
                address = next(addresses)
                address["addr"], address["bits"], address["side"] = packed(network.network_address), _bits(network), _SIDES[side]
            for side, (low, high) in rule.ports:
                span = next(ports)
                span["low"], span["high"], span["side"] = low, high, _SIDES[side]
        self._judge = native.function("policy_judge", ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint64, ctypes.POINTER(_NativeFlow))
        u32, address = ctypes.c_uint32, ctypes.c_void_p
        self._write = native.function("policy_write", u32, address, address, u32, ctypes.POINTER(u32), ctypes.POINTER(ctypes.c_uint64))
        self._memory = (ctypes.c_ubyte * len(self.bytes)).from_buffer(self.bytes)

    def write(self, stack_address: int, concern: Mapping[int, int]) -> None:
        """Put the rules in force in a stack; `concern` says of slots which of them concern their participants, all others are unjudged."""
        count = len(concern)
        self._write(stack_address, self._memory, count, (ctypes.c_uint32 * count)(*concern), (ctypes.c_uint64 * count)(*concern.values()))

    def verdict(self, concern: int, local: End, remote: End) -> int:
        """On a connection of one whom these rules concern (Policy.concerning): 0, allowed; a rule's number plus one; or VERDICT_DEFAULT."""
        here, there = ((ctypes.c_ubyte * 16)(*packed(address)) for address, _ in (local, remote))
        family = socket.AF_INET if local[0].version == 4 else socket.AF_INET6
        return int(self._judge(self._memory, concern, ctypes.byref(_NativeFlow(here, there, local[1], remote[1], family))))

    def explain(self, verdict: int) -> str:
        """What denies it, for people; empty if nothing does."""
        if verdict == 0:
            return ""
        return f"rule {self.policy.rules[verdict - 1].name!r}" if verdict <= len(self.policy.rules) else "the default"


def packed(address: Address) -> bytes:
    """16 bytes, IPv4 as ::ffff:a.b.c.d."""
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


def _bits(network: Network) -> int:
    return network.prefixlen if isinstance(network, IPv6Network) else network.prefixlen + _V4
