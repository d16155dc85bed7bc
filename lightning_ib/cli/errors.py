"""The error of a command that was used in a wrong way, or was given what it cannot read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UsageError(Exception):
    """A command cannot do what it was asked for: one sentence that says what came and what to do.

    The command line prints the sentence and exits with code 2.
    """


def in_words(error: BaseException) -> str:
    """An error of the user's code; SystemExit, which a script raises to end itself, in words.

    Example:
        >>> in_words(ValueError("no")), in_words(SystemExit(2))
        ('ValueError: no', 'SystemExit: it ended the program')
    """
    if isinstance(error, SystemExit):
        return "SystemExit: it ended the program"
    return f"{type(error).__name__}: {error}"


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known one, or all of a few.

    Example:
        >>> nearest("Nte", ["Net", "Data"]), nearest("x", ["Net", "Data"]), nearest("x", [])
        (': did you mean Net?', ': it has Data and Net.', '.')
    """
    known = sorted(set(names))
    if near := difflib.get_close_matches(name, known, n=1):
        return f": did you mean {near[0]}?"
    if not known or len(known) > 8:
        return "."
    *others, last = known
    return f": it has {', '.join(others)} and {last}." if others else f": it has {last}."
