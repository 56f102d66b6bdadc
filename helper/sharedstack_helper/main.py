"""The command `sharedstack-helper`: starts, serves in the foreground, and leaves cleanly on a signal.

1  the control socket, which makes this helper the only one of its stack;
2  the segments, adopted or new, and a slot of our own in them;
3  `publish`, the first look at what was adopted, and the word that we are ready;
4  the loop, until a signal; then everything is lowered, the segments are retired, and last the socket goes.
Exit status: 0 left or already running, 1 failure, 2 usage.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

import sharedstack
from sharedstack.declare.layout import CONSTANTS
from sharedstack.declare.names import DEFAULT_STACK, MAX_STACK_NAME

from . import announce, environment, nudge, segments, settings
from .control import Control, Running, claim
from .cooler import EVERY, Cooler
from .environment import HelperError, Place
from .gc import Collector
from .loop import Loop
from .native import Native
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
        return _run(options.stack, options.ready_fd, settings_of(options))
    except HelperError as error:
        announce.complain(str(error))
        return 1


def settings_of(options: argparse.Namespace) -> Settings:
    """What the command line says, and where it says nothing the configuration file."""
    said = settings.read(options.stack, options.config)
    busy_poll = said.busy_poll if options.busy_poll is None else options.busy_poll
    return Settings(tuple(options.link) or said.links, options.cool_every or said.cool_every, busy_poll)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="sharedstack-helper",
        description="The helper of one user's stack: lends its shared memory and cleans up after the dead. Runs in the foreground.",
        epilog="exit status: 0 left on a signal or already running, 1 failure, 2 usage",
    )
    parser.add_argument("--stack", metavar="NAME", type=_stack_name, default=DEFAULT_STACK, help="name of the stack (%(default)s)")
    parser.add_argument(
        "--ready-fd", metavar="N", type=_open_fd, help="write READY and a newline to this descriptor when ready, and close it"
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
        "--config",
        metavar="FILE",
        type=Path,
        help="settings for what is not said here (TOML: links, cool_every, busy_poll, and tables of stacks, [stack.NAME]; "
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


def _open_fd(text: str) -> int:
    try:
        fd = int(text)
        os.fstat(fd)
    except (ValueError, OverflowError, OSError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not an open descriptor") from error
    return fd


def _run(stack: str, ready_fd: int | None, wanted: Settings) -> int:
    loop = Loop()
    loop.leave_on_signals()
    place = Place(os.getuid(), environment.netns_cookie(), stack)
    environment.raise_descriptor_limit()
    listener = claim(place)
    if isinstance(listener, Running):
        announce.say(f"sharedstack-helper: already running as pid {listener.pid}")
        return 0
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text("sharedstack-hel")  # 15 characters at most; the slot shows it
    held, native, slot = _enter(place)
    collector = Collector(loop, native, held)
    links = _links(loop, held, place, wanted, native, slot)

    def gone() -> None:
        collector.request()
        links.look_for_holders()

    reaper = Reaper(loop, native, held, slot, gone)
    collector.look_at(reaper.participants)
    links.look_at(reaper.participants, collector.request)

    def attached(pid: int) -> None:
        reaper.watch(pid)
        reaper.sweep()  # what it was before an exec
        sole.request()

    cooler = Cooler(loop, native, wanted.cool_every)
    sole = Sole(loop, native, held, reaper.participants)

    def nudged() -> None:
        reaper.sweep()
        gone()
        cooler.request()
        sole.request()
        links.attend()

    keeper = KeeperOf(loop, place)
    store = Store(loop, keeper, keeper.adopt(), sole.request)
    keeper.holds(lambda: store.all)
    control = Control(loop, place, held, listener, attached, lambda: (len(reaper.participants()), reaper.reaped), links, native, store)
    nudges = nudge.listen(loop, place, nudged)
    notified = notices.listen(loop, place, store)
    if held.adopted:
        reaper.sweep()
        collector.request()
        cooler.request()
    announce.ready(stack, ready_fd)
    try:
        loop.run()
    finally:
        announce.notify("STOPPING=1")
        links.close()
        _leave(held, native, control, slot)
        for one in (nudges, notified):
            if one is not None:
                one.close()
        keeper.close()
        listener.close()
    return 0


def _enter(place: Place) -> tuple[Segments, Native, int]:
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
    held.publish(slot)
    return held, native, slot


def _links(loop: Loop, held: Segments, place: Place, wanted: Settings, native: Native, slot: int) -> Links:
    """The links that were asked for; without them the helper does not start."""
    try:
        return Links(loop, held, wanted.links, segments.name(place, "wire"), wanted.busy_poll)
    except HelperError:
        native.release(slot)
        if not held.adopted:
            held.retire()
        raise


def _refuse_second(held: Segments, native: Native) -> None:
    """Another helper may live in these segments only if it does not see our sockets (another network namespace)."""
    slot = held.helper_slot()
    if slot is not None and native.slot_alive(slot.index):
        raise HelperError(f"another helper, pid {slot.pid}, serves the same segments from elsewhere; end it first")


def _leave(held: Segments, native: Native, control: Control, slot: int) -> None:
    """Lower everything, then retire. A reader that was just opening a ring shuts it in the next round."""
    held.drain()
    for _ in range(20):
        if native.lower_all() == 0:
            break
        time.sleep(0.001)
    control.drain()
    native.release(slot)
    held.retire()
