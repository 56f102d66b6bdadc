"""Reading ring memory that lies in a System V segment of huge pages."""

from __future__ import annotations

from .snapshot import NoStackError, _Reader


class SysvReader(_Reader):
    """Like `_Reader`, on the segment with identifier `ident`, attached read-only while in use."""

    def __init__(self, ident: int) -> None:
        import sysv_ipc

        try:
            self._memory = sysv_ipc.attach(ident, flags=sysv_ipc.SHM_RDONLY)
        except (sysv_ipc.Error, OSError, ValueError) as e:
            raise NoStackError(f"cannot read the ring memory (System V segment {ident}): {e}") from e

    def __call__(self, offset: int, size: int) -> bytes:
        """Bytes at an offset of the segment."""
        data: bytes = self._memory.read(size, offset)
        return data

    def __exit__(self, *_: object) -> None:
        self._memory.detach()
