"""``python -m lightning_ib``."""

import sys

from lightning_ib.cli import main

if __name__ == "__main__":
    sys.exit(main())
