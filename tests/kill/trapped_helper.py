"""A helper that stands at a breakpoint before one of its calls of the native core, and at another behind it: what tracer.c looks for.

    python -m kill.trapped_helper LIBRARY FUNCTION NTH READY STACK [OPTION]...

LIBRARY is tests/programs/trapped.c; it is the NTH call of shs_native_FUNCTION. READY is a file that is there when the helper is ready.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

from sharedstack_helper import main, native


def trap(library: str, name: str, nth: int) -> None:
    """From now on, the nth call of that function is trapped."""
    through, load = ctypes.CDLL(library).trapped, native._function
    through.restype = ctypes.c_long
    left = nth

    def function(core: ctypes.CDLL, wanted: str, result: Any, *arguments: Any) -> Any:
        plain = load(core, wanted, result, *arguments)
        if wanted != name:
            return plain

        def call(*given: Any) -> int:
            nonlocal left
            left -= 1
            if left:
                return int(plain(*given))
            words = [one.value if isinstance(one, ctypes.c_void_p) else one for one in given]
            return ctypes.c_int(through(ctypes.cast(plain, ctypes.c_void_p), *(ctypes.c_uint64(word) for word in words))).value

        return call

    native._function = function  # type: ignore[assignment]


def run(library: str, name: str, nth: str, ready: str, stack: str, *options: str) -> int:
    """The helper, trapped."""
    trap(library, name, int(nth))
    fd = os.open(ready, os.O_CREAT | os.O_WRONLY)
    os.dup2(os.open("/dev/null", os.O_RDWR), 1)
    return main.main(["--stack", stack, "--ready-fd", str(fd), *options])


if __name__ == "__main__":
    sys.exit(run(*sys.argv[1:]))
