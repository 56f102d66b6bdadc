"""A policy's file, what it may say and what it may not; and whether the core judges as the rules say."""

from __future__ import annotations

import fnmatch
import ipaddress
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fix_helper_daemon import Daemon

from sharedstack.declare.layout import CONSTANTS as C
from sharedstack_helper.policy import people
from sharedstack_helper.policy.enforce import Source
from sharedstack_helper.policy.file import PolicyError, parse, read
from sharedstack_helper.policy.rules import Participant, Policy, Rule, Side
from sharedstack_helper.policy.table import MOST_ADDRESSES, MOST_PORTS, MOST_RULES, End, Table

ME = Participant(1000, frozenset({100, 4}), "/usr/bin/redis-server")
GOOD = """
default = "deny"

[[rule]]
name = "no databases"
action = "deny"
program = "/usr/lib/postgresql/*"
uid = ["root", 1000, "2000-2999"]
gid = "root"
address = ["10.0.0.0/8", "::1"]
local_port = [5432, "8000-8999"]

[[rule]]
action = "allow"
remote_address = "::ffff:10.1.0.0/112"

[lo]
rules = "ignore"
"""


def test_what_a_file_may_say() -> None:
    policy = parse(GOOD, "x")
    first, second = policy.rules
    assert (policy.default_deny, policy.heed_lo, policy.source) == (True, False, "x")
    assert first == Rule(
        "no databases",
        True,
        ("/usr/lib/postgresql/*",),
        ((0, 0), (1000, 1000), (2000, 2999)),
        ((0, 0),),
        ((Side.EITHER, ipaddress.ip_network("10.0.0.0/8")), (Side.EITHER, ipaddress.ip_network("::1"))),
        ((Side.LOCAL, (5432, 5432)), (Side.LOCAL, (8000, 8999))),
    )
    assert second == Rule("rule 2", False, addresses=((Side.REMOTE, ipaddress.ip_network("10.1.0.0/16")),))
    assert parse("", "x") == Policy() and not Policy().active


RULE = "[[rule]]\naction = 'deny'\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("default = [", "is no TOML"),
        ("default = 'no'", 'x: default is \'no\': write "allow" or "deny"'),
        ("defualt = 'deny'", "x: there is no 'defualt'; did you mean default?"),
        ("zzz = 1", "x: there is no 'zzz'; there is default, rule, lo"),
        ("rule = 1", "write [[rule]] above each"),
        ("[rule]\naction = 'deny'", "write [[rule]] above each"),
        ("[[rule]]\nname = 'a'", 'x: rule 1 (a) has no action: write action = "deny" or "allow"'),
        ("[[rule]]\naction = 'refuse'", "x: rule 1: action is 'refuse': write"),
        (RULE + "prot = 1", "x: rule 1: there is no 'prot'; did you mean port?"),
        (RULE + "name = ''", "x: rule 1: name is a text of 1 to 47 printable bytes"),
        (RULE + f"name = '{'x' * 48}'", "name is a text of 1 to 47 printable bytes"),
        (RULE + "name = 7", "name is a text"),
        (RULE + "port = []", "port is empty, which fits nothing: leave it out"),
        (RULE + "port = 65536", "65536 is not within 0 and 65535"),
        (RULE + "port = '9-8'", "'9-8' is not within 0 and 65535, the smaller number first"),
        (RULE + "port = true", "True is no port"),
        (RULE + "port = 'http'", "'http' is no port: write a number up to 65535, or two as in '8000-8999'"),
        (RULE + "uid = 'nobody at all'", "there is no user 'nobody at all'"),
        (RULE + "uid = -1", "-1 is no user"),
        (RULE + "uid = 4294967295", "is not within 0 and 4294967294"),
        (RULE + "gid = 1.5", "1.5 is no group"),
        (RULE + "program = 'postgres'", "'postgres' is no path of an executable"),
        (RULE + "address = 'localhost'", "'localhost' is no address or network"),
        (RULE + "address = 5", "5 is no address"),
        (RULE + "address = '10.0.0.1/8'", "is an address and a network at once: write '10.0.0.0/8', or the address alone"),
        (RULE + "name = 'a'\n" + RULE + "name = 'a'", "two rules are named 'a'"),
        (RULE * (MOST_RULES + 1), f"has {MOST_RULES + 1} rules, and {MOST_RULES} is the most"),
        (RULE + f"port = {list(range(MOST_PORTS + 1))}", f"has {MOST_PORTS + 1} ports"),
        (RULE + f"address = {[f'10.0.{i >> 8}.{i & 255}' for i in range(MOST_ADDRESSES + 1)]}", f"has {MOST_ADDRESSES + 1} addresses"),
        ("lo = 1", "x: lo is a table"),
        ("[lo]\nrules = 'perhaps'", 'x: lo: rules is \'perhaps\': write "respect" or "ignore"'),
        ("[lo]\nrule = 'ignore'", "x: lo: there is no 'rule'; did you mean rules?"),
    ],
)
def test_what_it_may_not_say(text: str, told: str) -> None:
    with pytest.raises(PolicyError) as error:
        parse(text, "x")
    assert told in str(error.value) and str(error.value).startswith("x")


