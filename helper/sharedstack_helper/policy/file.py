"""The policy's file: TOML, `policy.toml` beside the helper's settings (settings.py), or the one that --policy names.

    default = "allow"                        # or "deny": what no rule applies to

    [[rule]]
    name = "no databases"                    # said by `inspect --why`; "rule 1" and so on if it has none
    action = "deny"                          # or "allow"
    program = "/usr/lib/postgresql/*"        # the executable's path; * is any text
    uid = ["postgres", 1000, "2000-2999"]
    gid = "adm"                              # the process's group, or one of its further groups
    address = ["10.0.0.0/8", "::1"]          # of either end; local_address, remote_address: of one
    port = [5432, "8000-8999"]               # of either end; local_port, remote_port: of one

    [lo]
    rules = "respect"                        # or "ignore": rules of the kernel's that count or change packets on lo

Each value may be a list. All that a rule names has to fit; the first rule that does decides. Whatever is in the file has to be
understood: PolicyError says what is wrong, where, and what to write.
"""

from __future__ import annotations

import difflib
import grp
import ipaddress
import pwd
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..environment import HelperError
from .rules import Network, Policy, Rule, Side, Span
from .table import MOST_ADDRESSES, MOST_NAME, MOST_PORTS, MOST_RULES

_TOP = ("default", "rule", "lo")
_MOST_ID = (1 << 32) - 2  # (uid_t)-1 is none
_MOST_PORT = (1 << 16) - 1
_SPAN = re.compile(r"(\d{1,10})(?:-(\d{1,10}))?")


class PolicyError(HelperError):
    """A policy that cannot be understood; the text names file and rule, and says what to write."""


def read(path: Path) -> Policy:
    """The policy in a file. Raises PolicyError, also where there is no such file."""
    try:
        return parse(path.read_text(), str(path))
    except FileNotFoundError:
        raise PolicyError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path} cannot be read: {error}") from error


