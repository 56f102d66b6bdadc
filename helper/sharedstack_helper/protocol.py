"""Messages of the control socket in bytes: strict decoding, encoding. No input makes it raise anything but `Refused`."""

from __future__ import annotations

from typing import Any

import msgpack

from sharedstack.declare.messages import ERROR_CODES, LISTS, MAX_MESSAGE, MESSAGES, MOST_ENDS, PROTOCOL_VERSION, Message, in_words

Fields = dict[str, Any]

_BY_NAME = {m.name: m for m in MESSAGES}
_REQUESTS = {m.name: m for m in MESSAGES if m.reply}
_RANGES = {"u64": (0, (1 << 64) - 1), "i64": (-(1 << 63), (1 << 63) - 1)}
_PLAIN = {"str": str, "bool": bool}


class Refused(Exception):
    """A request that gets an `error` reply: `code` is one of ERROR_CODES, the text is for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        assert code in ERROR_CODES, code
        self.code, self.text = code, text


def encode(kind: str, /, **fields: Any) -> bytes:
    """The packet of the declared message `kind`; ValueError if the fields are not the declared ones."""
    wanted = _BY_NAME[kind].fields
    for key, type_ in wanted.items():
        if key not in fields or not _is(fields[key], type_):
            raise ValueError(f"message {kind}: {key} must be {in_words(type_)}")
    if len(fields) != len(wanted):
        raise ValueError(f"message {kind} has the fields {sorted(wanted)}, not {sorted(fields)}")
    packet: bytes = msgpack.packb({"v": PROTOCOL_VERSION, "t": kind, **fields})
    return packet


def error(refused: Refused) -> bytes:
    """The packet of an `error` reply."""
    return encode("error", code=refused.code, text=refused.text)


def decode_request(packet: bytes) -> tuple[str, Fields]:
    """Name and fields of a request; raises Refused."""
    name, fields = _decode(packet)
    message = _REQUESTS.get(name)
    if message is None:
        raise Refused("unknown", f"there is no request {_quoted(name)}; this helper knows {', '.join(_REQUESTS)}")
    return name, _checked(message, fields)


def decode_reply(packet: bytes) -> tuple[str, Fields]:
    """Name and fields of any declared message, as a client receives it; raises Refused."""
    name, fields = _decode(packet)
    message = _BY_NAME.get(name)
    if message is None:
        raise Refused("unknown", f"there is no message {_quoted(name)}")
    return name, _checked(message, fields)


def _decode(packet: bytes) -> tuple[str, Fields]:
    if len(packet) > MAX_MESSAGE:
        raise Refused("oversized", f"the packet is larger than {MAX_MESSAGE} bytes")
    try:
        decoded = msgpack.unpackb(packet, raw=False, strict_map_key=True)
    except Exception as cause:  # msgpack raises ValueErrors of many kinds, and more on hostile input
        raise Refused("malformed", f"the packet is not one msgpack object ({type(cause).__name__}); send a map with v and t") from cause
    if not isinstance(decoded, dict) or not all(type(key) is str for key in decoded):
        raise Refused("malformed", "the packet is not a msgpack map with names as keys; send a map with v and t")
    version, name = decoded.pop("v", None), decoded.pop("t", None)
    if type(version) is not int:
        raise Refused("malformed", "the message has no integer v; send the version of the protocol")
    if version != PROTOCOL_VERSION:
        raise Refused("version", f"the message is of protocol version {version}, this helper speaks {PROTOCOL_VERSION}; use one release")
    if type(name) is not str:
        raise Refused("malformed", "the message has no string t; send its name")
    return name, decoded


def _checked(message: Message, fields: Fields) -> Fields:
    for key, type_ in message.fields.items():
        if key not in fields:
            raise Refused("field", f"message {message.name} lacks the field {key} ({in_words(type_)})")
        if not _is(fields[key], type_):
            raise Refused("field", f"message {message.name}: the field {key} must be {in_words(type_)}")
    for key in fields:
        if key not in message.fields:
            raise Refused("field", f"message {message.name} has no field {_quoted(key)}")
    return fields


def _is(value: object, type_: str) -> bool:
    if type_ in _RANGES:
        low, high = _RANGES[type_]
        return type(value) is int and low <= value <= high
    if type_ in LISTS:
        return type(value) is list and len(value) <= MOST_ENDS and all(_is_row(one, LISTS[type_]) for one in value)
    return type(value) is _PLAIN[type_]


def _is_row(value: object, types: tuple[str, ...]) -> bool:
    return type(value) is list and len(value) == len(types) and all(map(_is, value, types))


def _quoted(name: str) -> str:
    """A name that a stranger chose, short and printable."""
    return ascii(name if len(name) <= 40 else name[:40] + "…")
