"""The label-permutation baseline: the information that two variables show once their pairing is permuted.

:func:`expected_mutual_information` is its mean in closed form, :func:`permuted_mutual_information` draws permutations
and gives the standard deviation as well.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_ib.functional.checks import Unit, checked_integer, checked_unit, in_unit
from lightning_ib.functional.discrete.corrections import COUNT_TERMS, Correction, checked_correction
from lightning_ib.functional.discrete.counting import Symbols, add_entropies, counts_of_pairs, entropy_of_counts
from lightning_ib.functional.discrete.multiplicities import counts_of_counts, samples

# Probability that a distribution may lose at either end: below the resolution of a float64 sum.
_TAIL = 1e-18

# How many probabilities are computed together: arrays that stay in the processor's cache.
_BLOCK = 32_768

# How many pairs of counts are prepared together, which bounds the memory.
_PAIRS = 1_000_000

# The seed of the permutations; their generator is their own, and the random states of the user stay as they are.
_SEED = 0


class PermutationBaseline(NamedTuple):
    """The information between permuted variables, over several permutations.

    Cost:
        The mean about 3 ms for 128 cells, ten classes and 10 000 samples, and ten permutations 6 ms, on one core.

    Samples:
        Any number: it is the part of I(T;Y) that so few samples give without any dependence, about
        :math:`(K_T - 1)(K_Y - 1) / 2N` nats.

    Attributes:
        mean: the mean over the permutations, the baseline.
        standard_deviation: the sample standard deviation over the permutations, of a single value.
    """

    mean: float
    standard_deviation: float


def permuted_symbols(counts: Tensor, *, n_permutations: int = 10, seed: int = _SEED) -> Iterator[Symbols]:
    """A variable with these counts, its samples in random order, once per permutation.

    Args:
        counts: non-negative integers, shape ``(K,)``; zeros are ignored.
        n_permutations: the number of orders to draw.
        seed: of the orders. They are drawn on the CPU, so that every device and process gets the same.

    Returns:
        ``n_permutations`` variables of N samples on the device of ``counts``, one after the other. They depend on the
        multiset of counts alone.

    Raises:
        TypeError: ``counts`` are of another kind than integers, or a number is.
        ValueError: a count is negative, all are zero, or ``n_permutations`` is negative.

    Example:
        >>> first, second = permuted_symbols(torch.tensor([3, 1]), n_permutations=2)
        >>> first.counts, first.numbers.sort().values
        (tensor([1, 3]), tensor([0, 1, 1, 1]))
    """
    n_permutations = checked_integer(n_permutations, "n_permutations", at_least=0)
    checked_integer(seed, "seed")
    ascending = _ascending(counts_of_counts(counts), counts.device)
    numbers = _numbers(ascending)
    orders = _orders(len(numbers), n_permutations, seed, counts.device)
    return (Symbols(numbers.index_select(0, order), ascending) for order in orders)


def permuted_mutual_information(
    a_counts: Tensor,
    b_counts: Tensor,
    *,
    n_permutations: int = 10,
    seed: int = _SEED,
    unit: Unit = "bits",
    correction: Correction | None = None,
) -> PermutationBaseline:
    r"""The information between A and B under random permutations of B's samples.

    .. math::
        \frac{1}{S} \sum_{s=1}^{S} I(A; \pi_s B), \qquad \pi_s \text{ uniform over the orders of the } N \text{ samples}

    The counts after a permutation depend on the counts of A and of B alone. The mean estimates the expected
    information, with an error of ``standard_deviation`` over :math:`\sqrt S`; :func:`expected_mutual_information`
    computes it exactly.

    Source:
        Vinh, Epps & Bailey (2010).

    Trap:
        An information within a few standard deviations of the baseline is no evidence of dependence. Subtracting the
        baseline misleads: where B depends on A, the bias of the information is smaller than under independence, and
        where A has a symbol for every sample, both are H(B).

    Args:
        a_counts: non-negative integers, shape ``(K_A,)``; zeros are ignored.
        b_counts: non-negative integers, shape ``(K_B,)``, with the same sum.
        n_permutations: S, at least 2. The deviation is small beside the mean where there are many symbols.
        seed: of the permutations; the same values at every call, on every device.
        unit: ``"bits"`` or ``"nats"``.
        correction: None, or the correction of the information that the baseline is for: the baseline of a corrected
            value is near 0 where the correction works.

    Returns:
        The mean and the standard deviation, in ``unit``.

    Raises:
        TypeError: counts or a number are of another kind than integers.
        ValueError: A and B have different numbers of samples, a count is negative, ``n_permutations`` is below 2, or
            the unit or the correction is unknown.

    Example:
        Two symbols and four, 1000 samples: about 1 · 3 / 2000 nats.

        >>> t, y = torch.tensor([300, 700]), torch.tensor([250, 250, 250, 250])
        >>> round(permuted_mutual_information(t, y, n_permutations=100, unit="nats").mean, 4)
        0.0015
    """
    n_permutations = checked_integer(n_permutations, "n_permutations", at_least=2)
    values = _permuted(a_counts, b_counts, n_permutations, checked_integer(seed, "seed"), unit, correction)
    return PermutationBaseline(statistics.fmean(values), statistics.stdev(values))


def _permuted(
    a_counts: Tensor, b_counts: Tensor, n_permutations: int, seed: int, unit: Unit, correction: Correction | None
) -> list[float]:
    """The information under each permutation."""
    tables = tables_of_same_samples(a_counts, b_counts)
    n = samples(tables[0])
    a, b = (_ascending(table, counts.device) for table, counts in zip(tables, (a_counts, b_counts)))
    h_a, h_b = (entropy_of_counts(counts, unit=unit, correction=correction) for counts in (a, b))
    possible = len(a) * len(b)
    # Small numbers where they suffice, which also sort faster.
    dtype = torch.int32 if possible <= torch.iinfo(torch.int32).max else torch.int64
    first, second = _numbers(a, dtype).mul_(len(b)), _numbers(b, dtype)
    values = []
    for order in _orders(n, n_permutations, seed, b.device):
        counts = counts_of_pairs(second.index_select(0, order).add_(first), possible)
        values.append(add_entropies(h_a, h_b, -entropy_of_counts(counts, unit=unit, correction=correction)))
    return values


def expected_mutual_information(
    a_counts: Tensor, b_counts: Tensor, *, unit: Unit = "bits", correction: Correction | None = None
) -> float:
    r"""The mean of the mutual information over all N! orders of B's samples, with A's samples in place.

    .. math::
        \mathrm{E}[I] = \frac{1}{N} \sum_{i,j} \mathrm{E}\Big[ n_{ij} \log \frac{N n_{ij}}{a_i b_j} \Big], \qquad
        P(n_{ij} = n) = \binom{a_i}{n} \binom{N - a_i}{b_j - n} \Big/ \binom{N}{b_j}

    The expected mutual information of Vinh, Epps & Bailey (2010, JMLR 11): under a uniform permutation each cell
    :math:`n_{ij}` of the contingency table is hypergeometric. It is 0 where A or B has a single symbol, H(B) where A
    has a symbol for every sample, and about :math:`(K_A - 1)(K_B - 1) / 2N` nats where every cell is expected to hold
    many samples. It is the limit of :func:`permuted_mutual_information`, which says where a baseline misleads.

    Args:
        a_counts: non-negative integers, shape ``(K_A,)``; zeros are ignored.
        b_counts: non-negative integers, shape ``(K_B,)``, with the same sum N.
        unit: ``"bits"`` (base 2) or ``"nats"`` (base e).
        correction: None for the plug-in information, or ``"miller_madow"``, ``"grassberger"`` or ``"jackknife"``, the
            corrections that are sums over cells.

    Returns:
        The mean in ``unit``, computed in float64 on the CPU to about 1e-14 nats. It depends on the multisets of counts
        alone and is symmetric in A and B, to the last bit. The time grows at most like :math:`D_A D_B +
        \sqrt{D_A D_B N}` with D distinct counts.

    Raises:
        TypeError: counts are of another kind than integers.
        ValueError: A and B have different numbers of samples, a count is negative, all are zero, the unit or the
            correction is unknown, or it is no sum over cells: ``"chao_shen"``, ``"james_stein"``,
            ``"chao_wang_jost"`` or ``"nsb"``.

    Example:
        Two symbols and four, 1000 samples: about 1 · 3 / 2000 nats.

        >>> t, y = torch.tensor([300, 700]), torch.tensor([250, 250, 250, 250])
        >>> round(expected_mutual_information(t, y, unit="nats"), 6)
        0.001505
    """
    checked_unit(unit)
    if checked_correction(correction) not in (None, *COUNT_TERMS):
        raise ValueError(
            f"the expected information has a closed form for {', '.join(map(repr, COUNT_TERMS))} and without "
            f"correction, got {correction!r}: its entropy is no sum over cells and needs permutations "
            "(permuted_mutual_information)."
        )
    a, b = tables_of_same_samples(a_counts, b_counts)
    n = samples(a)
    for table, counts, others in ((a, a_counts, b_counts), (b, b_counts, a_counts)):
        # Every order gives the same: the joint counts are those of one variable, and their entropies cancel.
        if table in ({1: n}, {n: 1}):
            left = others if table == {1: n} else counts
            return add_entropies(entropy_of_counts(left, unit=unit, correction=correction))
    return in_unit(_expected(a, b, n, correction), unit)


def _expected(a: dict[int, int], b: dict[int, int], n: int, correction: Correction | None) -> float:
    """The expected information in nats, from two tables with several counts each."""
    added = None if correction is None else COUNT_TERMS[correction]
    # One order of the two, so that the same numbers are added up whichever comes first.
    marginals = [
        torch.tensor([[*table], [*table.values()]], dtype=torch.float64, device="cpu")
        for table in sorted((a, b), key=lambda t: [*t.items()])
    ]
    sums = [*_sums_over_cells(marginals[0], marginals[1], n, added)]
    if added is not None:
        sums += [float((m * added(c, n)).sum()) for c, m in marginals]
    return math.fsum(sums) / n


def tables_of_same_samples(a_counts: Tensor, b_counts: Tensor) -> tuple[dict[int, int], dict[int, int]]:
    """The counts of counts of two variables of the same samples.

    They are those of :func:`~lightning_ib.functional.discrete.multiplicities.counts_of_counts`.

    Args:
        a_counts: non-negative integers, shape ``(K_A,)``; zeros are ignored.
        b_counts: non-negative integers, shape ``(K_B,)``, with the same sum.

    Raises:
        TypeError: counts are of another kind than integers.
        ValueError: A and B have different numbers of samples, a count is negative, or all are zero.

    Example:
        >>> tables_of_same_samples(torch.tensor([1, 5, 0, 1]), torch.tensor([3, 4]))
        ({1: 2, 5: 1}, {3: 1, 4: 1})
    """
    a, b = counts_of_counts(a_counts), counts_of_counts(b_counts)
    if samples(a) != samples(b):
        raise ValueError(
            "a baseline needs the same samples of both variables, "
            f"got {samples(a)} of one and {samples(b)} of the other."
        )
    return a, b


def _ascending(table: dict[int, int], device: torch.device) -> Tensor:
    """The counts in ascending order."""
    counts, multiplicities = torch.tensor([[*table], [*table.values()]], device=device)
    ascending: Tensor = counts.repeat_interleave(multiplicities)
    return ascending


def _numbers(counts: Tensor, dtype: torch.dtype = torch.int64) -> Tensor:
    """A variable with these counts, sample by sample, the samples of a symbol side by side."""
    return torch.arange(len(counts), device=counts.device, dtype=dtype).repeat_interleave(counts)


def _orders(n: int, n_permutations: int, seed: int, device: torch.device) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.int32 if n <= torch.iinfo(torch.int32).max else torch.int64  # half the memory where it suffices
    return (torch.randperm(n, generator=generator, dtype=dtype, device="cpu").to(device) for _ in range(n_permutations))


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
    counts = low + torch.arange(columns, dtype=torch.float64, device="cpu")
    # The ratio of each probability to the one before, a quotient of integers. It is 0 after the last possible count,
    # and so are the products from there on. They begin with a small number because they may grow by a large one.
    before = counts[:, :-1]
    weights = torch.full_like(counts, 2.0**-500)
    weights[:, 1:] = (i - before).mul_(j - before).div_((before + 1).mul_(before + (n - i - j + 1)))
    weights = weights.cumprod_(1)
    # As E n_ij = mean exactly, n log(n / mean) - (n - mean) has the same expectation, and every term is 0 or more. The
    # bound keeps 0 log 0 at 0.
    above = counts - mean
    terms = (above / mean).clamp_(min=math.nextafter(-1, 0)).log1p_().mul_(counts).sub_(above)
    if added is not None:
        terms -= added(counts, n)
    return float((terms.mul_(weights).sum(1) / weights.sum(1)).mul_(times).sum())
