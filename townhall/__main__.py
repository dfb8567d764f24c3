"""`python -m townhall`, the same as `townhall`."""

import sys

from townhall.cli.main import main

sys.exit(main())
