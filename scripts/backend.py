"""The build backend: meson-python's, but for one file that an editable install gets in addition.

meson-python's editable install finds the packages by an import hook, which type checkers do not run. So the wheel gets a .pth file with
the folders of the checkout, which are then on `sys.path`, where mypy and pyright look; behind the hook, which goes on to rebuild.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path
from typing import Any

import mesonpy
from mesonpy import (
    build_sdist,
    build_wheel,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
]

PTH = "sharedstack-checkout.pth"


def build_editable(wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None) -> str:
    """meson-python's editable wheel and the .pth file; returns the wheel's name (PEP 660)."""
    name = str(mesonpy.build_editable(Path(wheel_directory), config_settings, metadata_directory))
    root = Path.cwd()  # of the checkout, as PEP 517 has it
    _add(Path(wheel_directory) / name, PTH, f"{root}\n{root / 'helper'}\n".encode())
    return name


def _add(wheel: Path, name: str, content: bytes) -> None:
    """Write the wheel anew with one file more; its RECORD tells of it."""
    with zipfile.ZipFile(wheel) as old:
        files = {info: old.read(info) for info in old.infolist()}
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as new:
        new.writestr(name, content)
        for info, data in files.items():
            line = f"{name},sha256={digest},{len(content)}\n".encode() if info.filename.endswith(".dist-info/RECORD") else b""
            new.writestr(info, line + data)
