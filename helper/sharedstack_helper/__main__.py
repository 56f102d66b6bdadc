"""`python -m sharedstack_helper`: the same as the command `sharedstack-helper`."""

import sys

from .main import main

sys.exit(main())
