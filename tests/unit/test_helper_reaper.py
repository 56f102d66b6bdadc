"""Cleaning up after the dead: slots, locks, endpoint records; and what must stay because somebody lives."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from unit.fix_helper_daemon import Daemon, Participant, wait_until

from sharedstack.declare import binary, layout, names, scan
from sharedstack.declare.layout import CONSTANTS
from sharedstack_helper import diag, gc

pytest_plugins = ["unit.fix_helper"]

Make = Callable[..., Participant]
SO_COOKIE = 57


@pytest.mark.parametrize("how", ["ask", "name"])
def test_slot_of_the_killed_is_freed(daemon: Daemon, participants: Make, how: str) -> None:
    one, other = participants(how), participants(how)
    wait_until(lambda: daemon.ask("status")["participants"] == 2)
    one.kill()
    wait_until(one.gone)
    assert other.state() == CONSTANTS["SLOT_LIVE"]
    state = daemon.ask("status")
    assert (state["participants"], state["reaped"]) == (1, 1)


def test_lost_nudges_do_not_matter(daemon: Daemon, participants: Make) -> None:
    os.kill(daemon.pid, signal.SIGSTOP)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as flood:
        flood.setblocking(False)
        flood.connect(names.nudge_socket(os.getuid(), daemon.stack))
        with pytest.raises(BlockingIOError):
            while True:
                flood.send(b"slot 5")
    os.kill(daemon.pid, signal.SIGCONT)
    one = participants("ask")
    one.kill()
    wait_until(one.gone)


@pytest.mark.parametrize("garbage", [b"", b"slot", b"slot -1", b"slot 99999", b"\xff" * 2000, b"slot 1; slot 2"])
def test_garbage_on_the_nudge_socket(daemon: Daemon, garbage: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(garbage, names.nudge_socket(os.getuid(), daemon.stack))
    assert daemon.ask("ping")["pid"] == daemon.pid


def test_killed_while_claiming(daemon: Daemon, participants: Make) -> None:
    """No futex tells of a slot that was not claimed to the end: its process does."""
    one = participants()
    slot = binary.slot(daemon.map("stack"), one.slot)
    slot["state"], slot["robust"] = CONSTANTS["SLOT_CLAIMED"], 0
    one.kill()
    wait_until(one.gone)


def test_home_thread_ended_then_the_process(daemon: Daemon, participants: Make) -> None:
    one, other = participants(), participants()
    slot = binary.slot(daemon.map("stack"), one.slot)
    slot["flags"], slot["robust"] = CONSTANTS["SLOT_UNWITNESSED"], 0
    other.kill()
    wait_until(other.gone)
    assert one.state() == CONSTANTS["SLOT_LIVE"]
    one.kill()
    wait_until(one.gone)


def test_busy_lock_is_waited_for(daemon: Daemon, participants: Make) -> None:
    holder, one = participants(), participants()
    header = daemon.header()
    header["ctl"] = (holder.slot + 1) << CONSTANTS["LOCK_SLOT_SHIFT"] | 2
    one.kill()
    time.sleep(0.1)
    assert not one.gone()
    assert daemon.ask("ping")["pid"] == daemon.pid
    header["ctl"] = 0
    wait_until(one.gone)


def test_lock_of_the_dead_is_taken_over(daemon: Daemon, participants: Make) -> None:
    one = participants()
    header = daemon.header()
    header["ctl"] = (one.slot + 1) << CONSTANTS["LOCK_SLOT_SHIFT"] | 2
    one.kill()
    wait_until(one.gone)
    assert header["ctl"] == 0


def test_dead_in_adopted_segments(daemon: Daemon, participants: Make) -> None:
    one, other = participants(), participants()
    daemon.end(signal.SIGKILL)
    one.kill()
    daemon.start()
    wait_until(one.gone)
    assert other.state() == CONSTANTS["SLOT_LIVE"]
    other.kill()  # it never spoke to this helper, which watches it nevertheless
    wait_until(other.gone)


@dataclass
class Records:
    """Endpoint records written by hand, as if registered."""

    daemon: Daemon

    def __post_init__(self) -> None:
        self.memory = self.daemon.map("stack")
        self.header = binary.stack(self.memory)

    def add(self, of: socket.socket, slot: int, flags: int = 0, holders: int = 1) -> binary.View:
        index = self.header["endpoints_top"]
        record = binary.endpoint(self.memory, index)
        record["gen"], record["holders"], record["flags"], record["slot"] = 1, holders, flags, slot + 1
        record["cookie"] = int.from_bytes(of.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), "little")
        record["inode"] = os.fstat(of.fileno()).st_ino
        record["family"] = of.family
        record["state"] = CONSTANTS["EP_LIVE"]
        self.header["endpoints_top"], self.header["endpoints_used"] = index + 1, index + 1
        return record


Connected = tuple[socket.socket, socket.socket]


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
def connected(request: pytest.FixtureRequest) -> Iterator[Connected]:
    """Both ends of a loopback connection."""
    family = socket.AddressFamily(request.param)
    with socket.socket(family) as listener:
        try:
            listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        listener.listen()
        one = socket.socket(family)
        one.connect(listener.getsockname())
        other, _ = listener.accept()
    with one, other:
        yield one, other


FREE, LIVE, SHARED = CONSTANTS["EP_FREE"], CONSTANTS["EP_LIVE"], CONSTANTS["EPF_SHARED"]


def test_records_of_the_dead_go_when_their_sockets_are_gone(daemon: Daemon, participants: Make, connected: Connected) -> None:
    one, other = connected
    registrar, bystander = participants(), participants()
    records = Records(daemon)
    closed, held = records.add(one, registrar.slot), records.add(other, registrar.slot)
    living = records.add(one, bystander.slot)
    one.close()
    registrar.kill()
    wait_until(lambda: closed["state"] == FREE)
    assert held["state"] == LIVE  # its socket is with us
    assert living["state"] == LIVE  # its registrar lives, and frees it itself
    assert records.header["endpoints_used"] == 2


def test_shared_record_goes_with_its_last_holder(daemon: Daemon, participants: Make, connected: Connected) -> None:
    one, _ = connected
    os.set_inheritable(one.fileno(), True)
    registrar, heir = participants(), participants(pass_fds=(one.fileno(),))
    trigger = participants()
    record = Records(daemon).add(one, registrar.slot, SHARED, 2)
    one.close()  # the heir has it
    trigger.kill()
    wait_until(trigger.gone)
    time.sleep(0.2)
    assert record["state"] == LIVE
    heir.kill()
    wait_until(lambda: record["state"] == FREE)


def test_shared_record_of_a_reset_connection_stays_with_its_holder(daemon: Daemon, participants: Make, connected: Connected) -> None:
    """The kernel lists no socket that was reset, but its holder has yet to read what came before."""
    one, other = connected
    os.set_inheritable(one.fileno(), True)
    holder = participants(pass_fds=(one.fileno(),))
    trigger = participants()
    record = Records(daemon).add(one, holder.slot, SHARED, 2)
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    other.close()
    one.close()
    assert record["cookie"] not in diag.live_cookies()
    trigger.kill()
    wait_until(trigger.gone)
    time.sleep(0.2)
    assert record["state"] == LIVE
    holder.kill()
    wait_until(lambda: record["state"] == FREE)


def test_nudge_collects_records_given_up(daemon: Daemon, participants: Make, connected: Connected) -> None:
    one, _ = connected
    holder = participants()
    record = Records(daemon).add(one, holder.slot, SHARED, 2)
    one.close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nudge:
        nudge.sendto(f"slot {holder.slot}".encode(), names.nudge_socket(os.getuid(), daemon.stack))
    wait_until(lambda: record["state"] == FREE)


def test_records_in_adopted_segments(daemon: Daemon, participants: Make, connected: Connected) -> None:
    one, _ = connected
    registrar = participants()
    record = Records(daemon).add(one, registrar.slot)
    daemon.end(signal.SIGKILL)
    registrar.kill()
    one.close()
    daemon.start()
    wait_until(lambda: record["state"] == FREE)


def test_leaving_shuts_open_rings(daemon: Daemon) -> None:
    arena = daemon.map("arena")
    pair = binary.pair(arena, 0)
    pair["state"] = CONSTANTS["PAIR_LIVE"]
    binary.arena(arena)["pairs_top"] = 1
    direction = pair["dir"][1]
    direction["word"] = CONSTANTS["WORD_OPEN"] | 4096
    assert daemon.end() == (0, "")
    assert direction["word"] == 4096


def test_kernel_lists_held_sockets_only(connected: Connected) -> None:
    one, other = connected
    cookies = [int.from_bytes(end.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), "little") for end in connected]
    assert set(cookies) <= diag.live_cookies()
    one.close()  # stays in FIN_WAIT2, of nobody
    assert diag.live_cookies() & set(cookies) == {cookies[1]}
    other.close()
    assert not diag.live_cookies() & set(cookies)


def test_truncated_dump_is_an_error() -> None:
    with pytest.raises(OSError):
        diag._parse((20).to_bytes(4, "little") + bytes(40), set())


def test_scan_reads_the_same_as_views() -> None:
    memory = memoryview(bytearray(os.urandom(layout.STACK_BYTES)))
    for index, found in enumerate(scan.records(memory, layout.STACK_ENDPOINTS, 50, gc._ENDPOINT)):
        view = binary.endpoint(memory, index)
        assert found == tuple(view[field] for field in ("state", "cookie", "inode", "flags", "slot", "holders"))
