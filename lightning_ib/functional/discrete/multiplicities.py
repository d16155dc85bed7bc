"""Counts of counts: all that an entropy of counts depends on."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_ib.functional.checks import checked_integers

# A table of fewer entries is read as a whole in less time than its entries that are not zero are looked for.
_SHORT = 256


def counts_of_counts(counts: Tensor) -> dict[int, int]:
    r"""The number of symbols seen once, twice, …: an entropy of counts depends on these alone.

    Args:
        counts: non-negative integers, any shape; zeros are ignored.

    Returns:
        The number of symbols by their count, in ascending order of the count: at most :math:`\sqrt{2N}` entries.

    Raises:
        TypeError: ``counts`` are of another kind than integers.
        ValueError: a count is negative, or all are zero.

    Example:
        >>> counts_of_counts(torch.tensor([1, 5, 0, 1]))
        {1: 2, 5: 1}
    """
    checked_integers(counts, "counts must be frequencies", "(K,)", "give how often each symbol was seen")
    counts = counts.long()
    least, most = (int(c) for c in torch.aminmax(counts)) if counts.numel() else (0, 0)
    if least < 0:
        raise ValueError(f"counts must be 0 or more, got {least}: give how often each symbol was seen.")
    if most == 0:
        raise ValueError("an entropy needs at least one sample, got counts that add up to none.")
    if least == most:
        return {most: counts.numel()}
    if most < counts.numel():  # a table takes less time than sorting
        table = torch.bincount(counts.flatten())
        if most < _SHORT:
            return {c: m for c, m in enumerate(table.tolist()) if c and m}
        values = table.nonzero().squeeze(1)
        multiplicities = table[values]
    else:
        values, multiplicities = torch.unique(counts, return_counts=True)
    return {c: m for c, m in zip(values.tolist(), multiplicities.tolist()) if c}


def plug_in(table: dict[int, int], log: Callable[[float], float] = math.log) -> float:
    """The plug-in entropy of :func:`counts_of_counts`, in the unit of ``log``."""
    n = samples(table)
    return math.fsum(m * c * log(n / c) for c, m in table.items()) / n


def samples(table: dict[int, int]) -> int:
    """The number N of samples in :func:`counts_of_counts`."""
    return sum(c * m for c, m in table.items())


def singleton_probability(table: dict[int, int]) -> tuple[int, int]:
    r"""The mean probability A of a symbol that was seen once, as two integers a and b with :math:`A = b / (a + b)`.

    With :math:`f_1` symbols seen once and :math:`f_2` seen twice, :math:`a = (N - 1) f_1` and :math:`b = 2 f_2`; with
    :math:`f_2 = 0`, :math:`a = (N - 1)(f_1 - 1)` and :math:`b = 2` (Chao, Wang & Jost 2013, after Good and Turing).

    Args:
        table: from :func:`counts_of_counts`.

    Returns:
        a, which is 0 where nothing points to unseen symbols, and b, at least 2.

    Example:
        >>> singleton_probability({1: 2, 2: 1})  # N = 4
        (6, 2)
    """
    once, twice = table.get(1, 0), table.get(2, 0)
    return (samples(table) - 1) * (once if twice else max(once - 1, 0)), 2 * (twice or 1)


def unseen_symbols(table: dict[int, int]) -> int:
    r"""The number of symbols that were never seen, estimated from those seen once and twice (Chao 1984).

    .. math::
        f_0 = \frac{N - 1}{N} \frac{f_1^2}{2 f_2}, \qquad
        f_0 = \frac{N - 1}{N} \frac{f_1 (f_1 - 1)}{2} \quad \text{if } f_2 = 0

    The expected value is a lower bound of the true number, reached where the rare symbols are equally probable.

    Args:
        table: from :func:`counts_of_counts`.

    Returns:
        The estimate, rounded up.

    Example:
        >>> unseen_symbols({1: 2, 2: 1})  # 3/4 of 4/2
        2
    """
    a, b = singleton_probability(table)
    return -(-table.get(1, 0) * a // (samples(table) * b))
