"""The package as it is installed, the make targets, and what must not be in the tree."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sharedstack import paths

ROOT = Path(__file__).resolve().parents[2]
# Of this interpreter's own environment, the checkout on the path or not.
SITE = Path(importlib.metadata.distribution("sharedstack").locate_file(""))


def run(*command: str, cwd: Path = Path("/"), **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **env}, stdin=subprocess.DEVNULL, timeout=60)


def command(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def tracked() -> list[Path]:
    if not shutil.which("git") or run("git", "rev-parse", "--git-dir", cwd=ROOT).returncode != 0:
        pytest.skip("allowed: not a git checkout (a source archive)")
    names = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).stdout.splitlines()
    return [ROOT / name for name in names if (ROOT / name).is_file()]


@pytest.mark.parametrize("find", [paths.library, paths.native_library])
def test_libraries_are_there_and_load(find):
    library = find()
    assert library.read_bytes()[:4] == b"\x7fELF"
    loaded = run(sys.executable, "-c", f"import ctypes; ctypes.CDLL({str(library)!r})")
    assert loaded.returncode == 0, loaded.stderr


def test_preloading_leaves_a_program_alone():
    done = run("/bin/echo", "hello", LD_PRELOAD=str(paths.library()))
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")


def test_bench_programs_are_executables():
    for source in (ROOT / "sharedstack" / "native" / "bench").glob("*.c"):
        assert os.access(paths.bench_program(source.stem), os.X_OK)


def test_missing_files_say_what_to_do():
    with pytest.raises(FileNotFoundError, match="make build"):
        paths.bench_program("no-such-program")


def test_all_python_sources_are_installed():
    if (SITE / "sharedstack-editable.pth").exists():
        pytest.skip("allowed: an editable install has them in the checkout")
    for package in (ROOT / "sharedstack", ROOT / "helper" / "sharedstack_helper"):
        for source in [*package.rglob("*.py"), package / "py.typed"]:
            assert (SITE / source.relative_to(package.parent)).is_file(), source


def test_no_c_sources_are_installed():
    assert not [path for path in (SITE / "sharedstack").rglob("*") if path.suffix in (".c", ".h", ".S")]


def test_metadata():
    about = importlib.metadata.metadata("sharedstack")
    assert about["Version"] == importlib.import_module("sharedstack").__version__
    needed = {re.match(r"[\w-]+", line)[0].replace("-", "_") for line in importlib.metadata.requires("sharedstack") if "extra" not in line}
    assert needed == {"hdrhistogram", "msgpack", "posix_ipc", "pyroute2", "rich", "sysv_ipc", "typer"}
    assert all(">=" in line for line in importlib.metadata.requires("sharedstack"))


@pytest.mark.parametrize("name", ["sharedstack", "sharedstack-helper"])
def test_entry_points_start(name):
    helped = run(command(name), "--help")
    assert helped.returncode == 0, helped.stderr
    assert "usage" in helped.stdout.lower()


def test_paths_import_nothing_dear():
    heavy = "importlib.resources", "asyncio", "rich", "typer", "pyroute2"
    code = f"import sys; from sharedstack import paths; paths.library(); print([m for m in {heavy} if m in sys.modules])"
    assert run(sys.executable, "-c", code).stdout.strip() == "[]"


@pytest.mark.parametrize(
    "target", ["help", "build", "demo", "test", "lint", "format", "sanitize", "m32", "abi", "bench", "models", "clean"]
)
def test_make_targets_exist(target):
    done = run("make", "-n", target, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert f"make {target} " in run("make", "help", cwd=ROOT).stdout


def test_libraries_ask_for_nothing_new_and_export_what_is_declared():
    exports = ROOT / "build" / "exports.map"
    if not exports.exists():
        pytest.skip("allowed: no build directory (installed elsewhere)")
    build = exports.parent
    done = run(sys.executable, "scripts/abi.py", str(build / "libsharedstack.so"), str(build / "libshs_native.so"), cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_no_path_of_a_machine_in_the_tree():
    own = [f"{path}/" for path in {str(ROOT), str(Path.home())} if len(Path(path).parts) > 2]
    patterns = "|".join([*map(re.escape, own), r"/home/[a-z]\w+/", r"/root/\.", r"\.pye" + "nv", r"/Use" + "rs/"])
    assert [f"{path}:{n}: {line}" for path, n, line in _lines() if re.search(patterns, line)] == []


def test_no_registry_host_in_the_tree():
    pattern = "pypi" + r"\.org|python" + "hosted|" + "index-" + "url|ghcr" + r"\.io|docker" + r"\.io|deb\." + "debian"
    assert [f"{path}:{n}: {line}" for path, n, line in _lines() if re.search(pattern, line)] == []


def _lines():
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        yield from ((path.relative_to(ROOT), number, line) for number, line in enumerate(text.splitlines(), 1))


@pytest.mark.parametrize(
    ("reason", "ci", "status"), [("no such device", "1", 1), ("allowed: no such device", "1", 0), ("no such device", "", 0)]
)
def test_ci_fails_on_skips_that_are_not_allowed(tmp_path, reason, ci, status):
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(
        f"import pytest\ndef test_runs(): pass\n@pytest.mark.skip(reason={reason!r})\ndef test_not(): pass\n"
    )
    done = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path), cwd=tmp_path, CI=ci)
    assert done.returncode == status, done.stdout
    assert ("test_it.py::test_not: no such device" in done.stdout) == (status == 1)


USER = """
from pathlib import Path
from sharedstack.paths import library
from sharedstack_helper.main import main
where: Path = library()
status: int = main([])
wrong: str = main([])
"""


@pytest.mark.timeout(240)
def test_an_editable_install_is_seen_by_the_type_checker_from_elsewhere(tmp_path):
    """What `pip install -e .` installs, in an environment of its own: mypy knows the types of both packages."""
    if not importlib.util.find_spec("mypy") or not importlib.util.find_spec("mesonpy"):
        pytest.skip("needs mypy and meson-python (make lint installs them)")
    build = f"import backend; print(backend.build_editable({str(tmp_path)!r}, {{'build-dir': {str(tmp_path / 'build')!r}}}))"
    tools = {"PYTHONPATH": str(ROOT / "scripts"), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    made = subprocess.run([sys.executable, "-c", build], cwd=ROOT, env={**os.environ, **tools}, capture_output=True, text=True, timeout=200)
    assert made.returncode == 0, made.stdout + made.stderr
    wheel = tmp_path / made.stdout.splitlines()[-1]
    python = tmp_path / "env" / "bin" / "python"
    for step in (
        ["-m", "venv", "--without-pip", str(tmp_path / "env")],
        ["-m", "pip", "--python", str(python), "install", "--no-deps", str(wheel)],
    ):
        done = run(sys.executable, *step, PIP_NO_INDEX="1", PIP_DISABLE_PIP_VERSION_CHECK="1")
        assert done.returncode == 0, done.stdout + done.stderr
    program = tmp_path / "user.py"
    program.write_text(USER)
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), "--cache-dir", str(tmp_path / "cache")]
    checked = run(*command, str(program), cwd=tmp_path)
    errors = [line for line in checked.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 1, checked.stdout
    assert errors[0].startswith("user.py:7: error: Incompatible types in assignment")
    assert run(str(python), "-c", "import sharedstack; print(sharedstack.__file__)", PATH=tools["PATH"]).stdout.strip() == str(
        ROOT / "sharedstack" / "__init__.py"
    )
