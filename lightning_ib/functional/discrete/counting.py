"""Plug-in entropies and informations, from counts of symbols.

A variable is given as the ids of its N samples: any integers, shape ``(N,)``; two samples have the same symbol where
their ids are equal. Counts are integers and stay so until the last step. That step adds up the terms of equal counts
together, in float64 and correctly rounded, so that the value depends on the counts alone: the order of the samples, the
values of the ids, the device and the number of processes leave every bit as it is.

Every function takes a ``correction`` for the bias of its plug-in entropies: see
:mod:`~lightning_ib.functional.discrete.corrections`. All values are unclipped.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_ib.functional.checks import Unit, checked_ids, logarithm, numpy_reads_tensors
from lightning_ib.functional.discrete.corrections import Correction, corrected
from lightning_ib.functional.discrete.multiplicities import counts_of_counts, plug_in

# The rounding that a few correctly rounded entropies can leave of an information that is zero.
_ROUNDING = 1e-12


class Symbols(NamedTuple):
    """A variable whose ids were numbered, ready for joint counting.

    Attributes:
        numbers: int64, shape ``(N,)``: the number of each sample's symbol, in ``0 … K − 1``.
        counts: int64, shape ``(K,)``: how often each symbol was seen, each at least once.
    """

    numbers: Tensor
    counts: Tensor


def symbols(ids: Tensor) -> Symbols:
    """Number the symbols of a variable in ascending order of their ids, and count them.

    Source:
        Counting: no estimate, the number K of symbols that were seen.

    Cost:
        About 0.2 ms for 10 000 samples, on one core.

    Samples:
        K grows with N until every symbol was seen: compare it at one N. Cells are at most one for 50 samples
        (:func:`~lightning_ib.functional.cell_limit`).

    Trap:
        A symbol seen once counts as much as a frequent one. Many symbols mean fine bins as easily as much information.

    Args:
        ids: integers, shape ``(N,)``, N at least 1.

    Raises:
        TypeError: ``ids`` are of another kind than a tensor of integers.
        ValueError: ``ids`` have another shape, or there are none.

    Example:
        >>> symbols(torch.tensor([7, 3, 7]))
        Symbols(numbers=tensor([1, 0, 1]), counts=tensor([1, 2]))
    """
    ids = checked_ids(ids)
    low, high = _bounds(ids)
    if high - low < len(ids):  # class labels, as a rule
        return _numbered(*_from_zero(ids, low, high))
    _, numbers, counts = torch.unique(ids, return_inverse=True, return_counts=True)
    return Symbols(numbers, counts)


def _bounds(ids: Tensor) -> tuple[int, int]:
    low, high = (int(bound) for bound in ids.aminmax()) if ids.dtype != torch.bool else (0, 1)
    return low, high


def _from_zero(ids: Tensor, low: int, high: int) -> tuple[Tensor, int]:
    """Values of at least 0 for ids in low … high, in the same order, and a number above all of them."""
    if low >= 0 and high < len(ids):  # as they are, which saves a copy
        return ids.long(), high + 1
    return ids.long() - low, high - low + 1


def _numbered(values: Tensor, possible: int) -> Symbols:
    """The symbols of values in ``0 … possible − 1``, by a table: less time and memory than sorting takes."""
    table = torch.bincount(values, minlength=possible)
    occurs = table > 0
    return Symbols((occurs.cumsum(0) - 1)[values], table[occurs])


def joint(a: Symbols, b: Symbols) -> Symbols:
    """The joint variable (A, B): its symbols are the pairs that occur.

    Args:
        a: from :func:`symbols`.
        b: from :func:`symbols`, of the same samples.

    Raises:
        ValueError: the two have different numbers of samples.

    Example:
        >>> a, b = symbols(torch.tensor([0, 0, 1, 1])), symbols(torch.tensor([5, 6, 5, 5]))
        >>> joint(a, b).counts
        tensor([1, 1, 2])
    """
    pairs, possible = _paired(a, b), len(a.counts) * len(b.counts)
    return _numbered(pairs, possible) if possible <= len(pairs) else symbols(_compact(pairs, possible))


def joint_counts(a: Symbols, b: Symbols) -> Tensor:
    """How often each pair of symbols occurs: the counts of :func:`joint` alone, which take less time.

    Args:
        a: from :func:`symbols`.
        b: from :func:`symbols`, of the same samples.

    Raises:
        ValueError: the two have different numbers of samples.

    Example:
        >>> a, b = symbols(torch.tensor([0, 0, 1, 1])), symbols(torch.tensor([5, 6, 5, 5]))
        >>> joint_counts(a, b)
        tensor([1, 1, 2])
    """
    return counts_of_pairs(_paired(a, b), len(a.counts) * len(b.counts))


def counts_of_pairs(pairs: Tensor, possible: int) -> Tensor:
    """How often each number occurs, of those that do.

    Args:
        pairs: int64, shape ``(N,)``, each in ``0 … possible − 1``.
        possible: how many numbers there may be.
    """
    if possible <= len(pairs):  # a table takes less time and memory than sorting
        counts = torch.bincount(pairs, minlength=possible)
        return counts[counts > 0]
    found: Tensor = torch.unique(_compact(pairs, possible), return_counts=True)[1]
    return found


def _compact(pairs: Tensor, possible: int) -> Tensor:
    """Numbers in half the bits where they fit, which sort in half the time."""
    return pairs.int() if possible <= torch.iinfo(torch.int32).max else pairs


def _paired(a: Symbols, b: Symbols) -> Tensor:
    if len(a.numbers) != len(b.numbers):
        raise ValueError(
            "a joint needs the same samples of both variables, got "
            f"{len(a.numbers)} of one and {len(b.numbers)} of the other."
        )
    return torch.add(b.numbers, a.numbers, alpha=len(b.counts))


def entropy_of_counts(counts: Tensor, *, unit: Unit = "bits", correction: Correction | None = None) -> float:
    r"""The plug-in entropy of counts, or a corrected one.

    .. math:: H = \log N - \frac{1}{N} \sum_k n_k \log n_k = \frac{1}{N} \sum_k n_k \log \frac{N}{n_k}

    Uncorrected, it is biased low by about :math:`(K - 1) / 2N` nats (Miller 1955), and at most :math:`\log N`: near
    that bound it reflects the number of samples rather than their distribution.

    Args:
        counts: non-negative integers, shape ``(K,)``; zeros are ignored.
        unit: ``"bits"`` (base 2) or ``"nats"`` (base e).
        correction: None, or the name of one of :mod:`~lightning_ib.functional.discrete.corrections`.

    Returns:
        The entropy in ``unit``, exact for the counts up to one float64 rounding per distinct count. Uncorrected, it
        lies between 0 and log N; corrected, it may exceed log N.

    Raises:
        TypeError: ``counts`` are of another kind than integers.
        ValueError: a count is negative, all are zero, or the unit or the correction is unknown.

    Example:
        >>> entropy_of_counts(torch.tensor([1, 1, 2]))
        1.5
        >>> round(entropy_of_counts(torch.tensor([1, 1, 2]), correction="miller_madow"), 3)
        1.861
    """
    log = logarithm(unit)
    if correction is not None:
        return corrected(counts, correction, unit=unit)
    return plug_in(counts_of_counts(counts), log)


def entropy(ids: Tensor, *, unit: Unit = "bits", correction: Correction | None = None) -> float:
    r"""The plug-in entropy H(A) of a variable, :math:`\log N - \frac{1}{N}\sum_k n_k \log n_k`.

    Source:
        Counting (Cover & Thomas 2006), and its bias (Miller 1955).

    Cost:
        About 0.2 ms for 10 000 samples, on one core.

    Samples:
        Many more than the K symbols: it is biased down by about (K − 1)/2N nats, and 12 fair bits read 9.7 bits from 1
        000 samples.

    Trap:
        It describes the symbols: finer bins raise it up to log N, at any state of the layer. A fall is compression at
        this resolution.

    Args:
        ids: integers, shape ``(N,)``.
        unit: ``"bits"`` or ``"nats"``.
        correction: None, or the correction of each entropy: see :func:`entropy_of_counts`.

    Returns:
        The entropy in ``unit``; uncorrected, between 0 and log N.

    Raises:
        TypeError: ``ids`` are of another kind than a tensor of integers.
        ValueError: ``ids`` have another shape, or the unit or the correction is unknown.

    Example:
        >>> entropy(torch.tensor([0, 1, 2, 3]))
        2.0
    """
    return entropy_of_counts(_frequencies(checked_ids(ids)), unit=unit, correction=correction)


def _frequencies(ids: Tensor) -> Tensor:
    """The counts of :func:`symbols` in any order, zeros among them, in less time than numbering the symbols takes.

    Ids of a wide range are sorted, on the host by NumPy, whose sort of integers uses vector instructions; a count is
    the distance between two places where the sorted ids change.
    """
    if abs(int(ids[0]) - int(ids[-1])) < len(ids):  # where these two ids differ by more, all span too wide a range
        low, high = _bounds(ids)
        if high - low < len(ids):
            return torch.bincount(_from_zero(ids, low, high)[0])
    if ids.device.type == "cpu" and numpy_reads_tensors():
        import numpy as np

        ordered = np.sort(ids.numpy())
        last = np.flatnonzero(ordered[1:] != ordered[:-1])  # of each symbol but the greatest: one at least
        found = np.empty(len(last) + 1, dtype=np.int64)
        found[0], found[-1] = last[0] + 1, len(ordered) - 1 - last[-1]
        np.subtract(last[1:], last[:-1], out=found[1:-1])
        return torch.from_numpy(found)
    counts: Tensor = torch.unique_consecutive(ids.sort().values, return_counts=True)[1]
    return counts


def mutual_information(a: Tensor, b: Tensor, *, unit: Unit = "bits", correction: Correction | None = None) -> float:
    r"""The plug-in mutual information :math:`I(A;B) = H(A) + H(B) - H(A,B)`.

    Source:
        Counted entropies (Cover & Thomas 2006); of layers first by Shwartz-Ziv & Tishby (2017).

    Cost:
        About 1 ms for 10 000 samples, on one core.

    Samples:
        Several for each pair of symbols. It is biased up: independent variables with :math:`K_A` and :math:`K_B`
        symbols read about :math:`(K_A - 1)(K_B - 1) / 2N` nats.

    Trap:
        Where A has a symbol for every sample, it is H(B) for any B. Where every sample is an x of its own, I(X;T) is
        H(T), the entropy of the symbols of a layer: of a layer without noise the exact value is log N or infinite.

    Args:
        a: integers, shape ``(N,)``.
        b: integers, shape ``(N,)``, the same samples in the same order.
        unit: ``"bits"`` or ``"nats"``.
        correction: None, or the correction of each entropy: see :func:`entropy_of_counts`.

    Returns:
        The information in ``unit``; uncorrected, between 0 and min(H(A), H(B)); corrected, it may be negative.

    Raises:
        TypeError: ``a`` or ``b`` is of another kind than a tensor of integers.
        ValueError: they have different numbers of samples, or the unit or the correction is unknown.

    Example:
        >>> mutual_information(torch.tensor([0, 0, 1, 1]), torch.tensor([4, 4, 9, 9]))
        1.0
    """
    sa, sb = symbols(a), symbols(b)
    h_a, h_b, h_ab = (
        entropy_of_counts(c, unit=unit, correction=correction) for c in (sa.counts, sb.counts, joint_counts(sa, sb))
    )
    return add_entropies(h_a, h_b, -h_ab)


def conditional_entropy(
    a: Tensor, *, given: Tensor, unit: Unit = "bits", correction: Correction | None = None
) -> float:
    r"""The plug-in conditional entropy :math:`H(A|B) = H(A,B) - H(B)`.

    Source:
        Counting (Cover & Thomas 2006).

    Cost:
        About 1 ms for 10 000 samples, on one core.

    Samples:
        As many as the information, of which it has the bias with the opposite sign: several for each pair of symbols.

    Trap:
        Where B has a symbol for every sample it is 0, for any A: H(Y|T) of a saturated layer is low by chance.

    Args:
        a: integers, shape ``(N,)``.
        given: integers, shape ``(N,)``: the variable B.
        unit: ``"bits"`` or ``"nats"``.
        correction: None, or the correction of each entropy: see :func:`entropy_of_counts`.

    Returns:
        The entropy in ``unit``; uncorrected, between 0 and H(A).

    Raises:
        TypeError: ``a`` or ``given`` is of another kind than a tensor of integers.
        ValueError: they have different numbers of samples, or the unit or the correction is unknown.

    Example:
        >>> conditional_entropy(torch.tensor([0, 1, 0, 1]), given=torch.tensor([0, 0, 1, 1]))
        1.0
    """
    sa, sb = symbols(a), symbols(given)
    return add_entropies(
        entropy_of_counts(joint_counts(sa, sb), unit=unit, correction=correction),
        -entropy_of_counts(sb.counts, unit=unit, correction=correction),
    )


def conditional_mutual_information(
    a: Tensor, b: Tensor, *, given: Tensor, unit: Unit = "bits", correction: Correction | None = None
) -> float:
    r"""The plug-in conditional information :math:`I(A;B|C) = H(A,C) + H(B,C) - H(C) - H(A,B,C)`.

    Source:
        Counting (Cover & Thomas 2006); I(X;T|Y) of a layer is its superfluous information (Kirsch, Lyle & Gal 2021).

    Cost:
        About 3 ms for 10 000 samples, on one core.

    Samples:
        The most of all counts: several for each combination of three symbols.

    Trap:
        Where every sample is an x of its own, I(X;T|Y) is H(T) − I(T;Y), with the biases of both: log N − H(Y) where T
        has a symbol for every sample.

    Args:
        a: integers, shape ``(N,)``.
        b: integers, shape ``(N,)``.
        given: integers, shape ``(N,)``: the variable C.
        unit: ``"bits"`` or ``"nats"``.
        correction: None, or the correction of each entropy: see :func:`entropy_of_counts`.

    Returns:
        The information in ``unit``; uncorrected, 0 or more.

    Raises:
        TypeError: a variable is of another kind than a tensor of integers.
        ValueError: they have different numbers of samples, or the unit or the correction is unknown.

    Example:
        The exclusive or of two fair bits: independent of each, and determined by both together.

        >>> a, b = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
        >>> mutual_information(a, a ^ b), conditional_mutual_information(a, a ^ b, given=b)
        (0.0, 1.0)
    """
    sa, sb, sc = symbols(a), symbols(b), symbols(given)
    bc = joint(sb, sc)
    h_ac, h_bc, h_c, h_abc = (
        entropy_of_counts(s.counts, unit=unit, correction=correction) for s in (joint(sa, sc), bc, sc, joint(sa, bc))
    )
    return add_entropies(h_ac, h_bc, -h_c, -h_abc)


def add_entropies(*entropies: float) -> float:
    """The sum of signed entropies, where a rounding error around zero reads zero.

    A sum that is negative by more than rounding is returned as it is.

    Args:
        entropies: the terms, in one unit.

    Example:
        >>> add_entropies(1.0, 1.0, -2.0 - 4e-16)
        0.0
    """
    total = math.fsum(entropies)
    return 0.0 if abs(total) < _ROUNDING else total


def information_bottleneck(*, i_xt: float, i_ty: float, beta: float) -> float:
    r"""The functional of the information bottleneck, :math:`I(X;T) - \beta\, I(T;Y)`.

    Source:
        Tishby, Pereira & Bialek (1999).

    Cost:
        None beside its two informations.

    Samples:
        Those of its two informations, whose errors and biases it inherits.

    Trap:
        A layer that knows nothing reads 0, which for β up to 1 is the lowest value there is. Values of different β do
        not compare.

    Args:
        i_xt: I(X;T), in any unit.
        i_ty: I(T;Y), in the same unit.
        beta: the price of relevance, in units of one to one.

    Returns:
        The functional, in the unit of its arguments; the lower, the better the trade.

    Example:
        >>> information_bottleneck(i_xt=3.0, i_ty=1.0, beta=2.0)
        1.0
    """
    return i_xt - beta * i_ty
