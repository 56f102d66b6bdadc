"""`sharedstack inspect`: snapshots of live memory and files, decoded states, reasons, and the command's output and exit codes."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
from unit.fix_stack import NAME, build, with_datagrams

from sharedstack.cli.main import main
from sharedstack.declare import binary, layout, names
from sharedstack.declare.layout import CONSTANTS as C
from sharedstack.inspection import dumpfile, processes, snapshot, why
from sharedstack.inspection.check import check
from sharedstack.inspection.snapshot import LayoutError, NoStackError, Snapshot
from sharedstack.inspection.state import decode, ends, lifted, used
from sharedstack.inspection.words import LockWord

STACK = f"t{os.getpid()}"[:16]


@pytest.fixture
def stack() -> Snapshot:
    """A fresh synthetic stack."""
    return build()


@pytest.fixture
def segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The synthetic stack as files where segments are looked for; the base name of its segments."""
    monkeypatch.setattr(snapshot, "SHM", tmp_path)
    name = names.segment(os.getuid(), snapshot.netns_cookie(), STACK, "stack").lstrip("/").removesuffix(".stack")
    shot = build()
    (tmp_path / f"{name}.stack").write_bytes(bytes(shot.stack).ljust(layout.STACK_BYTES, b"\0"))
    (tmp_path / f"{name}.arena").write_bytes(bytes(shot.arena).ljust(layout.ARENA_BYTES, b"\0"))
    with (tmp_path / f"{name}.bulk").open("wb") as bulk:
        bulk.truncate(layout.BULK_BYTES)
        for at, raw in shot.bulk.items():
            bulk.seek(at)
            bulk.write(raw)
    yield name


def test_taking_copies_the_used_parts_and_the_record_headers(segments: str) -> None:
    shot, built = snapshot.take(segments, bulk=True), build()
    assert (bytes(shot.stack), bytes(shot.arena), shot.bulk) == (bytes(built.stack), bytes(built.arena), built.bulk)


def test_counters_of_a_participant_that_leaves_are_there_once(stack: Snapshot) -> None:
    """A look while the helper frees its slot may find neither that nor, in the totals, what it had counted."""
    n = stack.slots_top
    gone = next(i for i in range(n) if any(binary.slot(stack.stack, i)["counters"]))
    between, after = bytearray(stack.stack), bytearray(stack.stack)
    counted = binary.slot(memoryview(after), gone)["counters"]
    for raw in (between, after):
        binary.slot(memoryview(raw), gone)["state"] = C["SLOT_FREE"]
    head = binary.stack(memoryview(after))
    head["totals"] = tuple(a + b for a, b in zip(head["totals"], counted, strict=True))
    looks = iter([between, after, after])
    assert snapshot._counted_once(lambda: bytes(next(looks)), n) == after


def test_no_stack_says_where_it_was_looked_for(segments: str) -> None:
    with pytest.raises(NoStackError, match=f"no stack `none`.*there are: {segments}"):
        snapshot.find(os.getuid(), "none")


def test_another_layout_is_refused_with_both_hashes(segments: str) -> None:
    path = snapshot.SHM / f"{segments}.stack"
    with path.open("r+b") as file:
        file.seek(layout.STACK.place("layout_hash").offset)
        file.write((0x1234).to_bytes(8, "little"))
    with pytest.raises(LayoutError, match=f"0x1234.*{layout.HASH:#x}"):
        snapshot.take(segments)


def test_a_snapshot_survives_a_file(tmp_path: Path) -> None:
    shot, file = build(), tmp_path / "dump"
    dumpfile.write(shot, file)
    back = dumpfile.read(file)
    assert (bytes(back.stack), bytes(back.arena), back.bulk) == (bytes(shot.stack), bytes(shot.arena), shot.bulk)
    assert (back.name, back.taken_ns, check(back)) == (NAME, shot.taken_ns, [])
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.stat().st_size < 64 << 10


def test_a_file_of_another_layout_is_refused_with_both_hashes(tmp_path: Path) -> None:
    file = tmp_path / "dump"
    dumpfile.write(build(), file)
    content = msgpack.unpackb(file.read_bytes(), strict_map_key=False)
    content["layout"] = 0x1234
    file.write_bytes(msgpack.packb(content))
    with pytest.raises(LayoutError, match=f"0x1234.*{layout.HASH:#x}"):
        dumpfile.read(file)


@pytest.mark.parametrize("content", [b"", b"\xc1", b"hello", msgpack.packb({"format": "other"}), msgpack.packb([1])])
def test_what_is_no_snapshot_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "dump"
    file.write_bytes(content)
    with pytest.raises(dumpfile.DumpError):
        dumpfile.read(file)


