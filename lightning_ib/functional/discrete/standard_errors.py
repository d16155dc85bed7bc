"""How far counted figures can be trusted: their standard errors, and what they read where nothing is shared."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_ib.functional.checks import Unit, in_unit
from lightning_ib.functional.discrete.corrections import Correction, counts_of_counts, plug_in, samples
from lightning_ib.functional.discrete.counting import Symbols, add_entropies, counts_of_pairs, entropy_of_counts

# What rounding can leave of the spread of surprises that are all equal: a few dozen nats in float64.
_ROUNDING = 1e-12

# How many samples are looked at together.
_BLOCK = 65_536

# The seed of the permutations; they have a generator of their own, and no random state of the user's is moved.
_SEED = 0


class Chance(NamedTuple):
    """What an information reads where there is none: its figures over shuffled samples.

    Attributes:
        mean: the mean over the shuffles, the baseline.
        standard_deviation: the sample standard deviation over the shuffles, of a single figure.
    """

    mean: float
    standard_deviation: float


def standard_error_of_entropy(counts: Tensor, *, unit: Unit = "bits") -> float:
    r"""The standard error of the plug-in entropy of counts, by the delta method.

    .. math:: \mathrm{SE}(H) = \sqrt{\frac{1}{N} \Big( \sum_k p_k \log^2 p_k - H^2 \Big)}, \qquad p_k = \frac{n_k}{N}

    The first-order error under multinomial sampling (Basharin 1959): the deviation of the surprises
    :math:`-\log p_k` over the samples, over :math:`\sqrt N`. For when it misleads see :func:`standard_error`.

    Args:
        counts: non-negative integers, shape ``(K,)``; zeros count for nothing.
        unit: ``"bits"`` (base 2) or ``"nats"`` (base e).

    Returns:
        The standard error in ``unit``, from float64, whatever the order of the counts.

    Raises:
        TypeError: ``counts`` are no integers.
        ValueError: one is negative, they add up to none, or the unit is unknown.

    Example:
        >>> round(standard_error_of_entropy(torch.tensor([900, 100])), 4)
        0.0301
    """
    table = counts_of_counts(counts)
    n, mean = samples(table), plug_in(table)
    variance = math.fsum(m * c * (math.log(n / c) - mean) ** 2 for c, m in table.items()) / n
    return _of_spread(math.sqrt(variance), n, unit)


def standard_error(*terms: tuple[float, Symbols], unit: Unit = "bits", clusters: Tensor | None = None) -> float:
    r"""The standard error of a signed sum of plug-in entropies of the same samples, by the delta method.

    .. math::
        \mathrm{SE} = \sqrt{\frac{1}{N} \operatorname{Var}_i \sum_j s_j \log \frac{N}{n_j(i)}}

    :math:`n_j(i)` is how often the symbol that sample i has in the variable of term j was seen. The sum over the terms
    is what one sample contributes to the figure; the figure is its mean, and its variance is taken over the samples.
    With a joint from :func:`~lightning_ib.functional.discrete.counting.joint`:

    ========== ==============================================
    figure     terms
    ========== ==============================================
    H(T)       ``(1, t)``
    I(T;Y)     ``(1, t), (1, y), (-1, ty)``
    H(Y|T)     ``(1, ty), (-1, t)``
    I(X;T|Y)   ``(1, xy), (1, ty), (-1, y), (-1, xty)``
    ========== ==============================================

    It is the multivariate form of Basharin's error (1959): with the probabilities known, the terms of the entropies
    sum up sample by sample, and estimating them adds nothing of first order.

    It says how the figure would scatter over other samples of the same size, and nothing about bias: a figure may be
    known to the third digit and be wrong in the first. It is too small, down to 0, where the first-order variance
    vanishes, at H = log K (a uniform distribution) and at I = 0 (independence): what scatter is left there is of order
    1/N, and :func:`shuffled_mutual_information` shows it. It is no use where most symbols were seen once: their
    surprises are all log N, so that near saturation it reads nearly 0 while the figure says next to nothing.

    Samples of one cluster, such as the tokens of a sequence, are not independent. With ``clusters`` the deviations of a
    cluster are added up before they are squared (the cluster-robust variance; Liang & Zeger 1986):

    .. math:: \mathrm{SE} = \frac{1}{N} \sqrt{\sum_g \Big( \sum_{i \in g} d_i \Big)^2}

    with :math:`d_i` the deviation of sample i from the figure.

    Args:
        terms: the sign (or any factor) of each entropy, and the symbols of its variable, N the same for all.
        unit: ``"bits"`` or ``"nats"``.
        clusters: int64 ``(N,)``, the cluster of each sample; ``None`` where the samples are independent.

    Returns:
        The standard error in ``unit``. Computed in float64; the order of the samples changes not one bit (with clusters
        it may change the last one).

    Raises:
        ValueError: there is no term, the variables have different numbers of samples, or the unit is unknown.

    Example:
        A bit, and the same bit with one in ten flipped: I(T;Y) = 0.531 ± 0.030 bits.

        >>> from lightning_ib.functional.discrete.counting import joint, symbols
        >>> bits = torch.arange(1000) // 500
        >>> t, y = symbols(bits), symbols(bits ^ (torch.arange(1000) % 10 == 0))
        >>> round(standard_error((1, t), (1, y), (-1, joint(t, y))), 4)
        0.0301
    """
    numbers = {len(variable.numbers) for _, variable in terms}
    if len(numbers) != 1:
        came = f"variables of {' and '.join(map(str, sorted(numbers)))} samples" if terms else "no term"
        raise ValueError(f"a standard error needs terms (sign, symbols) of the same samples, got {came}.")
    n = numbers.pop()
    if len(terms) == 1 and clusters is None:
        (sign, variable) = terms[0]
        return abs(sign) * standard_error_of_entropy(variable.counts, unit=unit)
    mean = math.fsum(sign * plug_in(counts_of_counts(variable.counts)) for sign, variable in terms)
    zero = torch.zeros((), dtype=torch.float64, device=terms[0][1].numbers.device)
    surprises = [sign * (n / variable.counts.double()).log() for sign, variable in terms]

    def squares() -> Iterator[Tensor]:
        """The squared deviations of the samples, block by block."""
        for numbers in zip(*(variable.numbers.split(_BLOCK) for _, variable in terms)):
            yield sum((of[some] for of, some in zip(surprises, numbers)), start=zero - mean).square_()

    if clusters is not None:
        deviations = sum((of[v.numbers] for of, (_, v) in zip(surprises, terms)), start=zero - mean)
        of_cluster = clusters.to(deviations.device).unique(return_inverse=True)[1]
        sums = deviations.new_zeros(int(of_cluster.max()) + 1).index_add_(0, of_cluster, deviations)
        return _of_spread(math.sqrt(float(sums.square().sum()) / n), n, unit)
    return _of_spread(math.sqrt(_sum(squares, n) / n), n, unit)


def _sum(blocks: Callable[[], Iterator[Tensor]], n: int) -> float:
    """The sum of n non-negative numbers, the same to the last bit in every order: as integers of all bits there are."""
    greatest = max(float(block.max()) for block in blocks())
    if greatest == 0:
        return 0.0
    bits = min(1000, 62 - math.frexp(greatest * n)[1])
    return math.ldexp(sum(int(block.mul_(2.0**bits).round_().long().sum()) for block in blocks()), -bits)


def _of_spread(deviation: float, n: int, unit: Unit) -> float:
    return in_unit(deviation / math.sqrt(n) if deviation > _ROUNDING else 0.0, unit)


def shuffled(counts: Tensor, *, shuffles: int = 10, seed: int = _SEED) -> Iterator[Symbols]:
    """A variable with these counts, its samples in random order, again and again.

    Args:
        counts: non-negative integers, shape ``(K,)``; zeros count for nothing.
        shuffles: how many orders to draw.
        seed: of the orders. They are drawn on the CPU, so that every device and process gets the same.

    Returns:
        ``shuffles`` variables of N samples on the device of ``counts``, one after the other. They depend on the counts
        alone, not on which symbol has which, nor on the order of the samples that were counted.

    Raises:
        TypeError: ``counts`` are no integers.
        ValueError: one is negative, or they add up to none.

    Example:
        >>> first, second = shuffled(torch.tensor([3, 1]), shuffles=2)
        >>> first.counts, first.numbers.sort().values
        (tensor([1, 3]), tensor([0, 1, 1, 1]))
    """
    ascending = _ascending(counts_of_counts(counts), counts.device)
    numbers = _numbers(ascending)
    orders = _orders(len(numbers), shuffles, seed, counts.device)
    return (Symbols(numbers.index_select(0, order), ascending) for order in orders)


def tables_of_same_samples(a_counts: Tensor, b_counts: Tensor) -> tuple[dict[int, int], dict[int, int]]:
    """The :func:`~lightning_ib.functional.discrete.corrections.counts_of_counts` of two variables of the same samples.

    Args:
        a_counts: non-negative integers, shape ``(K_A,)``; zeros count for nothing.
        b_counts: non-negative integers, shape ``(K_B,)``, with the same sum.

    Raises:
        TypeError: counts are no integers.
        ValueError: A and B have different numbers of samples, or none, or a count is negative.

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
    """The counts in one order, whatever the symbols are called."""
    counts, multiplicities = torch.tensor([[*table], [*table.values()]], device=device)
    return counts.repeat_interleave(multiplicities)


