"""Libraries and test programs in which one file is another: made with the commands by which the project's own are made."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

from kill.mutants.table import Mutant

ROOT = Path(__file__).resolve().parents[3]
BUILD = ROOT / "build"
NATIVE = ROOT / "sharedstack" / "native"
CORE = "libshs_core.a"


class Workshop:
    """What was built, and another version of one of its files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands = json.loads((BUILD / "compile_commands.json").read_text())

    def library(self, mutant: Mutant) -> Path:
        """The preload library."""
        return self._linked(mutant, "libsharedstack.so")

    def core(self, mutant: Mutant) -> Path:
        """The helper's library."""
        return self._linked(mutant, "libshs_native.so")

    def program(self, mutant: Mutant, name: str) -> Path:
        """One of tests/native."""
        return self._linked(mutant, f"test-{name}")

    def _linked(self, mutant: Mutant, target: str) -> Path:
        made = self.folder / target
        listed = subprocess.run(["ninja", "-C", str(BUILD), "-t", "commands", target], capture_output=True, text=True, check=True)
        words = shlex.split(listed.stdout.splitlines()[-1])
        words[words.index("-o") + 1] = str(made)
        at = words.index(CORE)
        words[at : at + 1] = sorted(str(p) for p in (BUILD / f"{CORE}.p").glob("*.o"))
        theirs, ours = self._compiled(mutant)
        assert theirs in words, f"{theirs} is no part of {target}"
        subprocess.run([ours if word == theirs else word for word in words], cwd=BUILD, check=True, capture_output=True, timeout=120)
        return made

    def _compiled(self, mutant: Mutant) -> tuple[str, str]:
        """The object of that file as it stands among the core's, and the mutant's."""
        text = (NATIVE / mutant.file).read_text()
        assert text.count(mutant.old) == 1, f"{mutant.file} has {mutant.old!r} {text.count(mutant.old)} times"
        source = self.folder / Path(mutant.file).name
        source.write_text(text.replace(mutant.old, mutant.new))
        (command,) = (c for c in self.commands if c["file"].endswith(f"native/{mutant.file}") and f"{CORE}.p" in c["output"])
        words = shlex.split(command["command"])
        target = str(source.with_suffix(".o"))
        words[words.index("-o") + 1] = target
        words[words.index(command["file"])] = str(source)
        quiet = [word for word in words if not word.startswith(("-MF", "-MQ", "-MD", "-Werror"))]
        quiet = [word for i, word in enumerate(quiet) if not (i and words[words.index(word) - 1] in ("-MF", "-MQ"))]
        done = subprocess.run([*quiet, "-w"], cwd=BUILD, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return str(BUILD / command["output"]), target
