"""The control socket: what is lent, and that every wrong packet gets its error and costs nothing else."""

from __future__ import annotations

import mmap
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.fix_helper_daemon import Client, Daemon, wait_until

import sharedstack
from sharedstack.declare import binary, layout
from sharedstack.declare.layout import CONSTANTS
from sharedstack.declare.messages import ERROR_CODES, LISTS, MAX_MESSAGE, MESSAGES, MOST_ENDS, PROTOCOL_VERSION
from sharedstack_helper import control, protocol

pytest_plugins = ["unit.fix_helper"]

GOOD = {"hash": layout.HASH, "netns": 0}


@pytest.fixture(scope="module")
def shared() -> Iterator[Daemon]:
    """One helper for all the packets of this file."""
    daemon = Daemon().start()
    yield daemon
    daemon.clean()


def packet(**fields: Any) -> bytes:
    packed: bytes = msgpack.packb(fields)
    return packed


def refused(daemon: Daemon, raw: bytes) -> dict[str, Any]:
    """Send a packet that must get an error; the connection must be closed then, and the helper serve others."""
    with daemon.client() as client:
        client.socket.send(raw)
        reply = client.reply()
        assert (reply["t"], reply["v"]) == ("error", PROTOCOL_VERSION)
        assert client.socket.recv(100) == b""
    assert daemon.ask("ping")["pid"] == daemon.pid
    return reply


V = PROTOCOL_VERSION
WRONG = [
    ("malformed", b"\xc1"),
    ("malformed", b""),
    ("malformed", b"hello"),
    ("malformed", packet(v=V, t="ping") + b"\0"),
    ("malformed", packet(v=V, t="ping")[:-1]),
    ("malformed", msgpack.packb([V, "ping"])),
    ("malformed", msgpack.packb({1: 2})),
    ("malformed", msgpack.packb({b"v": V, b"t": "ping"})),
    ("malformed", packet(t="ping")),
    ("malformed", packet(v=V)),
    ("malformed", packet(v=True, t="ping")),
    ("malformed", packet(v=V, t=b"ping")),
    ("malformed", b"\x91" * 4000 + b"\xc0"),
    ("oversized", packet(v=V, t="ping", pad="x" * MAX_MESSAGE)),
    ("oversized", bytes(100_000)),
    ("version", packet(v=V + 1, t="ping")),
    ("version", packet(v=-1, t="attach", **GOOD)),
    ("unknown", packet(v=V, t="sing")),
    ("unknown", packet(v=V, t="lend", hash=1, name="x", bulk_id=-1)),
    ("unknown", packet(v=V, t="x" * 3000)),
    ("field", packet(v=V, t="attach", hash=layout.HASH)),
    ("field", packet(v=V, t="attach", hash=str(layout.HASH), netns=0)),
    ("field", packet(v=V, t="attach", hash=-1, netns=0)),
    ("field", packet(v=V, t="attach", hash=True, netns=0)),
    ("field", packet(v=V, t="attach", hash=layout.HASH, netns=msgpack.Timestamp(1))),
    ("field", packet(v=V, t="ping", extra=1)),
    ("field", packet(v=V, t="unlift", endpoint=0, cookie=7)),
    ("field", packet(v=V, t="unlift", ends={"0": 7})),
    ("field", packet(v=V, t="unlift", ends=[0, 7])),
    ("field", packet(v=V, t="unlift", ends=[[0, 7], [1]])),
    ("field", packet(v=V, t="unlift", ends=[[0, 7], [1, 8, 9]])),
    ("field", packet(v=V, t="unlift", ends=[[0, 7], [1, -8]])),
    ("field", packet(v=V, t="unlift", ends=[[True, 7]])),
    ("field", packet(v=V, t="unlift", ends=[[0, "7"]])),
    ("field", packet(v=V, t="unlift", ends=[[0, 7]] * (MOST_ENDS + 1))),
    ("layout", packet(v=V, t="attach", hash=layout.HASH ^ 1, netns=0)),
    ("netns", packet(v=V, t="attach", hash=layout.HASH, netns=(1 << 64) - 1)),
]


@pytest.mark.parametrize(("code", "raw"), WRONG, ids=[f"{code}-{i}" for i, (code, _) in enumerate(WRONG)])
def test_wrong_packet_gets_its_error(shared: Daemon, code: str, raw: bytes) -> None:
    reply = refused(shared, raw)
    assert reply["code"] == code and reply["text"].isprintable()


def test_every_code_is_tested() -> None:
    assert {code for code, _ in WRONG} | {"uid", "draining", "policy", "name", "limit"} == set(
        ERROR_CODES
    )  # test_policy.py, test_fdstore.py


def test_layout_error_has_both_hashes(shared: Daemon) -> None:
    text = refused(shared, packet(v=V, t="attach", hash=0x1234, netns=shared.netns))["text"]
    assert f"{0x1234:#018x}" in text and f"{layout.HASH:#018x}" in text


