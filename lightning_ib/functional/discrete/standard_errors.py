"""Standard errors of counted entropies and informations, by the delta method."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lightning_ib.functional.checks import Unit, in_unit
from lightning_ib.functional.discrete.counting import Symbols
from lightning_ib.functional.discrete.multiplicities import counts_of_counts, plug_in, samples

# The rounding that a spread of equal surprises can leave: a few dozen nats in float64.
_ROUNDING = 1e-12

# How many samples are looked at together.
_BLOCK = 65_536


def standard_error_of_entropy(counts: Tensor, *, unit: Unit = "bits") -> float:
    r"""The standard error of the plug-in entropy of counts, by the delta method.

    .. math:: \mathrm{SE}(H) = \sqrt{\frac{1}{N} \Big( \sum_k p_k \log^2 p_k - H^2 \Big)}, \qquad p_k = \frac{n_k}{N}

    The first-order error under multinomial sampling (Basharin 1959): the deviation of the surprises
    :math:`-\log p_k` over the samples, over :math:`\sqrt N`. Its limits are those of :func:`standard_error`.

    Args:
        counts: non-negative integers, shape ``(K,)``; zeros are ignored.
        unit: ``"bits"`` (base 2) or ``"nats"`` (base e).

    Returns:
        The standard error in ``unit``, computed in float64 from the multiset of counts alone.

    Raises:
        TypeError: ``counts`` are of another kind than integers.
        ValueError: a count is negative, all are zero, or the unit is unknown.

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

    .. math:: \mathrm{SE} = \sqrt{\frac{1}{N} \operatorname{Var}_i \sum_j s_j \log \frac{N}{n_j(i)}}

    :math:`n_j(i)` is the count of the symbol that sample i has in the variable of term j (Basharin 1959, in its
    multivariate form). The terms of I(T;Y) are ``(1, t), (1, y), (-1, ty)``, with ``ty`` from
    :func:`~lightning_ib.functional.joint`; those of H(Y|T) are ``(1, ty), (-1, t)``.

    It describes the scatter over other samples of the same size; bias comes on top. It is too small, down to 0, at
    H = log K and at I = 0, where the first-order variance vanishes and scatter of order 1/N is left (see
    :func:`~lightning_ib.functional.permuted_mutual_information`), and near saturation, where all surprises are log N.

    Samples of one cluster, such as the tokens of a sequence, depend on each other: with ``clusters``, the deviations
    :math:`d_i` from the mean are added up in each cluster before they are squared (Liang & Zeger 1986).

    .. math:: \mathrm{SE} = \frac{1}{N} \sqrt{\sum_g \Big( \sum_{i \in g} d_i \Big)^2}

    Args:
        terms: the sign (or any factor) of each entropy, and the symbols of its variable, N the same for all.
        unit: ``"bits"`` or ``"nats"``.
        clusters: int64 ``(N,)``, the cluster of each sample; ``None`` where the samples are independent.

    Returns:
        The standard error in ``unit``, computed in float64 and the same to the last bit for every order of the samples
        (with clusters, to rounding).

    Raises:
        ValueError: there are no terms, the variables have different numbers of samples, or the unit is unknown.

    Example:
        A bit, and the same bit with one in ten flipped: I(T;Y) = 0.531 ± 0.030 bits.

        >>> from lightning_ib.functional import joint, symbols
        >>> bits = torch.arange(1000) // 500
        >>> t, y = symbols(bits), symbols(bits ^ (torch.arange(1000) % 10 == 0))
        >>> round(standard_error((1, t), (1, y), (-1, joint(t, y))), 4)
        0.0301
    """
    n = _common_samples(terms)
    if len(terms) == 1 and clusters is None:
        (sign, variable) = terms[0]
        return abs(sign) * standard_error_of_entropy(variable.counts, unit=unit)
    return _of_spread(math.sqrt(_sum_of_squares(terms, n, clusters) / n), n, unit)


def _common_samples(terms: tuple[tuple[float, Symbols], ...]) -> int:
    """The number of samples of all variables."""
    numbers = {len(variable.numbers) for _, variable in terms}
    if len(numbers) != 1:
        came = f"variables of {' and '.join(map(str, sorted(numbers)))} samples" if terms else "no term"
        raise ValueError(f"a standard error needs terms (sign, symbols) of the same samples, got {came}.")
    return numbers.pop()


def _sum_of_squares(terms: tuple[tuple[float, Symbols], ...], n: int, clusters: Tensor | None) -> float:
    """The squared deviations of the samples, or of the clusters, added up, in nats."""
    mean = math.fsum(sign * plug_in(counts_of_counts(variable.counts)) for sign, variable in terms)
    zero = torch.zeros((), dtype=torch.float64, device=terms[0][1].numbers.device)
    surprises = [sign * (n / variable.counts.double()).log() for sign, variable in terms]

    def squares() -> Iterator[Tensor]:
        """The squared deviations of the samples, block by block."""
        for numbers in zip(*(variable.numbers.split(_BLOCK) for _, variable in terms)):
            yield sum((of[some] for of, some in zip(surprises, numbers)), start=zero - mean).square_()

    if clusters is None:
        return _sum(squares, n)
    deviations = sum((of[v.numbers] for of, (_, v) in zip(surprises, terms)), start=zero - mean)
    of_cluster = clusters.to(deviations.device).unique(return_inverse=True)[1]
    sums = deviations.new_zeros(int(of_cluster.max()) + 1).index_add_(0, of_cluster, deviations)
    return float(sums.square().sum())


def _sum(blocks: Callable[[], Iterator[Tensor]], n: int) -> float:
    """The sum of n non-negative numbers, the same to the last bit in every order: as integers of all bits there are."""
    greatest = max(float(block.max()) for block in blocks())
    if greatest == 0:
        return 0.0
    bits = min(1000, 62 - math.frexp(greatest * n)[1])
    return math.ldexp(sum(int(block.mul_(2.0**bits).round_().long().sum()) for block in blocks()), -bits)


def _of_spread(deviation: float, n: int, unit: Unit) -> float:
    return in_unit(deviation / math.sqrt(n) if deviation > _ROUNDING else 0.0, unit)