def parse(text: str, source: str) -> Policy:
    """The policy that a text says; `source` names it in errors."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"{source} is no TOML: {error}") from error
    _only(content, _TOP, source)
    tables = content.get("rule", [])
    if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
        raise PolicyError(f"{source}: rules are tables of a list: write [[rule]] above each")
    rules = tuple(_rule(table, number, source) for number, table in enumerate(tables, 1))
    lo = content.get("lo", {})
    if not isinstance(lo, dict):
        raise PolicyError(f'{source}: lo is a table: write [lo], and below it rules = "respect" or "ignore"')
    _only(lo, ("rules",), f"{source}: lo")
    _fits(rules, source)
    deny = _choice(content, "default", ("allow", "deny"), source, "allow") == "deny"
    return Policy(rules, deny, _choice(lo, "rules", ("respect", "ignore"), f"{source}: lo", "respect") == "respect", source)


def _rule(table: dict[str, Any], number: int, source: str) -> Rule:
    name = table.get("name", f"rule {number}")
    where = f"{source}: rule {number}"
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name.encode()) <= MOST_NAME:
        raise PolicyError(f"{where}: name is a text of 1 to {MOST_NAME} printable bytes")
    where += f" ({name})" if "name" in table else ""
    _only(table, ("name", "action", *_READERS, *_SIDED), where)
    if "action" not in table:
        raise PolicyError(f'{where} has no action: write action = "deny" or "allow"')
    deny = _choice(table, "action", ("allow", "deny"), where) == "deny"
    plain = {key: tuple(_values(table, key, where, reader)) for key, reader in _READERS.items()}
    sided: dict[str, list[tuple[Side, Any]]] = {"address": [], "port": []}
    for key, (side, kind, reader) in _SIDED.items():
        sided[kind] += [(side, value) for value in _values(table, key, where, reader)]
    return Rule(name, deny, plain["program"], plain["uid"], plain["gid"], tuple(sided["address"]), tuple(sided["port"]))


def _values(table: Mapping[str, Any], key: str, where: str, reader: Callable[[Any], Any]) -> Iterable[Any]:
    said = table.get(key)
    if said == []:
        raise PolicyError(f"{where}: {key} is empty, which fits nothing: leave it out if it does not matter")
    for one in () if said is None else said if isinstance(said, list) else [said]:
        try:
            yield reader(one)
        except ValueError as error:
            raise PolicyError(f"{where}: {key}: {error}") from error


def _program(said: Any) -> str:
    if not isinstance(said, str) or not said.startswith(("/", "*")):
        raise ValueError(f"{said!r} is no path of an executable: it begins with / or *, as in '/usr/bin/*'")
    return said


def _ids(kind: str, of_name: Callable[[str], int]) -> Callable[[Any], Span]:
    def read(said: Any) -> Span:
        span = _span(said, _MOST_ID)
        if span:
            return span
        try:
            return (of_name(said),) * 2 if isinstance(said, str) else _no_id(said)
        except KeyError:
            raise ValueError(f"there is no {kind} {said!r}; write a name that exists, a number, or two as in '1000-1999'") from None

    def _no_id(said: Any) -> Span:
        raise ValueError(f"{said!r} is no {kind}: write a name, a number, or two as in '1000-1999'")

    return read


def _port(said: Any) -> Span:
    span = _span(said, _MOST_PORT)
    if not span:
        raise ValueError(f"{said!r} is no port: write a number up to {_MOST_PORT}, or two as in '8000-8999'")
    return span


def _span(said: Any, most: int) -> Span | None:
    """Of a number, or a text of one or two; None if it is no such thing."""
    found = _SPAN.fullmatch(str(said)) if type(said) in (int, str) else None
    if not found:
        return None
    first, last = int(found[1]), int(found[2] or found[1])
    if not first <= last <= most:
        raise ValueError(f"{said!r} is not within 0 and {most}, the smaller number first")
    return first, last


def _network(said: Any) -> Network:
    if not isinstance(said, str):
        raise ValueError(f"{said!r} is no address: write a text, as in '10.0.0.0/8' or '::1'")
    try:
        found = ipaddress.ip_network(said)
    except ValueError as error:
        try:
            better = ipaddress.ip_network(said, strict=False)
        except ValueError:
            raise ValueError(f"{said!r} is no address or network; write one as in '10.0.0.0/8' or '::1'") from None
        raise ValueError(f"{said!r} is an address and a network at once: write '{better}', or the address alone") from error
    if isinstance(found, ipaddress.IPv6Network) and found.prefixlen >= 96 and (four := found.network_address.ipv4_mapped):
        return ipaddress.IPv4Network((four, found.prefixlen - 96))
    return found


_READERS: dict[str, Callable[[Any], Any]] = {
    "program": _program,
    "uid": _ids("user", lambda name: pwd.getpwnam(name).pw_uid),
    "gid": _ids("group", lambda name: grp.getgrnam(name).gr_gid),
}
_SIDED: dict[str, tuple[Side, str, Callable[[Any], Any]]] = {
    f"{side}{kind}": (side, kind, reader) for kind, reader in (("address", _network), ("port", _port)) for side in Side
}


def _only(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            raise PolicyError(f"{where}: there is no {key!r}; " + (f"did you mean {near[0]}?" if near else f"there is {', '.join(known)}"))


def _choice(table: Mapping[str, Any], key: str, choices: tuple[str, str], where: str, default: str | None = None) -> str:
    said = table.get(key, default)
    if said not in choices:
        raise PolicyError(f'{where}: {key} is {said!r}: write "{choices[0]}" or "{choices[1]}"')
    return str(said)


def _fits(rules: tuple[Rule, ...], source: str) -> None:
    """What participants read has room for so much."""
    for what, count, most in (
        ("rules", len(rules), MOST_RULES),
        ("addresses", sum(len(rule.addresses) for rule in rules), MOST_ADDRESSES),
        ("ports", sum(len(rule.ports) for rule in rules), MOST_PORTS),
    ):
        if count > most:
            raise PolicyError(f"{source} has {count} {what}, and {most} is the most: put several into one, as networks or ranges")
    names: set[str] = set()
    for rule in rules:
        if rule.name in names:
            raise PolicyError(f"{source}: two rules are named {rule.name!r}: each needs a name of its own, to be told apart by")
        names.add(rule.name)
