"""Messages of the control socket: msgpack maps over SOCK_SEQPACKET, one message a packet.

Keys are the declared names. Every message has `v` (PROTOCOL_VERSION) and `t` (its name). Descriptors travel beside the
packet by SCM_RIGHTS, in the declared order. An answer is the declared reply or `error`.

PROTOCOL_VERSION is raised when a message of a release changes its fields. Within a version messages may be added. (`unlift` was of one end
in version 1 as well, before there was a release; who asks in that way is told by `error` which field is missing.)
"""

from __future__ import annotations

from dataclasses import dataclass

PROTOCOL_VERSION = 1
MAX_MESSAGE = 4096
# Ends that one message may name: more would fit, but the helper is to be there for others again soon, and the time of a message is divided
# by enough already.
MOST_ENDS = 64
# Types of fields that are lists of at most MOST_ENDS, each of which has a value of each of these types.
LISTS: dict[str, tuple[str, ...]] = {"ends": ("u64", "u64"), "results": ("u64", "bool", "u64")}


@dataclass(frozen=True)
class Message:
    """A message: `fields` maps key to type (u64, i64, str, bool, one of LISTS); `fds` names the descriptors that travel with it."""

    name: str
    meaning: str
    fields: dict[str, str]
    fds: tuple[str, ...] = ()
    reply: str = ""


MESSAGES: tuple[Message, ...] = (
    Message("attach", "lend me the segments of my stack", {"hash": "u64", "netns": "u64"}, reply="lend"),
    Message(
        "lend",
        "the segments; bulk_id is the System V identifier of the bulk segment, or -1 where a descriptor is lent",
        {"hash": "u64", "name": "str", "bulk_id": "i64"},
        fds=("stack", "arena", "bulk"),
    ),
    Message("ping", "are you there?", {}, reply="pong"),
    Message("pong", "the helper's process id and release", {"pid": "u64", "release": "str"}),
    Message("takeover", "another helper of your user takes your place; its layout hash", {"hash": "u64"}, reply="handover"),
    Message(
        "handover",
        "the helper serves nobody from now on, and waits for `ready`: its sockets, with those of clients whose requests it did not read;"
        " are its segments adopted?",
        {"adopt": "bool", "clients": "u64"},
        fds=("control", "nudge", "notify", "client"),
    ),
    Message("ready", "I am ready to be the helper", {}, reply="yours"),
    Message("yours", "you are the helper; this one ends now, and the end of the connection says that it has", {}),
    Message("status", "what do you hold?", {}, reply="state"),
    Message(
        "state",
        "the helper's own figures",
        {"pid": "u64", "release": "str", "stack": "str", "participants": "u64", "reaped": "u64", "refused": "u64"},
    ),
    Message("reload", "read the policy's file again", {}, reply="reloaded"),
    Message("reloaded", "what is in force now, in words", {"policy": "str"}),
    Message("borrow", "lend me that interface of the stack's", {"link": "u64"}, reply="wire"),
    Message(
        "wire",
        "an engine's area, its queues, the interface, its frames, and an AF_XDP socket for each of its queues",
        {"sockets": "u64"},
        fds=("area", "queues", "nic", "frames", "xsk"),
    ),
    Message(
        "lift",
        "make this connection, whose descriptor comes along, an engine's, if that can be",
        {"endpoint": "u64", "cookie": "u64"},
        fds=("socket",),
        reply="done",
    ),
    Message(
        "steer",
        "carry the datagrams between this socket, whose descriptor comes along, and that peer by an engine, if that can be",
        {"endpoint": "u64", "cookie": "u64", "local": "str", "remote": "str", "port": "u64"},
        fds=("socket",),
        reply="steered",
    ),
    Message(
        "steered",
        "which engine carries them, and its name for them; or why none does: a REASON_*, 0 if one does",
        {"why": "u64", "link": "u64", "handle": "u64"},
    ),
    Message(
        "lower",
        "make this connection, or all peers of this datagram socket, the kernel's again",
        {"endpoint": "u64", "cookie": "u64"},
        reply="done",
    ),
    Message(
        "unlift",
        "make these ends of connections, and datagram sockets, the kernel's for now: shut their rings, take them back from their engines;"
        " of each the endpoint and its cookie",
        {"ends": "ends"},
        reply="unlifted",
    ),
    Message(
        "unlifted",
        "of each end, in the same order: how many open rings were shut, whether it was an engine's, and if it is that still, why: a"
        " REASON_*; 0, false and 0 where the record is not, or no longer, that one",
        {"results": "results"},
    ),
    Message(
        "store",
        "keep this descriptor, which comes along, under a name, for so many seconds; 0: until it is taken",
        {"name": "str", "seconds": "u64"},
        fds=("socket",),
        reply="stored",
    ),
    Message("stored", "how many are kept under that name, or were removed", {"count": "u64"}),
    Message(
        "retrieve",
        "give me the index-th descriptor that is kept under that name, the oldest being the first, and keep it on or not",
        {"name": "str", "index": "u64", "keep": "bool"},
        reply="handed",
    ),
    Message("handed", "it comes along; how many of that name are kept now", {"count": "u64"}, fds=("socket",)),
    Message("discard", "close what is kept under that name", {"name": "str"}, reply="stored"),
    Message("kept", "what is the index-th of all that is kept?", {"index": "u64"}, reply="keeps"),
    Message(
        "keeps",
        "its name (empty: there are not so many), what it is, who stored it how many seconds ago, and seconds that are left (0: no end)",
        {"total": "u64", "name": "str", "what": "str", "pid": "u64", "age": "u64", "left": "u64"},
    ),
    Message("done", "what was asked for is done, or why it is not: a REASON_*, 0 if it is", {"why": "u64"}),
    Message("error", "what failed and what to do", {"code": "str", "text": "str"}),
)


def in_words(type_: str) -> str:
    """The type of a field, for people."""
    return f"list of at most {MOST_ENDS} [{', '.join(LISTS[type_])}]" if type_ in LISTS else type_


ERROR_CODES: dict[str, str] = {
    "malformed": "the packet is not a msgpack map with v and t",
    "oversized": "the packet is larger than MAX_MESSAGE",
    "version": "another version of the control protocol",
    "unknown": "no such message",
    "field": "a field is missing or of the wrong type",
    "layout": "the layout hashes differ",
    "uid": "the stack belongs to another user",
    "netns": "the stack belongs to another network namespace",
    "draining": "the helper is leaving",
    "policy": "the policy's file cannot be understood; the text says why",
    "name": "nothing is stored under that name, or it is none",
    "limit": "as much is stored as may be",
}
