"""`python -m shoal.cli` is `shoal`."""

import sys

from .main import main

sys.exit(main())
