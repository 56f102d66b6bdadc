"""The library under a sanitizer: how it is built and preloaded, and what the sanitizer said.

A sanitizer's runtime has to be first in LD_PRELOAD, before our library, so its own interceptors stand before ours and call them. While it
starts it would install handlers by our sigaction, which is instrumented and so is not to be called before the runtime has started: it is
told to leave signals alone. Programs are instrumented too. Memory that is shared between processes is beyond either: ASan knows no bounds
in it, and TSan sees the threads of one process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUNTIMES = {"address": ("libasan.so", "ASAN_OPTIONS"), "thread": ("libtsan.so", "TSAN_OPTIONS")}
OPTIONS = "handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0:handle_abort=0:use_sigaltstack=0"
MORE = {"address": "detect_leaks=0", "thread": "die_after_fork=0"}


@dataclass(frozen=True)
class Sanitizer:
    """One of them, with a library of its own."""

    name: str
    folder: Path

    @property
    def directory(self) -> str:
        return f"build-chaos-{self.name}"

    @property
    def flags(self) -> tuple[str, ...]:
        """For the programs."""
        return (f"-fsanitize={self.name}",)

    @property
    def preload(self) -> str:
        runtime = subprocess.run(["gcc", f"-print-file-name={RUNTIMES[self.name][0]}"], capture_output=True, text=True, check=True)
        return f"{runtime.stdout.strip()}:{ROOT / self.directory / 'libsharedstack.so'}"

    @property
    def environment(self) -> dict[str, str]:
        return {RUNTIMES[self.name][1]: f"{OPTIONS}:{MORE[self.name]}:log_path={self.folder / self.name}"}

    def build(self) -> None:
        options = [f"-Db_sanitize={self.name}", "-Dwerror=false", "-Dm32=false"]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        command = [str(ROOT / "scripts" / "meson-build"), self.directory, "gcc", *options, "--", "libraries"]
        subprocess.run(command, cwd=ROOT, env=os.environ | {"PATH": path}, check=True)

    def said(self) -> list[str]:
        """Reports, of each the beginning."""
        return [f"{path.name}: {path.read_text(errors='replace')[:4000]}" for path in sorted(self.folder.glob(f"{self.name}.*"))]
