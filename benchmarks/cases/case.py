"""A case: variables whose information is known, and a sampler of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy import special
from torch import Generator, Tensor

Kind = Literal["discrete", "continuous", "labeled", "mixed", "conditional"]
Pair = tuple[Tensor, Tensor]
Sampler = Callable[[int, Generator], Pair]
Triple = tuple[Tensor, Tensor, Tensor]

KINDS: dict[Kind, str] = {
    "discrete": "both variables discrete: int64 ids `(N,)`",
    "continuous": "both continuous: float64 rows `(N, D)`",
    "labeled": "X real, float64 rows `(N, D)`; Y a class label, int64 `(N,)`",
    "mixed": "at least one with both atoms and a density: float64 rows `(N, D)`",
    "conditional": "three variables and I(X;Y|Z): each real, float64 rows `(N, D)`, or int64 ids `(N,)`",
}


@dataclass(frozen=True)
class Case:
    """Two variables and their mutual information, or three and the information of two given the third.

    Attributes:
        name: short, for tables and the command line.
        kind: which of :data:`KINDS` the variables are.
        dims: the dimensions of X and Y, and of Z.
        truth: I(X;Y) or I(X;Y|Z), in bits.
        sample: ``(n, generator) -> (x, y)`` or ``(x, y, z)``.
        symbols: of a conditional case, the names of the variables that are ids, such as ``"z"`` or ``"xyz"``.
    """

    name: str
    kind: Kind
    dims: tuple[int, ...]
    truth: float
    sample: Callable[[int, Generator], tuple[Tensor, ...]]
    symbols: str = ""


def bits(nats: float) -> float:
    """A value in nats, in bits."""
    return float(nats) / math.log(2)


def binary_entropy(p: np.ndarray | float) -> np.ndarray:
    """The entropy of a coin, in bits."""
    return np.asarray((special.entr(p) + special.entr(1 - np.asarray(p))) / math.log(2))


def uniform(n: int, d: int, g: Generator) -> Tensor:
    """Rows on the unit cube."""
    return torch.rand(n, d, generator=g, dtype=torch.float64)


def normal(n: int, d: int, g: Generator) -> Tensor:
    """Rows of independent standard normals."""
    return torch.randn(n, d, generator=g, dtype=torch.float64)