def _numbers(counts: Tensor, dtype: torch.dtype = torch.int64) -> Tensor:
    """A variable with these counts, sample by sample, the samples of a symbol side by side."""
    return torch.arange(len(counts), device=counts.device, dtype=dtype).repeat_interleave(counts)


def _orders(n: int, shuffles: int, seed: int, device: torch.device) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.int32 if n <= torch.iinfo(torch.int32).max else torch.int64  # half the memory where it will do
    return (torch.randperm(n, generator=generator, dtype=dtype).to(device) for _ in range(shuffles))


def shuffled_mutual_information(
    a_counts: Tensor,
    b_counts: Tensor,
    *,
    shuffles: int = 10,
    seed: int = _SEED,
    unit: Unit = "bits",
    correction: Correction | None = None,
) -> Chance:
    r"""The information that A and B would show by chance: B's samples shuffled, A's left where they are.

    .. math::
        \frac{1}{S} \sum_{s=1}^{S} I(A; \pi_s B), \qquad \pi_s \text{ uniform over the orders of the } N \text{ samples}

    What is counted after a shuffle depends on the counts of A and of B alone, so these are all it takes. The mean
    estimates the expected information of Vinh, Epps & Bailey (2009), about :math:`(K_A - 1)(K_B - 1) / 2N` nats where
    samples abound; its own error is ``standard_deviation`` over :math:`\sqrt S`. An information that does not stand
    out from it by several standard deviations says nothing.
    :func:`~lightning_ib.functional.discrete.permutation.expected_mutual_information` computes the mean exactly, without
    shuffles and without the deviation.

    It misleads as an amount to subtract: where B does depend on A, the bias of the information is smaller than under
    independence, and where A has a symbol for every sample, the shuffled information is H(B), as the true one is.

    Args:
        a_counts: non-negative integers, shape ``(K_A,)``; zeros count for nothing.
        b_counts: non-negative integers, shape ``(K_B,)``, with the same sum.
        shuffles: how many, at least 2. The deviation is small beside the mean where there are many symbols.
        seed: of the orders; the same figures at every call, on every device.
        unit: ``"bits"`` or ``"nats"``.
        correction: none, or that of the figure the baseline is for: the baseline of a corrected figure is near 0
            where the correction works.

    Returns:
        The mean and the standard deviation, in ``unit``.

    Raises:
        TypeError: counts are no integers.
        ValueError: A and B have different numbers of samples, a count is negative, there are less than 2 shuffles, or
            the unit or the correction is unknown.

    Example:
        Two symbols and four, 1000 samples: about 1 · 3 / 2000 nats.

        >>> t, y = torch.tensor([300, 700]), torch.tensor([250, 250, 250, 250])
        >>> round(shuffled_mutual_information(t, y, shuffles=100, unit="nats").mean, 4)
        0.0015
    """
    if shuffles < 2:
        raise ValueError(f"a standard deviation over shuffles needs at least 2 of them, got {shuffles}.")
    tables = tables_of_same_samples(a_counts, b_counts)
    n = samples(tables[0])
    a, b = (_ascending(table, counts.device) for table, counts in zip(tables, (a_counts, b_counts)))
    h_a, h_b = (entropy_of_counts(counts, unit=unit, correction=correction) for counts in (a, b))
    possible = len(a) * len(b)
    # Small numbers where they will do, which also sort faster.
    dtype = torch.int32 if possible <= torch.iinfo(torch.int32).max else torch.int64
    first, second = _numbers(a, dtype).mul_(len(b)), _numbers(b, dtype)
    figures = []
    for order in _orders(n, shuffles, seed, b.device):
        counts = counts_of_pairs(second.index_select(0, order).add_(first), possible)
        figures.append(add_entropies(h_a, h_b, -entropy_of_counts(counts, unit=unit, correction=correction)))
    return Chance(statistics.fmean(figures), statistics.stdev(figures))