def test_a_file_that_is_not_there_or_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="there is no such file"):
        read(tmp_path / "none")
    with pytest.raises(PolicyError, match="cannot be read"):
        read(tmp_path)
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(PolicyError, match="cannot be read"):
        read(tmp_path / "bytes")


def test_the_usual_file_need_not_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    source = Source.of(None)
    assert source.path == tmp_path / "sharedstack" / "policy.toml" and source.read() == Policy()
    source.path.parent.mkdir()
    source.path.write_text("default = 'deny'")
    assert source.read().default_deny
    with pytest.raises(PolicyError, match="no such file"):
        Source.of(tmp_path / "other").read()


@pytest.mark.parametrize(
    ("rule", "concerns"),
    [
        (Rule("", True), True),
        (Rule("", True, uids=((0, 999), (1000, 1000))), True),
        (Rule("", True, uids=((0, 999),)), False),
        (Rule("", True, gids=((4, 4),)), True),
        (Rule("", True, gids=((5, 99),)), False),
        (Rule("", True, programs=("/bin/*", "/usr/*/redis*")), True),
        (Rule("", True, programs=("/usr/bin/redis",)), False),
        (Rule("", True, programs=("/usr/bin/redis-server",), uids=((1, 1),)), False),
    ],
)
def test_whom_a_rule_concerns(rule: Rule, concerns: bool) -> None:
    assert rule.concerns(ME) == concerns
    assert Policy((Rule("", True, uids=((1, 1),)), rule)).concerning(ME) == concerns << 1


def test_of_whom_little_is_known_is_denied_rather_than_allowed() -> None:
    for condition in ({"programs": ("/bin/sh",)}, {"gids": ((0, 0),)}):
        assert Rule("", True, **condition).concerns(people.unknown(7)) and not Rule("", False, **condition).concerns(people.unknown(7))  # type: ignore[arg-type]
    assert not Rule("", True, uids=((8, 8),)).concerns(people.unknown(7))


def test_who_a_process_is() -> None:
    groups = {os.getgid(), *os.getgroups()}
    assert people.who(os.getpid(), 7) == Participant(os.getuid(), frozenset(groups), os.readlink("/proc/self/exe"))
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
        assert people.who(gone.pid, 7) == people.unknown(7)


PORTS = st.integers(0, 40)
SPANS = st.tuples(PORTS, PORTS).map(lambda pair: (min(pair), max(pair)))
FOUR = st.integers(0, 15).map(lambda n: ipaddress.IPv4Address(0x0A00_0000 + n))
SIX = st.integers(0, 15).map(lambda n: ipaddress.IPv6Address((0xFD << 120) + n))
NETWORKS = st.one_of(
    st.sampled_from([ipaddress.ip_network(text) for text in ("0.0.0.0/0", "::/0", "::/80")]),
    st.tuples(FOUR, st.integers(0, 32)).map(lambda pair: ipaddress.ip_network(pair, strict=False)),
    st.tuples(SIX, st.integers(0, 128)).map(lambda pair: ipaddress.ip_network(pair, strict=False)),
)
SIDES = st.sampled_from(list(Side))
RULES = st.builds(
    lambda deny, addresses, ports: Rule("r", deny, addresses=tuple(addresses), ports=tuple(ports)),
    st.booleans(),
    st.lists(st.tuples(SIDES, NETWORKS), max_size=3),
    st.lists(st.tuples(SIDES, SPANS), max_size=3),
)
FLOWS = st.one_of(*(st.tuples(st.tuples(kind, PORTS), st.tuples(kind, PORTS)) for kind in (FOUR, SIX)))


