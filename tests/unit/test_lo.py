"""Rules of the kernel's on lo: which rulesets keep what there in the kernel, and which do not, read from the kernel itself."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fix_rulesets import HARMLESS

from sharedstack_helper.lo import devices, walk, xtables
from sharedstack_helper.lo.packet import Packet, Value
from sharedstack_helper.lo.ruleset import Chain, Expression, Rule, Ruleset, Verdict
from sharedstack_helper.lo.watch import Seen

LOOK = """
import json
from sharedstack_helper.lo.watch import look
seen = look()
print(json.dumps([seen.kept, seen.hidden, [one.text for one in seen.found]]))
"""
Looks = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture(scope="module")
def looks() -> Iterator[Looks]:
    """What is seen in a namespace of ours with these rules, after these commands; everything is flushed first."""
    if os.getuid() != 0 or shutil.which("nft") is None:
        pytest.skip("it needs root and nft")
    holder = subprocess.Popen(["unshare", "--net", "sleep", "600"])
    inside = ["nsenter", f"--net=/proc/{holder.pid}/ns/net", "--"]

    def look(rules: str = "", *commands: str) -> tuple[int, str, list[str]]:
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        subprocess.run([*inside, "nft", "-f", "-"], input=f"flush ruleset\n{rules}", text=True, check=True)
        for command in commands:
            subprocess.run([*inside, *command.split()], check=True)
        done = subprocess.run([*inside, sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
        kept, hidden, found = json.loads(done.stdout)
        return kept, hidden, found

    while os.readlink(f"/proc/{holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        pass
    yield look
    holder.kill()
    holder.wait()


@pytest.mark.parametrize("name", HARMLESS)
def test_ordinary_rules_do_not_stop_anything(looks: Looks, name: str) -> None:
    assert looks(HARMLESS[name]) == (0, "", [])


def chain(rule: str, hook: str = "output", family: str = "inet", policy: str = "accept") -> str:
    return f"table {family} t {{ chain c {{ type filter hook {hook} priority 0; policy {policy}; {rule}; }}; }}"


@pytest.mark.parametrize(
    ("rules", "kept", "told"),
    [
        (chain("limit rate 10/second accept"), 3, "limits the rate of packets"),
        (chain("meta l4proto tcp limit rate 10/second", family="ip"), 1, "limits the rate"),
        (chain("limit rate 10/second", "input", "ip6"), 2, "limits the rate"),
        (chain("iif lo limit rate 10/second", "input"), 3, "limits the rate"),
        (chain("quota over 10 mbytes drop"), 3, "counts bytes against a quota"),
        (chain("tcp dport 80 meta mark set 1"), 3, "meta mark"),
        (chain("ip saddr 127.0.0.1 ct mark set 1"), 1, "ct mark"),
        (chain("ip dscp set cs1"), 1, "changes packets"),
        (chain("log"), 3, "logs packets"),
        (chain("tcp dport 22 drop", "input"), 3, "may drop packets"),
        (chain("tcp dport 22 reject", "input"), 3, "may reject packets"),
        (chain("tcp dport 22 accept", "input", policy="drop"), 3, "drops by its policy"),
        (chain("ct state established accept", "input", policy="drop"), 3, "drops by its policy"),  # datagrams that nobody answers
        (chain("ct count over 5 drop"), 3, "counts connections"),
        (chain("numgen inc mod 2 0 counter drop"), 3, "counts packets to choose"),
        (chain("tcp option maxseg size set 1000"), 3, "changes packets"),
        ("table inet t { limit l { rate 1/second; }; chain c { type filter hook output priority 0; limit name l; }; }", 3, "by an object"),
        (
            "table ip t { set s { type ipv4_addr; flags dynamic; size 99; }; chain c { type filter hook output priority 0;"
            " update @s { ip saddr limit rate 1/second }; }; }",
            1,
            "notes packets in a set",
        ),
        ("table netdev t { chain c { type filter hook ingress device lo priority 0; tcp dport 9 drop; }; }", 3, "may drop packets"),
        ("table inet t { chain s { log; }; chain c { type filter hook output priority 0; oifname lo jump s; }; }", 3, "inet t s handle"),
        ("table inet t { chain s { tcp dport 1 return; accept; }; chain c { type filter hook output priority 0; goto s; }; }", 0, ""),
        ("table inet t { chain s { tcp dport 1 accept; }; chain c { type filter hook output priority 0; goto s; log; }; }", 0, ""),
        ("table inet t { chain s { tcp dport 1 accept; }; chain c { type filter hook output priority 0; jump s; log; }; }", 3, "logs"),
        (chain("iifname { \"lo\", \"eth*\" } accept; log", "input"), 0, ""),
        (chain("iifname \"eth*\" accept; log", "input"), 3, "logs"),
        (chain("iifname != \"lo\" limit rate 1/second", "input"), 0, ""),
        (chain("oif lo accept; drop"), 0, ""),
        (chain("ip daddr 127.0.0.0/8 accept; ip6 daddr ::1 accept; drop"), 0, ""),
        (chain("ip daddr 10.0.0.0/8 drop"), 0, ""),
        (chain("ip daddr 10.0.0.3-10.0.0.9 drop"), 0, ""),
        (chain("ip daddr 120.0.0.0-128.0.0.0 drop"), 1, "may drop"),
        (chain("meta l4proto { icmp, icmpv6 } drop"), 0, ""),
        (chain("meta l4proto { icmp, udp } limit rate 5/second"), 3, "limits"),
        (chain("ct state new limit rate 5/second; meta l4proto udp accept"), 3, "limits"),
        (chain("meta l4proto tcp ct state new limit rate 5/second"), 0, ""),
        (chain("notrack; ct state untracked log"), 3, "logs"),
        (chain("limit rate 5/second drop", "forward"), 0, ""),
        (chain("counter"), 0, ""),
    ],
)  # fmt: skip
def test_what_a_rule_keeps(looks: Looks, rules: str, kept: int, told: str) -> None:
    seen, hidden, found = looks(rules)
    assert (seen, hidden) == (kept, ""), found
    assert any(told in text for text in found) or not kept


def test_rules_for_addresses_are_about_this_hosts(looks: Looks) -> None:
    rules = chain("ip daddr 10.9.0.0/16 drop", "input")
    assert looks(rules)[0] == 0
    assert looks(rules, "ip address add 10.9.1.1/24 dev lo")[0] == 1
    assert looks(rules, "ip address del 10.9.1.1/24 dev lo")[0] == 0


def test_queues_on_lo(looks: Looks) -> None:
    assert looks("", "tc qdisc add dev lo root tbf rate 1mbit burst 32k latency 50ms")[::2] == (
        3,
        ["tc qdisc tbf on lo queues, delays or drops packets"],
    )
    assert looks("", "tc qdisc del dev lo root", "tc qdisc add dev lo clsact")[0] == 0  # by itself it does nothing
    assert looks("", "tc qdisc del dev lo clsact")[0] == 0


def test_who_may_not_see_them_says_so() -> None:
    if os.getuid() != 0:
        pytest.skip("allowed: this is about root without its capabilities")
    drop = ["setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--"]
    done = subprocess.run(["unshare", "--net", *drop, sys.executable, "-c", LOOK], capture_output=True, text=True, check=True, cwd="/")
    kept, hidden, found = json.loads(done.stdout)
    assert (kept, found) == (0, []) and "cannot be seen without CAP_NET_ADMIN" in hidden


def test_what_is_said() -> None:
    assert Seen().text == "" and Seen().kept == 0
    some = Seen((walk.Finding(4, "a"), walk.Finding(6, "a"), walk.Finding(4, "b")))
    assert some.text == "a, and 1 more" and some.kept == 3
    assert Seen((walk.Finding(0, "a"),)).kept == 3 and Seen((walk.Finding(6, "a"),)).kept == 2


TCP = Packet(4, 6, (ipaddress.ip_network("127.0.0.0/8"),), 1)


def conntrack(flags: int, inverted: int, mask: int) -> bytes:
    """struct xt_conntrack_mtinfo3, as far as it matters."""
    return bytes(146) + b"".join(number.to_bytes(2, sys.byteorder) for number in (flags, inverted, mask)) + bytes(14)


@pytest.mark.parametrize(
    ("name", "info", "fits"),
    [
        ("conntrack", conntrack(1, 0, 2 | 4), True),
        ("conntrack", conntrack(1, 0, 8), False),
        ("conntrack", conntrack(1, 1, 2), False),
        ("conntrack", conntrack(3, 0, 2), None),
        ("conntrack", b"", None),
        ("state", (2 | 4).to_bytes(4, sys.byteorder), True),
        ("state", (1).to_bytes(4, sys.byteorder), False),
        ("comment", b"", True),
        ("multiport", b"", None),
    ],
)
def test_matches_of_xtables(name: str, info: bytes, fits: bool | None) -> None:
    assert xtables.fits(name, 3, info, TCP.state) is fits


def of_xtables(*steps: Expression, table: str = "filter", drops: bool = False) -> list[str]:
    made = Chain("ip", table, "INPUT", "input", "filter", drops, [Rule(1, steps)])
    return [one.text for one in walk.look(Ruleset({("ip", table, "INPUT"): made}), TCP.own, 1)]


def test_targets_of_xtables() -> None:
    established = Expression("match", {"NAME": "conntrack", "REV": 3, "INFO": conntrack(1, 0, 2 | 8)})
    accept = Expression("immediate", {"DATA": Verdict("accept")})
    assert of_xtables(established, accept, drops=True) == []
    assert "target MARK" in of_xtables(Expression("target", {"NAME": "MARK"}))[0]
    assert (
        of_xtables(Expression("match", {"NAME": "conntrack", "REV": 3, "INFO": conntrack(1, 0, 1)}), Expression("target", {"NAME": "LOG"}))
        == []
    )
    assert "match hashlimit" in of_xtables(Expression("match", {"NAME": "hashlimit"}))[0]
    assert of_xtables(Expression("target", {"NAME": "CT"}), table="raw") == []
    assert "not understood (unheard)" in of_xtables(Expression("unheard"))[0]


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_bits_that_are_known(value: int, mask: int, low: int, high: int, flip: int) -> None:
    """Each answer is what all numbers that a value may be have in common; an uncertain one may hide a certain one, never the reverse."""
    low, high = min(low, high), max(low, high)
    one = Value(1, ((value & mask, mask),))
    may = [n for n in range(256) if n & mask == value & mask]
    answer = one.within(bytes([low]), bytes([high]))
    truth = {low <= n <= high for n in may}
    assert answer is None or truth == {answer}
    if low == high or mask == 255:
        assert answer is (truth.pop() if len(truth) == 1 else None)
    changed = one.masked(bytes([low]), bytes([flip]))
    assert {n & low ^ flip for n in may} == {n for n in range(256) if n & changed.ways[0][1] == changed.ways[0][0]}


def test_legacy_tables() -> None:
    def info(entries: list[int], last: list[int], hooks: int = 0b11111) -> bytes:
        return devices._INFO.pack(b"filter", hooks, *entries, *last, 4, 600)

    assert not devices.has_rules(info([0, 152, 304, 456, 608], [0, 152, 304, 456, 608]))
    assert devices.has_rules(info([0, 152, 304, 456, 608], [0, 304, 304, 456, 608]))
    assert not devices.has_rules(info([0, 152, 304, 456, 608], [0, 152, 456, 456, 608]))  # forward
    assert not devices.has_rules(info([0, 152, 304, 456, 608], [9, 152, 304, 456, 608], 0b01110))  # no such hook there
    list(devices.legacy())
