"""Names that processes find each other by: segments, control socket, doorbells."""

from __future__ import annotations

DEFAULT_STACK = "main"
MAX_STACK_NAME = 16
SHM_PREFIX = "sharedstack"
BELL_PREFIX = "sharedstack.bell."


def segment(uid: int, netns: int, stack: str, part: str) -> str:
    """POSIX shared-memory name of `part` ("stack", "arena", "bulk"), with the leading slash."""
    return f"/{SHM_PREFIX}.{uid}.{netns:x}.{stack}.{part}"


def control_socket(uid: int, stack: str) -> bytes:
    """Abstract address of the helper's control socket (network namespaces scope it, unix(7))."""
    return f"\0{SHM_PREFIX}/{uid}/{stack}".encode()


def keeper_socket(uid: int, stack: str) -> bytes:
    """Abstract address of the keeper, which holds stored descriptors beyond the helper's life."""
    return control_socket(uid, stack) + b"/keeper"


def notify_socket(uid: int, stack: str) -> bytes:
    """Abstract address of the helper's socket for sd_notify(3), by which programs store descriptors."""
    return control_socket(uid, stack) + b"/notify"


def nudge_socket(uid: int, stack: str) -> bytes:
    """Abstract address of the helper's datagram socket: `slot N` tells it that a slot was taken without asking."""
    return control_socket(uid, stack) + b"/nudge"
