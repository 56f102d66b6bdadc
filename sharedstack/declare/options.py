"""Options, each declared once: environment variable, default, bounds, meaning; and the profiles that set several."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """An option of a participant, read from `SHAREDSTACK_<NAME>` when it first meets an internet socket."""

    name: str
    default: int
    low: int
    high: int
    unit: str
    meaning: str

    @property
    def env(self) -> str:
        """The environment variable that sets it."""
        return f"SHAREDSTACK_{self.name.upper()}"


OPTIONS: tuple[Option, ...] = (
    Option("enable", 1, 0, 1, "", "0: every socket stays on the kernel path"),
    Option(
        "eager",
        0,
        0,
        2,
        "",
        "for tests. 1: lift at the first byte, doze rather than sleep, and wait for readers, and for room in a ring, rather than send by "
        "the kernel; 2: the same without that waiting",
    ),
    Option(
        "lift_after", 6, 1, 1_000_000, "calls", "data calls on a connection before it is paired; short connections never leave the kernel"
    ),
    Option("spin_us", 20, 0, 1_000_000, "µs", "longest spin for data that recent waits say will come soon"),
    Option("spin_gap_us", 12, 0, 1_000_000, "µs", "spin only while data recently came within this time of waiting for it"),
    Option(
        "spin_pause_ns",
        950,
        0,
        1_000_000,
        "ns",
        "how long a spinner pauses before its second look; later ones are an eighth of that apart. Less is faster; more leaves the "
        "writer its cache line, and finds more",
    ),
    Option("spin_always", 0, 0, 1, "", "1: spin for spin_us at every wait, whatever recent waits say"),
    Option("probe_us", 150, 0, 1_000_000, "µs", "how long a probing spin lasts (a few, now and then, to learn whether spinning would pay)"),
    Option("probe_every_ms", 800, 1, 1_000_000, "ms", "longest time between two bursts of probing spins; the first ones come soon"),
    Option("look_us", 20, 1, 1_000_000, "µs", "a spinner looks at the kernel's queue this often"),
    Option("look_busy_us", 400, 1, 1_000_000, "µs", "and while its rings are busy and the kernel's queue stays empty, this often"),
    Option(
        "full_us", 30, 0, 1_000_000, "µs", "how long a writer waits for room while the reader makes progress, before it goes by the kernel"
    ),
    Option("doze", 1, 0, 1, "", "0: never doze, sleep in the kernel"),
    Option("nap_ms", 20, 0, 1000, "ms", "longest nap; a peer's death is noticed so much later if no helper runs; 0: never"),
    Option(
        "doze_gap_us",
        5000,
        0,
        1_000_000,
        "µs",
        "doze or nap, behind a doorbell, only while data recently came within this time of waiting for it; else sleep in the kernel",
    ),
    Option("ring_max", 1 << 20, 16384, 1 << 20, "bytes", "largest ring; rings start at 16 KiB and grow while they are full"),
    Option("open_max", 128, 1, 65536, "rings", "rings that one epoll set keeps open; more connections go by the kernel"),
    Option("wire", 1, 0, 1, "", "0: no connection is lifted to the wire path"),
    Option("wire_after", 64, 1, 1_000_000, "calls", "data calls on a connection with another host before it is lifted to the wire path"),
    Option(
        "wire_bulk",
        8192,
        64,
        1 << 30,
        "bytes",
        "a connection whose data calls move more than so much, on average, is not for the wire path: the kernel's offloads do it better",
    ),
    Option(
        "wire_gain",
        95,
        0,
        100_000,
        "%",
        "a lifted connection whose calls come at less than so much of the pace that they had by the kernel is lowered; 0: never",
    ),
    Option(
        "wire_most",
        1_000_000,
        1,
        1_000_000,
        "calls",
        "data calls, at most, until a connection that was lowered, or could not be lifted, is lifted again: each time they are more",
    ),
    Option(
        "follow",
        1,
        0,
        1,
        "",
        "1: a program that is executed with an environment that lacks the library has it added. 0: it has not; also where that "
        "environment says so",
    ),
    Option("log", 0, 0, 2, "", "1: say on standard error why something was not accelerated, once each; 2: say more"),
)

PROFILES: dict[str, dict[str, int]] = {
    "default": {},
    "latency": {"spin_us": 10_000, "spin_gap_us": 1_000_000, "spin_always": 1, "spin_pause_ns": 60, "lift_after": 1},
    "throughput": {"spin_us": 50, "spin_gap_us": 50, "ring_max": 1 << 20},
    "powersave": {"spin_us": 0, "probe_us": 0},
}
