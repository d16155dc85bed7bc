"""Mutual information under a Gaussian copula: every coordinate is made normal by its ranks."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_ib.functional.checks import (
    AS_Y,
    Unit,
    checked_labels,
    checked_pair,
    checked_rows,
    checked_unit,
    in_unit,
    numpy_reads_tensors,
)
from lightning_ib.functional.resampling import Pointwise, spread_rows

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

    From N samples of a normal variable its entropy comes
    out too low by a known amount (Misra, Singh & Demchuk 2005), which the correction subtracts:

    .. math:: - \frac12 \Big[ \sum_{d=1}^{D} \psi\Big(\frac{N - d}{2}\Big) + D \log \frac{2}{N - 1} \Big]

    The value is invariant under strictly increasing maps of single coordinates. Equal values share their mean rank.

    For one coordinate each it is a lower bound in the limit of many samples: of all copulas with the same correlations,
    the Gaussian one has the least information.

    Source:
        Ince, Giordano, Kayser, Rousselet, Gross & Schyns (2017).

    Cost:
        On one core 5 ms for 10 000 samples of 1 + 1 coordinates.

    Samples:
        More than coordinates, in each class too; the bias is corrected, and normal data need no more.

    Trap:
        With several coordinates it may exceed the truth. It misses dependence that leaves the correlation at 0, as of
        :math:`Y = X^2`, and misleads where values repeat, as after a ReLU.

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
    _, (of_x, of_y, of_xy) = _fitted_pair(x, y)
    h_x, h_y, h_xy = (one.entropy(bias_correction) for one in (of_x, of_y, of_xy))
    return in_unit(h_x + h_y - h_xy, unit)


def _fitted_pair(x: Tensor, y: Tensor) -> tuple[Tensor, list[_Normal]]:
    """The scores of both variables, and the normal distributions of x, of y and of both."""
    x, y = checked_pair(x, y, labels="use mutual_information_gaussian_copula_labels(t, y)")
    scores = torch.cat((normal_scores(x), normal_scores(y)))
    names, covariance, d = _names("x", x) + _names("y", y), torch.cov(scores), x.shape[1]
    parts = (slice(d), slice(d, None), slice(None))
    return scores, [fitted_normal(scores[part], covariance[part, part], names[part], "") for part in parts]


def pointwise_gaussian_copula(x: Tensor, y: Tensor) -> Pointwise:
    r"""The estimate of :func:`mutual_information_gaussian_copula` and the influence of each sample on it.

    .. math:: \tfrac12 (z_x^\top \Sigma_x^{-1} z_x + z_y^\top \Sigma_y^{-1} z_y - z^\top \Sigma^{-1} z)

    the derivative of the information in the covariance, which is the log density ratio of the sample up to a constant.
    Ranks leave it as it is where the copula is Gaussian, and nearly so on the cases tried.
    """
    scores, (of_x, of_y, of_xy) = _fitted_pair(x, y)
    n, d, some = scores.shape[1], of_x.dims, spread_rows(scores.shape[1])
    seen = (scores - scores.mean(1, keepdim=True))[:, some.to(scores.device)]
    influence = of_x.solved(seen[:d])[1] + of_y.solved(seen[d:])[1] - of_xy.solved(seen)[1]
    corrected, plain = (
        of_x.entropy(correct) + of_y.entropy(correct) - of_xy.entropy(correct) for correct in (True, False)
    )
    return Pointwise(corrected, influence, some, n, plain - corrected)


def mutual_information_gaussian_copula_labels(
    t: Tensor, y: Tensor, *, bias_correction: bool = True, unit: Unit = "bits"
) -> float:
    r"""The mutual information of a real variable and class labels, with Gaussian copulas of all rows and of each class.

    .. math:: I = H(T) - \sum_y \frac{N_y}{N} H(T | y)

    with the entropies of :func:`mutual_information_gaussian_copula`, of scores that are ranked over all rows: each
    class is normal with a covariance of its own (the model comparison ``gcmi_model_cd``).

    For one coordinate it is a lower bound in the limit of many samples.

    Source:
        Ince, Giordano, Kayser, Rousselet, Gross & Schyns (2017).

    Cost:
        On one core about 10 ms for 2 000 rows of 10 coordinates, 0.1 s for 2 000 of 128.

    Samples:
        More than D + 1 in each class.

    Trap:
        With several coordinates it may exceed H(Y), the more the classes split the rows into clusters, since H(T) is
        then itself an upper bound: ten classes in 128 coordinates, well apart, read 17 of 3.3 bits.

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
    return in_unit(_of_classes(_fitted_classes(t, y), bias_correction), unit)


class _Classes(NamedTuple):
    """Normal distributions of all rows and of each class.

    Attributes:
        scores: of each class, ``(D, N_y)``.
        by_class: the rows of one class after another, int64 ``(N,)``.
        whole: of all rows.
        parts: of each class.
    """

    scores: tuple[Tensor, ...]
    by_class: Tensor
    whole: _Normal
    parts: list[_Normal]


def _fitted_classes(t: Tensor, y: Tensor) -> _Classes:
    rows = checked_rows(t, "t", labels=AS_Y)
    numbers, counts = checked_labels(y, len(rows))
    scores, names = normal_scores(rows), _names("t", rows)
    whole, by_class = fitted_normal(scores, None, names, ""), numbers.argsort(stable=True).to(rows.device)
    of_class = scores[:, by_class].split(counts.tolist(), dim=1)
    labels = y.unique().tolist()
    parts = [fitted_normal(part, None, names, f" in class {label}") for label, part in zip(labels, of_class)]
    return _Classes(of_class, by_class, whole, parts)


