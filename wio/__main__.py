"""``python -m wio``."""

import sys

from wio.cli import main

sys.exit(main())
