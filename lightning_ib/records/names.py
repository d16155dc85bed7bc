"""The names of targets, and the nearest of several names in a message."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

from lightning_ib.records.tags import RESERVED


def suggestion(name: Any, known: Iterable[Any]) -> str:
    """The end of a sentence about an unknown name: the nearest ones, or all that there are.

    Example:
        >>> "there is no target 'corse'" + suggestion("corse", ["class", "coarse"])
        "there is no target 'corse': did you mean 'coarse'?"
    """
    texts = {str(one): one for one in known}
    near = difflib.get_close_matches(str(name), texts, n=2)
    if near:
        return f": did you mean {' or '.join(repr(texts[one]) for one in near)}?"
    shown = ", ".join(repr(one) for one in list(texts.values())[:8]) + (", …" if len(texts) > 8 else "")
    return f": there are [{shown}]."


def checked_target_name(name: Any) -> str:
    """The name of one of several targets, which is a part of tags and of file names.

    Raises:
        TypeError: it is no text.
        ValueError: it is empty, has a slash or an ``@``, or is the name of a value.

    Example:
        >>> checked_target_name("coarse")
        'coarse'
    """
    if not isinstance(name, str):
        raise TypeError(f"targets must be named by strings such as 'coarse', got {name!r}.")
    if not name.strip() or not name.isprintable() or name != name.strip() or "/" in name or "@" in name:
        raise ValueError(
            f"a target cannot be named {name!r}: give a name of printed characters, without / and @, such as 'coarse'."
        )
    if name in RESERVED:
        raise ValueError(f"a target cannot be named {name!r}, which is another value's name: rename it.")
    return name


def file_stem(name: str) -> str:
    """A name as part of a file's name.

    Example:
        >>> file_stem("next token")
        'next_token'
    """
    return re.sub(r"[^\w.-]+", "_", name)
