"""Segments of the peer of a lowered connection, for the kernel: its FIN or RST, which the engine has had; large ones in pieces."""

from __future__ import annotations

import socket
import struct

from sharedstack.declare.layout import CONSTANTS

from .engine import Image

FIN, RST, PSH, ACK = 1, 4, 8, 16
_IPV4, _IPV6, _IPV6_HEADER = 0x0800, 0x86DD, 40
_ETHERNET = struct.Struct("!6s6sH")


def frame(image: Image, own_mac: bytes, flags: int, after: int = 0) -> bytes:
    """An Ethernet frame with a segment of no data (RFC 9293 section 3.1), `after` the next number, that acknowledges all."""
    fields = image.fields
    four = fields["family"] == 4
    source, target = (_address(fields[name], four) for name in ("raddr", "laddr"))
    number = (fields["rcv_nxt"] + after) & 0xFFFFFFFF
    tcp = struct.pack("!HHIIBBHHH", fields["rport"], fields["lport"], number, fields["snd_una"], 5 << 4, flags, _window(image), 0, 0)
    if four:
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 0, 0x4000, 64, socket.IPPROTO_TCP, 0, source, target)
    else:
        ip = struct.pack("!IHBB16s16s", 6 << 28, 20, socket.IPPROTO_TCP, 64, source, target)
    return _ETHERNET.pack(own_mac, b"\x02" + own_mac[1:], _IPV4 if four else _IPV6) + _summed(ip, tcp)


def in_pieces(whole: bytes, most: int) -> list[bytes]:
    """A frame as one or more, none longer than `most`: a segment's text is divided, as any network card that merges segments has them.

    What is too long and no TCP segment without IPv6's extension headers is lost: nothing, as by a network.
    """
    if len(whole) <= most:
        return [whole]
    four = whole[12:14] == _IPV4.to_bytes(2)
    head = _ETHERNET.size + ((whole[14] & 15) * 4 if four else _IPV6_HEADER)
    if whole[14 + (9 if four else 6)] != socket.IPPROTO_TCP:
        return []
    ip, tcp = whole[_ETHERNET.size : head], whole[head : head + (whole[head + 12] >> 4) * 4]
    text = whole[head + len(tcp) :]
    room, (first,) = most - head - len(tcp), struct.unpack_from("!I", tcp, 4)
    found = []
    for at in range(0, len(text), room):
        flags = tcp[13] if at + room >= len(text) else tcp[13] & ~(FIN | PSH)
        one = tcp[:4] + struct.pack("!I", (first + at) & 0xFFFFFFFF) + tcp[8:13] + bytes([flags]) + tcp[14:] + text[at : at + room]
        found.append(whole[: _ETHERNET.size] + _summed(ip, one))
    return found


def _summed(ip: bytes, segment: bytes) -> bytes:
    """An IP packet of this header with this TCP segment: its length and both checksums are made anew."""
    n = len(segment)
    if ip[0] >> 4 == 4:
        ip = ip[:2] + struct.pack("!H", len(ip) + n) + ip[4:10] + b"\0\0" + ip[12:]
        ip = ip[:10] + struct.pack("!H", _checksum(ip)) + ip[12:]
        pseudo = ip[12:20] + struct.pack("!BBH", 0, socket.IPPROTO_TCP, n)
    else:
        ip = ip[:4] + struct.pack("!H", n) + ip[6:]
        pseudo = ip[8:40] + struct.pack("!IHBB", n, 0, 0, socket.IPPROTO_TCP)
    segment = segment[:16] + b"\0\0" + segment[18:]
    return ip + segment[:16] + struct.pack("!H", _checksum(pseudo + segment)) + segment[18:]


def _window(image: Image) -> int:
    return min(int(image.fields["snd_wnd"]) >> int(image.fields["snd_scale"]), 65535)


def _address(mapped: bytes, four: bool) -> bytes:
    return mapped[12:] if four else mapped


def _checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def without_end(image: Image, state: int) -> list[int]:
    """Make it the image of a connection that has not heard of its end; returns the flags of the segments that told of it."""
    fields = image.fields
    flags = []
    if fields["fin"] & 2:
        fields["rcv_nxt"] = (fields["rcv_nxt"] - 1) & 0xFFFFFFFF
        flags.append(FIN | ACK)
    if state == CONSTANTS["TCP_CLOSED"]:
        flags.append(RST | ACK)
    if (fields["rcv_nxt"] - fields["rcv_wup"]) & 0x80000000:  # what was acknowledged last was that end
        fields["rcv_wup"] = fields["rcv_nxt"]
    fields["fin"] = 0
    fields["state"] = CONSTANTS["TCP_ESTABLISHED"]
    return flags
