"""The input and the target in a batch, recognized by its form unless ``unpack`` names them."""

from __future__ import annotations

import difflib
from collections import UserDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from torch import Tensor

Unpack = Callable[[Any], tuple[Any, Any]]

Source = str | int | Callable[[Any], Any] | None
"""Where one of several targets is: a key of the batch, a function of the batch, or ``None`` for its y."""

LABEL_NAMES = ("labels", "label", "targets", "target", "y")
"""The names by which the target of a batch is recognized, the first that is there."""


class Parts(NamedTuple):
    """The parts of a batch.

    Attributes:
        x: the argument of the model.
        y: the target; ``None`` where it is absent or unknown.
        doubt: why the target is unknown, in a sentence that says how to name it; empty where it is known.
        mask: marks the tokens that count, ``(B, L)``, where the batch holds such an ``attention_mask``.
        label: the key under which the target stood beside x in a plain mapping; empty elsewhere.
        targets: several targets by name, the primary first, where they were asked for; ``y`` is then that of the
            batch's form all the same, as the model may be called with it.
    """

    x: Any
    y: Any
    doubt: str = ""
    mask: Any = None
    label: str = ""
    targets: Mapping[str, Any] | None = None

    @property
    def primary(self) -> Any:
        """The target, of several ones the first; ``None`` where its function failed."""
        first = self.y if self.targets is None else next(iter(self.targets.values()))
        return None if isinstance(first, TargetFailed) else first


class TargetFailed(ValueError):
    """What stands in place of a target whose function raised: that target alone is left out."""


def parts_of(batch: Any) -> Parts:
    """Recognize input and target in a batch.

    - A pair is ``(x, y)``.
    - A mapping, a dataclass or any other object with one of :data:`LABEL_NAMES` has its target there. x is the rest
      of a plain mapping, and any other object as it is.
    - Of anything else only the input is known: a tensor, a mapping or an object itself, the first part of a tuple.

    Example:
        >>> parts_of({"input_ids": 1, "labels": 2})
        Parts(x={'input_ids': 1}, y=2, doubt='', mask=None, label='labels', targets=None)
        >>> parts_of((1, 2, 3)).x
        1
    """
    name = _label_name(batch)
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        at = 1 if name is None else batch._fields.index(name)  # type: ignore[union-attr]
        return Parts(batch[1 - at], batch[at], mask=_mask_of(batch[1 - at]))
    if isinstance(batch, (tuple, list)) and len(batch) == 1:
        return parts_of(batch[0])
    if name is not None and isinstance(batch, Mapping):
        if not is_keywords(batch):
            return Parts(batch, batch[name], mask=_mask_of(batch))
        x = {k: v for k, v in batch.items() if k != name}
        return Parts(x, batch[name], mask=_mask_of(batch), label=name)
    if name is not None:
        return Parts(batch, getattr(batch, name), mask=_mask_of(batch))
    several = isinstance(batch, (tuple, list)) and len(batch) > 0
    advice = "lambda batch: (batch[i], batch[j]), i and j being their places" if several else "lambda batch: (x, y)"
    doubt = (
        f"a batch is {described(batch)}, and its target is not known: I(X;T) and H(T) are measured without one. Give "
        f"unpack={advice}, or unpack=lambda batch: ({'batch[0]' if several else 'batch'}, None) if there is none."
    )
    x = batch[0] if several else batch
    return Parts(x, None, doubt, _mask_of(x))


def unpacked(batch: Any, unpack: Unpack | None = None, targets: Mapping[str, Source] | None = None) -> Parts:
    """The parts of a batch: as ``unpack`` says, or else by its form.

    Args:
        batch: from the loader.
        unpack: batch → (x, y), or (x, y, mask).
        targets: name → where that target is, where there are several.

    A target whose function raises is a :class:`TargetFailed`.

    Raises:
        ValueError: ``unpack`` returned something else than a pair or a triple, or the batch lacks a key of a target.

    Example:
        >>> unpacked((1, 2, 3), targets={"class": 1, "coarse": lambda batch: batch[1] // 2}).targets
        {'class': 2, 'coarse': 1}
    """
    parts = _unpacked(batch, unpack)
    if targets is None:
        return parts
    found = {name: _target_in(batch, parts, name, source) for name, source in targets.items()}
    doubt = parts.doubt if None in targets.values() else ""
    return parts._replace(targets=found, doubt=doubt)