def _of_classes(fitted: _Classes, bias_correction: bool) -> float:
    """The information in nats."""
    h_t_given_y = 0.0
    for part in fitted.parts:
        h_t_given_y += part.n / fitted.whole.n * part.entropy(bias_correction)
    return fitted.whole.entropy(bias_correction) - h_t_given_y


def pointwise_gaussian_copula_labels(t: Tensor, y: Tensor) -> Pointwise:
    r"""The estimate of :func:`mutual_information_gaussian_copula_labels` and the influence of each sample on it.

    The log density ratio of the two normal distributions, :math:`l_i`, and the effect of sample i on the ranks of all
    others: it raises the share of the samples up to j, and with it the score of j, in every coordinate in which it lies
    below j.

    .. math:: l_i + \sum_d \frac{1}{N} \sum_{j: z_{dj} \ge z_{di}} \frac{g_{dj}}{\varphi(z_{dj})}, \qquad
        g_j = \Sigma^{-1} z_j - \Sigma_{y_j}^{-1} (z_j - \mu_{y_j})

    The sums are over some rows of every class, for which the influence is found.
    """
    fitted = _fitted_classes(t, y)
    chosen = spread_rows(fitted.whole.n).to(t.device)
    scores = torch.cat(fitted.scores, dim=1)
    seen = scores[:, chosen]
    slopes, influence = fitted.whole.solved(seen - scores.mean(1, keepdim=True))
    start = 0
    for of_class, part in zip(fitted.scores, fitted.parts):
        own = ((chosen >= start) & (chosen < start + part.n)).nonzero().squeeze(1)
        slope, square = part.solved(of_class[:, chosen[own] - start] - of_class.mean(1, keepdim=True))
        slopes[:, own] -= slope
        influence[own] -= square + part.log_det
        start += part.n
    ordered, order = seen.sort(dim=1)
    raised = slopes.gather(1, order).mul_((ordered.square_() / 2).exp_()).flip(1)
    # On the host: CUDA adds up in an order that varies, and refuses to where algorithms are to be deterministic.
    raised = raised.cpu().cumsum(1).flip(1).to(t.device)
    by_ranks = torch.zeros_like(raised).scatter_(1, order, raised).sum(0) * math.sqrt(2 * math.pi) / len(chosen)
    nats = _of_classes(fitted, True)
    fall = _of_classes(fitted, False) - nats
    return Pointwise(nats, influence + by_ranks, fitted.by_class[chosen], fitted.whole.n, fall)


def _names(name: str, rows: Tensor) -> list[str]:
    return [f"coordinate {d} of {name}" for d in range(rows.shape[1])]


def normal_scores(rows: Tensor) -> Tensor:
    """The quantiles of the standard normal at the ranks of every coordinate, float64, shape ``(D, N)``."""
    n = len(rows)
    ordered, order = _in_order(_sort_keys(rows.t().contiguous()))
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


def _in_order(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Every row of integers in ascending order, and where each was; equal ones in any order."""
    if keys.device.type == "cpu" and numpy_sorts_faster():
        order = torch.from_numpy(keys.numpy().argsort(axis=1))
        return keys.gather(1, order), order
    if keys.device.type == "cpu" and keys.shape[1] >= _SORTED_BY_DIGITS:
        ordered, order = (torch.stack(parts) for parts in zip(*[row.sort() for row in keys]))
        return ordered, order
    ordered, order = keys.sort(dim=1)
    return ordered, order


@functools.cache
def numpy_sorts_faster() -> bool:
    """Whether NumPy sorts with vectors of 512 bits, which this processor has: in a third of the time."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and numpy_reads_tensors()


def standardized(rows: Tensor) -> Tensor:
    """Every coordinate over its standard deviation, float64, shape ``(N, D)``; constant ones are 0."""
    rows = rows.double()
    rows = rows / rows.abs().amax(0).clamp(min=torch.finfo(rows.dtype).tiny)  # squares are finite then, and above 0
    return rows / rows.std(0).where(rows.amax(0) > rows.amin(0), math.inf)


def _sort_keys(values: Tensor) -> Tensor:
    """Integers in the order of floating-point numbers, equal where those are: they sort in less time.

    The bits of positive numbers are in order as integers, and those of negative numbers in reverse.
    """
    integer, sign = (torch.int32, 31) if values.dtype == torch.float32 else (torch.int64, 63)
    bits = (values + 0.0).view(integer)  # one zero, without a sign
    return bits ^ ((bits >> sign) & torch.iinfo(integer).max)


class _Normal(NamedTuple):
    """A normal distribution fitted to scores.

    Attributes:
        factor: the Cholesky factor of the covariance, float64 ``(D, D)``.
        n: the number of samples.
    """

    factor: Tensor
    n: int

    @property
    def dims(self) -> int:
        """D."""
        return len(self.factor)

    @property
    def log_det(self) -> Tensor:
        """Half the logarithm of the determinant of the covariance."""
        return self.factor.diagonal().log().sum()

    def entropy(self, bias_correction: bool) -> float:
        """The entropy in nats, less D/2 log 2πe, which cancels in an information."""
        entropy = float(self.log_det)
        if bias_correction:
            degrees = self.n - torch.arange(1, self.dims + 1, dtype=torch.float64, device="cpu")
            entropy -= (float(torch.digamma(degrees / 2).sum()) + self.dims * math.log(2 / (self.n - 1))) / 2
        return entropy

    def solved(self, deviations: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse covariance times deviations from the mean, ``(D, N)``, and half their product, ``(N,)``."""
        slopes = torch.cholesky_solve(deviations, self.factor)
        return slopes, (deviations * slopes).sum(0) / 2


def fitted_normal(scores: Tensor, covariance: Tensor | None, names: list[str], where: str) -> _Normal:
    """The normal distribution of scores; their covariance is None where it is still to be computed."""
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
    return _Normal(factor, n)
