"""One engine whose peer the test plays, packet by packet, in virtual time; and packets made and read without the engine's own code."""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from sharedstack.declare import layout, sim, wire
from sharedstack.declare.binary import View
from sharedstack.declare.model import Struct

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128
MS = 1_000_000
SECOND = 1_000_000_000
BEGIN = 100 * SECOND
MASK = 0xFFFFFFFF
C = wire.CONSTANTS
QUEUE = 131072
NODE = {4: "10.0.0.{}", 6: "fd00::{}"}


@cache
def load(path: Path) -> ctypes.CDLL:
    """The library, with the types of what tests call."""
    lib = ctypes.CDLL(str(path))
    u32, u64, i64, pointer = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int64, ctypes.c_void_p
    for name, result, arguments in (
        ("sim_bytes", u64, ()),
        ("sim_scenario", None, (u64, pointer)),
        ("sim_run", u64, (pointer, pointer, pointer, pointer, u64)),
        ("sim_many", u64, (pointer, u64, u64, pointer, pointer)),
        ("tap_bytes", u64, ()),
        ("tap_begin", u64, (pointer, u64, u64, u32)),
        ("tap_full", None, (pointer, u32)),
        ("tap_take", u32, (pointer, pointer)),
        ("tap_input", None, (pointer, ctypes.c_char_p, u32)),
        ("tap_until", None, (pointer, u64)),
        ("tap_next", u64, (pointer,)),
        ("tap_check", ctypes.c_int, (pointer,)),
        ("tap_rebuild", None, (pointer,)),
        ("tap_open", u64, (pointer, pointer)),
        ("tap_export", ctypes.c_int, (pointer, u64, pointer)),
        ("tap_unsent", u32, (pointer, u64, pointer, u32)),
        ("tap_fill", None, (pointer, u64, ctypes.c_char_p, u32)),
        ("tap_send", i64, (pointer, u64, ctypes.c_char_p, u32)),
        ("tap_recv", i64, (pointer, u64, pointer, u32)),
        ("tap_call", ctypes.c_int, (pointer, u32, u64, u32, u32, u32)),
        ("tap_udp_open", u64, (pointer, ctypes.c_char_p, ctypes.c_char_p, u32, u64, u32)),
        ("tap_udp_send", i64, (pointer, u64, ctypes.c_char_p, ctypes.c_char_p, u32, ctypes.c_char_p, u32)),
        ("tap_udp_recv", i64, (pointer, u64, pointer, u32, pointer, pointer)),
        ("tap_udp_close", ctypes.c_int, (pointer, u64)),
    ):
        function = getattr(lib, f"shs_test_{name}")
        function.restype, function.argtypes = result, arguments
    return lib


def view(declared: Struct) -> tuple[View, ctypes.Array[ctypes.c_char]]:
    """Memory of a declared struct, and how to read it."""
    memory = ctypes.create_string_buffer(declared.size)
    return View(declared, memoryview(memory).cast("B"), 0), memory


# Packets, by themselves


def address(family: int, node: int) -> bytes:
    """The 16 bytes of a node's address."""
    return bytes(10) + b"\xff\xff" + bytes([10, 0, 0, node]) if family == 4 else b"\xfd" + bytes(14) + bytes([node])


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo(family: int, src: bytes, dst: bytes, proto: int, length: int) -> bytes:
    if family == 4:
        return src[12:] + dst[12:] + struct.pack(">BBH", 0, proto, length)
    return src + dst + struct.pack(">IxxxB", length, proto)


def ip(family: int, src: bytes, dst: bytes, proto: int, payload: bytes, ecn: int = 0) -> bytes:
    if family == 6:
        return struct.pack(">IHBB", 6 << 28 | ecn << 20, len(payload), proto, 64) + src + dst + payload
    head = struct.pack(">BBHHHBBH", 0x45, ecn, 20 + len(payload), 1, 0x4000, 64, proto, 0) + src[12:] + dst[12:]
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


@dataclass(frozen=True)
class Segment:
    """A TCP segment, as it was on the wire."""

    seq: int
    ack: int = 0
    flags: int = ACK
    wnd: int = 65535
    data: bytes = b""
    ts: tuple[int, int] | None = None
    sack: tuple[tuple[int, int], ...] = ()
    ecn: int = 0
    options: bytes | None = None
    ports: tuple[int, int] = (0, 0)

    def bytes(self, family: int, src: bytes, dst: bytes) -> bytes:
        options = b""
        if self.ts:
            options += b"\x01\x01\x08\x0a" + struct.pack(">II", self.ts[0] & MASK, self.ts[1] & MASK)
        if self.sack:
            options += bytes([1, 1, 5, 2 + 8 * len(self.sack)])
            options += b"".join(struct.pack(">II", a & MASK, b & MASK) for a, b in self.sack)
        options = options if self.options is None else self.options
        options += bytes(-len(options) % 4)
        head = struct.pack(
            ">HHIIBBHHH", *self.ports, self.seq & MASK, self.ack & MASK, (20 + len(options)) // 4 << 4, self.flags, self.wnd, 0, 0
        )
        whole = head + options + self.data
        total = checksum(pseudo(family, src, dst, 6, len(whole)) + whole)
        return ip(family, src, dst, 6, whole[:16] + struct.pack(">H", total) + whole[18:], self.ecn)


