"""The rules of the policy as participants read them: which connections the kernel keeps (docs/policy.md).

One table in the stack's segment, written by the helper alone. It holds all rules in their order; which of them concern a participant,
because of its users, groups and program, is a mask in its slot. So a participant has no names to look up: it compares addresses and ports.
"""

from __future__ import annotations

from .model import Field, Line, Struct

CONSTANTS: dict[str, int] = {
    "N_RULES": 64,  # bits of slot.rules
    "N_RULE_ADDRESSES": 512,
    "N_RULE_PORTS": 512,
    "RULE_NAME_BYTES": 48,
    # which end of a connection a part of a rule is about; what there is of each kind has to hold
    "RULE_EITHER": 0,
    "RULE_LOCAL": 1,
    "RULE_REMOTE": 2,
    "RULE_SIDES": 3,
    # verdicts: 0 allowed, the number of a rule plus one, or
    "VERDICT_DEFAULT": 65,  # no rule says anything, and the default is deny
    "VERDICT_UNJUDGED": 66,  # the helper has not yet said which rules concern the participant
    # stack.kept: packets of these families that go by lo are the kernel's, because of its own rules
    "KEPT_INET": 1,
    "KEPT_INET6": 2,
}

RULE = Struct(
    "rule",
    64,
    "One rule of the policy: it applies to a connection if one of its addresses, and one of its ports, fits for each side it names.",
    (
        Field("deny", "u32", "1: the kernel keeps such connections; 0: they may be lifted", owner="helper"),
        Field("first_address", "u16", "its first one in `addresses`", owner="helper"),
        Field("n_addresses", "u16", "how many; 0: any address", owner="helper"),
        Field("first_port", "u16", "its first one in `ports`", owner="helper"),
        Field("n_ports", "u16", "how many; 0: any port", owner="helper"),
        Field("name", "u8", "zero-terminated", count=CONSTANTS["RULE_NAME_BYTES"], owner="helper"),
    ),
)

RULE_ADDRESS = Struct(
    "rule_address",
    24,
    "A network.",
    (
        Field("addr", "u8", "IPv4 as ::ffff:a.b.c.d", count=16, owner="helper"),
        Field("bits", "u32", "of the address that have to agree, 96 and more for IPv4", owner="helper"),
        Field("side", "u32", "RULE_EITHER, RULE_LOCAL or RULE_REMOTE", owner="helper"),
    ),
)

RULE_PORTS = Struct(
    "rule_ports",
    8,
    "A range of ports.",
    (
        Field("low", "u16", "the first", owner="helper"),
        Field("high", "u16", "the last", owner="helper"),
        Field("side", "u32", "RULE_EITHER, RULE_LOCAL or RULE_REMOTE", owner="helper"),
    ),
)

POLICY = Struct(
    "policy",
    20736,
    "All rules, and why packets on lo are the kernel's.",
    (
        Line("the helper"),
        Field("gen", "u32", "even; odd while the rules are being written: who reads them looks at it before and afterwards"),
        Field("active", "u32", "0: everything is allowed, and nothing else here is looked at"),
        Field("default_deny", "u32", "1: what no rule applies to is denied"),
        Field("n_rules", "u32", "rules"),
        Field("lo_rule", "u8", "what keeps packets on lo with the kernel, zero-terminated; empty: nothing", count=192),
        Field("rules", "rule", "in their order: the first that applies decides", count=CONSTANTS["N_RULES"]),
        Field("addresses", "rule_address", "of the rules", count=CONSTANTS["N_RULE_ADDRESSES"]),
        Field("ports", "rule_ports", "of the rules", count=CONSTANTS["N_RULE_PORTS"]),
    ),
    {"rule": RULE, "rule_address": RULE_ADDRESS, "rule_ports": RULE_PORTS},
)

STRUCTS: tuple[Struct, ...] = (RULE, RULE_ADDRESS, RULE_PORTS, POLICY)
