"""The helper with another native core: `python -m kill.mutants.helper CORE [OPTION]...`."""

from __future__ import annotations

import sys
from pathlib import Path

from sharedstack import paths
from sharedstack_helper import main

if __name__ == "__main__":
    core = Path(sys.argv[1])
    paths.native_library = lambda: core
    sys.exit(main.main(sys.argv[2:]))