def test_decoded_paths_and_reasons(stack: Snapshot) -> None:
    state = decode(stack, live=False)
    ends = {e.index: e for e in state.endpoints}
    assert (ends[0].local, ends[0].remote) == ("127.0.0.1:6379", "127.0.0.1:40000")
    assert ends[2].local == "[::1]:6379"
    assert (ends[0].tx.path, ends[0].tx.why, ends[0].tx.waiting) == ("local", "none", 208)
    assert (ends[1].rx.path, ends[1].rx.local_bytes, ends[1].rx.kernel_bytes) == ("local", 600, 400)
    assert (ends[0].rx.path, ends[0].rx.why) == ("kernel", "reader_asleep")
    assert (ends[4].tx.why, ends[4].rx.why) == ("peer_unknown", "peer_unknown")
    assert state.stack["helper"] == 4000
    assert state.memory["rings"] == {"16384": 3, "65536": 1}
    assert state.counters["tx_local_bytes"] == 0 + 3 * 10


def test_the_other_ends_reason_explains_a_direction(stack: Snapshot) -> None:
    binary.endpoint(stack.stack, 0)["why_rx"] = next(i for i, r in enumerate(why.REASONS) if r.name == "not_reading")
    ends = {e.index: e for e in decode(stack, live=False).endpoints}
    assert (ends[0].rx.why, ends[1].tx.why) == ("not_reading", "not_reading")


def test_what_is_lifted_is_found_without_decoding_the_rest(stack: Snapshot) -> None:
    assert used(stack) == [end.index for end in decode(stack, live=False).endpoints] == [0, 1, 2, 3, 4]
    assert lifted(stack) == [0, 2]  # one end of each connection
    assert lifted(with_datagrams()) == [0, 2, 5]
    for pair in (0, 1):
        binary.pair(stack.arena, pair)["dir"][0]["word"] &= ~C["WORD_OPEN"]
    assert lifted(stack) == []
    binary.pair(stack.arena, 1)["dir"][1]["word"] |= C["WORD_OPEN"]
    assert lifted(stack) == [2]
    for end in (1, 4):
        binary.endpoint(stack.stack, end)["wire"] = C["WIRE_ON"]
    assert lifted(stack) == [1, 2, 4]
    binary.arena(stack.arena)["pairs_top"] = 0
    binary.stack(stack.stack)["endpoints_top"] = 2
    assert (used(stack), lifted(stack), ends(stack, [])) == ([0, 1], [1], [])


def test_ends_are_named_as_decoded_ones(stack: Snapshot) -> None:
    known = [(end.index, end.cookie, end.local, end.remote) for end in decode(stack, live=False).endpoints]
    assert [(end.index, end.cookie, end.local, end.remote) for end in ends(stack, used(stack))] == known


def test_sockets_of_a_process(connection: tuple[socket.socket, socket.socket]) -> None:
    first, second = connection
    with first.dup() as again, open("/dev/null") as other:
        held = processes.sockets(os.getpid())
        assert held[os.fstat(first.fileno()).st_ino] == sorted([first.fileno(), again.fileno()])
        assert held[os.fstat(second.fileno()).st_ino] == [second.fileno()]
        assert all(other.fileno() not in fds for fds in held.values())
    assert processes.sockets(1 << 30) == {}


def test_locks_name_their_holders(stack: Snapshot) -> None:
    binary.stack(stack.stack)["ctl"] = LockWord(1, 2, True).encode()
    binary.pair(stack.arena, 0)["dir"][1]["wlock"] = LockWord(2, 1, False).encode()
    binary.slot(stack.stack, 2)["robust"] = 0x40000000
    held = decode(stack, live=False).locks
    assert [(h.lock, h.slot, h.thread, h.waiters) for h in held] == [("ctl", 1, 2, True), ("pair[0].dir[1].wlock", 2, 1, False)]
    assert held[0].owner == "redis-server (4001)"
    assert "dead" in held[1].owner


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main(["inspect", "--stack", STACK, *args])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.usefixtures("segments")
def test_the_command_prints_tables_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--all")
    assert code == 0
    for word in ("redis-server", "127.0.0.1:6379", "kernel: reader_asleep", "64K", "tx_local_bytes", "lift_after", "no lock is held"):
        assert word in out
    code, out, _ = run(capsys, "--format", "json")
    assert code == 0
    assert len(json.loads(out)["endpoints"]) == 5


def test_check_exits_1_with_a_line_for_each_finding(segments: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "--check")
    assert (code, out) == (0, "")
    shot = snapshot.take(segments, bulk=True)
    binary.pair(shot.arena, 0)["dir"][1]["taken"] = 500
    file = tmp_path / "dump"
    dumpfile.write(shot, file)
    code, out, _ = run(capsys, "--check", "-r", str(file))
    assert (code, out) == (1, "pair[0].dir[1].taken: found 500, expected at most ksent, 400\n")
    assert run(capsys, "-r", str(file))[0] == 0


