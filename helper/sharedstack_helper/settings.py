"""The helper's settings: what the command line says, then the configuration file, then what is usual.

The file is TOML, `$XDG_CONFIG_HOME/sharedstack/helper.toml` (`~/.config/…`), or the one that --config names:

    links = ["eth0"]        # as --link
    cool_every = 1.0        # as --cool-every
    busy_poll = 20          # as --busy-poll
    policy = "/srv/policy.toml"  # as --policy

    [stack.trading]         # of this stack alone; wins over the above
    links = ["eth1", "eth2"]

Whatever is in it has to be understood: a wrong word is an error that names the file, and the helper does not start.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .cooler import EVERY
from .environment import HelperError

_MOST_SECONDS = 10_000
MOST_BUSY_POLL = 10_000
_IFNAME_MAX = 15  # netdevice(7): IFNAMSIZ without its NUL


@dataclass(frozen=True)
class Settings:
    """What may be set: interfaces to lend, seconds between two looks for what has gone quiet, and microseconds of polling a driver.

    `policy` is the policy's file; None: the usual one, if there is one.
    """

    links: tuple[str, ...] = ()
    cool_every: float = EVERY
    busy_poll: int = 0
    policy: Path | None = None


def usual_file(environment: Mapping[str, str]) -> Path | None:
    """Where the user's file would be; None: the user has no home."""
    if base := environment.get("XDG_CONFIG_HOME") or ((home := environment.get("HOME")) and f"{home}/.config"):
        return Path(base) / "sharedstack" / "helper.toml"
    return None


def read(stack: str, named: Path | None = None) -> Settings:
    """Settings of a stack from the named file, which must exist, or the user's, if there is one. HelperError: what is wrong with it."""
    path = named or usual_file(os.environ)
    if path is None:
        return Settings()
    try:
        text = path.read_text()
    except FileNotFoundError:
        if named is None:
            return Settings()
        raise HelperError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise HelperError(f"{path} cannot be read: {error}") from error
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise HelperError(f"{path} is no TOML: {error}") from error
    own = table.pop("stack", {})
    if not isinstance(own, dict) or not all(isinstance(one, dict) for one in own.values()):
        raise HelperError(f"{path}: stack is for tables, as in [stack.NAME]")
    settings = _with(Settings(), table, f"{path}: ")
    of_stacks = {name: _with(settings, one, f"{path}: stack.{name}.") for name, one in own.items()}
    return of_stacks.get(stack, settings)


def _with(settings: Settings, table: dict[str, Any], where: str) -> Settings:
    for key, value in table.items():
        match key, value:
            case "links", list() if all(_is_interface(one) for one in value) and len(set(value)) == len(value):
                settings = replace(settings, links=tuple(value))
            case "links", _:
                raise HelperError(f'{where}links is for names of interfaces, each once, as in links = ["eth0"]')
            case "cool_every", int() | float() if not isinstance(value, bool) and 0 < value < _MOST_SECONDS:
                settings = replace(settings, cool_every=float(value))
            case "cool_every", _:
                raise HelperError(f"{where}cool_every is for a number of seconds above 0")
            case "busy_poll", int() if not isinstance(value, bool) and 0 <= value <= MOST_BUSY_POLL:
                settings = replace(settings, busy_poll=value)
            case "busy_poll", _:
                raise HelperError(f"{where}busy_poll is for a number of microseconds, {MOST_BUSY_POLL} at most")
            case "policy", str() if value.startswith("/"):
                settings = replace(settings, policy=Path(value))
            case "policy", _:
                raise HelperError(f"{where}policy is for the whole path of a file")
            case _:
                raise HelperError(f"{where}{key} is no setting; there are links, cool_every, busy_poll and policy")
    return settings


def _is_interface(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= _IFNAME_MAX and not any(c == "/" or c.isspace() for c in name)
