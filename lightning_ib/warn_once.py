"""Warnings that are issued once."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from lightning_ib.distributed import this_process


class WarnOnce:
    """Issues each warning once, and in the first of several processes alone.

    Args:
        every_rank: warn in every process, for what may happen in one of them alone.

    Example:
        >>> warned = WarnOnce()
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     for epoch in range(3):
        ...         warned.warn("empty", f"the data was empty at epoch {epoch}.")
        >>> [str(warning.message) for warning in caught], "empty" in warned
        (['the data was empty at epoch 0.'], True)
    """

    def __init__(self, *, every_rank: bool = False) -> None:
        self._every_rank = every_rank
        self._warned: set[Hashable] = set()

    def warn(self, key: Hashable, message: str, category: type[Warning] = UserWarning, *, stacklevel: int = 2) -> None:
        """Warn, where this key is new; later calls with it are silent.

        Args:
            key: identifies the subject of the warning.
            message: its text.
            category: its category.
            stacklevel: the frame it is attributed to: 1 for the line that calls this method, 2 for the caller of that
                function, ….
        """
        if key in self._warned or not (self._every_rank or this_process()[0] == 0):
            return
        self._warned.add(key)
        warnings.warn(message, category, stacklevel=stacklevel + 1)

    @contextmanager
    def on_error(self, what: str) -> Iterator[None]:
        """Turn an exception into a warning, once for each kind: training must go on.

        Args:
            what: the failed operation, at the beginning of the warning.
        """
        try:
            yield
        except Exception as error:
            failure = f"{what}: {type(error).__name__}"
            self.warn(failure, f"{failure}: {error}. Training goes on.", stacklevel=3)

    def __contains__(self, key: object) -> bool:
        """Whether this process has warned of it: texts that are costly to build can be left out."""
        return key in self._warned

    def clear(self) -> None:
        """Begin anew: every warning may be issued again."""
        self._warned.clear()
