"""sharedstack: a user-level network stack in shared memory for unmodified Linux programs."""

__version__ = "0.1.0"
