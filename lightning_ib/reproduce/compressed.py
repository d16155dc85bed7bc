r"""Information of compressed variables by three entropies, and channels where it is known.

.. math:: I(X;T) \ge I(f(X); g(T)) = h(f(X)) + h(g(T)) - h(f(X), g(T))

A compression loses information, so that the result is a lower bound where the estimate is right.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_ib.functional import mutual_information_ksg
from lightning_ib.functional.continuous.entropy_neighbors import pointwise_entropy_knn
from lightning_ib.functional.continuous.principal_components import principal_components
from lightning_ib.functional.resampling import Pointwise

K = 5
"""Neighbors."""

N_COORDINATES = 4
"""What inputs and layers are compressed to."""


class Estimate(NamedTuple):
    """An information in bits and its standard error; NaN where it is undefined."""

    bits: float
    error: float


def information(x: Tensor, t: Tensor, *, weighted: bool = True, k: int = K) -> Estimate:
    """I(X;T) of two variables in few coordinates, float64 ``(N, D)`` each."""
    parts = [_entropy(of, weighted, k) for of in (x, t, torch.cat([x, t], 1))]
    return _combined([parts[0], parts[1]], parts[2])


def information_of_labels(t: Tensor, y: Tensor, *, weighted: bool = True, k: int = K) -> Estimate:
    """I(T;Y) with class labels: the entropy of all less the mean entropy of the classes.

    Args:
        t: float64 ``(N, D)``.
        y: int64 ``(N,)``; every class has more than ``k`` samples.
        weighted: whether to cancel the leading bias.
        k: the number of neighbors.
    """
    whole = _entropy(t, weighted, k)
    of_classes = torch.zeros(len(t), dtype=torch.float64)
    nats = []
    for label in y.unique().tolist():
        own = y == label
        part = _entropy(t[own], weighted, k)
        if part is None:
            return Estimate(math.nan, math.nan)
        of_classes[own] = part.influence + (part.nats - float(part.influence.mean()))
        nats.append(part.nats * int(own.sum()) / len(t))
    return _combined([whole], Pointwise(math.fsum(nats), of_classes))


def ksg(x: Tensor, t: Tensor, *, k: int = K) -> float:
    """The estimate of Kraskov and others of the same information in bits; NaN where it is undefined."""
    try:
        return mutual_information_ksg(_scaled(x), _scaled(t), k=k)
    except ValueError:
        return math.nan


def _combined(plus: list[Pointwise | None], minus: Pointwise | None) -> Estimate:
    found = [one for one in (*plus, minus) if one is not None]
    if len(found) <= len(plus):
        return Estimate(math.nan, math.nan)
    nats = math.fsum([*(one.nats for one in found[:-1]), -found[-1].nats])
    influence = torch.stack([one.influence for one in found[:-1]]).sum(0) - found[-1].influence
    return Estimate(nats / math.log(2), Pointwise(nats, influence).standard_error(unit="bits"))


def _entropy(rows: Tensor, weighted: bool, k: int) -> Pointwise | None:
    """Of rows at unit covariance, whatever the scales; ``None`` where they fill fewer dimensions or repeat."""
    std = rows.std(0)
    if float(std.min()) == 0:
        return None
    scaled = (rows - rows.mean(0)) / std
    variance, directions = torch.linalg.eigh(scaled.T @ scaled / (len(rows) - 1))
    if float(variance[0]) <= 1e-12:
        return None
    try:
        found = pointwise_entropy_knn(scaled @ (directions / variance.sqrt()) @ directions.T, k=k, weighted=weighted)
    except ValueError:
        return None
    return Pointwise(found.nats + float(variance.log().sum()) / 2 + float(std.log().sum()), found.influence)


def _scaled(rows: Tensor) -> Tensor:
    return (rows - rows.mean(0)) / rows.std(0)


class KnownChannel(NamedTuple):
    """A channel of wide variables that depend on few.

    Attributes:
        bits: the information of the wide variables.
        kept: that of their principal coordinates.
        x: float64 ``(N, 64)``.
        t: float64 ``(N, 64)``.
    """

    bits: float
    kept: float
    x: Tensor
    t: Tensor


def known_channel(bits: float, n: int, *, lossy: bool, seed: int) -> KnownChannel:
    """Two normal variables of 64 coordinates, with so much information in pairs of hidden coordinates.

    Args:
        bits: in four pairs, the ones with the most variance.
        n: the number of samples.
        lossy: whether four more pairs, of less variance, carry as much again, which principal coordinates leave out.
        seed: of the samples.
    """
    g = torch.Generator().manual_seed(seed)
    n_pairs = 8 if lossy else 4
    rho = math.sqrt(1 - 4 ** (-bits / 4))
    a, noise = torch.randn(2, n, n_pairs, generator=g, dtype=torch.float64)
    b = rho * a + math.sqrt(1 - rho**2) * noise
    scale = torch.tensor([2.0, 1.8, 1.6, 1.4, 0.5, 0.45, 0.4, 0.35], dtype=torch.float64)[:n_pairs]
    mixing = [torch.linalg.qr(torch.randn(64, n_pairs, generator=g, dtype=torch.float64))[0] for _ in range(2)]
    x, t = (of * scale @ mix.T for of, mix in zip((a, b), mixing))
    return KnownChannel(bits * (2 if lossy else 1), bits, x, t)


def compress(rows: Tensor) -> Tensor:
    """The principal coordinates of a layer, float64 ``(N, 4)``."""
    return principal_components(rows, n=N_COORDINATES)


def smoothed(values: list[float], window: int, order: int) -> list[float]:
    """Local polynomials by least squares (Savitzky & Golay 1964), also at the ends.

    Args:
        values: at equal distances.
        window: how many values each polynomial is fitted to.
        order: of the polynomials.

    Example:
        >>> [round(value, 6) for value in smoothed([1.0, 2.0, 5.0, 10.0, 17.0], window=3, order=2)]
        [1.0, 2.0, 5.0, 10.0, 17.0]
    """
    window = min(window, len(values))
    order = min(order, window - 1)
    found = []
    for place in range(len(values)):
        start = min(max(0, place - window // 2), len(values) - window)
        at = (torch.arange(start, start + window, dtype=torch.float64) - place) / window
        powers = at[:, None] ** torch.arange(order + 1, dtype=torch.float64)
        y = torch.tensor(values[start : start + window], dtype=torch.float64)[:, None]
        found.append(float(torch.linalg.lstsq(powers, y, driver="gelsd").solution[0]))
    return found


def clear_difference(n: int, n_series: int) -> float:
    """So many standard errors of a difference are beyond chance, whichever two values of a series are compared.

    Among all pairs of n values of unchanging series white noise has a larger one in 5 % of cases at most (Bonferroni).

    Example:
        >>> round(clear_difference(61, 5), 2)
        4.55
    """
    n_pairs = n_series * n * (n - 1) // 2
    return NormalDist().inv_cdf(1 - 0.025 / max(1, n_pairs))


def phases(values: list[float], errors: list[float], times: float) -> list[tuple[int, int]]:
    """Rises and falls by more than so many standard errors: the places where each begins and ends.

    A turn counts when the way back from the last extreme is larger than ``times`` the error of the difference.

    Example:
        >>> phases([0, 2, 4, 3.9, 4.1, 1, 3], [0.1] * 7, times=4)
        [(0, 4), (4, 5), (5, 6)]
    """
    found: list[tuple[int, int]] = []
    start, extreme, direction = 0, 0, 0
    for place in range(1, len(values)):
        step = values[place] - values[extreme]
        if direction * step >= 0 and (direction or step == 0):
            extreme = place
            continue
        if abs(step) <= times * math.hypot(errors[place], errors[extreme]):
            continue
        if direction:
            found.append((start, extreme))
        start, extreme, direction = extreme, place, 1 if step > 0 else -1
    if direction:
        found.append((start, extreme))
    return found
