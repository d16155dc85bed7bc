"""Standard errors of any estimate: from what each sample adds to it, and from estimates on parts of the samples."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from lightning_ib.functional.checks import (
    Unit,
    check_same_samples,
    checked_choice,
    checked_integer,
    checked_integers,
    holds_integers,
    in_unit,
    kind_of,
)
from lightning_ib.functional.variational.dealing import by_first_appearance, checked_groups, dealt, dealt_whole

Method = Literal["parts", "jackknife"]


# The deviation of so many influences is known to a few percent; each takes time.
INFLUENCES = 500


def spread_rows(n: int, most: int = INFLUENCES) -> Tensor:
    """The positions of at most so many rows, spread evenly over all.

    Example:
        >>> spread_rows(6, 3)
        tensor([0, 2, 4])
    """
    return torch.arange(min(n, most), device="cpu") * n // min(n, most)


class Pointwise(NamedTuple):
    r"""An estimate in nats, and the influence of samples on it.

    Attributes:
        nats: the estimate.
        influence: float64 ``(M,)``, up to a constant: the deviation of the estimate from its limit is the mean of these
            over all samples less their own mean, to first order.
        positions: those of these M among all N samples; ``None`` where they are all.
        n_samples: N; 0 where it is M.
        fitted: the rise of the estimate from parameters that were fitted to the samples, in nats: half their number
            over N. It inflates the variance of the influences by twice itself, and adds a scatter of second order.
        added: the variance beside that of the influences, in nats²: of simulated samples, or of
            two halves that differ by more than their samples explain.
    """

    nats: float
    influence: Tensor
    positions: Tensor | None = None
    n_samples: int = 0
    fitted: float = 0.0
    added: float = 0.0

    def standard_error(self, clusters: Tensor | None = None, *, unit: Unit = "bits") -> float:
        r"""The standard error of the estimate, in ``unit``.

        .. math:: \mathrm{SE}^2 = \max\Big(0, s^2 - \frac{2 f}{N}\Big) + \frac{f}{N} + a

        with s from :func:`standard_error_of_mean`, f the rise by fitting and a the variance that is added. At
        independence under a model with ν parameters 2 N I is a χ² of ν degrees of freedom (Wilks 1938) and f = ν/2N:
        the first term is 0, and the second is the variance ν/2N² of this I.

        Args:
            clusters: int64 ``(N,)``, the cluster of each sample; ``None`` where the samples are independent.
            unit: ``"bits"`` or ``"nats"``.
        """
        if clusters is not None and self.positions is not None:
            clusters = clusters[self.positions.to(clusters.device)]
        n = self.n_samples or len(self.influence)
        variance = standard_error_of_mean(self.influence, clusters, n_samples=n) ** 2
        if self.fitted > 0:
            variance = max(variance - 2 * self.fitted / n, 0.0) + self.fitted / n  # NaN, being first, stays
        return in_unit(math.sqrt(variance + self.added), unit)


def standard_error_of_mean(values: Tensor, clusters: Tensor | None = None, *, n_samples: int | None = None) -> float:
    r"""The standard error of a mean over N samples, from the values of M of them.

    .. math::

        s_1^2 = \frac{1}{M - 1} \sum_i d_i^2, \qquad
        s_g^2 = \frac{1}{M} \frac{G}{G - 1} \sum_{g = 1}^G \Big( \sum_{i \in g} d_i \Big)^2, \qquad
        \mathrm{SE}^2 = \frac{s_1^2}{N} \quad \text{or} \quad \frac{s_1^2}{N} + \frac{s_g^2 - s_1^2}{M}

    with the deviations :math:`d_i` from the mean; the second where samples of one cluster depend on each other, such as
    the tokens of a sequence (Liang & Zeger 1986). Products of two samples of a cluster are seen (M/N)² times as often
    among the M as among the N, squares M/N times.

    Args:
        values: real, shape ``(M,)``.
        clusters: int64 ``(M,)``, the cluster of each sample; ``None`` where the samples are independent.
        n_samples: N; by default M.

    Returns:
        The standard error, the same to the last bit for every order of the samples (with clusters, to rounding); NaN
        for fewer than two samples, or two clusters.

    Example:
        >>> standard_error_of_mean(torch.tensor([0.0, 2.0, 4.0])) == (4 / 3) ** 0.5
        True
    """
    m, values = len(values), values.double()
    if m < 2:
        return math.nan
    n = m if n_samples is None else n_samples
    deviations = values - math.fsum(values.tolist()) / m
    alone = math.fsum((deviations * deviations).tolist()) / (m - 1) / n
    if clusters is None:
        return math.sqrt(alone)
    of = clusters.to(values.device).unique(return_inverse=True)[1]
    sums = deviations.new_zeros(int(of.max()) + 1).index_add_(0, of, deviations)
    if len(sums) < 2:
        return math.nan
    together = math.fsum((sums * sums).tolist()) * len(sums) / (len(sums) - 1) / m**2
    return math.sqrt(together if n == m else max(alone, alone + together - alone * n / m))


def resampled_standard_error(
    estimate: Callable[..., float],
    *variables: Tensor,
    method: Method = "parts",
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
    leaves nearly all samples in, takes P estimates, and serves those that need many samples; it misleads for nearest
    neighbors, whose estimates are no smooth functions of the sample. Either has P − 1 degrees of freedom: with ten
    parts it scatters by a quarter of itself.

    Args:
        estimate: a function of the variables, in their order, that returns a number.
        variables: tensors with the same samples, shape ``(N, …)``. The samples of each combination of class labels
            (the variables of integers with shape ``(N,)``) are dealt evenly to the parts.
        method: ``"parts"``, each alone, or ``"jackknife"``, all but one.
        n_parts: P, at least 2.
        groups: which samples depend on each other, such as the tokens of a sequence, integers, shape ``(N,)``: a group
            stays in one part, and labels fall as they come.
        seed: of the assignment to the parts. The global random state stays as it is.

    Returns:
        The standard error in the unit of the estimate, the same at every call; another order of samples gives another.

    Raises:
        TypeError: an argument is of another kind, or the estimate is no number.
        ValueError: the variables have different numbers of samples, there are fewer than ``n_parts`` groups or
            ``2 * n_parts`` samples, ``method`` or ``n_parts`` is out of range, or the estimate fails on a part.

    Example:
        Half a bit, give or take a twentieth.

        >>> from lightning_ib.functional import mutual_information_ksg
        >>> x, noise = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
        >>> round(resampled_standard_error(mutual_information_ksg, x, x + noise), 2)
        0.04
    """
    checked_choice(method, "method", get_args(Method))
    n_parts = checked_integer(n_parts, "n_parts", at_least=2)
    part = _parts(variables, n_parts, groups, checked_integer(seed, "seed"))
    kept = [part == p if method == "parts" else part != p for p in range(n_parts)]
    where = f"{'on' if method == 'parts' else 'without'} part {{}} of {n_parts}"
    found = [_estimated(estimate, variables, rows, where.format(p)) for p, rows in enumerate(kept, 1)]
    mean = math.fsum(found) / n_parts
    squares = math.fsum((one - mean) ** 2 for one in found)
    return math.sqrt(squares / n_parts * (1 / (n_parts - 1) if method == "parts" else n_parts - 1))


