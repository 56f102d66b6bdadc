"""The conformance set as a table: each behaviour as the kernel has it, and as it is through the library, eager and by default.

`python -m compat.sockets.table [SCENE...]` prints it (`make conformance`); exit status 1 if anything differs that is not declared.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from compat.fix_lab import MODES, Lab, Namespace
from compat.sockets.play import load
from compat.sockets.stage import SCENES, SEGMENTS

TESTS = Path(__file__).resolve().parents[2]

TEXT = TESTS.parent / "docs" / "differences.md"


@dataclass(frozen=True)
class Difference:
    """By which lines a scene may differ, lifted (`fresh`: also where it became lifted under way); `text` is in docs/differences.md."""

    labels: tuple[str, ...]
    text: str
    fresh: bool = False


DIFFERENCES: dict[str, Difference] = {
    "peer_dies_with_unread": Difference(("exit: received", "exec: received", "kill: received"), "its peer gets FIN, not RST", fresh=True),
    "low_water_above_unread": Difference(("poll with 10 of 20",), "SO_RCVLOWAT set while bytes are unread in a ring"),
    "dissolve_while_another_waits": Difference(("recv",), "gets ECONNRESET where newer kernels say EPIPE"),
    "closed_while_waiting_otherwise": Difference(
        ("select",), "a descriptor is closed while another thread is in `select` with it", fresh=True
    ),
}


def unexpected(name: str, kind: str, labels: Sequence[str]) -> list[str]:
    """Of lines that differ, those that are not declared to."""
    known = DIFFERENCES.get(name)
    return [label for label in labels if not known or label not in known.labels or (kind == "fresh" and not known.fresh)]


@dataclass(frozen=True)
class Playing:
    """What one scene said in one mode, and which way its connections went."""

    lines: tuple[tuple[str, str], ...]
    paths: tuple[str, ...]

    @property
    def path(self) -> str:
        """The path of its lifted connections, as found when the scene got them."""
        return "-" if not self.paths else "local" if set(self.paths) == {"local"} else ", ".join(sorted(set(self.paths)))


Played = dict[tuple[str, str], Playing]


def played(lab: Lab, mode: str, names: Sequence[str] = ()) -> Played:
    """Play scenes (all of them) in a mode."""
    env = {"PYTHONPATH": str(TESTS)} | ({} if mode == "kernel" else {SEGMENTS: lab.name})
    ran = lab.run([sys.executable, "-m", "compat.sockets.play", *names], mode, env=env, timeout=180)
    sys.stderr.write(ran.err)
    found: Played = {}
    for line in ran.out.splitlines():
        said = json.loads(line)
        found[said["name"], said["kind"]] = Playing(tuple((a, b) for a, b in said["lines"]), tuple(said["paths"]))
    return found


def all_played(lab: Lab, names: Sequence[str] = ()) -> dict[str, Played]:
    """In all modes, two at a time: mostly they wait."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(MODES, pool.map(lambda mode: played(lab, mode, names), MODES), strict=True))


def side_by_side(kernel: Playing, *ours: Playing) -> list[tuple[str, list[str], bool]]:
    """Line by line: label, the kernel's and ours, equal."""
    rows = []
    for i in range(max(len(p.lines) for p in (kernel, *ours))):
        at = [p.lines[i] if i < len(p.lines) else ("", "nothing") for p in (kernel, *ours)]
        rows.append((at[0][0] or at[1][0], [said for _, said in at], len(set(at)) == 1))
    return rows


def main(names: Sequence[str]) -> int:
    load()
    namespace = Namespace()
    try:
        with Lab(namespace, "conformance") as lab:
            results = all_played(lab, names)
    finally:
        namespace.close()
    different = 0
    for key, kernel in results["kernel"].items():
        ours = [results[mode].get(key, Playing((("died", "no answer"),), ())) for mode in MODES[1:]]
        rows = side_by_side(kernel, *ours)
        bad = [label for label, _, equal in rows if not equal]
        wrong = unexpected(*key, bad)
        different += bool(wrong)
        state = "DIFFERENT" if wrong else "declared difference" if bad else "same"
        title = f"{SCENES[key[0]].subject}: {key[0]}, {key[1]}"
        print(f"\n{title}  [{state}; path: default {ours[0].path}, eager {ours[1].path}]")
        for label, said, equal in rows:
            kernel_said, *rest = (s if len(s) <= 56 else s[:53] + "..." for s in said)
            shown = "  ".join(f"{s:<24}" for s in dict.fromkeys(rest))
            print(f"{'  ' if equal else '! '}{label:<44} {kernel_said:<24}  {shown}")
    behaviours = sum(len(p.lines) for p in results["kernel"].values())
    print(f"\n{len(results['kernel'])} scenes, {behaviours} behaviours, {different} scenes different")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
