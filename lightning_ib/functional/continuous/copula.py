"""Mutual information under a Gaussian copula: every coordinate is made normal by its ranks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_ib.functional.checks import AS_Y, Unit, checked_labels, checked_pair, checked_rows, checked_unit, in_unit

# The share of a coordinate's variance that others must leave unexplained: below it is rounding.
_UNEXPLAINED = 1e-12


def mutual_information_gaussian_copula(
    x: Tensor, y: Tensor, *, bias_correction: bool = True, unit: Unit = "bits"
) -> float:
    r"""The mutual information of two real variables under a Gaussian copula.

    Every coordinate is made standard normal by its ranks, :math:`z = \Phi^{-1}(r / (N + 1))`, which preserves the
    information; then, with :math:`\Sigma` the covariance of these scores,

    .. math:: I = H(X) + H(Y) - H(X, Y), \qquad H = \tfrac12 \log |\Sigma| + \tfrac D2 \log 2 \pi e

    By Ince, Giordano, Kayser, Rousselet, Gross & Schyns (2017). From N samples of a normal variable its entropy comes
    out too low by a known amount (Misra, Singh & Demchuk 2005), which the correction subtracts:

    .. math:: - \frac12 \Big[ \sum_{d=1}^{D} \psi\Big(\frac{N - d}{2}\Big) + D \log \frac{2}{N - 1} \Big]

    The value is invariant under strictly increasing maps of single coordinates. Equal values share their mean rank.

    For one coordinate each it is a lower bound in the limit of many samples: of all copulas with the same correlations,
    the Gaussian one has the least information. With more coordinates it may exceed the truth. It misses dependence that
    leaves the correlation at 0, as of :math:`Y = X^2`, and misleads where values repeat, as after a ReLU.

    Args:
        x: real numbers in floating point, shape ``(N, …)`` or ``(N,)``.
        y: real numbers in floating point, shape ``(N, …)`` or ``(N,)``.
        bias_correction: correct each entropy for the number of rows. Uncorrected, independent variables read about
            :math:`D_x D_y / 2N` nats.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The information in ``unit``; corrected, it can come out a little below zero. Ranks are exact for float32 and
        float64 alike, the scores and all after them float64.

    Raises:
        TypeError: an argument is of another kind; integer variables are.
        ValueError: ``unit`` is unknown, the variables differ in their samples or hold NaN or infinity, there are fewer
            than D + 2 rows for D coordinates together, a coordinate is constant, or the covariance is singular.

    Example:
        Signal and noise of equal power: half a bit, also behind a nonlinear monotonic map.

        >>> x, noise = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
        >>> round(mutual_information_gaussian_copula(x, (x + noise).exp()), 1)
        0.5
    """
    checked_unit(unit)
    x, y = checked_pair(x, y, labels="use mutual_information_gaussian_copula_labels(t, y)")
    scores_x, scores_y = _normal_scores(x), _normal_scores(y)
    names_x, names_y = _names("x", x), _names("y", y)
    h_x, h_y = (_entropy(s, n, "", bias_correction) for s, n in ((scores_x, names_x), (scores_y, names_y)))
    h_xy = _entropy(torch.cat((scores_x, scores_y)), names_x + names_y, "", bias_correction)
    return in_unit(h_x + h_y - h_xy, unit)


def mutual_information_gaussian_copula_labels(
    t: Tensor, y: Tensor, *, bias_correction: bool = True, unit: Unit = "bits"
) -> float:
    r"""The mutual information of a real variable and class labels, with Gaussian copulas of all rows and of each class.

    .. math:: I = H(T) - \sum_y \frac{N_y}{N} H(T | y)

    with the entropies of :func:`mutual_information_gaussian_copula`, of scores that are ranked over all rows: each
    class is normal with a covariance of its own (the model comparison ``gcmi_model_cd`` of Ince et al. 2017).

    For one coordinate it is a lower bound in the limit of many samples. With several it may exceed H(Y), the more the
    classes split the rows into clusters, since H(T) is then itself an upper bound.

    Args:
        t: the representation, real floating point, shape ``(N, …)`` or ``(N,)``.
        y: class labels, integers or booleans, shape ``(N,)``, any values.
        bias_correction: correct each entropy for the number of rows.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The information in ``unit``; corrected, it can come out a little below zero.

    Raises:
        TypeError: ``t`` is of another kind (integers are), or ``y`` is (real numbers are).
        ValueError: ``unit`` is unknown, the variables differ in their samples, ``t`` holds NaN or infinity, there are
            fewer than D + 2 rows for D coordinates in all or in a class, a coordinate is constant, or a covariance is
            singular.

    Example:
        >>> t = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
        >>> round(mutual_information_gaussian_copula_labels(t, t[:, 0] > 0), 1)
        0.7
    """
    checked_unit(unit)
    rows = checked_rows(t, "t", labels=AS_Y)
    numbers, counts = checked_labels(y, len(rows))
    scores, names = _normal_scores(rows), _names("t", rows)
    h_t = _entropy(scores, names, "", bias_correction)
    h_t_given_y = 0.0
    for number, (label, count) in enumerate(zip(y.unique().tolist(), counts.tolist())):
        h = _entropy(scores[:, numbers == number], names, f" in class {label}", bias_correction)
        h_t_given_y += count / len(rows) * h
    return in_unit(h_t - h_t_given_y, unit)


def _names(name: str, rows: Tensor) -> list[str]:
    return [f"coordinate {d} of {name}" for d in range(rows.shape[1])]


def _normal_scores(rows: Tensor) -> Tensor:
    """The quantiles of the standard normal at the ranks of every coordinate, float64, shape ``(D, N)``."""
    columns = rows.t().contiguous()
    ordered = columns.sort(dim=1).values
    below, not_above = (torch.searchsorted(ordered, columns, right=right) for right in (False, True))
    rank = (below + not_above + 1).double() / 2
    scores: Tensor = torch.special.ndtri(rank / (len(rows) + 1))
    return scores


def _entropy(scores: Tensor, names: list[str], where: str, bias_correction: bool) -> float:
    """The entropy in nats of a normal variable, less D/2 log 2πe, which cancels in an information."""
    d, n = scores.shape
    if n < d + 2:
        raise ValueError(
            f"a covariance of {d} coordinates needs at least {d + 2} rows, got {n}{where}: "
            "give more rows or fewer coordinates."
        )
    constant = (scores == scores[:, :1]).all(1).nonzero()
    if len(constant):
        raise ValueError(f"{names[int(constant[0])]} is constant{where}: leave it out, it carries no information.")
    covariance = torch.cov(scores).reshape(d, d)
    factor, failed = torch.linalg.cholesky_ex(covariance)
    singular = factor.diagonal() ** 2 < _UNEXPLAINED * covariance.diagonal()
    if failed:  # at this coordinate, from 1; the factorization ends there
        singular[int(failed) - 1] = True
    if singular.any():
        raise ValueError(
            f"{names[int(singular.nonzero()[0])]} is a function of the coordinates before it{where}, "
            "which makes the covariance singular: leave it out."
        )
    entropy = float(factor.diagonal().log().sum())
    if bias_correction:
        degrees = n - torch.arange(1, d + 1, dtype=torch.float64)
        entropy -= (float(torch.digamma(degrees / 2).sum()) + d * math.log(2 / (n - 1))) / 2
    return entropy
