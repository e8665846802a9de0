"""`python -m toydiff` is the `toydiff` command."""

import sys

from .cli import main

sys.exit(main())
