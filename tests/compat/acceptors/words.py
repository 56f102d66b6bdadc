"""What the servers and clients of these tests say to each other: requests and replies whose every byte follows from their numbers."""

from __future__ import annotations

import hashlib
import os
import socket
import struct

# who (connection, or process that answers), number of the request, bytes behind it
HEAD = struct.Struct("!IIH")
BLOCK = 65536
_TEXT = b"".join(hashlib.sha256(struct.pack("!I", i)).digest() for i in range(512))
_OTHER = bytes(255 - i for i in range(256))


def body(connection: int, number: int) -> bytes:
    """Of a request: 1 byte to 3 KiB."""
    at = (connection * 7919 + number * 104729) % 8192
    return _TEXT[at : at + 1 + (connection * 31 + number * 397) % 3072]


def request(connection: int, number: int) -> bytes:
    text = body(connection, number)
    return HEAD.pack(connection, number, len(text)) + text


def reply(asked: bytes, pid: int) -> bytes:
    """To a whole request; says who answers."""
    _, number, length = HEAD.unpack_from(asked)
    return HEAD.pack(pid, number, length) + asked[HEAD.size :].translate(_OTHER)


def answerer(answer: bytes, connection: int, number: int) -> int:
    """Whose reply that is; every byte is checked."""
    asked = request(connection, number)
    pid: int = HEAD.unpack_from(answer)[0]
    assert answer == reply(asked, pid), f"connection {connection}, request {number}: a wrong answer of {len(answer)} bytes from {pid}"
    return pid


def address(connection: int) -> str:
    """Where a connection comes from: its number is in its source address, by which the server knows it before a byte has come."""
    return f"127.{16 + (connection >> 16)}.{connection >> 8 & 255}.{connection & 255}"


def connection_of(peer: str) -> int:
    """The number that `address` put there."""
    _, high, middle, low = map(int, peer.split("."))
    return high - 16 << 16 | middle << 8 | low


def receive(s: socket.socket, size: int) -> bytes:
    """So many bytes of a blocking socket; b"" where it ends before the first, else an end is ConnectionError."""
    got = bytearray()
    while len(got) < size:
        more = s.recv(size - len(got))
        if not more and got:
            raise ConnectionError(f"ends after {len(got)} of {size} bytes")
        if not more:
            return b""
        got += more
    return bytes(got)


class Notes:
    """Lines that several processes append to one file: each is one write, and stays when its writer is killed."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __call__(self, what: str, number: int) -> None:
        os.write(self.fd, f"{what} {os.getpid()} {number}\n".encode())
