"""``python -m pytest_seeddb.cli``."""

import sys

from pytest_seeddb.cli import main

if __name__ == "__main__":
    sys.exit(main())
