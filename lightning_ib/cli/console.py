"""Lines on the console."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """A line on stderr, above the bars that are shown."""
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)