def _estimated(estimate: Callable[..., Any], variables: tuple[Tensor, ...], rows: Tensor, where: str) -> float:
    """The estimate on some of the rows; a message of its own begins with where it was."""
    try:
        value = estimate(*(of[rows.to(of.device)] for of in variables))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    is_number = isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex()
    if not isinstance(value, numbers.Real) and not is_number:
        raise TypeError(
            f"estimate must return a number, got {kind_of(value)}: give a function that takes the number out of it."
        )
    return float(value)


def _parts(variables: tuple[Tensor, ...], n_parts: int, groups: Tensor | None, seed: int) -> Tensor:
    """The part of each sample, on the CPU."""
    wrong = next((of for of in variables if not isinstance(of, Tensor) or of.ndim == 0), None)
    if not variables or wrong is not None:
        came = "none" if not variables else "a number" if isinstance(wrong, Tensor) else kind_of(wrong)
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
        return dealt_whole(
            checked_groups(groups, n, n_parts, torch.device("cpu"), of="the first variable", part="part"),
            n_parts,
            generator,
        )
    labels = [of.cpu().long() for of in variables if of.ndim == 1 and holds_integers(of)]
    if not labels:
        return dealt(torch.zeros(n, dtype=torch.int64, device="cpu"), n_parts, generator)
    numbers = torch.stack(labels, 1).unique(dim=0, return_inverse=True)[1]
    return dealt(by_first_appearance(numbers, int(numbers.max()) + 1), n_parts, generator)