def test_an_error_of_a_list_says_what_it_must_be(shared: Daemon) -> None:
    text = refused(shared, packet(v=V, t="unlift", ends=[[0]]))["text"]
    assert text == f"message unlift: the field ends must be list of at most {MOST_ENDS} [u64, u64]"


@pytest.mark.parametrize("kind", [m.name for m in MESSAGES if set(m.fields.values()) & set(LISTS)])
def test_the_longest_list_is_no_message_too_large(kind: str) -> None:
    (message,) = (m for m in MESSAGES if m.name == kind)
    most = {"u64": (1 << 64) - 1, "bool": True}
    fields = {key: [[most[t] for t in LISTS[type_]]] * MOST_ENDS for key, type_ in message.fields.items()}
    packed = protocol.encode(kind, **fields)
    assert len(packed) <= MAX_MESSAGE and protocol.decode_reply(packed) == (kind, fields)


def test_netns_error_has_both_namespaces(shared: Daemon) -> None:
    text = refused(shared, packet(v=V, t="attach", hash=layout.HASH, netns=987654321))["text"]
    assert "987654321" in text and str(shared.netns) in text


def stop(daemon: Daemon) -> None:
    """SIGSTOP, and wait until it has stopped."""
    os.kill(daemon.pid, signal.SIGSTOP)
    stat = Path(f"/proc/{daemon.pid}/stat")
    wait_until(lambda: stat.read_text().rsplit(")", 1)[1].split()[0] == "T")


def test_error_arrives_though_more_requests_wait(shared: Daemon) -> None:
    with shared.client() as client:
        stop(shared)
        for _ in range(5):
            client.socket.send(b"\xc1")
        os.kill(shared.pid, signal.SIGCONT)
        assert client.reply()["code"] == "malformed"


_names = st.sampled_from([m.name for m in MESSAGES])
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.text(max_size=9) | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
_keys = st.sampled_from(["v", "t", "hash", "netns", "code"]) | st.text(max_size=5)
_maps = st.dictionaries(_keys, _values, max_size=5)
_nearly = st.builds(lambda extra, name: {"v": V, "t": name, **extra}, _maps, _names)
_numbers = st.integers(0, 9) | st.integers(0, (1 << 64) - 1)
_ends = st.lists(st.lists(_numbers, min_size=2, max_size=2) | _values, max_size=MOST_ENDS + 2) | _values
_unlifts = st.builds(lambda ends: {"v": V, "t": "unlift", "ends": ends}, _ends)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=300) | (_maps | _nearly | _unlifts).map(msgpack.packb))
def test_random_packets(shared: Daemon, raw: bytes) -> None:
    with shared.client() as client:
        client.socket.send(raw)
        reply = client.reply()
        assert reply["v"] == V and reply["t"] in {m.name for m in MESSAGES}
        assert reply["t"] != "error" or reply["code"] in ERROR_CODES


def test_random_packets_did_no_harm(shared: Daemon) -> None:
    assert shared.ask("status")["pid"] == shared.pid
    wait_until(lambda: len(os.listdir(f"/proc/{shared.pid}/fd")) < 20)


def test_attach_lends_the_segments(shared: Daemon) -> None:
    reply, fds = shared.attach()
    assert (reply["t"], reply["hash"], reply["name"], reply["bulk_id"]) == ("lend", layout.HASH, shared.stack, -1)
    sizes = [os.fstat(fd).st_size for fd in fds]
    assert sizes == [layout.STACK_BYTES, layout.ARENA_BYTES, layout.BULK_BYTES]
    stack, arena = (memoryview(mmap.mmap(fd, 0)) for fd in fds[:2])
    header = binary.stack(stack)
    assert header["magic"] == CONSTANTS["STACK_MAGIC"] and header["layout_hash"] == layout.HASH
    assert (header["state"], header["pair_ok"]) == (CONSTANTS["STACK_READY"], 1)
    assert (header["uid"], header["netns"]) == (os.getuid(), shared.netns)
    helper = binary.slot(stack, header["helper"] - 1)
    assert (helper["pid"], helper["flags"]) == (shared.pid, CONSTANTS["SLOT_HELPER"])
    assert binary.text(header["arena_name"]) == f"/{shared.path('arena').name}"
    assert binary.arena(arena)["magic"] == CONSTANTS["ARENA_MAGIC"] and binary.arena(arena)["uid"] == (os.getuid(),) * 2
    assert all(shared.path(part).stat().st_mode & 0o777 == 0o600 for part in ("stack", "arena", "bulk"))
    for fd in fds:
        os.close(fd)


def test_status_counts(daemon: Daemon) -> None:
    refused(daemon, b"\xc1")
    state = daemon.ask("status")
    assert (state["t"], state["stack"], state["release"]) == ("state", daemon.stack, sharedstack.__version__)
    assert (state["participants"], state["reaped"], state["refused"]) == (0, 0, 1)


def test_descriptors_that_nobody_wants_are_closed(shared: Daemon) -> None:
    reader, writer = os.pipe()
    with shared.client() as client, os.fdopen(reader) as pipe:
        socket.send_fds(client.socket, [packet(v=V, t="ping")], [writer])
        os.close(writer)
        assert client.reply()["t"] == "pong"
        assert pipe.read() == ""  # the helper does not hold the other end


