"""What the checker reports: one finding names structure, index, field, what was found and what was expected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..declare.binary import View


@dataclass(frozen=True, order=True)
class Finding:
    """One broken invariant; `where` is like `endpoint[3].side`."""

    where: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.where}: found {self.found}, expected {self.expected}"

    @property
    def identity(self) -> tuple[str, str]:
        """Equal for the same complaint in two snapshots, though the value may have moved on."""
        return self.where, self.expected if not any(c.isdigit() for c in self.expected) else ""


def shown(value: object) -> str:
    """A value as it stands in a finding: large numbers in hexadecimal too."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0xFFFF:
        return f"{value} ({value:#x})"
    return repr(value) if isinstance(value, bytes) else str(value)


class Findings:
    """Collects findings."""

    def __init__(self) -> None:
        self._found: dict[Finding, None] = {}

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._found)

    def add(self, where: str, found: object, expected: str) -> None:
        """Report."""
        self._found[Finding(where, shown(found), expected)] = None

    def expect(self, ok: bool, where: str, found: object, expected: str) -> bool:
        """Report unless `ok`; returns `ok`."""
        if not ok:
            self.add(where, found, expected)
        return ok

    def within(self, where: str, view: View, field: str, low: int, high: int) -> bool:
        """Report unless low <= view[field] <= high."""
        value = view[field]
        return self.expect(low <= value <= high, f"{where}.{field}", value, f"{low} to {high}")

    def equal(self, where: str, view: View, field: str, value: object) -> bool:
        """Report unless view[field] == value."""
        return self.expect(view[field] == value, f"{where}.{field}", view[field], shown(value))
