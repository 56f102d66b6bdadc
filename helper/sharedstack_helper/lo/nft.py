"""The rules of nftables, as the kernel dumps them; those of iptables-nft are among them, of iptables-legacy they are not.

It needs CAP_NET_ADMIN in the network namespace. Sets are dumped when somebody asks for their elements; large ones, and those that packets
change, are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyroute2.netlink.nfnetlink import nftsocket as nft

from .ruleset import Chain, Element, Expression, Rule, Ruleset, Verdict

_FAMILIES = {1: "inet", 2: "ip", 5: "netdev", 10: "ip6"}
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
_NETDEV_HOOKS = ("ingress", "egress")
_DROP = 0  # NF_DROP
_MOST_ELEMENTS = 2048
_INTERVAL_END = 1  # NFT_SET_ELEM_INTERVAL_END
_NONE_BELOW = frozenset(("NFT_SET_EVAL", "NFT_SET_TIMEOUT"))


def read() -> Ruleset:
    """All rules of our network namespace. Raises OSError, as PermissionError; what pyroute2 cannot decode is an OSError, too."""
    with nft.NFTSocket(nfgen_family=0) as asking:
        found = Ruleset()
        for message in _dump(asking, nft.nft_chain_msg(), nft.NFT_MSG_GETCHAIN):
            _chain(found, message)
        if not found.chains:
            return found
        for message in _dump(asking, nft.nft_rule_msg(), nft.NFT_MSG_GETRULE):
            chain = found.chains.get(_key(message, "NFTA_RULE_TABLE", "NFTA_RULE_CHAIN"))
            if chain:
                steps = tuple(_expression(one) for one in message.get_attr("NFTA_RULE_EXPRESSIONS") or ())
                chain.rules.append(Rule(int(message.get_attr("NFTA_RULE_HANDLE") or 0), steps))
        sets = {
            _key(message, "NFTA_SET_TABLE", "NFTA_SET_NAME"): frozenset(message.get_attr("NFTA_SET_FLAGS") or ())
            for message in _dump(asking, nft.nft_set_msg(), nft.NFT_MSG_GETSET)
        }
    known: dict[tuple[str, str, str], list[Element] | None] = {}

    def elements(family: str, table: str, name: str) -> list[Element] | None:
        key = family, table, name
        if key not in known:
            known[key] = _elements(key, sets[key]) if key in sets and not sets[key] & _NONE_BELOW else None
        return known[key]

    found.elements = elements
    return found


def _dump(asking: Any, message: Any, command: int) -> Iterator[Any]:
    try:
        yield from asking.request_get(message, command)
    except OSError:
        raise
    except Exception as error:  # pyroute2 raises many kinds; NetlinkError is none of OSError
        code = getattr(error, "code", 0)
        raise OSError(code, f"the kernel's rules cannot be had: {error}") from error


def _key(message: Any, table: str, name: str) -> tuple[str, str, str]:
    family = _FAMILIES.get(message["nfgen_family"], "")
    return family, str(message.get_attr(table)), str(message.get_attr(name))


def _chain(into: Ruleset, message: Any) -> None:
    key = _key(message, "NFTA_CHAIN_TABLE", "NFTA_CHAIN_NAME")
    if not key[0]:
        return  # of bridges and arp: not of packets on lo
    chain = Chain(*key)
    hook = message.get_attr("NFTA_CHAIN_HOOK")
    if hook is not None:
        names = _NETDEV_HOOKS if chain.family == "netdev" else _HOOKS
        number = int(hook.get_attr("NFTA_HOOK_HOOKNUM"))
        chain.hook = names[number] if number < len(names) else "unknown"
        chain.type = str(message.get_attr("NFTA_CHAIN_TYPE"))
        chain.drops = message.get_attr("NFTA_CHAIN_POLICY") == _DROP
        if chain.hook in _NETDEV_HOOKS and not _is_on_lo(hook):
            chain.hook = "elsewhere"
    into.chains[key] = chain


def _is_on_lo(hook: Any) -> bool:
    names, devices = [hook.get_attr("NFTA_HOOK_DEV")], hook.get_attr("NFTA_HOOK_DEVS")
    names += [value for _, value in devices["attrs"]] if devices is not None else []
    said = [name for name in names if isinstance(name, str)]
    return not said or any("lo".startswith(name.rstrip("*")) if name.endswith("*") else name == "lo" for name in said)


def _expression(one: Any) -> Expression:
    given = one.get_attr("NFTA_EXPR_DATA")
    return Expression(str(one.get_attr("NFTA_EXPR_NAME")), _plain(given) if given is not None else {})


def _plain(given: Any) -> dict[str, Any]:
    """Attributes without what they have in common: NFTA_CMP_SREG is SREG."""
    found: dict[str, Any] = {}
    attributes: list[tuple[str, Any]] = given["attrs"] if isinstance(given, dict) else []
    for name, value in attributes:
        if hasattr(value, "get_attr"):
            data, verdict = value.get_attr("NFTA_DATA_VALUE"), value.get_attr("NFTA_DATA_VERDICT")
            value = _verdict(verdict) if verdict is not None else data
        elif isinstance(value, str):
            value = value.removeprefix("NFT_META_").removeprefix("NFT_CT_").removeprefix("NFT_CMP_").removeprefix("NFT_PAYLOAD_")
        found[name.split("_", 2)[-1]] = value
    return found


def _verdict(given: Any) -> Verdict:
    code = str(given.get_attr("NFTA_VERDICT_CODE")).removeprefix("NFT_").removeprefix("NF_")
    return Verdict(code.lower(), str(given.get_attr("NFTA_VERDICT_CHAIN") or ""))


def _elements(key: tuple[str, str, str], flags: frozenset[str]) -> list[Element] | None:
    """Those of a set, by a dump of its own."""
    family, table, name = key
    number = next(n for n, text in _FAMILIES.items() if text == family)
    with nft.NFTSocket(nfgen_family=number) as asking:
        message = nft.nft_set_elem_list_msg()
        message["nfgen_family"] = number
        message["attrs"] = [("NFTA_SET_ELEM_LIST_TABLE", table), ("NFTA_SET_ELEM_LIST_SET", name)]
        raw: list[Any] = []
        for part in _dump(asking, message, nft.NFT_MSG_GETSETELEM):
            raw += part.get_attr("NFTA_SET_ELEM_LIST_ELEMENTS") or ()
            if len(raw) > _MOST_ELEMENTS:
                return None
    keyed = [(_bytes(one, "NFTA_SET_ELEM_KEY"), one) for one in raw]
    if not all(low for low, _ in keyed) or any(one.get_attr("NFTA_SET_ELEM_KEY_END") is not None for _, one in keyed):
        return None  # a catch-all, or several fields in one
    return _intervals(keyed) if "NFT_SET_INTERVAL" in flags else [Element(low, low, _said(one)) for low, one in keyed]


def _intervals(keyed: list[tuple[bytes, Any]]) -> list[Element]:
    """Each begins with an element, and ends before the next one, which may be marked as no more than an end."""
    ordered = sorted(keyed, key=lambda pair: (pair[0], not _ends(pair[1])))
    found = []
    for (low, one), after in zip(ordered, [*ordered[1:], None], strict=True):
        if not _ends(one):
            last = (int.from_bytes(after[0]) - 1).to_bytes(len(low)) if after else b"\xff" * len(low)
            found.append(Element(low, last, _said(one)))
    return found


def _ends(one: Any) -> bool:
    return _INTERVAL_END in (one.get_attr("NFTA_SET_ELEM_FLAGS") or ())


def _bytes(one: Any, name: str) -> bytes:
    data = one.get_attr(name)
    return bytes(data.get_attr("NFTA_DATA_VALUE") or b"") if data is not None else b""


def _said(one: Any) -> Verdict | None:
    data = one.get_attr("NFTA_SET_ELEM_DATA")
    verdict = data.get_attr("NFTA_DATA_VERDICT") if data is not None else None
    return None if verdict is None else _verdict(verdict)
