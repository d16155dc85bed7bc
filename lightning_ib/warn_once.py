"""Warnings that are given once."""

from __future__ import annotations

import warnings
from collections.abc import Hashable

from lightning_ib.distributed import this_process


class WarnOnce:
    """Gives each warning once, and in the first of several processes alone.

    Example:
        >>> warned = WarnOnce()
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     for epoch in range(3):
        ...         warned.warn("empty", f"the data was empty at epoch {epoch}.")
        >>> [str(warning.message) for warning in caught], "empty" in warned
        (['the data was empty at epoch 0.'], True)
    """

    def __init__(self) -> None:
        self._warned: set[Hashable] = set()

    def warn(self, key: Hashable, message: str, category: type[Warning] = UserWarning, *, stacklevel: int = 2) -> None:
        """Warn, where this key is new; later calls with it are silent.

        Args:
            key: what the warning is about.
            message: its text.
            category: its category.
            stacklevel: the frame it is attributed to: 1 for the line that calls this method, 2 for the caller of that
                function, ….
        """
        if key in self._warned or this_process()[0] != 0:
            return
        self._warned.add(key)
        warnings.warn(message, category, stacklevel=stacklevel + 1)

    def __contains__(self, key: object) -> bool:
        """Whether this process has warned of it: texts that are costly to build can be left out."""
        return key in self._warned

    def clear(self) -> None:
        """Begin anew: every warning may be given again."""
        self._warned.clear()