def test_silent_clients_are_bounded_and_cut_off(daemon: Daemon) -> None:
    silent = [daemon.client() for _ in range(control.MAX_CLIENTS)]
    began = time.monotonic()
    with daemon.client() as late:
        assert late.ask("ping")["pid"] == daemon.pid
    assert time.monotonic() - began <= control.SILENCE_SECONDS + 1
    assert silent[0].socket.recv(100) == b""
    for client in silent:
        client.socket.close()


def test_who_does_not_read_is_cut_off(daemon: Daemon) -> None:
    with daemon.client() as deaf:
        deaf.socket.setblocking(False)
        for _ in range(10_000):
            try:
                deaf.send("status")
            except BlockingIOError:
                time.sleep(0.001)
            except OSError:
                break
        else:
            pytest.fail("the helper still listens")
    assert daemon.ask("ping")["pid"] == daemon.pid


def test_who_comes_while_it_leaves_is_told(daemon: Daemon) -> None:
    stop(daemon)
    with daemon.client() as client:
        client.send("attach", hash=layout.HASH, netns=daemon.netns)
        os.kill(daemon.pid, signal.SIGTERM)
        os.kill(daemon.pid, signal.SIGCONT)
        assert client.reply()["code"] == "draining"


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
def test_other_users_are_refused(daemon: Daemon) -> None:
    program = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); os.setuid(65534);"
        "s.settimeout(5); s.connect(bytes.fromhex(sys.argv[1])); sys.stdout.buffer.write(s.recv(4096))"
    )
    from sharedstack.declare import names

    address = names.control_socket(os.getuid(), daemon.stack).hex()
    done = subprocess.run([sys.executable, "-c", program, address], capture_output=True, timeout=20)
    reply = msgpack.unpackb(done.stdout)
    assert reply["code"] == "uid" and "uid 65534" in reply["text"]
    with Client(daemon.stack) as own:
        assert own.ask("ping")["t"] == "pong"


# What belongs to connections with other hosts


def descriptors(daemon: Daemon, client: Client) -> int:
    """How many the helper has while this client is connected, when it has seen all that was closed before."""
    for _ in range(2):  # what it learns in one turn of its loop may come after the answer
        assert client.ask("ping")["t"] == "pong"
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


def test_no_link_is_lent_where_there_is_none(shared: Daemon) -> None:
    assert refused(shared, packet(v=V, t="borrow", link=0))["code"] == "field"
    assert refused(shared, packet(v=V, t="borrow", link=(1 << 64) - 1))["code"] == "field"
    assert refused(shared, packet(v=V, t="lift", endpoint=0, cookie=1))["code"] == "field"


@pytest.mark.parametrize("endpoint", [0, 1, CONSTANTS["N_ENDPOINTS"], (1 << 64) - 1])
def test_nothing_is_lifted_that_is_not_there(shared: Daemon, endpoint: int) -> None:
    with shared.client() as client, socket.socket() as some:
        before = descriptors(shared, client)
        for kind in ("lift", "lower"):
            raw = packet(v=V, t=kind, endpoint=endpoint, cookie=7)
            socket.send_fds(client.socket, [raw], [some.fileno()])
            reply = client.reply()
            assert reply["t"] == "done"
            assert (reply["why"] == 0) == (kind == "lower")
        for count in (0, 1, 2, MOST_ENDS):
            reply = client.ask("unlift", ends=[[endpoint, 7]] * count)
            assert (reply["t"], reply["results"]) == ("unlifted", [[0, False, 0]] * count)
        assert descriptors(shared, client) == before


def test_no_datagrams_are_steered_where_there_is_no_link(shared: Daemon) -> None:
    fields = {"endpoint": 0, "cookie": 7, "local": "10.0.0.1", "remote": "10.0.0.2", "port": 53}
    assert refused(shared, packet(v=V, t="steer", **fields))["code"] == "field"  # without a descriptor
    with shared.client() as client, socket.socket(type=socket.SOCK_DGRAM) as some:
        before = descriptors(shared, client)
        for changed in ({}, {"endpoint": (1 << 64) - 1}, {"port": 1 << 20}, {"local": "nowhere"}, {"remote": ""}):
            socket.send_fds(client.socket, [packet(v=V, t="steer", **{**fields, **changed})], [some.fileno()])
            reply = client.reply()
            assert reply["t"] == "steered"
            assert reply["why"] != 0
        assert descriptors(shared, client) == before


def test_descriptors_that_nobody_asked_for_are_closed(shared: Daemon) -> None:
    with shared.client() as other, open(os.devnull) as some:
        before = descriptors(shared, other)
        with shared.client() as client:
            for n in (1, 2, 10):
                socket.send_fds(client.socket, [packet(v=V, t="ping")], [some.fileno()] * n)
                assert client.reply()["t"] == "pong"
            socket.send_fds(client.socket, [b"\xc1"], [some.fileno()])
            assert client.reply()["t"] == "error"
        assert descriptors(shared, other) == before
