"""Each rule has teeth: without its lines in the engine it fails. The mutants are built from the sources by the C compiler."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
from sim.mutants import MUTANTS, Mutant
from sim.test_rules import RULES, Rule

from sharedstack.declare import generate

NATIVE = Path(__file__).parents[2] / "sharedstack" / "native"
COMPILER = shutil.which("cc") or shutil.which("gcc") or ""
FLAGS = ("-std=gnu11", "-D_GNU_SOURCE", "-O0", "-w", "-fPIC")


class Workshop:
    """Objects of all the engine's files, and libraries in which one of them is another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        assert generate.main(["generate", str(folder)]) == 0
        sources = [*(NATIVE / "engine").glob("*.c"), *(NATIVE / "link").glob("*.c")]
        running = [(s, subprocess.Popen(self._compile(s, folder / f"{s.stem}.o"))) for s in sources]
        assert [s.name for s, process in running if process.wait() != 0] == []
        self.objects = {s.name: folder / f"{s.stem}.o" for s in sources}

    def _compile(self, source: Path, target: Path) -> list[str]:
        return [COMPILER, *FLAGS, f"-I{NATIVE}", f"-I{self.folder}", "-c", str(source), "-o", str(target)]

    def library(self, mutant: Mutant, number: int) -> Path:
        text = (NATIVE / "engine" / mutant.file).read_text()
        assert number == 1000 or text.count(mutant.old) == 1, f"{mutant.file} has {mutant.old!r} {text.count(mutant.old)} times"
        folder = self.folder / str(number)
        folder.mkdir(exist_ok=True)
        (folder / mutant.file).write_text(text.replace(mutant.old, mutant.new))
        subprocess.run(self._compile(folder / mutant.file, folder / "mutant.o"), check=True, timeout=60)
        objects = [folder / "mutant.o", *(o for name, o in self.objects.items() if name != mutant.file)]
        subprocess.run([COMPILER, "-shared", *map(str, objects), "-o", str(folder / f"lib{number}.so")], check=True, timeout=60)
        return folder / f"lib{number}.so"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    if not COMPILER:
        pytest.skip("needs a C compiler")
    return Workshop(tmp_path_factory.mktemp("mutants"))


def noticed(rule: Rule, library: Path) -> bool:
    """Whether the rule fails: in a child, since a mutant may crash, or never come back."""
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (5, 6))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            rule(library)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] != 0


@pytest.mark.parametrize("number", range(len(MUTANTS)), ids=[f"{m.file[:-2]}-{m.rule}-{i}" for i, m in enumerate(MUTANTS)])
def test_mutant_is_noticed(workshop: Workshop, number: int) -> None:
    mutant = MUTANTS[number]
    assert noticed(RULES[mutant.rule], workshop.library(mutant, number)), mutant.about


def test_the_engine_as_it_is_is_not_noticed(workshop: Workshop) -> None:
    """The same way of running rules, with nothing taken away: none may fail."""
    nothing = Mutant("nothing", "queue.c", "len > size", "len > size", "")
    failed = [name for name, rule in RULES.items() if noticed(rule, workshop.library(nothing, 1000))]
    assert failed == []


def test_every_rule_has_a_mutant() -> None:
    assert set(RULES) - {m.rule for m in MUTANTS} == set()
