"""Mutual information under a Gaussian copula: every coordinate is made normal by its ranks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_ib.functional.checks import AS_Y, Unit, checked_labels, checked_pair, checked_rows, checked_unit, in_unit

# The share of a coordinate's variance that others must leave unexplained: below it is rounding.
_UNEXPLAINED = 1e-12

# From this length on, integers in one dimension are sorted by their digits, in half the time.
_SORTED_BY_DIGITS = 32768


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
    scores = torch.cat((normal_scores(x), normal_scores(y)))
    names, covariance, d = _names("x", x) + _names("y", y), torch.cov(scores), x.shape[1]
    h_x, h_y, h_xy = (
        gaussian_entropy(scores[part], covariance[part, part], names[part], "", bias_correction)
        for part in (slice(d), slice(d, None), slice(None))
    )
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
    scores, names = normal_scores(rows), _names("t", rows)
    h_t = gaussian_entropy(scores, None, names, "", bias_correction)
    h_t_given_y = 0.0
    by_class = scores[:, numbers.argsort(stable=True)].split(counts.tolist(), dim=1)
    for label, part in zip(y.unique().tolist(), by_class):
        h = gaussian_entropy(part, None, names, f" in class {label}", bias_correction)
        h_t_given_y += part.shape[1] / len(rows) * h
    return in_unit(h_t - h_t_given_y, unit)


def _names(name: str, rows: Tensor) -> list[str]:
    return [f"coordinate {d} of {name}" for d in range(rows.shape[1])]


def normal_scores(rows: Tensor) -> Tensor:
    """The quantiles of the standard normal at the ranks of every coordinate, float64, shape ``(D, N)``."""
    n, keys = len(rows), _sort_keys(rows.t().contiguous())
    if n >= _SORTED_BY_DIGITS and keys.device.type == "cpu":
        ordered, order = (torch.stack(parts) for parts in zip(*[row.sort() for row in keys]))
    else:
        ordered, order = keys.sort(dim=1)
    changes = ordered[:, 1:] != ordered[:, :-1]
    if changes.all():
        rank = torch.arange(1, n + 1, dtype=torch.float64, device=rows.device)
        sorted_scores = torch.special.ndtri(rank / (n + 1)).expand_as(order)
    else:  # equal values share their mean rank, half the sum of the first one's and the last one's
        starts = torch.nn.functional.pad(changes, (1, 0), value=True).flatten().nonzero().squeeze(1)
        lengths = starts.diff(append=starts.new_tensor([order.numel()]))
        rank = (2 * (starts % n) + lengths + 1).double() / 2
        sorted_scores = torch.special.ndtri(rank / (n + 1)).repeat_interleave(lengths).view_as(order)
    return torch.empty(order.shape, dtype=torch.float64, device=rows.device).scatter_(1, order, sorted_scores)


def _sort_keys(values: Tensor) -> Tensor:
    """Integers in the order of floating-point numbers, equal where those are: they sort in less time.

    The bits of positive numbers are in order as integers, and those of negative numbers in reverse.
    """
    integer, sign = (torch.int32, 31) if values.dtype == torch.float32 else (torch.int64, 63)
    bits = (values + 0.0).view(integer)  # one zero, without a sign
    return bits ^ ((bits >> sign) & torch.iinfo(integer).max)


def gaussian_entropy(
    scores: Tensor, covariance: Tensor | None, names: list[str], where: str, bias_correction: bool
) -> float:
    """The entropy in nats of a normal variable, less D/2 log 2πe, which cancels in an information.

    The covariance is that of the scores; None where it is still to be computed.
    """
    d, n = scores.shape
    if n < d + 2:
        raise ValueError(
            f"a covariance of {d} coordinates needs at least {d + 2} rows, got {n}{where}: "
            "give more rows or fewer coordinates."
        )
    constant = (scores.amin(1) == scores.amax(1)).nonzero()
    if len(constant):
        raise ValueError(f"{names[int(constant[0])]} is constant{where}: leave it out, it carries no information.")
    covariance = torch.cov(scores).reshape(d, d) if covariance is None else covariance
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
