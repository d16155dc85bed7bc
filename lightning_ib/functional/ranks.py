"""Rank correlations over runs: Kendall's tau-b, Spearman's rho, bars by the bootstrap, a test of the largest."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

N_RESAMPLES = 1000
N_PERMUTATIONS = 5000
_MOST_ENUMERATED = 7
"""Up to so many runs all orders are taken: 7! = 5040."""

_SEED = 0
_CHUNK = 256

# Values of two quantities, and how often each run is drawn in each resample → a number for each resample.
Statistic = Callable[[Tensor, Tensor, Tensor], Tensor]


class Bar(NamedTuple):
    """A value, and the 2.5 % and 97.5 % percentiles of it over resampled runs."""

    value: float
    low: float
    high: float


class Largest(NamedTuple):
    """The largest absolute tau-b of many quantities, and how often chance reaches it.

    Attributes:
        tau: its absolute value.
        p_value: the share of orders of the runs in which the largest absolute tau-b is as large or larger.
        n_orders: how many orders were looked at.
        exact: whether these are all there are.
    """

    tau: float
    p_value: float
    n_orders: int
    exact: bool


def kendall(x: Sequence[float], y: Sequence[float], *, bars: bool = True) -> Bar:
    r"""Kendall's rank correlation with its correction for ties, tau-b, with a bar.

    .. math:: \tau_b = \frac{C - D}{\sqrt{(C + D + T_x)(C + D + T_y)}}

    of :math:`C` concordant and :math:`D` discordant pairs, and :math:`T` pairs tied in the other variable alone
    (Kendall 1945). The bar is the percentile bootstrap over the pairs of values (Efron & Tibshirani 1993), with a fixed
    seed; a resample in which all x or all y are equal counts as 0. Of fewer than about ten pairs it is rough.

    Args:
        x: values, one for each run.
        y: likewise, of the same runs.
        bars: whether the ends of the bar are wanted; otherwise they are NaN.

    Returns:
        NaN where all x or all y are equal, or one is NaN or infinite: leave its run out.

    Raises:
        ValueError: the numbers of values differ, or there are fewer than two.

    Example:
        >>> kendall([1, 2, 3, 4], [1, 3, 2, 4]).value
        0.6666666666666666
    """
    return _with_bar(_tau, x, y, bars)


def spearman(x: Sequence[float], y: Sequence[float], *, bars: bool = True) -> Bar:
    """Spearman's rank correlation: Pearson's of the ranks, equal values sharing the mean of theirs, with a bar.

    Args:
        x: values, one for each run.
        y: likewise, of the same runs.
        bars: whether the ends of the bar are wanted; see :func:`kendall`.

    Returns:
        NaN where all x or all y are equal, or one is NaN or infinite.

    Raises:
        ValueError: see :func:`kendall`.

    Example:
        >>> spearman([1, 2, 3, 4], [1, 3, 2, 4]).value
        0.8
    """
    return _with_bar(_rho, x, y, bars)


def largest_tau(quantities: Sequence[Sequence[float]], y: Sequence[float]) -> Largest:
    """The largest absolute tau-b of many quantities with one, and its p-value by the permutation of the maximum.

    Under the null hypothesis that the runs' values of y are exchangeable, the p-value holds for all quantities
    together, however they depend on each other (Westfall & Young 1993). Up to seven runs all orders are taken,
    otherwise 5000 with a fixed seed, the one at hand among them.

    Args:
        quantities: of each its values, one for each run; NaN where a run has none.
        y: finite, one for each run.

    Example:
        >>> largest_tau([[1, 2, 3, 4], [4, 1, 2, 3]], [1, 2, 3, 4])
        Largest(tau=1.0, p_value=0.16666666666666666, n_orders=24, exact=True)
    """
    n = len(y)
    first, second = torch.triu_indices(n, n, 1)
    values = torch.tensor(quantities, dtype=torch.float64)
    differences = values[:, first] - values[:, second]
    known, signs = differences.isfinite().double(), differences.nan_to_num(0.0).sign()
    of_y = _signs(torch.tensor(y, dtype=torch.float64))
    orders, exact = _orders(n)
    found = []
    for some in orders.split(_CHUNK):
        permuted = of_y[some[:, first], some[:, second]]
        ties = signs.abs().sum(1) * (permuted.abs() @ known.T)
        found.append((permuted @ signs.T / ties.sqrt()).nan_to_num(0.0).abs().amax(1))
    largest = torch.cat(found)
    observed = float(largest[0])  # the first order is the one at hand
    return Largest(observed, float((largest >= observed - 1e-12).double().mean()), len(largest), exact)


def _orders(n: int) -> tuple[Tensor, bool]:
    """Orders of n runs, the one at hand first; and whether these are all."""
    if n <= _MOST_ENUMERATED:
        return torch.tensor(list(itertools.permutations(range(n)))), True
    generator = torch.Generator().manual_seed(_SEED)
    drawn = torch.rand(N_PERMUTATIONS - 1, n, generator=generator, dtype=torch.float64).argsort(1)
    return torch.cat([torch.arange(n)[None], drawn]), False


def _with_bar(statistic: Statistic, x: Sequence[float], y: Sequence[float], bars: bool) -> Bar:
    n = len(x)
    if n != len(y) or n < 2:
        raise ValueError(f"x and y must be of the same number, 2 at least, got {n} and {len(y)}.")
    of_x, of_y = (torch.tensor(values, dtype=torch.float64) for values in (x, y))
    if not bool((of_x.isfinite() & of_y.isfinite()).all()):  # which have no rank
        return Bar(math.nan, math.nan, math.nan)
    value = float(statistic(of_x, of_y, torch.ones(1, n, dtype=torch.float64)))
    if not bars or math.isnan(value):
        return Bar(value, math.nan, math.nan)
    generator = torch.Generator().manual_seed(_SEED)
    drawn = torch.randint(n, (N_RESAMPLES, n), generator=generator)
    times = torch.zeros(N_RESAMPLES, n, dtype=torch.float64)
    times.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    resampled = statistic(of_x, of_y, times).nan_to_num(0.0)
    low, high = resampled.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Bar(value, low, high)


def _signs(values: Tensor) -> Tensor:
    """Of each pair, which value is larger."""
    return (values[:, None] - values[None, :]).sign()


def _tau(x: Tensor, y: Tensor, times: Tensor) -> Tensor:
    """Tau-b of resampled runs; ``times``, shape ``(R, N)``, says how often each run is drawn."""

    def pairs(of: Tensor) -> Tensor:
        return ((times @ of) * times).sum(1)

    signs_x, signs_y = _signs(x), _signs(y)
    return pairs(signs_x * signs_y) / (pairs(signs_x.abs()) * pairs(signs_y.abs())).sqrt()


def _rho(x: Tensor, y: Tensor, times: Tensor) -> Tensor:
    """Spearman's rho of resampled runs."""
    middle = (times.sum(1, keepdim=True) + 1) / 2

    def centered_ranks(values: Tensor) -> Tensor:
        signs = _signs(values)
        # Ranks from 1: the smaller ones, and half of the equal ones.
        return times @ (signs > 0).double().T + (times @ (signs == 0).double() + 1) / 2 - middle

    ranks_x, ranks_y = centered_ranks(x), centered_ranks(y)
    covariance, *variances = ((times * product).sum(1) for product in (ranks_x * ranks_y, ranks_x**2, ranks_y**2))
    return covariance / (variances[0] * variances[1]).sqrt()
