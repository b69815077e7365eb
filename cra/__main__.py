"""`python -m cra` is the command `cra`."""

import sys

from cra.cli import main

if __name__ == "__main__":
    sys.exit(main())