def expected(policy: Policy, concern: int, local: End, remote: End) -> int:
    """The same judgement in other words."""
    sides = {Side.EITHER: (local, remote), Side.LOCAL: (local,), Side.REMOTE: (remote,)}
    for i, rule in enumerate(policy.rules):
        wanted = {side for side, _ in rule.addresses}, {side for side, _ in rule.ports}
        met = (
            {side for side, network in rule.addresses if any(address in network for address, _ in sides[side])},
            {side for side, (low, high) in rule.ports if any(port in range(low, high + 1) for _, port in sides[side])},
        )
        if concern >> i & 1 and met == wanted:
            return i + 1 if rule.deny else 0
    return C["VERDICT_DEFAULT"] if policy.default_deny else 0


@pytest.mark.parametrize(("network", "four", "six"), [("::/0", 0, 1), ("0.0.0.0/0", 1, 0), ("::/80", 0, 0), ("fd00::/8", 0, 1)])
def test_a_network_is_of_one_family(network: str, four: int, six: int) -> None:
    """Though addresses of IPv4 are written as ::ffff:a.b.c.d there."""
    table = Table(Policy((Rule("r", True, addresses=((Side.EITHER, ipaddress.ip_network(network)),)),)))
    for address, denied in (("10.0.0.1", four), ("fd00::1", six)):
        end = ipaddress.ip_address(address), 1
        assert table.verdict(1, end, end) == denied


@given(st.builds(Policy, st.lists(RULES, max_size=6).map(tuple), st.booleans()), st.integers(0, 63), FLOWS)
def test_the_core_judges_as_the_rules_say(policy: Policy, concern: int, flow: tuple[End, End]) -> None:
    assert Table(policy).verdict(concern, *flow) == expected(policy, concern, *flow)


@given(st.text("ab/*?", max_size=6), st.text("ab/", max_size=6))
def test_programs_fit_as_globs(glob: str, program: str) -> None:
    assert Rule("", True, ("/" + glob,)).concerns(Participant(0, None, "/" + program)) == fnmatch.fnmatchcase(program, glob)


def test_all_of_the_largest_policy_is_read() -> None:
    rules = [Rule(f"{i}", True, ports=((Side.EITHER, (i, i)),)) for i in range(MOST_RULES)]
    table = Table(Policy(tuple(rules)))
    address = ipaddress.ip_address("::1")
    for port in range(MOST_RULES):
        assert table.verdict((1 << 64) - 1, (address, 9999), (address, port)) == port + 1
    assert table.explain(MOST_RULES) == f"rule '{MOST_RULES - 1}'" and table.explain(C["VERDICT_DEFAULT"]) == "the default"


def test_the_helper_reloads_and_refuses(daemon_with_policy: tuple[Daemon, Path]) -> None:
    daemon, file = daemon_with_policy
    file.write_text("default = 'deny'")
    assert daemon.ask("reload")["policy"] == f"{file}: 0 rules, deny by default"
    file.write_text("default = 'perhaps'")
    reply = daemon.ask("reload")
    assert (reply["t"], reply["code"]) == ("error", "policy") and "default is 'perhaps'" in reply["text"]
    assert "the policy stays as it was" in daemon.end()[1]


@pytest.fixture
def daemon_with_policy(tmp_path: Path) -> object:
    file = tmp_path / "policy.toml"
    file.write_text("")
    made = Daemon().start("--policy", str(file))
    yield made, file
    made.clean()


def test_the_settings_may_name_it(tmp_path: Path) -> None:
    (tmp_path / "helper.toml").write_text(f"policy = '{tmp_path}/mine.toml'")
    (tmp_path / "mine.toml").write_text("default = 'deny'")
    daemon = Daemon().start("--config", str(tmp_path / "helper.toml"))
    assert "deny by default" in daemon.ask("reload")["policy"]
    daemon.end()
    (tmp_path / "helper.toml").write_text("policy = 'mine.toml'")
    with pytest.raises(BaseException, match="policy is for the whole path"):
        daemon.start("--config", str(tmp_path / "helper.toml"))
    daemon.clean()
