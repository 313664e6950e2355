"""``python -m tunectl``."""

import sys

from tunectl.cli.main import main

sys.exit(main())