@pytest.mark.usefixtures("segments")
def test_writing_a_snapshot_then_checking_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "dump"
    assert run(capsys, "-w", str(file))[0] == 0
    assert run(capsys, "-r", str(file), "--check") == (0, "", "")


def test_exit_codes(segments: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert segments
    assert main(["inspect", "--stack", "none"]) == 1
    assert "no stack `none`" in capsys.readouterr().err
    assert run(capsys, "-r", str(tmp_path / "missing"))[0] == 1
    assert run(capsys, "--nonsense")[0] == 2
    assert run(capsys, "--why", "--check")[0] == 2


@pytest.fixture
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a loopback connection of this process."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        with accepted:
            yield client, accepted


def _lines(known: why.Stack, monkeypatch: pytest.MonkeyPatch, preloaded: bool = True) -> dict[str, why.Line]:
    """Lines of this process, which is taken for preloaded, by socket."""
    monkeypatch.setattr(processes, "preloaded", lambda pid: preloaded and pid == os.getpid())
    return {line.socket: line for line in why.lines(known, all_sockets=True)}


def _empty(stack: Snapshot) -> why.Stack:
    for i in range(4):
        binary.slot(stack.stack, i)["state"] = C["SLOT_FREE"]
    for i in range(6):
        binary.endpoint(stack.stack, i)["state"] = C["EP_FREE"]
    return why.Stack(decode(stack, live=True), uid=os.getuid())


def _name(end: socket.socket) -> str:
    return "tcp {}:{} {}:{}".format(*end.getsockname(), *end.getpeername())


def test_why_of_sockets_without_a_record(
    stack: Snapshot, connection: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = connection
    local, other = socket.socketpair()
    with local, other, socket.create_server(("127.0.0.1", 0)) as listening:
        found = _lines(_empty(stack), monkeypatch)
        assert found[_name(client)].tx == "short_lived"
        assert found[f"socket:[{os.fstat(local.fileno()).st_ino}]"].tx == "not_inet"
        assert found[f"tcp 127.0.0.1:{listening.getsockname()[1]} 0.0.0.0:0"].tx == "not_established"
        assert "SHAREDSTACK_LIFT_AFTER" in found[_name(client)].text
        assert _lines(why.Stack(None, "no_helper", os.getuid()), monkeypatch)[_name(client)].rx == "no_helper"
        assert _lines(why.Stack(None, "layout_mismatch", os.getuid()), monkeypatch)[_name(client)].rx == "layout_mismatch"
        monkeypatch.setattr(processes, "environ", lambda pid: {"SHAREDSTACK_ENABLE": "0"})
        assert _lines(_empty(stack), monkeypatch)[_name(client)].rx == "disabled"


def test_why_of_a_peer_of_others(stack: Snapshot, connection: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    client, accepted = connection
    table = processes.inet_sockets()
    one, mate = (table[os.fstat(end.fileno()).st_ino] for end in (client, accepted))
    known = _empty(stack)
    me = why._Process(os.getpid(), "test", os.getuid(), processes.namespace("self", "net"), False)

    def explain(*sockets: processes.InetSocket, preloaded: set[int], fd: int = 9) -> str:
        return why.explain(known, me, one, [fd], {s.inode: s for s in sockets}, preloaded)

    other_user = processes.InetSocket(mate.proto, mate.state, mate.laddr, mate.lport, mate.raddr, mate.rport, mate.uid + 1, mate.inode)
    assert explain(one, mate, preloaded={os.getpid()}) == "short_lived"
    assert explain(one, mate, preloaded=set()) == "peer_unknown"
    assert explain(one, preloaded={os.getpid()}) == "peer_unknown"
    assert explain(one, other_user, preloaded={os.getpid()}) == "other_uid"
    assert explain(one, mate, preloaded={os.getpid()}, fd=0) == "standard_stream"
    elsewhere = why._Process(os.getpid(), "test", os.getuid(), 1, False)
    assert why.explain(known, elsewhere, one, [9], {}, set()) == "other_netns"


def test_a_record_says_its_own_reasons(
    stack: Snapshot, connection: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = connection
    binary.endpoint(stack.stack, 0)["inode"] = os.fstat(client.fileno()).st_ino
    line = _lines(why.Stack(decode(stack, live=True), uid=os.getuid()), monkeypatch)["tcp 127.0.0.1:6379 127.0.0.1:40000"]
    assert (line.tx, line.rx, line.fds) == ("none", "reader_asleep", [client.fileno()])
