"""`python -m metalr` is the `metalr` command."""

import sys

from metalr.cli import main

if __name__ == "__main__":
    sys.exit(main())
