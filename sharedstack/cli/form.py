"""How commands print what they found."""

from __future__ import annotations

from enum import StrEnum


class Form(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"
