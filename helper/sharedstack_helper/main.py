"""The command `sharedstack-helper`: starts, serves in the foreground, and leaves cleanly on a signal.

1  the control socket, which makes this helper the only one of its stack;
2  the segments, adopted or new, and a slot of our own in them;
3  `publish`, the first look at what was adopted, and the word that we are ready;
4  the loop, until a signal; then everything is lowered, the segments are retired, and last the socket goes. Or until another helper takes
   our place (handover.py): then it all stays as it is.
Exit status: 0 left, replaced or already running, 1 failure, 2 usage, or a policy that cannot be understood.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import sharedstack
from sharedstack.declare.layout import CONSTANTS
from sharedstack.declare.names import DEFAULT_STACK, MAX_STACK_NAME

from . import announce, environment, handover, nudge, segments, settings
from .control import Control, Running, claim
from .cooler import EVERY, Cooler
from .environment import HelperError, Place
from .gc import Collector
from .lo.watch import Watcher
from .loop import Loop
from .native import Native
from .policy.enforce import Enforcer, Source
from .policy.file import PolicyError
from .policy.table import Table
from .reaper import Reaper
from .segments import Segments
from .settings import Settings
from .sole import Sole
from .store import notices
from .store.backup import KeeperOf
from .store.kept import Store
from .wire.links import Links


def main(argv: Sequence[str] | None = None) -> int:
    """Run the helper with these arguments (the process's own by default); returns the exit status."""
    environment.fill_standard_descriptors()
    options = parser().parse_args(argv)
    try:
        return _run(options.stack, options.ready_fd, settings_of(options), options.takeover)
    except HelperError as error:
        announce.complain(str(error))
        return 2 if isinstance(error, PolicyError) else 1


def settings_of(options: argparse.Namespace) -> Settings:
    """What the command line says, and where it says nothing the configuration file."""
    said = settings.read(options.stack, options.config)
    busy_poll = said.busy_poll if options.busy_poll is None else options.busy_poll
    links, cool_every = tuple(options.link) or said.links, options.cool_every or said.cool_every
    return Settings(links, cool_every, busy_poll, options.policy or said.policy)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="sharedstack-helper",
        description="The helper of one user's stack: lends its shared memory and cleans up after the dead. Runs in the foreground.",
        epilog="exit status: 0 left on a signal, replaced or already running, 1 failure, 2 usage",
    )
    parser.add_argument("--stack", metavar="NAME", type=_stack_name, default=DEFAULT_STACK, help="name of the stack (%(default)s)")
    parser.add_argument(
        "--ready-fd", metavar="N", type=_open_fd, help="write READY and a newline to this descriptor when ready, and close it"
    )
    parser.add_argument(
        "--takeover",
        action="store_true",
        help="take the place of the helper that runs, if one does: it ends, and connections, links and stored sockets go on",
    )
    parser.add_argument(
        "--cool-every",
        metavar="SECONDS",
        type=_seconds,
        help=f"how often to look for connections that have gone quiet, whose memory is then given back ({EVERY})",
    )
    parser.add_argument(
        "--link",
        metavar="IFNAME",
        action="append",
        default=[],
        help="lend this network interface to the stack, so that connections by it may be lifted to the wire path; repeatable. It needs "
        "CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF (`sharedstack doctor` says what is missing)",
    )
    parser.add_argument(
        "--busy-poll",
        metavar="USECS",
        type=_busy_poll,
        help="programs that wait have the drivers of lent interfaces look for packets, for so long at a time (0: interrupts tell of them; "
        "see docs/internals/nic.md)",
    )
    parser.add_argument(
        "--policy",
        metavar="FILE",
        type=_whole_path,
        help="which connections stay in the kernel (TOML; docs/policy.md); $XDG_CONFIG_HOME/sharedstack/policy.toml if there is one",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="settings for what is not said here (TOML: links, cool_every, busy_poll, policy, and tables of stacks, [stack.NAME]; "
        "$XDG_CONFIG_HOME/sharedstack/helper.toml)",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {sharedstack.__version__}")
    return parser


def _stack_name(text: str) -> str:
    if not re.fullmatch(rf"[A-Za-z0-9_-]{{1,{MAX_STACK_NAME}}}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a stack: 1 to {MAX_STACK_NAME} letters, digits, - and _")
    return text


def _seconds(text: str) -> float:
    seconds = float(text) if re.fullmatch(r"\d{1,4}(\.\d{1,6})?", text) else 0.0
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


def _busy_poll(text: str) -> int:
    if not (re.fullmatch(r"\d{1,5}", text) and int(text) <= settings.MOST_BUSY_POLL):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of microseconds from 0 to {settings.MOST_BUSY_POLL}")
    return int(text)


def _whole_path(text: str) -> Path:
    return Path(text).absolute()


def _open_fd(text: str) -> int:
    try:
        fd = int(text)
        os.fstat(fd)
    except (ValueError, OverflowError, OSError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not an open descriptor") from error
    return fd


def _run(stack: str, ready_fd: int | None, wanted: Settings, takeover: bool) -> int:
    source = Source.of(wanted.policy)
    table = Table(source.read())
    loop = Loop()
    loop.leave_on_signals()
    place = Place(os.getuid(), environment.netns_cookie(), stack)
    environment.raise_descriptor_limit()
    handed = claim(place, takeover)
    if isinstance(handed, Running):
        announce.say(f"sharedstack-helper: already running as pid {handed.pid}")
        return 0
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text("sharedstack-hel")  # 15 characters at most; the slot shows it
    held, native, slot = _enter(place, table)
    collector = Collector(loop, native, held)
    keeper = KeeperOf(loop, place)
    stored = keeper.adopt()
    links = _links(loop, held, place, wanted, native, slot, keeper, takeover)

    def gone() -> None:
        collector.request()
        links.look_for_holders()

    reaper = Reaper(loop, native, held, slot, links.bury, gone)
    enforcer = Enforcer(loop, place, held, source, table, reaper.participants)
    collector.look_at(reaper.participants)
    links.judge.verdict = enforcer.verdict
    watcher = Watcher(loop, held, table.policy.heed_lo)

    def changed() -> None:
        links.obey()
        watcher.heed(enforcer.policy.heed_lo)

    enforcer.obeyed_by(changed)
    links.look_at(reaper.participants, collector.request)

    def attached(pid: int) -> None:
        reaper.watch(pid)
        reaper.sweep()  # what it was before an exec
        sole.request()

    cooler = Cooler(loop, native, wanted.cool_every)
    sole = Sole(loop, native, held, reaper.participants)

    def nudged() -> None:
        reaper.sweep()
        enforcer.judge()
        gone()
        cooler.request()
        sole.request()
        links.attend()

    store = Store(loop, keeper, stored, sole.request)
    keeper.holds(lambda: store.all)
    ending = _Ending(loop, held, native, links, slot)
    handed.nudge = nudge.listen(loop, place, nudged, handed.nudge)
    handed.notify = notices.listen(loop, place, store, handed.notify)
    figures = lambda: (len(reaper.participants()), reaper.reaped)  # noqa: E731
    control = Control(loop, place, held, handed, attached, figures, links, native, store, ending.succeeded, enforcer.reload)
    if held.adopted:
        reaper.sweep()
        enforcer.begin()
        collector.request()
        cooler.request()
        sole.request()
    announce.ready(stack, ready_fd)
    try:
        loop.run()
    finally:
        announce.notify("STOPPING=1")
        if not ending.over:
            links.close()
            _lower(held, native)
            control.drain()
            native.release(slot)
            held.retire()
        for one in (handed.nudge, handed.notify, handed.control):
            if one is not None:
                one.close()
        keeper.close()
    return 0


class _Ending:
    """Another helper takes our place."""

    def __init__(self, loop: Loop, held: Segments, native: Native, links: Links, slot: int) -> None:
        self._loop, self._held, self._native, self._links, self._slot = loop, held, native, links, slot
        self.over = False  # nothing is left to be done

    def succeeded(self, connection: socket.socket, adopts: bool) -> bool:
        """Is the helper that was handed our sockets the helper now? Then this one is to end."""
        pid = handover.peer(connection)[0]
        if not handover.give(connection, self._cease if adopts else self._lower_for_good):
            return False
        if not self.over:
            self._native.release(self._slot)  # the other one does nothing before the connection has ended
        announce.say(f"sharedstack-helper: replaced by pid {pid}")
        self.over = True
        self._loop.stop()
        return True

    def _cease(self) -> Callable[[], None]:
        self._links.pause()
        return self._links.go_on

    def _lower_for_good(self) -> Callable[[], None]:
        """It has another layout: what is lifted is the kernel's until programs find its segments. There is no way back from here."""
        self._links.close()
        _lower(self._held, self._native)
        self._native.release(self._slot)
        self._held.retire()
        self.over = True
        return self._loop.stop


def _enter(place: Place, table: Table) -> tuple[Segments, Native, int]:
    """Segments with a published slot of ours in them."""
    held, why = segments.obtain(place)
    native = Native(held)
    if held.adopted:
        _refuse_second(held, native)
    try:
        slot = native.claim(os.getpid(), CONSTANTS["SLOT_HELPER"])
    except OSError as error:
        if not held.adopted or error.errno != errno.EAGAIN:
            raise HelperError(f"{error.strerror}; see that /dev/shm has free space") from error
        why = "every participant slot was taken"
        held = segments.replace(place)
        native = Native(held)
        slot = native.claim(os.getpid(), CONSTANTS["SLOT_HELPER"])
    if why:
        announce.complain(f"made new segments for stack {place.stack}, because the old ones could not be adopted: {why}")
    table.write(held.stack_address, {})
    if table.policy.heed_lo and not held.adopted:
        held.header["kept"] = CONSTANTS["KEPT_INET"] | CONSTANTS["KEPT_INET6"]  # until its rules have been looked at
    held.publish(slot)
    return held, native, slot


def _links(
    loop: Loop, held: Segments, place: Place, wanted: Settings, native: Native, slot: int, keeper: KeeperOf, takeover: bool
) -> Links:
    """The links that were asked for; without them the helper does not start, unless the last one has ended for it."""
    stem = segments.name(place, "wire")
    try:
        return Links(loop, held, wanted.links, stem, keeper, wanted.busy_poll, _again(place, wanted))
    except HelperError as error:
        if takeover:
            announce.complain(f"{error}; no interface is lent")
            return Links(loop, held, (), stem, keeper)
        native.release(slot)
        if not held.adopted:
            held.retire()
        raise


def _again(place: Place, wanted: Settings) -> list[str]:
    """The command that starts this helper another time."""
    command = [sys.executable, "-P", "-m", "sharedstack_helper", "--stack", place.stack]
    command += ["--cool-every", f"{wanted.cool_every:.6f}", "--busy-poll", str(wanted.busy_poll)]
    command += ["--policy", str(wanted.policy)] if wanted.policy else []
    return [*command, *(f"--link={name}" for name in wanted.links)]


def _refuse_second(held: Segments, native: Native) -> None:
    """Another helper may live in these segments only if it does not see our sockets (another network namespace)."""
    slot = held.helper_slot()
    if slot is not None and native.slot_alive(slot.index):
        raise HelperError(f"another helper, pid {slot.pid}, serves the same segments from elsewhere; end it first")


def _lower(held: Segments, native: Native) -> None:
    """Lower everything. A reader that was just opening a ring shuts it in the next round."""
    held.drain()
    for _ in range(20):
        if native.lower_all() == 0:
            break
        time.sleep(0.001)
