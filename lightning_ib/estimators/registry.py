"""The estimators that can be asked for by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence

from lightning_ib.estimators.base import Estimator
from lightning_ib.estimators.copula import GaussianCopula
from lightning_ib.estimators.kernels import KDE, Renyi
from lightning_ib.estimators.neighbors import KNN, KSG, MixedKNN, Projected
from lightning_ib.estimators.quantized import Quantized
from lightning_ib.estimators.soft import Soft
from lightning_ib.estimators.variational import SMILE, InfoNCE, Probe
from lightning_ib.records.tags import RESERVED

BY_NAME: dict[str, Callable[[], Estimator]] = {
    "kde": KDE,
    "ksg": KSG,
    "knn": KNN,
    "mixed": MixedKNN,
    "projected": Projected,
    "copula": GaussianCopula,
    "renyi": Renyi,
    "probe": Probe,
    "mlp_probe": lambda: Probe("mlp"),
    "infonce": InfoNCE,
    "smile": SMILE,
    "quantized8": Quantized,
    "soft": Soft,
}
"""The estimators that can be asked for by name, each with its defaults."""


Estimators = Sequence[str | Estimator]


def checked_estimators(asked: Iterable[str | Estimator]) -> list[Estimator]:
    """The estimators that are asked for, by name or as they are.

    Args:
        asked: names and estimators.

    Raises:
        TypeError: one is neither a name nor an :class:`Estimator`.
        ValueError: a name is unknown, or two values would be logged under one name.
    """
    if isinstance(asked, (str, Estimator)):
        meant = difflib.get_close_matches(asked, BY_NAME, n=1, cutoff=0.0)[0] if isinstance(asked, str) else asked
        raise TypeError(f"estimators must be a list, got {asked!r}. Did you mean [{meant!r}]?")
    if asked is not None and not isinstance(asked, Iterable):
        raise TypeError(f"estimators must be a list, got {asked!r}.")
    found: list[Estimator] = []
    for one in asked or ():
        if isinstance(one, str) and one not in BY_NAME:
            near = difflib.get_close_matches(one, BY_NAME, n=1) or list(BY_NAME)
            raise ValueError(f"there is no estimator {one!r}: did you mean {' or '.join(map(repr, near))}?")
        if not isinstance(one, (str, Estimator)):
            raise TypeError(f"an estimator must be a name such as 'kde' or an Estimator such as KDE(), got {one!r}.")
        found.append(BY_NAME[one]() if isinstance(one, str) else one)
    for one in found:
        if not isinstance(getattr(one, "name", None), str):
            raise TypeError(f'{type(one).__name__} needs a name to log under: name = "mine".')
    names = [one.name for one in found]
    if (bad := next((name for name in names if not name or "/" in name or name in RESERVED), None)) is not None:
        raise ValueError(
            f"an estimator cannot log as {bad!r}, which is another value's name or has a slash: rename it."
        )
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two estimators would log as {twice.pop()!r}: give one of them another .name.")
    return found
