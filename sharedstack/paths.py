"""Where the built files are: the preload library, the library for ctypes, the bench programs.

Installed, they lie in `lib/` beside this file. In a checkout (editable install, or the source tree itself) they are in the
build directory. `sharedstack run` comes through here and has 60 ms in all, so nothing is imported for the usual cases.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_NAME = "libsharedstack.so"
# What the loader of 64-bit programs makes of $LIB: Debian; Fedora, SUSE and kin, where `lib` has 32 bits; Arch.
_WIDE = ("lib/x86_64-linux-gnu", "lib64", "lib")
LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux.so.2")  # for 64 and for 32 bits


def _newest_build(name: str) -> Path | None:
    """`name` in a checkout's build directory: the one that was built last, if any."""
    build = _PACKAGE.parent / "build"
    tagged = build / f"cp{sys.version_info.major}{sys.version_info.minor}"
    found = [path for path in (build / name, tagged / name) if path.is_file()]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def _find(name: str) -> Path:
    installed = _PACKAGE / "lib" / name
    if installed.is_file():
        return installed
    built = _newest_build(name)
    if built is not None:
        return built
    from importlib import resources  # editable install with a build directory elsewhere

    resource = resources.files("sharedstack") / "lib" / name
    if isinstance(resource, Path) and resource.is_file():
        return resource
    raise FileNotFoundError(f"{name} is not in {installed.parent}; install the package, or run `make build` in the checkout")


def library() -> Path:
    """The preload library, for programs of our own architecture.

    Raises FileNotFoundError where the package was not built.
    """
    beside = (_PACKAGE / "lib" / folder / _NAME for folder in _WIDE)  # with one for 32 bits
    return next((path for path in beside if path.is_file()), None) or _find(_NAME)


def for_all_architectures(path: str) -> str:
    """The same for LD_PRELOAD, with $LIB in it, if the loaders of this host both find a library by that; else as it is."""
    folder, _, _ = path.rpartition(f"/{_NAME}")
    if folder.rpartition("/")[2] not in [wide.rpartition("/")[2] for wide in _WIDE] or folder == str(_PACKAGE / "lib"):
        return path
    wide, narrow = (_answer(*asked) for asked in [_ask(loader) for loader in LOADERS])  # both at a time: 60 ms are not many
    root = folder.removesuffix(f"/{wide}")
    if not wide or not narrow or root == folder or not Path(root, narrow, _NAME).is_file():
        return path
    return f"{root}/$LIB/{_NAME}"


def expansion(loader: str) -> str:
    """What a dynamic loader makes of $LIB; empty where it is not there, or does not say (before glibc 2.33)."""
    return _answer(*_ask(loader))


def _ask(loader: str) -> tuple[int, int]:
    """Where its answer can be read, and its process id; 0: it is not there."""
    read, write = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, write, 1), (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)]
    try:
        return read, os.posix_spawn(loader, [loader, "--list-diagnostics"], {}, file_actions=actions)
    except OSError:
        return read, 0
    finally:
        os.close(write)


def _answer(read: int, pid: int) -> str:
    with open(read, "rb") as said:
        _, _, rest = said.read().partition(b'dl_dst_lib="')
    if pid:
        os.waitpid(pid, 0)
    return rest.partition(b'"')[0].decode()


def native_library() -> Path:
    """The native core for ctypes: functions shs_native_* and shs_test_*.

    Raises FileNotFoundError where the package was not built.
    """
    return _find("libshs_native.so")


def bench_program(name: str) -> Path:
    """The bench program made from `sharedstack/native/bench/<name>.c`.

    Raises FileNotFoundError where there is none of that name.
    """
    return _find(f"shs-{name}")


def steering_program() -> Path:
    """The BPF programs that pick lifted flows out of an interface's packets.

    Raises FileNotFoundError where the package was built without clang.
    """
    return _find("steer.bpf.o")
