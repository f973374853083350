"""`python -m hyperprune`."""

import sys

from hyperprune.cli.main import main

sys.exit(main())
