"""Segments: sized to what /dev/shm has, adopted after kill -9, replaced when they cannot be; huge pages where there are any."""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import sysv_ipc
from unit.fix_helper_daemon import COMMAND, Daemon

from sharedstack.declare import binary, layout
from sharedstack.declare.layout import CONSTANTS
from sharedstack.declare.options import OPTIONS
from sharedstack_helper import bulk

pytest_plugins = ["unit.fix_helper", "unit.fix_huge"]

MIB = 1 << 20


@pytest.mark.parametrize(
    ("free", "units"),
    [
        (64 * MIB, 2048),
        (40 * MIB, 2048),
        (40 * MIB - 1, 1984),
        (24 * MIB, 1024),
        (9 * MIB, 64),
        (9 * MIB - 1, 48),
        (8 * MIB + (256 << 10), 16),
        (8 * MIB, 16),
        (0, 16),
    ],
)
def test_units_for_the_free_space(free: int, units: int) -> None:
    assert bulk.units_for(free) == units


def test_units_are_always_whole_words_of_the_bitmap() -> None:
    for free in range(0, 48 * MIB, 100_001):
        units = bulk.units_for(free)
        assert 16 <= units <= 2048 and (units % 64 == 0 if units >= 64 else units % 16 == 0)
        assert units == 16 or units * 16384 + 8 * MIB <= free


def test_segments_are_sparse(daemon: Daemon) -> None:
    assert sum(daemon.path(part).stat().st_blocks * 512 for part in ("stack", "arena", "bulk")) < 128 << 10


def test_options_are_the_declared_defaults(daemon: Daemon) -> None:
    assert daemon.header()["options"][: len(OPTIONS)] == tuple(o.default for o in OPTIONS)


def test_killed_helper_is_succeeded_in_the_same_memory(daemon: Daemon) -> None:
    before, inode = daemon.map("stack"), daemon.path("stack").stat().st_ino
    binary.stack(before)["totals"] = (4711, *[0] * 63)
    daemon.end(signal.SIGKILL)
    old_slot = binary.stack(before)["helper"]
    daemon.start()
    header = binary.stack(before)
    assert daemon.path("stack").stat().st_ino == inode and header["totals"][0] == 4711
    assert (header["state"], header["pair_ok"]) == (CONSTANTS["STACK_READY"], 1)
    assert binary.slot(before, header["helper"] - 1)["pid"] == daemon.pid
    assert header["helper"] != old_slot and binary.slot(before, old_slot - 1)["state"] == CONSTANTS["SLOT_FREE"]
    assert daemon.end() == (0, "")


def _set(field: str, value: int | bytes) -> Callable[[Daemon], None]:
    def change(daemon: Daemon) -> None:
        daemon.header()[field] = value

    return change


def _set_arena(field: str, value: int) -> Callable[[Daemon], None]:
    def change(daemon: Daemon) -> None:
        binary.arena(daemon.map("arena"))[field] = value

    return change


def _replace_arena_by_link(daemon: Daemon) -> None:
    daemon.path("arena").unlink()
    daemon.path("arena").symlink_to("/dev/null")


SPOILS: dict[str, Callable[[Daemon], None]] = {
    "magic": _set("magic", 0),
    "layout_hash": _set("layout_hash", 1),
    "version": _set("version", 9),
    "uid": _set("uid", 77),
    "netns": _set("netns", 77),
    "arena_name": _set("arena_name", b"/etc/passwd"),
    "slots_top": _set("slots_top", 1 << 31),
    "endpoints_top": _set("endpoints_top", 1 << 31),
    "retired": _set("state", CONSTANTS["STACK_RETIRED"]),
    "arena magic": _set_arena("magic", 0),
    "arena hash": _set_arena("layout_hash", 1),
    "n_units": _set_arena("n_units", 1 << 20),
    "bulk_kind": _set_arena("bulk_kind", 7),
    "bulk_id": lambda d: (_set_arena("bulk_kind", CONSTANTS["BULK_SYSV_HUGE"])(d), _set_arena("bulk_id", 0x7FFFFFFF)(d))[0],
    "mode": lambda d: d.path("stack").chmod(0o666),
    "no arena": lambda d: d.path("arena").unlink(),
    "no bulk": lambda d: d.path("bulk").unlink(),
    "truncated": lambda d: os.truncate(d.path("stack"), 5000),
    "empty": lambda d: os.truncate(d.path("stack"), 0),
    "symlink": _replace_arena_by_link,
}


