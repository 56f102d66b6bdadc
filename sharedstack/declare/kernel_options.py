"""Socket options, and flags of single calls, that only the kernel can honour: who uses one gets the kernel's path for good.

Numbers are Linux's (asm-generic); `tests/unit/test_declare.py` compares them with the headers.
"""

from __future__ import annotations

from dataclasses import dataclass

SOL_SOCKET = 1
IPPROTO_TCP = 6
# instead of a level: the number is a flag of send(2) or recv(2)
OF_CALL = 0xFFFF

# which values of an option count, as in C: SHS_WHEN_*
WHEN = ("ALWAYS", "NONZERO", "ABOVE_ONE", "NOT_NEGATIVE")


@dataclass(frozen=True)
class KernelOption:
    """An option (`level`, `number`); `when` is one of WHEN."""

    name: str
    level: int
    number: int
    when: str = "ALWAYS"


def _socket(name: str, number: int, when: str = "NONZERO") -> KernelOption:
    return KernelOption(name, SOL_SOCKET, number, when)


KERNEL_OPTIONS: tuple[KernelOption, ...] = (
    _socket("SO_OOBINLINE", 10),
    _socket("SO_RCVLOWAT", 18, "ABOVE_ONE"),
    _socket("SO_BINDTODEVICE", 25, "ALWAYS"),
    _socket("SO_ATTACH_FILTER", 26, "ALWAYS"),
    _socket("SO_TIMESTAMP", 29),
    _socket("SO_TIMESTAMPNS", 35),
    _socket("SO_MARK", 36),
    _socket("SO_TIMESTAMPING", 37),
    _socket("SO_PEEK_OFF", 42, "NOT_NEGATIVE"),
    _socket("SO_ATTACH_BPF", 50, "ALWAYS"),
    _socket("SO_ZEROCOPY", 60),
    _socket("SO_BINDTOIFINDEX", 62),
    _socket("SO_TIMESTAMP_NEW", 63),
    _socket("SO_TIMESTAMPNS_NEW", 64),
    _socket("SO_TIMESTAMPING_NEW", 65),
    KernelOption("TCP_MD5SIG", IPPROTO_TCP, 14),
    KernelOption("TCP_REPAIR", IPPROTO_TCP, 19),
    KernelOption("TCP_ULP", IPPROTO_TCP, 31),
    KernelOption("TCP_INQ", IPPROTO_TCP, 36),
)

CALL_FLAGS: dict[str, int] = {"MSG_TRUNC": 0x20, "MSG_ZEROCOPY": 0x4000000}

_BY_NUMBER = {(o.level, o.number): o.name for o in KERNEL_OPTIONS}


def known(level: int, number: int) -> bool:
    """Is this what a record may hold: nothing, a declared option, or flags of a call?"""
    return (level, number) == (0, 0) or (level, number) in _BY_NUMBER or (level == OF_CALL and number != 0)


def shown(level: int, number: int) -> str:
    """Its name, numbers where it has none; empty for (0, 0)."""
    if (level, number) == (0, 0):
        return ""
    if level == OF_CALL:
        names = [name for name, bit in CALL_FLAGS.items() if number & bit]
        return " ".join(names) or f"flags {number:#x} of a call"
    return _BY_NUMBER.get((level, number), f"level {level} option {number}")
