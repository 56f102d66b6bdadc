"""Plays a case in a mode, and judges what came out by what came out on the kernel."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from compat.fix_lab import EAGER_SHARE, Lab, Namespace
from compat.processes.stage import Case, Said, Stage
from suites.inside import kernel_payload
from suites.worlds import PATIENT, REASONS

NOBODY = 65534


class SeldomLooking(Lab):
    """Leaves the CPUs to the programs."""

    look_every = 3600


@dataclass
class Played:
    """A case in a mode. Bytes: by ring as participants counted, by the kernel as it counted itself; `why` has bytes by reason, `seen`
    connections by reason in the middle of the load.
    """

    case: Case
    mode: str
    said: Said = field(default_factory=lambda: Said({}))
    wrong: list[str] = field(default_factory=list)
    local: int = 0
    kernel: int = 0
    why: dict[str, int] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    seconds: float = 0

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.case.name}-{self.mode}"

    @property
    def share(self) -> float:
        """Of all bytes, those that went by ring."""
        return self.local / ((self.local + self.kernel) or 1)

    def judge(self, kernel: Played) -> list[str]:
        """What is wrong with it; nothing, if all is well."""
        found = list(self.wrong)
        for name in sorted({*self.said.output, *kernel.said.output}):
            here, there = self.said.output.get(name), kernel.said.output.get(name)
            if here != there and not (self.wrong or kernel.wrong):
                found.append(f"{name}: {here!r}, on the kernel {there!r}")
        if self.said.failed:
            found.append(f"{self.said.failed} of {self.said.done} requests failed")
        if self.mode == "eager" and not self.wrong and not self.case.exempt and self.share < EAGER_SHARE:
            found.append(f"{self.share:.1%} of the bytes went by ring, asked are {EAGER_SHARE:.0%}")
        return found


class Theatre:
    """A namespace, and for each mode and user a helper that is started when first needed.

    `folder` has one for each case and mode. Those of what differed are left, for their logs.
    """

    def __init__(self, seconds: float, parent: Path | None = None) -> None:
        self.seconds = seconds
        self.folder = Path(tempfile.mkdtemp(prefix="processes-", dir=parent))
        self.folder.chmod(0o755)  # another user's programs get there
        self.namespace = Namespace()
        self._stack = contextlib.ExitStack()
        self._labs: dict[tuple[str, bool], Lab] = {}

    def __enter__(self) -> Self:
        if not self.namespace.own:
            self.namespace.close()
            raise PermissionError("a network namespace of one's own needs root")
        self._stack.callback(self.namespace.close)
        self._stack.callback(self._clear)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def _clear(self) -> None:
        shutil.rmtree(self.folder / "shared", ignore_errors=True)
        with contextlib.suppress(OSError):  # there are folders of what differed
            self.folder.rmdir()

    def judge(self, played: Played, kernel: Played) -> list[str]:
        """What is wrong with it; if nothing, its folder goes."""
        found = played.judge(kernel)
        if not found:
            shutil.rmtree(self.folder / played.name)
        return found

    def _lab(self, mode: str, other_user: bool) -> Lab:
        if (mode, other_user) not in self._labs:
            namespace = self.namespace.of_user(NOBODY) if other_user else self.namespace
            self._labs[mode, other_user] = self._stack.enter_context(SeldomLooking(namespace, "processes"))
        return self._labs[mode, other_user]

    def play(self, case: Case, mode: str) -> Played:
        """Play it; whatever goes wrong is in what is returned."""
        played, lab, began = Played(case, mode), self._lab(mode, case.other_user), time.monotonic()
        folder, shared = self.folder / played.name, self.folder / "shared"
        for made in (folder, shared):
            made.mkdir(exist_ok=True)
            os.chown(made, *[NOBODY if case.other_user else 0] * 2)
        stage = Stage(lab, mode, self.seconds, folder, shared, {"HOME": str(folder), **(PATIENT if mode == "eager" else {})})
        counters, payload = lab.state().counters, self._payload()
        try:
            played.said = case.play(stage)
        except (AssertionError, OSError, ValueError, KeyError, IndexError, subprocess.SubprocessError) as error:
            played.wrong.append(f"{type(error).__name__}: {error} ({traceback.extract_tb(error.__traceback__)[1].line})")
        finally:
            played.wrong += stage.end()
        played.seen = stage.seen
        if not lab.daemon.path("stack").exists():
            status, errors = lab.daemon.end()
            played.wrong.append(f"the stack's memory is gone; the helper's exit status is {status}: {errors}")
            del self._labs[mode, case.other_user]  # the next case has another one
            return played
        if mode != "kernel":
            lab.settle()
            try:
                lab.assert_clean()
            except AssertionError as error:
                played.wrong.append(f"left in the stack: {error}")
        after = lab.state().counters
        played.local = after["tx_local_bytes"] - counters["tx_local_bytes"]
        played.kernel = self._payload() - payload
        played.why = {name.removeprefix("tx_kernel_"): more for name in REASONS if (more := after[name] - counters[name])}
        played.seconds = time.monotonic() - began
        return played

    def _payload(self) -> int:
        return kernel_payload(f"/proc/{self.namespace.pid}/net")[0]
