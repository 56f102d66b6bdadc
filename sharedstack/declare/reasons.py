"""Why a direction is on the kernel path: one code each, the same words in C, in `inspect --why` and in the docs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """A reason; `advice` says what a user can do about it, empty where there is nothing to do."""

    name: str
    text: str
    advice: str = ""


REASONS: tuple[Reason, ...] = (
    Reason("none", "on the local path, or the wire path"),
    Reason("peer_unknown", "peer not preloaded, on another host, or not active yet", "start the peer with `sharedstack run` too"),
    Reason("reader_asleep", "reader asleep in the kernel: it is woken by the kernel's stream"),
    Reason("short_lived", "too short-lived: fewer data calls than lift_after", "lower SHAREDSTACK_LIFT_AFTER if such connections matter"),
    Reason("other_uid", "the peer runs as another user", "needs a system helper"),
    Reason("other_netns", "the socket belongs to another network namespace"),
    Reason("option", "a socket option that only the kernel has is in use"),
    Reason("not_inet", "not an internet stream or datagram socket"),
    Reason("no_helper", "no helper and no stack of this user", "run `sharedstack-helper &`"),
    Reason(
        "layout_mismatch",
        "the stack has another layout: library and helper are of different versions",
        "restart the helper of the installed version",
    ),
    Reason(
        "exhausted",
        "endpoints, pairs, slots, links or ring memory are used up, or the descriptors or the address space that the process may have",
        "see `sharedstack inspect --memory`, and ulimit -n and -v",
    ),
    Reason("lowered_rule", "kept in the kernel by the policy", "see `sharedstack policy check`"),
    Reason("draining", "the helper is leaving and lowered everything"),
    Reason("forked", "shared by fork, exec, passing or dup before it was lifted: it is when one holder is left"),
    Reason("standard_stream", "standard input, output or error: stdio may use it natively"),
    Reason("stdio", "wrapped by fdopen: stdio uses it natively"),
    Reason("many_sets", "member of several or nested epoll sets"),
    Reason("open_limit", "more connections in one epoll set than open_max", "raise SHAREDSTACK_OPEN_MAX"),
    Reason("native_reader", "a thread sleeps inside the kernel on this socket"),
    Reason("not_established", "not an established connection"),
    Reason("urgent", "urgent data was used"),
    Reason("outside_holder", "a process outside the library holds the descriptor"),
    Reason("counts_differ", "the kernel's stream counts could not be made certain"),
    Reason("shut_down", "this direction was shut down"),
    Reason("not_reading", "its reader has not read through the library yet"),
    Reason("idle", "idle for a while: it has no pair, and is paired again by its next data calls"),
    Reason("not_linked", "no local receiver has confirmed this sender's datagrams yet", "start the receiver with `sharedstack run` too"),
    Reason("control_data", "sent with control data, or with a flag that only the kernel knows"),
    Reason("disabled", "switched off by SHAREDSTACK_ENABLE=0"),
    Reason("io_uring", "a process that holds it has set up io_uring, whose requests the library does not see"),
    Reason("wire_young", "fewer data calls than wire_after: too early for the wire path", "lower SHAREDSTACK_WIRE_AFTER if it matters"),
    Reason("wire_busy", "each time that it might have been lifted to the wire path data was under way"),
    Reason("wire_bulk", "it moves much data, which the kernel does better by its interface's offloads than an engine that copies"),
    Reason("wire_idle", "idle for a while: lowered, and lifted again when it is used"),
    Reason(
        "no_route", "its route does not go by an interface that is lent to the stack", "start the helper with --link for that interface"
    ),
    Reason(
        "shared_port",
        "other sockets have its local port: only the kernel knows whose a datagram from another host is",
        "connect the socket to its peer, or bind it alone",
    ),
    Reason("next_hop", "the link-layer address of its next hop is not known"),
    Reason(
        "wire_slower",
        "its calls came slower than by the kernel while it was lifted",
        "set SHAREDSTACK_WIRE_GAIN=0 to keep such connections lifted",
    ),
    Reason("aio", "asynchronous I/O (aio_read and kin, io_submit) was used on it"),
    Reason(
        "unjudged",
        "the helper has not yet said which rules of the policy concern its process",
        "see that a helper runs: it does so within milliseconds",
    ),
    Reason(
        "lo_rules",
        "rules of the kernel's count or change packets on lo",
        "see `sharedstack doctor`; docs/policy.md says how to ignore them",
    ),
)
