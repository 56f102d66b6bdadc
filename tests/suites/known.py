"""Tests whose outcome varies on the plain kernel too, with what showed it. They are run and counted; a difference there says nothing."""

from __future__ import annotations

# name of a test: outcomes on the kernel, of how many runs, and why
KNOWN: dict[str, str] = {}