def _target_in(batch: Any, parts: Parts, name: str, source: Source) -> Any:
    if source is None:
        return parts.y
    if not isinstance(source, (str, int)):
        try:
            return source(batch)
        except Exception as error:  # it is the user's
            raised = f"{type(error).__name__}: {error}".rstrip(": ")
            return TargetFailed(f"the target {name!r}, a function of the batch, raised {raised}")
    if isinstance(batch, Mapping):
        known = list(batch.keys())
    elif isinstance(batch, (tuple, list)):
        known = [*range(len(batch)), *getattr(batch, "_fields", ())]
    else:
        known = [] if isinstance(batch, (Tensor, str)) else list(getattr(batch, "__dict__", ()))
    if source in known or (isinstance(batch, (tuple, list)) and source in range(-len(batch), 0)):
        named = isinstance(source, str) and not isinstance(batch, Mapping)
        return getattr(batch, source) if named else batch[source]  # type: ignore[arg-type]
    with suppress(Exception):  # a property, or a mapping of another kind
        return getattr(batch, source) if isinstance(source, str) else batch[source]
    near = difflib.get_close_matches(str(source), [str(one) for one in known], n=1)
    meant = next((one for one in known if near and str(one) == near[0]), None)
    remedy = ": give one of its keys, or a function of the batch." if meant is None else f": did you mean {meant!r}?"
    raise ValueError(f"the target {name!r} is to be found at {source!r}, and a batch is {described(batch)}{remedy}")


def _unpacked(batch: Any, unpack: Unpack | None) -> Parts:
    if unpack is None:
        return parts_of(batch)
    pair = unpack(batch)
    if not isinstance(pair, (tuple, list)) or len(pair) not in (2, 3):
        raise ValueError(f"unpack must return a pair (x, y), or a triple (x, y, mask), got {described(pair)}.")
    return Parts(pair[0], pair[1], mask=pair[2] if len(pair) == 3 else None)


def _mask_of(x: Any) -> Any:
    """The attention mask of a mapping or an object, where it has one."""
    with suppress(Exception):  # it is the user's, and may be of any kind
        return x["attention_mask"] if isinstance(x, Mapping) else getattr(x, "attention_mask", None)
    return None


def _label_name(batch: Any) -> str | None:
    if isinstance(batch, Mapping):
        return next((name for name in LABEL_NAMES if name in batch.keys()), None)  # noqa: SIM118 - tensordict's own
    if isinstance(batch, (Tensor, tuple, list, str)):
        fields = getattr(batch, "_fields", ())
        return next((name for name in LABEL_NAMES if name in fields), None)
    with suppress(Exception):  # a property of the user's may raise anything
        return next((name for name in LABEL_NAMES if getattr(batch, name, None) is not None), None)
    return None


def is_keywords(x: Any) -> bool:
    """Whether a mapping stands for keyword arguments: a plain dictionary does, a tensordict is passed on whole."""
    return isinstance(x, (dict, UserDict))


def described(value: Any) -> str:
    """The kind of a batch, in words for a message."""
    if isinstance(value, Mapping):
        keys = [str(key) for key in value.keys()]  # noqa: SIM118 - iterating over a tensordict gives its rows
        shown = ", ".join(map(repr, keys[:6])) + (", …" if len(keys) > 6 else "")
        return f"a mapping with the keys [{shown}]"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{'an' if type(value).__name__[0] in 'AEIOUaeio' else 'a'} {type(value).__name__}"
