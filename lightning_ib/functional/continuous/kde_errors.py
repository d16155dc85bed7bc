r"""Standard errors of the informations from kernel density estimates, by their influence functions.

A sample adds its own term to the mean, and its kernel to the densities at all others. Where the width of the kernel is
a share of the variance, it moves that too, which nearly cancels the scatter of I(X;T) in few dimensions.
"""

from __future__ import annotations

import math
from itertools import accumulate
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
from lightning_ib.functional.continuous.gaussian_kernel import kernel_blocks
from lightning_ib.functional.continuous.kde import Bounds, information_in, kernel_sums
from lightning_ib.functional.discrete.counting import entropy_of_counts
from lightning_ib.functional.resampling import Pointwise

# How many rows, spread over all, the derivative in the width is taken from: a single number, of which few digits count.
_ROWS_OF_THE_SLOPE = 256


class KDEInformation(NamedTuple):
    """An information by kernels, and its standard error, in the unit asked for.

    Attributes:
        bounds: as :func:`~lightning_ib.functional.mutual_information_bounds_kde` gives them.
        errors: the standard error of each.
    """

    bounds: Bounds
    errors: Bounds


class _Sums(NamedTuple):
    """The rows, class after class, and the sums of their kernels.

    Attributes:
        rows: shape ``(N, D)``.
        sizes: the number of rows of each class; a single one where there are no labels.
        everyone: the sums over all rows, ``(2, N)``, the lower bound first.
        classmates: those over the own class.
    """

    rows: Tensor
    sizes: list[int]
    everyone: Tensor
    classmates: Tensor

    @property
    def own(self) -> Tensor:
        """The size of the class of each row."""
        sizes = torch.tensor(self.sizes, device=self.rows.device)
        return sizes.repeat_interleave(sizes)


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

    .. math::

        \psi_i = -\log p_i - \frac{1}{N} \sum_j \frac{k_{ij}}{p_j} + \dot I \Big(
            \frac{\lVert t_i - \bar t \rVert^2}{V} - 1 \Big), \qquad p_i = \frac{1}{N} \sum_j k_{ij}

    is the influence of sample i on :math:`I(X;T) = -\langle \log p \rangle`, and the standard error is the deviation of
    these over :math:`\sqrt N`. The last term, with :math:`\dot I` the derivative in :math:`\log \sigma^2` and V the
    total variance, is there where :math:`\sigma^2` follows the variance. I(T;Y) has in addition the same terms of the
    own class, with the opposite sign. The influences are those of estimates by densities (Kandasamy et al. 2015).

    It misleads at saturation, where the densities at most rows are those of the row itself, and where the variance of T
    is infinite.

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
        TypeError: as :func:`~lightning_ib.functional.mutual_information_bounds_kde`.
        ValueError: as that function.

    Example:
        >>> t = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
        >>> found = information_with_errors_kde(t, (t[:, 0] > 0).long(), noise_variance=0.1)["I_TY"]
        >>> round(found.bounds.upper, 2), round(found.errors.upper, 2)
        (0.84, 0.01)
    """
    checked_unit(unit)
    rows = checked_rows(t, "t", labels=AS_Y)
    noise_variance = checked_number(noise_variance, "noise_variance", above=0)
    n = len(rows)
    labels = torch.zeros(n, dtype=torch.int64) if y is None else y
    numbers, counts = checked_labels(labels, n)
    order = numbers.argsort(stable=True).to(rows.device)
    sums = _Sums(rows[order], counts.tolist(), *kernel_sums(rows[order], counts.tolist(), noise_variance))
    p, q = sums.everyone / n, sums.classmates / sums.own
    influences = dict(zip(("I_XT", "I_TY"), _influences(sums, p, q, noise_variance)))
    if follows:
        squares = (sums.rows.double() - sums.rows.double().mean(0)).square().sum(1)
        for name, slopes in zip(("I_XT", "I_TY"), _slopes(sums, noise_variance)):
            influences[name] += slopes[:, None] * (squares / squares.mean() - 1)
    together = None if clusters is None else clusters.to(order.device)[order]
    bounds = {"I_XT": information_in(-p.log().mean(1), logarithm(unit)(n), unit)}
    if y is not None:
        bounds["I_TY"] = information_in((q.log() - p.log()).mean(1), entropy_of_counts(counts, unit=unit), unit)
    return {
        name: KDEInformation(
            bound, Bounds(*(Pointwise(0.0, one).standard_error(together, unit=unit) for one in influences[name]))
        )
        for name, bound in bounds.items()
    }


def _influences(sums: _Sums, p: Tensor, q: Tensor, noise_variance: float) -> tuple[Tensor, Tensor]:
    """The influences on I(X;T) and on I(T;Y) at a fixed width, ``(2, N)`` each, up to constants."""
    ends = list(accumulate(sums.sizes))
    inverse_p, inverse_q = 1 / sums.everyone, 1 / sums.classmates
    of_all, of_class = torch.zeros_like(p), torch.zeros_like(q)
    for i, j, kernel in kernel_blocks(sums.rows, width=2 * math.sqrt(noise_variance)):
        for bound in (0, 1):
            if bound == 1:
                kernel.square_().square_()
            of_all[bound, i] += kernel @ inverse_p[bound, j]
            if i != j:
                of_all[bound, j] += inverse_p[bound, i] @ kernel
            for size, end in zip(sums.sizes, ends) if len(ends) > 1 else ():
                a, b = (slice(max(end - size, part.start), min(end, part.stop)) for part in (i, j))
                if a.start >= a.stop or b.start >= b.stop:
                    continue
                part = kernel[a.start - i.start : a.stop - i.start, b.start - j.start : b.stop - j.start]
                of_class[bound, a] += part @ inverse_q[bound, b]
                if i != j:
                    of_class[bound, b] += inverse_q[bound, a] @ part
    of_x = -p.log() - of_all
    return of_x, of_x + q.log() + of_class


def _slopes(sums: _Sums, noise_variance: float) -> tuple[Tensor, Tensor]:
    """The derivatives of I(X;T) and of I(T;Y) in log σ², ``(2,)`` each."""
    some = torch.arange(0, len(sums.rows), -(-len(sums.rows) // _ROWS_OF_THE_SLOPE), device=sums.rows.device)
    rows = sums.rows.double()
    rows = rows - rows.mean(0)
    squares = torch.cdist(rows[some], rows).square_()
    number = torch.arange(len(sums.sizes), device=rows.device).repeat_interleave(
        torch.tensor(sums.sizes, device=rows.device)
    )
    same = number[some].unsqueeze(1) == number
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    for bound, share in ((0, 8), (1, 2)):
        exponent = squares / (-share * noise_variance)
        moved = exponent.exp().mul_(exponent)
        of_all = (moved.sum(1) / sums.everyone[bound, some]).mean()
        of_class = ((moved * same).sum(1) / sums.classmates[bound, some]).mean()
        found[0].append(of_all)
        found[1].append(of_all - of_class)
    return torch.stack(found[0]), torch.stack(found[1])
