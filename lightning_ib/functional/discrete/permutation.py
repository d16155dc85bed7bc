"""The label-permutation baseline in closed form: the expected mutual information of two permuted variables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lightning_ib.functional.checks import Unit, checked_unit, in_unit
from lightning_ib.functional.discrete.corrections import COUNT_TERMS, Correction, checked_correction, samples
from lightning_ib.functional.discrete.counting import add_entropies, entropy_of_counts
from lightning_ib.functional.discrete.standard_errors import tables_of_same_samples

# Probability that a distribution may lose at either end: nothing that a float64 sum would keep.
_TAIL = 1e-18

# How many probabilities are computed together: arrays that stay in the processor's cache.
_BLOCK = 32_768

# How many pairs of counts are prepared together, which bounds the memory.
_PAIRS = 1_000_000


def expected_mutual_information(
    a_counts: Tensor,
    b_counts: Tensor,
    *,
    unit: Unit = "bits",
    correction: Correction | None = None,
) -> float:
    r"""The mean of the mutual information over all N! orders of B's samples, with A's samples in place.

    .. math::
        \mathrm{E}[I] = \frac{1}{N} \sum_{i,j} \mathrm{E}\Big[ n_{ij} \log \frac{N n_{ij}}{a_i b_j} \Big], \qquad
        P(n_{ij} = n) = \binom{a_i}{n} \binom{N - a_i}{b_j - n} \Big/ \binom{N}{b_j}

    The expected mutual information of Vinh, Epps & Bailey (2010, JMLR 11): under a uniform permutation each cell
    :math:`n_{ij}` of the contingency table is hypergeometric. The plug-in information, and the three corrections that
    are sums over cells, need only the distribution of each cell, computed once for cells with equal
    :math:`(a_i, b_j)`. The mean is the limit of
    :func:`~lightning_ib.functional.shuffled_mutual_information` for infinitely many shuffles.

    The plug-in value is 0 where A or B has a single symbol, H(B) where A has a symbol for every sample, and about
    :math:`(K_A - 1)(K_B - 1) / 2N` nats where every cell is expected to hold many samples. The mean of a corrected
    information is near 0 where the correction works.

    It is a mean and has no spread: the standard deviation over permutations comes from
    :func:`~lightning_ib.functional.shuffled_mutual_information`. As a bias to subtract it misleads: where B
    depends on A, the bias of the information is smaller than under independence, and where A has a symbol for every
    sample, the baseline and the information are both H(B).

    Args:
        a_counts: non-negative integers, shape ``(K_A,)``; zeros are ignored.
        b_counts: non-negative integers, shape ``(K_B,)``, with the same sum N.
        unit: ``"bits"`` (base 2) or ``"nats"`` (base e).
        correction: None for the plug-in information, or ``"miller_madow"``, ``"grassberger"`` or ``"jackknife"``.

    Returns:
        The mean in ``unit``, computed in float64 on the CPU to about 1e-14 nats. It depends on the multisets of counts
        alone: the order of the counts, and which variable comes first, change no bit. The time grows with the number of
        distinct pairs of counts times the standard deviation of their cells, at most like :math:`D_A D_B +
        \sqrt{D_A D_B N}` with D distinct counts.

    Raises:
        TypeError: counts are no integers.
        ValueError: A and B have different numbers of samples, or none, a count is negative, the unit or the correction
            is unknown, or the correction is ``"chao_shen"`` or ``"james_stein"``, whose entropies are no sums over
            cells.

    Example:
        Two symbols and four, 1000 samples: about 1 · 3 / 2000 nats.

        >>> t, y = torch.tensor([300, 700]), torch.tensor([250, 250, 250, 250])
        >>> round(expected_mutual_information(t, y, unit="nats"), 6)
        0.001505
    """
    checked_unit(unit)
    if correction is not None and checked_correction(correction) not in COUNT_TERMS:
        raise ValueError(
            f"the expected information has a closed form for {', '.join(map(repr, COUNT_TERMS))} and without "
            f"correction, got {correction!r}: its entropy is no sum over cells and needs shuffles "
            "(shuffled_mutual_information)."
        )
    a, b = tables_of_same_samples(a_counts, b_counts)
    n = samples(a)
    for table, counts, others in ((a, a_counts, b_counts), (b, b_counts, a_counts)):
        # Every order gives the same: the joint counts are those of one variable, and their entropies cancel.
        if table in ({1: n}, {n: 1}):
            left = others if table == {1: n} else counts
            return add_entropies(entropy_of_counts(left, unit=unit, correction=correction))
    added = None if correction is None else COUNT_TERMS[correction]
    # One order of the two, so that the same numbers are added up whichever comes first.
    marginals = [
        torch.tensor([[*table], [*table.values()]], dtype=torch.float64)
        for table in sorted((a, b), key=lambda t: [*t.items()])
    ]
    sums = [*_sums_over_cells(marginals[0], marginals[1], n, added)]
    if added is not None:
        sums += [float((m * added(c, n)).sum()) for c, m in marginals]
    return in_unit(math.fsum(sums) / n, unit)


_Terms = Callable[[Tensor, int], Tensor]


def _sums_over_cells(a: Tensor, b: Tensor, n: int, added: _Terms | None) -> Iterator[float]:
    """Sums of E[n_ij log(n_ij / E n_ij) - h(n_ij)] in nats, which together cover all cells of the table.

    Args:
        a: the distinct counts of A and how many symbols have each, float64, shape ``(2, D_A)``.
        b: those of B, shape ``(2, D_B)``.
        n: the number of samples, at least 2.
        added: the terms h of a correction.
    """
    for some in a.split(max(1, _PAIRS // b.shape[1]), dim=1):
        (i, times_i), (j, times_j) = some.repeat_interleave(b.shape[1], dim=1), b.repeat(1, some.shape[1])
        mean, times = i * j / n, times_i * times_j
        # A hypergeometric count is a sum of independent indicators (Vatutin & Mikhailov 1982), so that Bernstein's
        # inequality bounds its tails by its own variance.
        variance, third = mean * ((n - i) / n) * ((n - j) / (n - 1)), -math.log(_TAIL) / 3
        reach = (variance * (6 * third) + third**2).sqrt_().add_(third)
        low = torch.maximum((mean - reach).floor_(), i + j - n).clamp_(min=0)
        width = torch.minimum((mean + reach).ceil_(), torch.minimum(i, j)) - low + 1
        order = width.argsort(descending=True)
        pairs = torch.stack((i, j, times, mean, low, width))[:, order]
        start = 0
        while start < len(order):
            columns = int(pairs[5, start])
            block = pairs[:5, start : start + max(1, _BLOCK // columns)]
            yield _sum_over_block(block, columns, n, added)
            start += block.shape[1]


def _sum_over_block(pairs: Tensor, columns: int, n: int, added: _Terms | None) -> float:
    """The sum over some cells, from the probabilities of ``columns`` counts of each, beginning with ``low``."""
    times = pairs[2]
    i, j, _, mean, low = pairs.unsqueeze(2)
    counts = low + torch.arange(columns, dtype=torch.float64)
    # The ratio of each probability to the one before, a quotient of integers. It is 0 after the last possible count,
    # and so are the products from there on. They begin with a small number because they may grow by a large one.
    before = counts[:, :-1]
    weights = torch.full_like(counts, 2.0**-500)
    weights[:, 1:] = (i - before).mul_(j - before).div_((before + 1).mul_(before + (n - i - j + 1)))
    weights = weights.cumprod_(1)
    # With E n_ij = mean exactly, n log(n / mean) - (n - mean) has the same expectation, and no term is negative. The
    # bound keeps 0 log 0 at 0.
    above = counts - mean
    terms = (above / mean).clamp_(min=math.nextafter(-1, 0)).log1p_().mul_(counts).sub_(above)
    if added is not None:
        terms -= added(counts, n)
    return float((terms.mul_(weights).sum(1) / weights.sum(1)).mul_(times).sum())