def parse(packet: bytes) -> tuple[int, int, bytes, bytes, bytes]:
    """Protocol, ECN bits, source, destination and payload; checksums must be right."""
    if packet[0] >> 4 == 4:
        assert checksum(packet[:20]) == 0
        assert struct.unpack(">H", packet[2:4])[0] == len(packet)
        assert packet[6] == 0x40
        proto, ecn, payload = packet[9], packet[1] & 3, packet[20:]
        src, dst = (bytes(10) + b"\xff\xff" + packet[i : i + 4] for i in (12, 16))
        family = 4
    else:
        assert struct.unpack(">H", packet[4:6])[0] == len(packet) - 40
        proto, ecn, payload = packet[6], packet[1] >> 4 & 3, packet[40:]
        src, dst = packet[8:24], packet[24:40]
        family = 6
    assert checksum(pseudo(family, src, dst, proto, len(payload)) + payload) == 0
    return proto, ecn, src, dst, payload


def read_segment(packet: bytes) -> Segment:
    proto, ecn, _, _, b = parse(packet)
    assert proto == 6
    sport, dport, seq, ack, off, flags, wnd = struct.unpack(">HHIIBBH", b[:16])
    ts, sack = None, ()
    options, i = b[20 : (off >> 4) * 4], 0
    while i < len(options):
        kind = options[i]
        if kind < 2:
            i += 1
            continue
        size = options[i + 1]
        if kind == 8:
            ts = struct.unpack(">II", options[i + 2 : i + 10])
        if kind == 5:
            words = struct.unpack(f">{(size - 2) // 4}I", options[i + 2 : i + size])
            sack = tuple(zip(words[::2], words[1::2], strict=True))
        i += size
    return Segment(seq, ack, flags, wnd, b[(off >> 4) * 4 :], ts, sack, ecn, None, (sport, dport))


@dataclass
class Tap:
    """An engine, and the packets that it has sent."""

    path: Path
    seed: int = 1
    virtual: bool = False
    now: int = BEGIN
    lib: ctypes.CDLL = field(init=False)

    def __post_init__(self) -> None:
        self.lib = load(self.path)
        self.memory = ctypes.create_string_buffer(self.lib.shs_test_tap_bytes() + 64)
        self.tap = (ctypes.addressof(self.memory) + 63) & ~63
        area = self.lib.shs_test_tap_begin(self.tap, self.seed, self.now, self.virtual)
        self._at = self.tap - ctypes.addressof(self.memory) + area
        self._bytes = memoryview(self.memory).cast("B")
        self.wire = View(wire.WIRE, self._bytes, self._at)

    def record(self, handle: int) -> View:
        return View(wire.TCP, self._bytes, self._at + wire.WIRE.size + ((handle & MASK) - 1) * wire.TCP.size)

    def counter(self, name: str) -> int:
        return self.wire["counters"][[n for n, _ in wire.COUNTERS].index(name)]

    def packets(self) -> list[bytes]:
        """What was sent since the last look."""
        buffer, found = ctypes.create_string_buffer(2048), []
        while n := self.lib.shs_test_tap_take(self.tap, buffer):
            found.append(buffer.raw[:n])
        return found

    def input(self, packet: bytes) -> None:
        self.lib.shs_test_tap_input(self.tap, packet, len(packet))
        self.check()

    def until(self, ns: int) -> None:
        self.lib.shs_test_tap_until(self.tap, ns)
        self.now = ns
        self.check()

    def check(self) -> None:
        line = self.lib.shs_test_tap_check(self.tap)
        assert line == 0, f"check.c:{line}"


