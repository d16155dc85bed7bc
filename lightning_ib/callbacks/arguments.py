"""The arguments of the callback itself, beside those of its parts."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from lightning_ib.capture.batches import Unpack
from lightning_ib.estimators.base import Estimator
from lightning_ib.estimators.registry import checked_estimators
from lightning_ib.evaluation.loaders import checked_loader
from lightning_ib.functional.checks import checked_flag, checked_number


def default_estimators() -> list[Estimator]:
    """A linear probe, where the target is class labels."""
    (probe,) = checked_estimators(["probe"])
    probe.optional = True
    return [probe]


def checked_unpack(unpack: Any) -> Unpack | None:
    """What takes a batch apart.

    Raises:
        TypeError: it is no callable.
    """
    if unpack is not None and not callable(unpack):
        raise TypeError(f"unpack must be a callable, batch → (x, y), or None, got {unpack!r}.")
    own: Unpack | None = unpack
    return own


def checked_prefix(prefix: Any) -> str:
    """The first part of every logged name, without slashes around it.

    Raises:
        TypeError: it is no text.
        ValueError: it is empty.
    """
    if not isinstance(prefix, str) or not prefix.strip("/"):
        kind = ValueError if isinstance(prefix, str) else TypeError
        raise kind(f"prefix must be a name such as 'ib', got {prefix!r}.")
    return prefix.strip("/")


def checked_arguments(data: Any, unpack: Any, beta: Any, prefix: Any, flags: Mapping[str, Any]) -> None:
    """Check the arguments of the callback itself, beside those of its parts.

    Raises:
        TypeError: one is of the wrong kind.
        ValueError: one is out of its range, or needs a package that is missing.
    """
    if (isinstance(data, str) and data not in ("train", "val")) or not (data is None or hasattr(data, "__iter__")):
        kind = ValueError if isinstance(data, str) else TypeError
        raise kind(f"data must be None, 'train', 'val' or a DataLoader, got {data!r}.")
    if data is not None and not isinstance(data, str):
        checked_loader(data)
    checked_unpack(unpack)
    if beta is not None:
        checked_number(beta, "beta")
    checked_prefix(prefix)
    for name, flag in flags.items():
        checked_flag(flag, name)
    if flags["tsne"] and importlib.util.find_spec("sklearn") is None:
        raise ValueError("tsne=True needs scikit-learn: pip install scikit-learn, or leave it out.")
