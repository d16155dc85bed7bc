"""Entropies of counts, corrected for the bias of the plug-in estimate.

The plug-in entropy is biased low, the more so the fewer samples there are to a symbol. Each function here estimates the
same entropy from the same counts with another correction. All fail under saturation: where nearly every symbol was seen
once, the counts say hardly anything about the number of symbols, and a correction then reflects its assumption.

As in the plug-in entropy, symbols that were seen equally often share one term, and the terms are added up in float64
and correctly rounded, so that the value depends on the multiset of counts alone, on every device. Values are unclipped:
a corrected entropy may exceed log N, and an information made of corrected entropies may be negative.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from lightning_ib.functional.checks import Unit, checked_choice, in_unit
from lightning_ib.functional.discrete.chao_wang_jost import chao_wang_jost
from lightning_ib.functional.discrete.multiplicities import counts_of_counts, plug_in, samples
from lightning_ib.functional.discrete.nsb import nsb

Correction = Literal["miller_madow", "grassberger", "chao_shen", "james_stein", "jackknife", "chao_wang_jost", "nsb"]


def miller_madow(counts: Tensor, *, unit: Unit = "bits") -> float:
    r"""The entropy of counts with the first-order correction of Miller (1955) and Madow.

    .. math:: H = H_{\text{plug-in}} + \frac{K - 1}{2N} \quad\text{nats}

    K is the number of symbols seen. Unseen symbols are left out, so that it corrects too little where there are many of
    them: with a symbol for every sample it adds half a nat.

    Args:
        counts: non-negative integers, shape ``(K,)``; zeros are ignored.
        unit: ``"bits"`` (base 2) or ``"nats"`` (base e).

    Returns:
        The entropy in ``unit``, at least the plug-in entropy; it may exceed log K and log N.

    Raises:
        TypeError: ``counts`` are of another kind than integers.
        ValueError: a count is negative, all are zero, or the unit is unknown.

    Example:
        >>> round(miller_madow(torch.tensor([1, 1, 2])), 3)  # the plug-in entropy is 1.5
        1.861
    """
    table = counts_of_counts(counts)
    return in_unit(plug_in(table) + (sum(table.values()) - 1) / (2 * samples(table)), unit)


def grassberger(counts: Tensor, *, unit: Unit = "bits") -> float:
    r"""The entropy of counts after Grassberger (2003, revised 2008).

    .. math::
        H = \log N - \frac{1}{N} \sum_k n_k G(n_k), \qquad
        G(n) = \psi(n) + \frac{(-1)^n}{2} \Big[ \psi\big(\tfrac{n+1}{2}\big) - \psi\big(\tfrac{n}{2}\big) \Big]

    :math:`\psi` is the digamma function. The logarithm of a small count is replaced by a function that is nearly
    unbiased for Poisson counts: each odd count adds about 1/N nats, an even one close to 0, so that with few symbols
    the value depends on the number of odd counts. With a symbol for every sample it reads :math:`\log N + \gamma + \log
    2`, 1.27 nats above log N, however many symbols there are.

    Args:
        counts: non-negative integers, shape ``(K,)``; zeros are ignored.
        unit: ``"bits"`` (base 2) or ``"nats"`` (base e).

    Returns:
        The entropy in ``unit``. It may exceed log K and log N, and for a single symbol it is near 0 on
        either side, but for a few samples: 1.8 bits of one, 0.3 of five.

    Raises:
        TypeError: ``counts`` are of another kind than integers.
        ValueError: a count is negative, all are zero, or the unit is unknown.

    Example:
        >>> round(grassberger(torch.tensor([1, 1, 2])), 3)
        2.39
    """
    table = counts_of_counts(counts)
    n = samples(table)
    g = _g(torch.tensor(list(table), dtype=torch.float64, device="cpu")).tolist()
    return in_unit(math.log(n) - math.fsum(m * c * g_c for (c, m), g_c in zip(table.items(), g)) / n, unit)


def _g(counts: Tensor) -> Tensor:
    """G(n) of float64 counts."""
    # The duplication formula, psi(n) = log 2 + (psi(n/2) + psi((n+1)/2)) / 2, leaves of G(n) log 2 and the psi of
    # the one of n/2 and (n+1)/2 that is half an integer.
    return torch.digamma((counts / 2).floor_().add_(0.5)).add_(math.log(2))


def chao_shen(counts: Tensor, *, unit: Unit = "bits") -> float:
    r"""The coverage-adjusted entropy of counts (Chao & Shen 2003).

    .. math::
        H = -\sum_k \frac{\tilde p_k \log \tilde p_k}{1 - (1 - \tilde p_k)^N}, \qquad
        \tilde p_k = C\, \frac{n_k}{N}, \qquad C = 1 - \frac{f_1}{N}

    :math:`f_1` is the number of symbols seen once, and C the share of the distribution that the symbols seen are
    thought to cover (Good 1953); the denominator is the chance of having seen a symbol at all (Horvitz & Thompson
    1952). Where every one of N > 1 symbols was seen once, C would be 0 and the estimate undefined: one of them is then
    left out, :math:`f_1 = N - 1`, and the value grows like 2 log N by construction.

    Args:
        counts: non-negative integers, shape ``(K,)``; zeros are ignored.
        unit: ``"bits"`` (base 2) or ``"nats"`` (base e).

    Returns:
        The entropy in ``unit``, 0 or more; it may exceed log K and log N by far.

    Raises:
        TypeError: ``counts`` are of another kind than integers.
        ValueError: a count is negative, all are zero, or the unit is unknown.

    Example:
        >>> round(chao_shen(torch.tensor([1, 1, 2])), 3)
        2.544
    """
    table = counts_of_counts(counts)
    n = samples(table)
    covered = n - table.get(1, 0) or 1
    terms = []
    for c, m in table.items():
        p = covered * c / n**2
        if p < 1:  # a certain symbol has no surprise
            terms.append(m * p * math.log(p) / math.expm1(n * math.log1p(-p)))
    return in_unit(math.fsum(terms), unit)


def james_stein(counts: Tensor, *, unit: Unit = "bits") -> float:
    r"""The plug-in entropy of shares shrunk towards uniform (Hausser & Strimmer 2009).

    .. math::
        H = -\sum_k \tilde p_k \log \tilde p_k, \qquad
        \tilde p_k = \frac{\lambda}{K} + (1 - \lambda) \frac{n_k}{N}, \qquad
        \lambda = \frac{1 - \sum_k (n_k / N)^2}{(N - 1) \sum_k (1 / K - n_k / N)^2}

    :math:`\lambda` is kept within 0 and 1; where the counts are equal, or there is one sample, it is 1. The paper takes
    K, the number of symbols there are, as known. Here it is the number of symbols seen,
    which bounds the estimate by log K.

    Args:
        counts: non-negative integers, shape ``(K,)``; zeros are ignored.
        unit: ``"bits"`` (base 2) or ``"nats"`` (base e).

    Returns:
        The entropy in ``unit``, between the plug-in entropy and log K.

    Raises:
        TypeError: ``counts`` are of another kind than integers.
        ValueError: a count is negative, all are zero, or the unit is unknown.

    Example:
        >>> round(james_stein(torch.tensor([1, 1, 2])), 3)
        1.585
    """
    table = counts_of_counts(counts)
    n, k = samples(table), sum(table.values())
    # Numerator and denominator times K N^2 are integers, which stay exact where the counts are nearly equal.
    squares = sum(m * c * c for c, m in table.items())
    spread, distance = k * (n * n - squares), (n - 1) * (k * squares - n * n)
    shrinkage = spread / distance if spread < distance else 1.0
    shares = ((shrinkage / k + (1 - shrinkage) * c / n, m) for c, m in table.items())
    return in_unit(math.fsum(m * p * math.log(1 / p) for p, m in shares), unit)


def jackknife(counts: Tensor, *, unit: Unit = "bits") -> float:
    r"""The jackknifed entropy of counts (Zahl 1977): the bias is estimated by leaving out one sample at a time.

    .. math:: H = N H_{\text{plug-in}} - \frac{N - 1}{N} \sum_k n_k H_{\text{plug-in}}^{(-k)}

    :math:`H^{(-k)}` is the plug-in entropy with one sample of symbol k left out. The sum
    has the closed form :math:`d(N) - \frac{1}{N} \sum_k n_k d(n_k)` with :math:`d(n) = n \log n - (n-1) \log(n-1)`. It
    removes the bias of order 1/N. With a symbol for every sample it reads about log N + 1 nats, however many symbols
    there are. A single sample reads 0.

    Args:
        counts: non-negative integers, shape ``(K,)``; zeros are ignored.
        unit: ``"bits"`` (base 2) or ``"nats"`` (base e).

    Returns:
        The entropy in ``unit``, at least the plug-in entropy; it may exceed log K and log N.

    Raises:
        TypeError: ``counts`` are of another kind than integers.
        ValueError: a count is negative, all are zero, or the unit is unknown.

    Example:
        >>> round(jackknife(torch.tensor([1, 1, 2])), 3)
        2.245
    """
    table = counts_of_counts(counts)
    n = samples(table)
    return in_unit(_last_step(n) - math.fsum(m * c * _last_step(c) for c, m in table.items()) / n, unit)


def _last_step(n: int) -> float:
    """d(n) = n log n − (n − 1) log(n − 1), rewritten to avoid the difference of two large numbers."""
    return math.log(n) - (n - 1) * math.log1p(-1 / n) if n > 1 else 0.0


_CORRECTED: dict[str, Callable[..., float]] = {
    "miller_madow": miller_madow,
    "grassberger": grassberger,
    "chao_shen": chao_shen,
    "james_stein": james_stein,
    "jackknife": jackknife,
    "chao_wang_jost": chao_wang_jost,
    "nsb": nsb,
}


def _miller_madow_terms(counts: Tensor, n: int) -> Tensor:
    return 0.5 * ((counts > 0).double() - counts / n)


def _grassberger_terms(counts: Tensor, n: int) -> Tensor:
    return counts * (counts.clamp(min=1).log_() - _g(counts))


def _jackknife_terms(counts: Tensor, n: int) -> Tensor:
    # n log n - n d(n) is n (n - 1) log(1 - 1/n), and 0 for the count 1, where the logarithm is of 0.
    added = (counts - 1) * (-1 / counts.clamp(min=2)).log1p_()
    return counts * (added - ((n - 1) * math.log1p(-1 / n) if n > 1 else 0.0))


#: The corrections that are sums over the symbols. Each adds :math:`\frac{1}{N} \sum_k h(n_k, N)` nats to the plug-in
#: entropy; here are the functions :math:`h`, of float64 counts of any shape and of N. A count of 0 adds 0.
COUNT_TERMS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "miller_madow": _miller_madow_terms,
    "grassberger": _grassberger_terms,
    "jackknife": _jackknife_terms,
}


def corrected(counts: Tensor, correction: Correction, *, unit: Unit = "bits") -> float:
    """The entropy of counts, corrected as named.

    Raises:
        TypeError: ``correction`` is of another kind than a string.
        ValueError: it is unknown; the sentence names the known ones, and the nearest.

    Example:
        >>> counts = torch.tensor([1, 1, 2])
        >>> corrected(counts, "jackknife") == jackknife(counts)
        True
    """
    checked_correction(correction)
    return _CORRECTED[correction](counts, unit=unit)


def checked_correction(correction: str | None) -> str | None:
    """The name of a correction, or None for the plug-in entropy.

    Args:
        correction: the argument.

    Raises:
        TypeError: it is of another kind.
        ValueError: it is unknown; the sentence names the known ones, and the nearest.
    """
    known: tuple[str | None, ...] = (None, *get_args(Correction))
    return checked_choice(correction, "correction", known)
