"""`python -m novacore`."""

import sys

from novacore.cli import main

sys.exit(main())
