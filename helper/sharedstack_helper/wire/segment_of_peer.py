"""A segment as the peer of a lowered connection sent it: its FIN or RST, which the engine has had and the kernel has not."""

from __future__ import annotations

import ipaddress
import socket
import struct

from sharedstack.declare.layout import CONSTANTS

from .engine import Image

FIN, RST, ACK = 1, 4, 16
_ETHERNET = struct.Struct("!6s6sH")


def frame(image: Image, own_mac: bytes, flags: int) -> bytes:
    """An Ethernet frame with a segment of no data (RFC 9293 section 3.1), next in order, that acknowledges all that was sent."""
    fields = image.fields
    four = fields["family"] == 4
    source, target = (_address(fields[name], four) for name in ("raddr", "laddr"))
    tcp = struct.pack(
        "!HHIIBBHHH", fields["rport"], fields["lport"], fields["rcv_nxt"], fields["snd_una"], 5 << 4, flags, _window(image), 0, 0
    )
    pseudo = source + target + (struct.pack("!BBH", 0, 6, 20) if four else struct.pack("!IHBB", 20, 0, 0, 6))
    tcp = tcp[:16] + struct.pack("!H", _checksum(pseudo + tcp)) + tcp[18:]
    if four:
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 0, 0x4000, 64, socket.IPPROTO_TCP, 0, source, target)
        ip = ip[:10] + struct.pack("!H", _checksum(ip)) + ip[12:]
    else:
        ip = struct.pack("!IHBB16s16s", 6 << 28, 20, socket.IPPROTO_TCP, 64, source, target)
    return _ETHERNET.pack(own_mac, b"\x02" + own_mac[1:], 0x0800 if four else 0x86DD) + ip + tcp


def _window(image: Image) -> int:
    return min(int(image.fields["snd_wnd"]) >> int(image.fields["snd_scale"]), 65535)


def _address(mapped: bytes, four: bool) -> bytes:
    return mapped[12:] if four else mapped


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def without_end(image: Image, state: int) -> int:
    """Make it the image of a connection that has not heard of its end; returns the flags of the segment that told of it, or 0."""
    fields = image.fields
    flags = 0
    if fields["fin"] & 2:
        fields["rcv_nxt"] = (fields["rcv_nxt"] - 1) & 0xFFFFFFFF
        flags = FIN | ACK
    if state == CONSTANTS["TCP_CLOSED"]:
        flags = RST | ACK
    if (fields["rcv_nxt"] - fields["rcv_wup"]) & 0x80000000:  # what was acknowledged last was that end
        fields["rcv_wup"] = fields["rcv_nxt"]
    fields["fin"] = 0
    fields["state"] = CONSTANTS["TCP_ESTABLISHED"]
    return flags


def address(mapped: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address of 16 bytes, IPv4 as ::ffff:a.b.c.d."""
    six = ipaddress.IPv6Address(mapped)
    return six.ipv4_mapped or six
