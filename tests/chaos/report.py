"""What a run did, and what is wrong with it: counts, bytes by path, and the kernel's own counters beside them."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field

from chaos.places import Place
from chaos.storm import Footprint

SHARE = 0.9
WHY = ("full", "asleep", "unread", "lowered", "special")
LOST_MOST = 1e-4  # what is pushed to a receiver that was killed while no helper lived (docs/chaos.md)
HEADERS = 66  # bytes of Ethernet, IP and TCP with a time stamp, as loopback counts them
# The helper's own memory: runs of up to a minute left it with up to 2.1 MiB more (docs/chaos.md)
RSS_MORE = 4 << 20


@dataclass(frozen=True)
class Kernel:
    """What the kernel of a place counted: bytes and packets of its interface, and datagrams that it dropped at a socket."""

    bytes: int
    packets: int
    dropped: int

    @staticmethod
    def of(place: Place) -> Kernel:
        files = subprocess.run(place.command("cat", "/proc/net/dev", "/proc/net/snmp"), capture_output=True, text=True, check=True).stdout
        line = re.search(rf"^\s*{place.link or 'lo'}:\s*(\d+)\s+(\d+)", files, re.M)
        names, values = (one.split() for one in files.splitlines() if one.startswith("Udp:"))
        assert line
        return Kernel(int(line[1]), int(line[2]), int(values[names.index("RcvbufErrors")]))


@dataclass
class Side:
    """One place: its stack's counters and its kernel's, before and after."""

    name: str
    counters: dict[str, int]
    before: Kernel
    after: Kernel

    def sent(self, path: str) -> int:
        return self.counters[f"tx_{path}_bytes"]

    @property
    def by_kernel(self) -> int:
        """Bytes that its interface carried, without headers: of loopback all that went by the kernel."""
        return max(0, self.after.bytes - self.before.bytes - HEADERS * (self.after.packets - self.before.packets))


@dataclass
class Report:
    """A run."""

    seed: int
    mode: str
    seconds: float
    sides: list[Side] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    begun: int = 0
    kills: int = 0
    stops: int = 0
    helper_kills: int = 0
    hangs: int = 0
    leaks: int = 0
    checks: int = 0
    footprints: list[tuple[str, Footprint, Footprint]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def carried(self) -> int:
        """Bytes that the sends of all processes took."""
        return self.counts["bytes_sent"] + self.counts["datagram_bytes"]

    @property
    def lifted(self) -> int:
        return sum(side.sent("local") + side.sent("wire") for side in self.sides)

    @property
    def share(self) -> float:
        """Of all bytes, those that went by local or wire, as the stacks counted them."""
        return self.lifted / (self.carried or 1)

    def judge(self) -> None:
        """Add to `wrong` what the figures say."""
        self.hangs = sum("hang" in one for one in self.wrong)
        self.leaks = sum(one.startswith("leak") for one in self.wrong)
        self.checks = sum("status 1" in one for one in self.wrong)
        if self.counts["corrupt"] and not self.wrong:
            self.wrong.append(f"{self.counts['corrupt']} bytes or datagrams are corrupt")
        if self.counts["bytes_received"] > self.counts["bytes_sent"]:
            self.wrong.append("more bytes were received than sent")
        if self.mode == "eager" and self.share < SHARE:
            self.wrong.append(f"only {self.share:.1%} of the bytes went by local or wire")
        for side in self.sides:
            if side.name != "local":
                continue
            lost = self.counts["datagrams_lost"] - side.after.dropped + side.before.dropped - self.counts["datagrams_refused"]
            if lost > LOST_MOST * self.counts["datagrams_sent"]:
                self.wrong.append(f"{lost} datagrams were lost that the kernel did not drop")
            if self.mode == "eager" and len(self.sides) == 1 and side.by_kernel > (1 - SHARE) * self.carried:
                self.wrong.append(f"the kernel's interface carried {side.by_kernel} bytes of {self.carried}")
        for name, before, after in self.footprints:
            if after.fds > before.fds:
                self.wrong.append(f"leak in {name}: the helper has {after.fds} descriptors, and had {before.fds}")
            if after.rss > before.rss + RSS_MORE:
                self.wrong.append(f"leak in {name}: the helper has {after.rss >> 10} KiB resident, and had {before.rss >> 10}")

    def lines(self) -> list[str]:
        """For people."""
        c, mib = self.counts, 1 << 20
        found = [
            f"seed {self.seed}, mode {self.mode}: {self.seconds:.0f} s",
            f"processes {self.begun + c['forks'] + c['workers']} ({self.begun} begun, {c['forks'] + c['workers']} forked), "
            f"{c['execs']} executed themselves; {self.kills} killed, {self.stops} stopped; helpers killed {self.helper_kills}",
            f"connections {c['connects']}: {c['ends']} ends of streams seen, {c['resets']} resets, {c['passes']} passed, "
            f"{c['shutdowns']} shut down, {c['aborts']} closed in the middle",
            f"datagrams {c['datagrams_sent']} sent, {c['datagrams_received']} received, {c['datagrams_lost']} lost on one host, "
            f"{c['wire_datagrams_lost']} between hosts, {c['rebinds']} rebinds",
        ]
        for side in self.sides:
            paths = ", ".join(f"{path} {side.sent(path) / mib:.1f} MiB" for path in ("local", "wire", "kernel"))
            found.append(
                f"{side.name}: {paths}; its kernel's interface {side.by_kernel / mib:.1f} MiB in "
                f"{side.after.packets - side.before.packets} packets, {side.after.dropped - side.before.dropped} datagrams dropped"
            )
        why = {name: sum(side.counters[f"tx_kernel_{name}"] for side in self.sides) for name in WHY}
        why["not registered"] = self.carried - self.lifted - sum(side.sent("kernel") for side in self.sides)
        found.append("by the kernel: " + ", ".join(f"{name} {n / mib:.1f} MiB" for name, n in why.items()))
        found.append(f"bytes {self.carried / mib:.1f} MiB, by local or wire {self.share:.1%}")
        for name, before, after in self.footprints:
            found.append(
                f"{name} when all have gone: helper {before.rss >> 10} -> {after.rss >> 10} KiB, descriptors {before.fds} -> {after.fds}, "
                f"/dev/shm {before.shm >> 10} -> {after.shm >> 10} KiB"
            )
        found.append(f"hangs {self.hangs}, corrupt {c['corrupt']}, leaks {self.leaks}, findings of inspect --check {self.checks}")
        return [*found, *self.wrong, "FAILED" if self.wrong else "all is well"]