class Conversation:
    """A connection of an engine, with the test in the peer's place. Numbers of the peer begin at `rcv`, the engine's at `una`."""

    def __init__(self, path: Path, family: int = 4, sack: bool = False, ts: bool = False, ecn: bool = False, **image: object) -> None:
        self.path, self.family = path, family
        self.tap = Tap(path)
        self.una, self.rcv = int(image.get("una", 1000)), int(image.get("rcv", 5000))  # type: ignore[call-overload]
        flags = (C["TF_SACK"] if sack else 0) | (C["TF_TS"] if ts else 0) | (C["TF_ECN"] if ecn else 0)
        flags |= C["TF_NODELAY"] if image.get("nodelay") else 0
        self.peer_ts = 70_000
        values: dict[str, int | bytes] = {
            "laddr": address(family, 1),
            "raddr": address(family, 2),
            "lport": 80,
            "rport": 1000,
            "family": family,
            "state": C["TCP_ESTABLISHED"],
            "flags": flags,
            "snd_una": self.una,
            "snd_nxt": self.una,
            "rcv_nxt": self.rcv,
            "snd_wl1": self.rcv,
            "rcv_wup": self.rcv,
            "snd_wnd": 60000,
            "rcv_wnd": 60000,
            "mss": 1000,
            "mtu": 1500,
            "ts_recent": self.peer_ts if ts else 0,
            "tx_off": 0,
            "rx_off": QUEUE,
            "tx_size": QUEUE,
            "rx_size": 65536,
            "srtt_us": 20_000,
        }
        values |= {k: v for k, v in image.items() if k not in ("una", "rcv", "nodelay", "fill")}  # type: ignore[misc]
        declared, memory = view(wire.IMAGE)
        for name, value in values.items():
            declared[name] = value
        fill = image.get("fill", b"")
        assert isinstance(fill, bytes)
        self.tap.lib.shs_test_tap_fill(self.tap.tap, 0, fill, len(fill))
        self.handle = self.tap.lib.shs_test_tap_open(self.tap.tap, ctypes.addressof(memory))
        assert self.handle
        self.tcp = self.tap.record(self.handle)
        self.ts = ts

    # the program

    def send(self, data: bytes) -> int:
        n = self.tap.lib.shs_test_tap_send(self.tap.tap, self.handle, data, len(data))
        self.tap.check()
        return n

    def recv(self, most: int = 65536) -> bytes | int:
        buffer = ctypes.create_string_buffer(most)
        n = self.tap.lib.shs_test_tap_recv(self.tap.tap, self.handle, buffer, most)
        self.tap.check()
        return n if n < 0 else buffer.raw[:n]

    def _call(self, what: int, a: int = 0, b: int = 0, c: int = 0) -> int:
        r = self.tap.lib.shs_test_tap_call(self.tap.tap, what, self.handle, a, b, c)
        self.tap.check()
        return r

    def export(self) -> View:
        declared, memory = view(wire.IMAGE)
        assert self.tap.lib.shs_test_tap_export(self.tap.tap, self.handle, ctypes.addressof(memory)) == 0
        return declared

    def unsent(self) -> bytes:
        buffer = ctypes.create_string_buffer(QUEUE)
        n = self.tap.lib.shs_test_tap_unsent(self.tap.tap, self.handle, buffer, QUEUE)
        return buffer.raw[:n]

    def shutdown(self) -> None:
        assert self._call(0) == 0

    def close(self) -> None:
        assert self._call(1) == 0

    def abort(self) -> None:
        assert self._call(2) == 0

    def option(self, name: str, on: bool) -> None:
        assert self._call(3, C[name] if on else 0, C[name]) == 0

    def keepalive(self, idle: int, interval: int, count: int) -> None:
        assert self._call(4, idle, interval, count) == 0

    def user_timeout(self, ms: int) -> None:
        assert self._call(5, ms) == 0

    # the peer

    def give(self, seq: int = 0, ack: int = 0, **more: object) -> None:
        """A segment from the peer; numbers are relative to where each side began."""
        if self.ts and "ts" not in more:
            more["ts"] = (self.peer_ts, self.clock())
        sack = tuple((self.una + a, self.una + b) for a, b in more.pop("sack", ()))  # type: ignore[attr-defined]
        s = Segment(self.rcv + seq, self.una + ack, sack=sack, ports=(1000, 80), **more)  # type: ignore[arg-type]
        self.tap.input(s.bytes(self.family, address(self.family, 2), address(self.family, 1)))

    def clock(self) -> int:
        """What the engine would put into a timestamp now."""
        return (self.tap.now // MS + int(self.tcp["ts_off"])) & MASK

    def got(self) -> list[Segment]:
        """What the engine has sent since; numbers relative."""
        found = []
        for packet in self.tap.packets():
            s = read_segment(packet)
            sack = tuple(((a - self.rcv) & MASK, (b - self.rcv) & MASK) for a, b in s.sack)
            found.append(
                Segment((s.seq - self.una) & MASK, (s.ack - self.rcv) & MASK, s.flags, s.wnd, s.data, s.ts, sack, s.ecn, None, s.ports)
            )
        return found

    def later(self, ms: float) -> list[Segment]:
        """What is sent up to then."""
        self.tap.until(self.tap.now + int(ms * MS))
        return self.got()

    def counter(self, name: str) -> int:
        return self.tap.counter(name)

    def state(self) -> str:
        return next(k for k, v in C.items() if k.startswith("TCP_") and v == self.tcp["state"]).removeprefix("TCP_")


def library() -> Path:
    from sharedstack import paths

    return paths.native_library()


__all__ = ["ACK", "CWR", "ECE", "FIN", "MS", "PSH", "RST", "SECOND", "SYN", "Conversation", "Segment", "Tap", "layout", "library", "sim"]
