"""Standard errors of any estimate: from what each sample adds to it, and from estimates on parts of the samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from lightning_ib.functional.checks import (
    Unit,
    check_same_samples,
    checked_choice,
    checked_integer,
    checked_integers,
    in_unit,
)
from lightning_ib.functional.variational.dealing import by_first_appearance, checked_groups, dealt, dealt_whole

Way = Literal["parts", "jackknife"]


class Pointwise(NamedTuple):
    r"""An estimate in nats, and the influence of each sample on it.

    Attributes:
        nats: the estimate.
        influence: float64 ``(N,)``, up to a constant: the deviation of the estimate from its limit is the mean of these
            less their own mean, to first order.
        fitted: the rise of the estimate from parameters that were fitted to the samples, in nats: half their number
            over N. It inflates the variance of the influences by twice itself, and adds a scatter of second order.
    """

    nats: float
    influence: Tensor
    fitted: float = 0.0

    def standard_error(self, clusters: Tensor | None = None, *, unit: Unit = "bits") -> float:
        r"""The standard error of the estimate, in ``unit``.

        .. math:: \mathrm{SE}^2 = \max\Big(0, s^2 - \frac{2 f}{N}\Big) + \frac{f}{N}

        with s from :func:`standard_error_of_mean` and f the rise by fitting. At independence of a model with ν
        parameters, where the likelihood ratio 2 N I is a χ² of ν degrees of freedom (Wilks 1938) and f = ν/2N, the first
        term is 0 and the second the variance ν/2N² of this χ².

        Args:
            clusters: int64 ``(N,)``, the cluster of each sample; ``None`` where the samples are independent.
            unit: ``"bits"`` or ``"nats"``.
        """
        variance = standard_error_of_mean(self.influence, clusters) ** 2
        fitted = max(0.0, self.fitted) / len(self.influence)
        if fitted:
            variance = max(0.0, variance - 2 * fitted) + fitted
        return in_unit(math.sqrt(variance), unit)


def standard_error_of_mean(values: Tensor, clusters: Tensor | None = None) -> float:
    r"""The standard error of the mean of one value for each sample.

    .. math:: \mathrm{SE} = \sqrt{\frac{1}{N (N - 1)} \sum_i d_i^2}, \qquad
        \mathrm{SE} = \frac{1}{N} \sqrt{\frac{G}{G - 1} \sum_{g = 1}^G \Big( \sum_{i \in g} d_i \Big)^2}

    with the deviations :math:`d_i` from the mean; the second where samples of one cluster depend on each other, such as
    the tokens of a sequence (Liang & Zeger 1986).

    Args:
        values: real, shape ``(N,)``.
        clusters: int64 ``(N,)``, the cluster of each sample; ``None`` where the samples are independent.

    Returns:
        The standard error, the same to the last bit for every order of the samples (with clusters, to rounding); NaN
        for fewer than two samples, or two clusters.

    Example:
        >>> standard_error_of_mean(torch.tensor([0.0, 2.0, 4.0])) == (4 / 3) ** 0.5
        True
    """
    n, values = len(values), values.double()
    deviations = values - math.fsum(values.tolist()) / n if n else values
    scale = 1.0
    if clusters is not None:
        of = clusters.to(values.device).unique(return_inverse=True)[1]
        together = int(of.max()) + 1 if n else 0
        deviations = deviations.new_zeros(together).index_add_(0, of, deviations)
        scale = together / n if n else 1.0  # of the mean over clusters, to the mean over samples
    m = len(deviations)
    return scale * math.sqrt(math.fsum((deviations * deviations).tolist()) / m / (m - 1)) if m > 1 else math.nan


def resampled_standard_error(
    estimate: Callable[..., float],
    *variables: Tensor,
    way: Way = "parts",
    n_parts: int = 10,
    groups: Tensor | None = None,
    seed: int = 0,
) -> float:
    r"""The standard error of any estimate, by estimating on parts of the samples.

    .. math::

        \mathrm{SE}_\text{parts}^2 = \frac{1}{P (P - 1)} \sum_p (\theta_p - \bar\theta)^2, \qquad
        \mathrm{SE}_\text{jackknife}^2 = \frac{P - 1}{P} \sum_p (\theta_{(p)} - \bar\theta)^2

    :math:`\theta_p` is the estimate on part p alone, :math:`\theta_{(p)}` the one on all other parts (Efron &
    Tibshirani 1993; of estimates from nearest neighbors on disjoint parts: Holmes & Nemenman 2019).

    Parts take little: 1/P of the time of one estimate where that grows with N², 1/P² where it grows with N³. The
    scatter of an estimate on N/P samples, over the root of P, stands for that on N. This misleads where N/P samples
    read another information than N do: near saturation, or with more coordinates than a part has samples. The jackknife
    leaves nearly all samples in, takes P estimates, and serves those that need many samples; it misleads for
    nearest neighbors, whose estimates are no smooth functions of the sample. Either has P − 1 degrees of
    freedom: with ten parts it scatters by a quarter of itself.

    Args:
        estimate: a function of the variables, in their order, that returns a number.
        *variables: tensors with the same samples, shape ``(N, …)``. The samples of each combination of class labels
            (the variables of integers with shape ``(N,)``) are dealt evenly to the parts.
        way: ``"parts"``, each alone, or ``"jackknife"``, all but one.
        n_parts: P, at least 2.
        groups: which samples depend on each other, such as the tokens of a sequence, integers, shape ``(N,)``: a group
            stays in one part, and labels fall as they come.
        seed: of the assignment to the parts. The global random state stays as it is.

    Returns:
        The standard error in the unit of the estimate: the same at every call, and another one for another order of
        the samples.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: the variables have different numbers of samples, there are fewer than ``n_parts`` groups or
            ``2 * n_parts`` samples, ``way`` or ``n_parts`` is out of range, or the estimate fails on a part.

    Example:
        Half a bit, give or take a twentieth.

        >>> from lightning_ib.functional import mutual_information_ksg
        >>> x, noise = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
        >>> round(resampled_standard_error(mutual_information_ksg, x, x + noise), 2)
        0.04
    """
    checked_choice(way, "way", get_args(Way))
    n_parts = checked_integer(n_parts, "n_parts", at_least=2)
    part = _parts(variables, n_parts, groups, checked_integer(seed, "seed"))
    kept = [part == p if way == "parts" else part != p for p in range(n_parts)]
    found = [float(estimate(*(of[rows.to(of.device)] for of in variables))) for rows in kept]
    mean = math.fsum(found) / n_parts
    squares = math.fsum((one - mean) ** 2 for one in found)
    return math.sqrt(squares / n_parts * (1 / (n_parts - 1) if way == "parts" else n_parts - 1))


def _parts(variables: tuple[Tensor, ...], n_parts: int, groups: Tensor | None, seed: int) -> Tensor:
    """The part of each sample, on the CPU."""
    wrong = next((of for of in variables if not isinstance(of, Tensor) or of.ndim == 0), None)
    if not variables or wrong is not None:
        came = "none" if not variables else "a number" if isinstance(wrong, Tensor) else f"a {type(wrong).__name__}"
        raise TypeError(f"variables must be tensors of shape (N, …), got {came}.")
    n = len(variables[0])
    for of in variables[1:]:
        check_same_samples(n, len(of), ("the first variable", "another"))
    if n < 2 * n_parts:
        raise ValueError(
            f"variables need at least {2 * n_parts} samples, two for each of {n_parts} parts, got {n}: "
            "give more samples or fewer parts."
        )
    generator = torch.Generator().manual_seed(seed)
    if groups is not None:
        checked_integers(groups, "groups must be the group of each sample", "(N,)")
        return dealt_whole(checked_groups(groups, n, n_parts, torch.device("cpu")), n_parts, generator)
    labels = [of.cpu().long() for of in variables if of.ndim == 1 and not (of.is_floating_point() or of.is_complex())]
    if not labels:
        return dealt(torch.zeros(n, dtype=torch.int64), n_parts, generator)
    numbers = torch.stack(labels, 1).unique(dim=0, return_inverse=True)[1]
    return dealt(by_first_appearance(numbers, int(numbers.max()) + 1), n_parts, generator)
