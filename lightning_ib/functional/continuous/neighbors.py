r"""Mutual information from the distances to nearest neighbors.

All three estimators use the max norm, :math:`\lVert a - b \rVert = \max_d |a_d - b_d|`, over the coordinates of a
variable and over the variables of a pair. Coordinates are taken as they come: those on a larger scale decide which
samples are neighbors, so bring the coordinates of one variable to one scale first. (scikit-learn divides each by its
standard deviation.)

The search is exact and in float64 (:mod:`~lightning_ib.functional.continuous.neighbor_search`): with SciPy, a k-d tree
in few coordinates; else every sample against every other, in time proportional to :math:`N^2 D`, with the same result.

An estimate scatters around the truth and can come out negative where the information is small; it is left unclipped, so
that averages over runs stay unbiased by clipping. Many coordinates need many samples: with few, all three read too low,
and the largest value they can read grows with log N.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_ib.functional.checks import (
    AS_Y,
    Unit,
    checked_choice,
    checked_integer,
    checked_labels,
    checked_pair,
    checked_rows,
    checked_unit,
    in_unit,
)
from lightning_ib.functional.continuous.neighbor_search import (
    Neighborhoods,
    box_neighborhoods,
    class_neighborhoods,
    neighborhoods,
    psi_table,
)
from lightning_ib.functional.resampling import Pointwise

# The widest range of real values beside classes, whose distances are this times their number.
_WIDEST = 1e290

# How many coordinates are looked at one by one for repeated values, before rows are compared as a whole.
_LOOKED_AT = 8


def mutual_information_ksg(x: Tensor, y: Tensor, *, k: int = 3, algorithm: int = 1, unit: Unit = "bits") -> float:
    r"""The information of two continuous variables from k-nearest-neighbor counts.

    Algorithm 1, with :math:`\epsilon_i` the distance of sample i to its k-th neighbor in the joint space, and
    :math:`n_{x,i}` the number of other samples whose x is nearer than :math:`\epsilon_i`:

    .. math:: I = \psi(k) + \psi(N) - \langle \psi(n_x + 1) + \psi(n_y + 1) \rangle

    Algorithm 2, with :math:`\epsilon_{x,i}` the largest distance in x alone to any of the k neighbors, and
    :math:`n_{x,i}` the number of other samples whose x is no farther than that:

    .. math:: I = \psi(k) - 1/k + \psi(N) - \langle \psi(n_x) + \psi(n_y) \rangle

    Algorithm 1 scatters less, algorithm 2 is less biased in many
    dimensions and counts all neighbors at exactly the k-th distance.

    Source:
        Kraskov, Stögbauer & Grassberger (2004).

    Cost:
        On one core 0.04 s for 10 000 samples of 1 + 1 coordinates, about 5 s for 10 + 10.

    Samples:
        About exp(I) for I nats, and more in many dimensions: from 5 000 it reads 1.10 of 1.26 bits in 10 + 10.

    Trap:
        It reads far too low where the dependence is narrower than the distance between neighbors. Both variables must
        be continuous: where values repeat, as after a ReLU, see :func:`mutual_information_mixed`. About the input of a
        deterministic layer the truth is infinite, and the estimate grows with N.

    Args:
        x: real numbers in floating point, shape ``(N, …)`` or ``(N,)``.
        y: real numbers in floating point, shape ``(N, …)`` or ``(N,)``: the same samples in the same order.
        k: the number of neighbors, 1 to N − 1: the more, the less scatter and the more bias.
        algorithm: 1 or 2.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The information in ``unit``.

    Raises:
        TypeError: an argument is of another kind; integer variables are.
        ValueError: ``k``, ``algorithm`` or ``unit`` is out of range, the variables differ in their samples, are
            constant, hold NaN or infinity or span more than float64 holds, or rows repeat so often that a k-th
            neighbor lies at distance 0.

    Example:
        Signal and noise of equal power: half a bit.

        >>> x, noise = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
        >>> round(mutual_information_ksg(x, x + noise), 1)
        0.5
    """
    checked_unit(unit)
    return in_unit(pointwise_ksg(x, y, k=k, algorithm=algorithm).nats, unit)


def pointwise_ksg(x: Tensor, y: Tensor, *, k: int = 3, algorithm: int = 1) -> Pointwise:
    """The estimate of :func:`mutual_information_ksg` and the part of each sample in it."""
    checked_choice(algorithm, "algorithm", (1, 2))
    x, y = (rows.double() for rows in checked_pair(x, y, labels="use mutual_information_knn(t, y)"))
    k = checked_k(k, len(x))
    check_varies(x, "x")
    check_varies(y, "y")
    check_span(x, "x")
    check_span(y, "y")
    around = neighborhoods((x, y), [(0,), (1,)], k) if algorithm == 1 else box_neighborhoods(x, y, k)
    check_apart(around.radii, k, "x and y together")
    bias = 0.0 if algorithm == 1 else 1 / k
    nats = _psi(k) - bias + _psi(len(x)) - sum(map(mean, around.digammas))
    return Pointwise(nats, -around.digammas.sum(0))


def mutual_information_knn(t: Tensor, y: Tensor, *, k: int = 3, unit: Unit = "bits") -> float:
    r"""The information of a continuous variable about a class, from nearest neighbors within and across the classes.

    With :math:`N_{y_i}` the size of the class of sample i, and :math:`m_i` the number of samples of any class that
    are no farther than its k-th neighbor of its own class:

    .. math:: I = \psi(N) + \psi(k) - \langle \psi(N_y) \rangle - \langle \psi(m) \rangle

    For one coordinate :func:`sklearn.feature_selection.mutual_info_classif` computes the same, and besides adds noise,
    lowers k in small classes, leaves out classes of one sample, and sets negative estimates to zero.

    Source:
        Ross (2014).

    Cost:
        On one core 0.03 s for 10 000 samples of one coordinate, about 0.4 s of ten; 0.8 s for 2 000 of 128.

    Samples:
        More than k in every class. From 5 000 the median bias over the known cases is 0.01 bits.

    Trap:
        Where values repeat, as after a ReLU, it is refused or wrong (see :func:`mutual_information_mixed`); in many
        dimensions it reads too low until the classes are far apart: 0.30 of 0.49 bits in 50 coordinates. It may be a
        little below 0 or above H(Y).

    Args:
        t: the representation, real floating point, shape ``(N, …)`` or ``(N,)``.
        y: class labels, integers or booleans, shape ``(N,)``, any values.
        k: the number of neighbors, at least 1 and less than the samples of every class.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The information in ``unit``, up to the entropy of the labels and a little scatter.

    Raises:
        TypeError: ``t`` is of another kind (integers are), or ``y`` (real numbers are), or ``k``.
        ValueError: ``k`` or ``unit`` is out of range, a class has at most ``k`` samples, the variables differ in their
            samples, ``t`` is constant or holds NaN or infinity, or rows repeat so often within a class that a k-th
            neighbor lies at distance 0.

    Example:
        >>> t, y = torch.linspace(0, 1, 100, dtype=torch.float64), torch.arange(100) // 50
        >>> round(mutual_information_knn(t, y), 2)
        0.98
    """
    checked_unit(unit)
    return in_unit(pointwise_knn(t, y, k=k).nats, unit)


def pointwise_knn(t: Tensor, y: Tensor, *, k: int = 3) -> Pointwise:
    """The estimate of :func:`mutual_information_knn` and the part of each sample in it."""
    t = checked_rows(t, "t", labels=AS_Y).double()
    labels, counts = checked_labels(y, len(t))
    k = checked_k(k, len(t))
    check_varies(t, "t")
    check_span(t, "t")
    smallest = int(counts.argmin())
    if counts[smallest] <= k:
        raise ValueError(
            f"class {y.unique()[smallest].item()} of y has {int(counts[smallest])} of {len(t)} samples, and k = {k} "
            f"neighbors of the same class need at least {k + 1}: leave the class out, or lower k."
        )
    around = class_neighborhoods(t, labels, len(counts), k)
    check_apart(around.radii, k, "t within a class")
    # m counts the k-th neighbor in place of the sample itself; in the neighborhood it is the other way round.
    of_class = psi_table(len(t)).to(t.device)[counts[labels]]
    local = of_class + around.digammas[0]
    return Pointwise(_psi(len(t)) + _psi(k) - mean(local), -local)


def mutual_information_mixed(x: Tensor, y: Tensor, *, k: int = 3, unit: Unit = "bits") -> float:
    r"""The information of two variables, each discrete, continuous or a mixture: k-nearest-neighbor counts with ties.

    With :math:`\rho_i` the distance of sample i to its k-th neighbor in the joint space:

    .. math:: I = \log N + \langle \psi(\tilde k) - \psi(n_x) - \psi(n_y) \rangle

    Where :math:`\rho_i > 0`, :math:`\tilde k_i = k` and :math:`n_{x,i}` counts the samples whose x is nearer than
    :math:`\rho_i`, as algorithm 1 of :func:`mutual_information_ksg` does; where :math:`\rho_i = 0` (the sample is on
    an atom), :math:`\tilde k_i` and :math:`n_{x,i}` count the samples equal to it. The sample itself is counted.

    Rows of a variable that are there more than k times, its atoms, and its other rows are told apart: the two parts of
    its distribution are singular to each other, so that neighbors are looked for, and counted, in the part of a sample
    alone, unless at most 10 k samples share their parts. Else a sample beside an atom would count all of it: a normal
    pair, mixed half and half with two points, reads 1.54 of 1.74 bits that way, and 1.73 with the parts apart.

    Quantized values may still have a k-th neighbor at the distance of many others. A tiny noise would put those in an
    order: :math:`\psi(n)` is the mean over all orders where one variable is tied, and over four draws of a fixed seed
    where several are.

    Counts and digamma are those of the authors' program; the logarithms and closed balls of the algorithm as printed
    read up to 0.3 nats lower at thousands of samples. It equals KSG but for :math:`\log N - \psi(N) \approx 1/2N` where
    all values differ, and nears the plug-in estimate, with less bias, where all repeat.

    Source:
        Gao, Kannan, Oh & Viswanath (2017).

    Cost:
        On one core 0.05 s for 10 000 samples of 1 + 1 coordinates; five to ten times that where both are rounded.

    Samples:
        As :func:`mutual_information_ksg`; of symbols, which had better be counted, several times their number: 12 fair
        bits read 10.3 from 5 000.

    Trap:
        One scale may hide the other: give class labels as ``range * y.double()`` with more than the range of x (any
        one-to-one map of a discrete variable has the same information). It reads low in many dimensions, also of rows
        that repeat in some coordinates only. In half precision values repeat by rounding and pass for atoms: half a
        normal pair (ρ = .9) and half two points read 1.92 of 2.10 bits from 5 000, in float32 2.11.

    Args:
        x: numbers in floating point, shape ``(N, …)`` or ``(N,)``.
        y: numbers in floating point, shape ``(N, …)`` or ``(N,)``: the same samples in the same order.
        k: the number of neighbors, 1 to N − 1.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The information in ``unit``.

    Raises:
        TypeError: an argument is of another kind; integer variables are.
        ValueError: ``k`` or ``unit`` is out of range, or the variables differ in their samples or hold NaN or infinity.

    Example:
        >>> x = torch.arange(1000.0) % 4
        >>> round(mutual_information_mixed(x, x // 2), 2)
        1.0
    """
    checked_unit(unit)
    return in_unit(pointwise_mixed(x, y, k=k).nats, unit)


def pointwise_mixed(x: Tensor, y: Tensor, *, k: int = 3) -> Pointwise:
    """The estimate of :func:`mutual_information_mixed` and the part of each sample in it."""
    x, y = (rows.double() for rows in checked_pair(x, y, labels="use mutual_information_knn(t, y)"))
    k = checked_k(k, len(x))
    check_span(x, "x")
    check_span(y, "y")
    if any(bool((of == of[0]).all()) for of in (x, y)):
        return Pointwise(0.0, torch.zeros_like(x[:, 0]))  # nothing varies with the other
    parts = atoms_apart((x, y), k)
    local = local_information(neighborhoods(parts, [(0,), (1,)], k, ties=True), (-1, -1), k, parts)
    return Pointwise(math.log(len(x)) + mean(local), local)


def atoms_apart(parts: Sequence[Tensor], k: int) -> Sequence[Tensor]:
    """The variables with their atoms moved away from the other rows, farther than two rows are apart.

    Unchanged where at most 10 k samples have the same kinds of rows in all variables, which is too few for neighbors of
    their own, or rounding would make two rows equal. It changes no information: atoms and other rows are told apart by
    their values already.
    """
    atoms = [_on_atoms(rows, k) for rows in parts]
    kinds = torch.bincount(sum(2**i * on.long() for i, on in enumerate(atoms)))
    widest = max(float(rows.max()) - float(rows.min()) for rows in parts)
    if int((kinds > 0).sum()) == 1 or bool(((kinds > 0) & (kinds <= 10 * k)).any()) or not 0 < widest < _WIDEST:
        return parts
    away = 2.0 ** (math.ceil(math.log2(widest)) + 1)
    moved = []
    for rows, on in zip(parts, atoms):
        if _distinct(rows[on] + away) < _distinct(rows[on]):
            return parts
        moved.append(torch.where(on.unsqueeze(1), rows + away, rows))
    return moved


def _on_atoms(rows: Tensor, k: int) -> Tensor:
    """Which rows are there more than k times, bool ``(N,)``: fewer may be chance, or a sample that was drawn twice."""
    found = torch.arange(len(rows), device=rows.device)
    for column in rows.T[:_LOOKED_AT]:  # each leaves no more rows, of which few are compared as a whole
        ordered, order = column[found].sort()
        _, numbers, counts = torch.unique_consecutive(ordered, return_inverse=True, return_counts=True)
        found = found[order[counts[numbers] > k]]
        if not len(found):
            break
    if rows.shape[1] > 1 and len(found):
        _, numbers, counts = torch.unique(rows[found] + 0.0, dim=0, return_inverse=True, return_counts=True)
        found = found[counts[numbers] > k]  # -0 equals 0
    return torch.zeros(len(rows), dtype=torch.bool, device=rows.device).index_fill_(0, found, True)


def _distinct(rows: Tensor) -> int:
    """The number of different rows."""
    return len((rows + 0.0).unique(dim=0) if rows.shape[1] > 1 else (rows + 0.0).unique())


def local_information(around: Neighborhoods, signs: Sequence[int], k: int, parts: Sequence[Tensor]) -> Tensor:
    r"""The part of each sample in an information, less a constant: float64 ``(N,)``, in nats.

    :math:`\psi(\tilde k) + \sum_S \pm \psi(n_S)`, where :math:`\tilde k` is k, or the number of equal samples where the
    k-th neighbor is at distance 0.

    Args:
        around: the neighborhoods.
        signs: of each subset: −1 or 1.
        k: the number of neighbors.
        parts: the variables.
    """
    local = torch.full_like(around.radii, _psi(k))
    repeated = around.radii == 0
    if bool(repeated.any()):
        rows = torch.cat(tuple(parts), 1) + 0.0  # -0 equals 0
        _, numbers, counts = torch.unique(rows, dim=0, return_inverse=True, return_counts=True)
        local = torch.where(repeated, psi_table(len(rows)).to(rows.device)[counts[numbers]], local)
    for sign, digammas in zip(signs, around.digammas):
        local = local + sign * digammas
    return local


def far_apart(numbers: Tensor, *rows: Tensor) -> Tensor:
    """Class numbers as one coordinate, ``(N, 1)``: classes are farther apart than any two samples are in other rows.

    Args:
        numbers: int64 ``(N,)``, small: see :func:`~lightning_ib.functional.checks.checked_labels`.
        *rows: finite real variables.

    Raises:
        ValueError: the rows span more than distances hold.
    """
    widest = max([1.0, *(float(of.max()) - float(of.min()) for of in rows)])
    if widest > _WIDEST:
        raise ValueError(f"the real values span {widest:.3g}, more than distances hold in float64: divide them.")
    return 2.0 ** (math.ceil(math.log2(widest)) + 1) * numbers.double().unsqueeze(1)  # a power of two: exact


def mean(local: Tensor) -> float:
    """The mean, correctly rounded: the same for every order of the samples."""
    return math.fsum(local.tolist()) / len(local)


def _psi(count: int) -> float:
    return torch.digamma(torch.tensor(count, dtype=torch.float64, device="cpu")).item()


def checked_k(k: int, n: int) -> int:
    """The number of neighbors, 1 to n − 1."""
    return checked_integer(k, "k", at_least=1, at_most=n - 1, advice=f"there are {n} samples")


def check_varies(rows: Tensor, name: str) -> None:
    """Raise where a variable is constant."""
    if bool((rows == rows[0]).all()):
        raise ValueError(
            f"{name} is the same in all {len(rows)} rows: leave it out, a constant carries no information."
        )


def check_span(rows: Tensor, name: str) -> None:
    """Raise where two rows are farther apart than float64 holds."""
    if not bool((rows.amax(0) - rows.amin(0)).isfinite().all()):
        raise ValueError(f"{name} spans more than distances hold in float64: divide it.")


def check_apart(radius: Tensor, k: int, name: str, instead: str = "mutual_information_mixed") -> None:
    """Raise where a k-th neighbor is at distance 0."""
    repeated = int((radius == 0).sum())
    if repeated:
        raise ValueError(
            f"{repeated} of {len(radius)} rows of {name} are repeated k = {k} times or more: their k-th neighbor is "
            f"at distance 0, where the estimator is undefined; use {instead}, or add a little noise."
        )
