"""Programs of 32 bits beside those of 64: `sharedstack run` preloads each with a library of its own, by one word of LD_PRELOAD."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from compat.fix_lab import EAGER_SHARE, Actor, Builder, Lab
from compat.test_follow import CLIENT, Play
from compat.test_follow import clients as clients

from sharedstack import paths
from sharedstack.declare import layout
from sharedstack.doctor import checks

pytest_plugins = ["compat.fix_paths"]

M32 = "-m32"


@pytest.fixture(scope="module", autouse=True)
def word() -> str:
    """What LD_PRELOAD names; with one architecture alone it is the library's path."""
    probe = subprocess.run(["gcc", M32, "-x", "c", "-o", os.devnull, "-"], input="int main(void) { return 0; }", text=True)
    if probe.returncode != 0:
        pytest.skip("gcc -m32 does not work here (gcc-multilib)")
    library = str(paths.library())
    found = paths.for_all_architectures(library)
    if found == library and not paths.expansion(paths.LOADERS[0]):
        pytest.skip("allowed: this loader does not say what $LIB is (glibc before 2.33)")
    assert found != library, "there is no library for 32-bit programs: run `make build`"
    return found


def test_the_word(word: str) -> None:
    wide, narrow = (Path(word.replace("$LIB", paths.expansion(loader))) for loader in paths.LOADERS)
    assert wide == paths.library()
    assert [path.read_bytes()[4] for path in (wide, narrow)] == [2, 1]  # EI_CLASS


@pytest.mark.parametrize("environment", ["kept", "cleared", "many"])
@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("mode", ["kernel", "eager"])
def test_one_executes_the_other(lab: Lab, build: Builder, clients: dict[str, Actor], mode: str, bits: int, environment: str) -> None:
    """A lifted connection with unread bytes goes on by ring."""
    play = Play(lab, build, clients, *([M32] if bits == 32 else []))
    heir = build("follow") if bits == 32 else build("follow", M32)
    for way in ("execve", "vfork", "posix_spawn", "execvp", "o_path"):
        said = play(mode, way, environment, heir)
        assert said.preloaded == (mode != "kernel")
        if mode == "eager":
            assert said.stack == lab.stack
            assert said.local >= EAGER_SHARE * said.sent


@pytest.mark.parametrize("mode", ["kernel", "eager"])
def test_in_between(lab: Lab, build: Builder, clients: dict[str, Actor], mode: str) -> None:
    """32 bits to the end, by a shell of 64 bits."""
    said = Play(lab, build, clients, M32)(mode, "system", "replaced")
    assert said.preloaded == (mode != "kernel")
    assert mode == "kernel" or said.local >= EAGER_SHARE * said.sent


def test_inspect(lab: Lab, build: Builder) -> None:
    """A 32-bit program started by `sharedstack run`, as `inspect --why` shows it."""
    client = lab.actor("eager")
    client.do(CLIENT)
    with lab.start([build("follow", M32), "execve", "kept", "none"], "eager", stdin=subprocess.PIPE) as server:
        assert server.stdout
        client.do(f"s = socket.create_connection(('127.0.0.1', {int(server.stdout.readline())})); s.settimeout(10); turns()", 20)
        lifted = {"none", "reader_asleep"}  # it waits for a line now
        assert [line for line in lab.why(server.pid, "--all") if {line["tx"], line["rx"]} <= lifted]
        assert {p.own_pid: p.bits for p in lab.state().participants}[server.pid] == 32
        server.kill()
        server.communicate()
    client.end()
    lab.actors.remove(client)


@pytest.mark.parametrize("environment", ["kept", "cleared"])
def test_one_library_alone(lab: Lab, build: Builder, clients: dict[str, Actor], tmp_path: Path, environment: str) -> None:
    """$LIB in LD_PRELOAD, and nothing there for 32 bits: such a program is outside, gets its bytes by the kernel, and no variables."""
    folder = tmp_path / paths.expansion(paths.LOADERS[0])
    folder.mkdir(parents=True)
    shutil.copyfile(paths.library(), folder / "libsharedstack.so")
    assert paths.for_all_architectures(str(folder / "libsharedstack.so")) == str(folder / "libsharedstack.so")
    env = {"LD_PRELOAD": f"{tmp_path}/$LIB/libsharedstack.so", "SHAREDSTACK_STACK": lab.stack, "SHAREDSTACK_EAGER": "2"}
    play = Play(lab, build, clients | {"kernel": clients["eager"]})
    if environment == "kept":  # its loader says that it finds nothing
        with pytest.raises(AssertionError, match="cannot be preloaded"):
            play("kernel", "execve", environment, build("follow", M32), **env)
        return
    before = lab.state().counters["residue"]
    said = play("kernel", "execve", environment, build("follow", M32), **env)
    assert not said.preloaded
    assert said.preload == "none"
    assert lab.state().counters["residue"] > before


def test_the_layout_is_found() -> None:
    """`sharedstack run` compares it with the helper's."""
    from sharedstack.cli.launch import _beside

    assert int(Path(_beside(str(paths.library()), "layout.hash")).read_text(), 16) == layout.HASH


def test_doctor_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def line() -> checks.Finding:
        return next(one for one in checks.host() if one.what == "programs")

    assert (line().state, line().found) == ("ok", "of 64 and 32 bits")
    monkeypatch.setattr(paths, "for_all_architectures", str)
    assert line().state == "warn"
    assert "gcc-multilib" in line().advice


def test_nothing_is_left(lab: Lab) -> None:
    for actor in lab.actors:
        actor.end()
    lab.assert_clean()