@pytest.mark.parametrize("what", SPOILS)
def test_spoilt_segments_are_replaced(daemon: Daemon, what: str) -> None:
    daemon.end(signal.SIGKILL)
    held = daemon.path("stack").open("r+b")
    inode = os.fstat(held.fileno()).st_ino
    SPOILS[what](daemon)
    daemon.start()
    header = daemon.header()
    assert daemon.path("stack").stat().st_ino != inode
    assert (header["magic"], header["state"]) == (CONSTANTS["STACK_MAGIC"], CONSTANTS["STACK_READY"])
    assert daemon.attach()[0]["t"] == "lend"
    status, errors = daemon.end()
    assert status == 0 and "could not be adopted" in errors and len(errors.splitlines()) == 1
    if what not in ("magic", "version", "empty"):  # who has the old one mapped is told, where its header can be believed
        old = binary.stack(memoryview(mmap.mmap(held.fileno(), 4096)))
        assert (old["state"], old["pair_ok"]) == (CONSTANTS["STACK_RETIRED"], 0)
    held.close()


def test_full_slot_table_is_replaced(daemon: Daemon) -> None:
    daemon.end(signal.SIGKILL)
    stack = daemon.map("stack")
    for index in range(CONSTANTS["N_SLOTS"]):
        slot = binary.slot(stack, index)
        if slot["state"] == CONSTANTS["SLOT_FREE"]:
            slot["state"] = CONSTANTS["SLOT_CLAIMED"]
    binary.stack(stack)["slots_top"] = CONSTANTS["N_SLOTS"]
    daemon.start()
    assert "every participant slot was taken" in daemon.end()[1]


def in_own_shm(mount: str, *command: str) -> subprocess.Popen[str]:
    """Run a command where /dev/shm is what `mount` makes of it; skips where that is not possible."""
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*unshare, "mount", "-t", "tmpfs", "none", "/dev/shm"], capture_output=True).returncode
    ):
        pytest.skip("needs user namespaces")
    shell = [*unshare, "sh", "-c", f'{mount} && exec "$@"', "sh", *command]
    return subprocess.Popen(shell, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("mount", "cause"),
    [
        ("mount -t tmpfs -o size=8k none /dev/shm && head -c 8192 /dev/zero >/dev/shm/x", "/dev/shm is full"),
        ("mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 2>/dev/null; true", "/dev/shm does not exist"),
        ("mount -t tmpfs -o ro none /dev/shm", "Read-only file system"),
    ],
    ids=["full", "absent", "read-only"],
)
def test_shared_memory_that_cannot_be_had(stopped: Daemon, mount: str, cause: str) -> None:
    failed = in_own_shm(mount, *COMMAND, "--stack", stopped.stack)
    output, errors = failed.communicate(timeout=20)
    assert (failed.returncode, output) == (1, "")
    assert cause in errors and errors.startswith("sharedstack-helper: cannot ") and len(errors.splitlines()) == 1


@pytest.mark.parametrize(("size", "units"), [("64m", 2048), ("24m", 1024), ("1m", 16)])
def test_small_shared_memory(stopped: Daemon, size: str, units: int) -> None:
    mount = f"mount -t tmpfs -o size={size} none /dev/shm"
    stopped.process = in_own_shm(mount, *COMMAND, "--stack", stopped.stack)
    assert stopped.process.stdout is not None and "ready" in stopped.process.stdout.readline()
    shm = Path(f"/proc/{stopped.pid}/root/dev/shm")
    arena = next(shm.glob("*.arena"))
    with arena.open("rb") as file:
        header = binary.arena(memoryview(mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ)))
        assert header["n_units"] == units
    assert stopped.end()[0] == 0


def test_huge_pages_are_used_kept_and_given_back(huge_pages: Callable[[], int], stopped: Daemon) -> None:
    free = huge_pages()
    stopped.start()
    reply, fds = stopped.attach()
    assert len(fds) == 2 and reply["bulk_id"] >= 0
    assert not stopped.path("bulk").exists() and huge_pages() == free - 16
    arena = binary.arena(stopped.map("arena"))
    assert (arena["bulk_kind"], arena["bulk_id"], arena["n_units"]) == (CONSTANTS["BULK_SYSV_HUGE"], reply["bulk_id"], 2048)
    memory = sysv_ipc.attach(reply["bulk_id"])
    assert (memory.uid, memory.mode & 0o777, memory.size) == (os.getuid(), 0o600, layout.BULK_BYTES)
    memory.write(b"hello", 12345)

    stopped.end(signal.SIGKILL)
    stopped.start()
    assert stopped.attach()[0]["bulk_id"] == reply["bulk_id"] and memory.read(5, 12345) == b"hello"

    stopped.end(signal.SIGKILL)
    stopped.header()["magic"] = 0  # nobody can tell from it what belonged to it
    memory.detach()
    stopped.start()
    other = stopped.attach()[0]["bulk_id"]
    assert other not in (-1, reply["bulk_id"]) and huge_pages() == free - 16

    memory = sysv_ipc.attach(other)
    assert stopped.end()[0] == 0
    assert memory.read(5) == bytes(5)  # still there for who has it
    memory.detach()
    assert huge_pages() == free
    with pytest.raises(ValueError):
        sysv_ipc.attach(other)
