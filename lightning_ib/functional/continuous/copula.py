"""Mutual information of variables made normal, coordinate by coordinate: the Gaussian copula."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_ib.functional.checks import Unit, checked_labels, checked_pair, checked_rows, checked_unit, in_unit

# The share of a coordinate's variance that others must leave unexplained: what is below it is rounding.
_UNEXPLAINED = 1e-12


def mutual_information_gaussian_copula(
    x: Tensor, y: Tensor, *, bias_correction: bool = True, unit: Unit = "bits"
) -> float:
    r"""The information of two variables whose coordinates depend on each other as those of a normal variable do.

    Every coordinate is made standard normal by its ranks, :math:`z = \Phi^{-1}(r / (N + 1))`, which changes no
    information; then, with :math:`\Sigma` the covariance of these scores,

    .. math:: I = H(X) + H(Y) - H(X, Y), \qquad H = \tfrac12 \log |\Sigma| + \tfrac D2 \log 2 \pi e

    Where ``y`` holds integers they are class labels, and the classes are normal with a covariance of their own (the
    model comparison ``gcmi_model_cd`` of the authors, not their mixture):

    .. math:: I = H(X) - \sum_y p(y) H(X | y)

    By Ince, Giordano, Kayser, Rousselet, Gross & Schyns (2017). From N samples of a normal variable its entropy comes
    out too low by an amount that is known (Misra, Singh & Demchuk 2005); the correction takes it off:

    .. math:: - \frac12 \Big[ \sum_{d=1}^{D} \psi\Big(\frac{N - d}{2}\Big) + D \log \frac{2}{N - 1} \Big]

    The figure does not change under strictly increasing maps of single coordinates. Equal values share their mean rank
    (the authors' program ranks them in the order of the samples).

    In the limit of many samples it is a lower bound where X has one coordinate and Y has one or is a class: of all
    distributions with the same normal margins and correlations, the normal one tells least. With more coordinates it
    need not be, as then :math:`H(X)` is itself an upper bound. The figure misleads where the dependence is no
    correlation (of :math:`Y = X^2` it sees nothing), and where values repeat, as after a ReLU: no map makes these
    normal.

    Args:
        x: real numbers, shape ``(N, …)`` or ``(N,)``.
        y: real numbers, shape ``(N, …)`` or ``(N,)``; or class labels, integers or booleans, shape ``(N,)``.
        bias_correction: correct each entropy for the number of rows. Without it, independent real variables read about
            :math:`D_x D_y / 2N` nats.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The information in ``unit``; with the correction it can come out a little below zero. Ranks are exact for
        float32 and float64 alike, the scores and all after them float64.

    Raises:
        TypeError: ``x`` or ``y`` is no tensor of real numbers.
        ValueError: ``unit`` is unknown; the variables do not fit each other or are not finite; there are fewer than
            D + 2 rows for D coordinates together, in all or in a class; a coordinate is constant; or coordinates are
            functions of each other, so that the covariance is singular.

    Example:
        Signal and noise of equal power: half a bit, also behind a map that no straight line follows.

        >>> x, noise = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
        >>> round(mutual_information_gaussian_copula(x, (x + noise).exp()), 1)
        0.5
    """
    checked_unit(unit)
    if isinstance(y, Tensor) and not y.is_floating_point() and not y.is_complex():
        return in_unit(_of_classes(checked_rows(x, "x"), y, bias_correction), unit)
    x, y = checked_pair(x, y)
    scores_x, scores_y = _normal_scores(x), _normal_scores(y)
    names_x, names_y = _names("x", x), _names("y", y)
    h_x, h_y = (_entropy(s, n, "", bias_correction) for s, n in ((scores_x, names_x), (scores_y, names_y)))
    h_xy = _entropy(torch.cat((scores_x, scores_y)), names_x + names_y, "", bias_correction)
    return in_unit(h_x + h_y - h_xy, unit)


def _of_classes(x: Tensor, y: Tensor, bias_correction: bool) -> float:
    numbers, counts = checked_labels(y, len(x), ("x", "y"))
    scores, names = _normal_scores(x), _names("x", x)
    h_x = _entropy(scores, names, "", bias_correction)
    h_x_given_y = 0.0
    for number, (label, count) in enumerate(zip(y.unique().tolist(), counts.tolist())):
        h = _entropy(scores[:, numbers == number], names, f" in class {label}", bias_correction)
        h_x_given_y += count / len(x) * h
    return h_x - h_x_given_y


def _names(name: str, rows: Tensor) -> list[str]:
    return [f"coordinate {d} of {name}" for d in range(rows.shape[1])]


def _normal_scores(rows: Tensor) -> Tensor:
    """The quantiles of the standard normal at the ranks of every coordinate, float64, shape ``(D, N)``."""
    columns = rows.t().contiguous()
    ordered = columns.sort(dim=1).values
    below, not_above = (torch.searchsorted(ordered, columns, right=right) for right in (False, True))
    rank = (below + not_above + 1).double() / 2
    return torch.special.ndtri(rank / (len(rows) + 1))


def _entropy(scores: Tensor, names: list[str], where: str, bias_correction: bool) -> float:
    """The entropy in nats of a normal variable, but for D/2 log 2πe, which cancels in an information."""
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
    if failed:  # at this coordinate, from 1; what follows it is not factored
        singular[int(failed) - 1] = True
    if singular.any():
        raise ValueError(
            f"{names[int(singular.nonzero()[0])]} is a function of the coordinates before it{where}, "
            "which makes the covariance singular: leave it out."
        )
    entropy = factor.diagonal().log().sum().item()
    if bias_correction:
        degrees = n - torch.arange(1, d + 1, dtype=torch.float64)
        entropy -= (torch.digamma(degrees / 2).sum().item() + d * math.log(2 / (n - 1))) / 2
    return entropy
