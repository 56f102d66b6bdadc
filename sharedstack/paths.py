"""Where the built files are: the preload library, the library for ctypes, the bench programs.

Installed, they lie in `lib/` beside this file. In a checkout (editable install, or the source tree itself) they are in the
build directory. `sharedstack run` comes through here and has 60 ms in all, so nothing is imported for the usual cases.
"""

from __future__ import annotations

import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


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
    """The preload library.

    Raises FileNotFoundError where the package was not built.
    """
    return _find("libsharedstack.so")


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
