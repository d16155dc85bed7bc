r"""Standard errors of the informations from kernel density estimates, by their influence functions.

A sample adds its own term to the mean, and its kernel to the densities at all others. Where the width of the kernel is
a share of the variance, it moves that too, which nearly cancels the scatter of I(X;T) in few dimensions.

.. math::

    \psi_i = -\log p_i - \frac{1}{N} \sum_j \frac{k_{ij}}{p_j} + \dot I \Big(
        \frac{\lVert t_i - \bar t \rVert^2}{V} - 1 \Big), \qquad p_i = \frac{1}{N} \sum_j k_{ij}

is the influence of sample i on :math:`I(X;T) = -\langle \log p \rangle`, and the standard error is the deviation of up
to 500 of these over :math:`\sqrt N`. The last term, with :math:`\dot I` the derivative in :math:`\log \sigma^2` and V
the total variance, is there where :math:`\sigma^2` follows the variance. I(T;Y) has the same terms of the own class in
addition, with the opposite sign. The influences are those of estimates by densities (Kandasamy et al. 2015).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_ib.functional.checks import (
    AS_Y,
    Unit,
    checked_labels,
    checked_number,
    checked_rows,
    checked_unit,
    logarithm,
)
from lightning_ib.functional.continuous.kde import Bounds, information_in, kernel_sums
from lightning_ib.functional.discrete.counting import entropy_of_counts
from lightning_ib.functional.resampling import Pointwise, spread_rows


class KDEInformation(NamedTuple):
    """An information by kernels, and its standard error, in the unit asked for.

    Attributes:
        bounds: as :func:`~lightning_ib.functional.mutual_information_bounds_kde` gives them.
        errors: the standard error of each.
    """

    bounds: Bounds
    errors: Bounds


def information_with_errors_kde(
    t: Tensor,
    y: Tensor | None = None,
    *,
    noise_variance: float,
    follows: bool = False,
    clusters: Tensor | None = None,
    unit: Unit = "bits",
) -> dict[str, KDEInformation]:
    r"""I(X;T) and I(T;Y) by kernels and their standard errors.

    The formula is that of :mod:`~lightning_ib.functional.continuous.kde_errors`. It misleads at saturation, where the
    density at most rows is that of the row itself, and where the variance of T is infinite.

    Args:
        t: the representation, real floating point, shape ``(N, …)``.
        y: class labels, integers, shape ``(N,)``; None for I(X;T) alone.
        noise_variance: :math:`\sigma^2`.
        follows: whether :math:`\sigma^2` is a share of the variance of these rows.
        clusters: int64 ``(N,)``, the cluster of each sample; ``None`` where they are independent.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        ``"I_XT"`` and, with labels, ``"I_TY"``.

    Raises:
        TypeError, ValueError: as :func:`~lightning_ib.functional.mutual_information_bounds_kde`.

    Example:
        >>> t = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
        >>> found = information_with_errors_kde(t, (t[:, 0] > 0).long(), noise_variance=0.1)["I_TY"]
        >>> round(found.bounds.upper, 2), round(found.errors.upper, 2)
        (0.84, 0.02)
    """
    checked_unit(unit)
    rows = checked_rows(t, "t", labels=AS_Y)
    variance, n = checked_number(noise_variance, "noise_variance", above=0), len(rows)
    numbers, counts = checked_labels(torch.zeros(n, dtype=torch.int64, device=rows.device) if y is None else y, n)
    order = numbers.argsort(stable=True).to(rows.device)
    rows, own = rows[order], counts.repeat_interleave(counts).to(rows.device)
    everyone, classmates = kernel_sums(rows, counts.tolist(), variance)
    log_p, log_q = (everyone / n).log(), (classmates / own).log()
    found = {"I_XT": information_in(-log_p.mean(1), logarithm(unit)(n), unit)}
    if y is not None:
        found["I_TY"] = information_in((log_q - log_p).mean(1), entropy_of_counts(counts, unit=unit), unit)
    some = spread_rows(n).to(rows.device)
    errors: dict[str, list[float]] = {name: [] for name in found}
    for of in _influences(rows, numbers.to(rows.device)[order], (everyone, classmates), some, variance, follows):
        for name, influence in zip(found, of):
            one = Pointwise(0.0, influence, order[some], n)
            errors[name].append(one.standard_error(clusters, unit=unit))
    return {name: KDEInformation(bounds, Bounds(*errors[name])) for name, bounds in found.items()}


def _influences(
    rows: Tensor, labels: Tensor, sums: tuple[Tensor, Tensor], some: Tensor, noise_variance: float, follows: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Of the lower and then of the upper bound, the influences of some rows on I(X;T) and on I(T;Y).

    Args:
        rows: shape ``(N, D)``.
        labels: their classes.
        sums: of the kernels over all rows and over those of the class, ``(2, N)`` each.
        some: the positions of those rows.
        noise_variance: σ².
        follows: whether it follows the variance.
    """
    rows = rows.double()
    rows = rows - rows.mean(0)
    spread = rows.square().sum(1)
    shift = (spread / spread.mean() - 1)[some] if follows else None
    distances = torch.cdist(rows[some], rows).square_()
    same = labels[some].unsqueeze(1) == labels
    for everyone, classmates, share in zip(*sums, (8, 2)):
        exponent = distances / (-share * noise_variance)
        kernel = exponent.exp()
        of_x = -everyone[some].log() - kernel @ (1 / everyone)
        own = kernel * same
        of_y = classmates[some].log() + own @ (1 / classmates)
        if shift is not None:
            slope = ((kernel * exponent).sum(1) / everyone[some]).mean()
            of_x = of_x + slope * shift
            of_y = of_y - ((own * exponent).sum(1) / classmates[some]).mean() * shift
        sizes = same.sum(1).double()  # of the own class: log q is less by their logarithm
        yield of_x, of_x + of_y - sizes.log()
