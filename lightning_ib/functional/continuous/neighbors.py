r"""Mutual information from the distances to nearest neighbors.

All three estimators use the max norm, :math:`\lVert a - b \rVert = \max_d |a_d - b_d|`, over the coordinates of a
variable and over the variables of a pair. Coordinates are taken as they come: those on a larger scale decide which
samples are neighbors, so bring the coordinates of one variable to one scale first. (scikit-learn divides each by its
standard deviation.)

The search is exact, every sample against every other, and takes time in proportion to :math:`N^2 D`; a block of
samples at a time, so that memory grows linearly with N. Distances are computed in float64 for rows of every dtype: the
difference of two float32 numbers needs more digits than float32 has, and its rounding could change the neighbors.

An estimate scatters around the truth and can come out negative where the information is small; it is left unclipped, so
that averages over runs stay unbiased by clipping. Many coordinates need many samples: with few, all three read too low,
and the largest value they can read grows with log N.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

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

# How many distances are held at once in one matrix: 8 MB of float64, with about four such matrices at a time.
_BLOCK = 1_000_000


def mutual_information_ksg(x: Tensor, y: Tensor, *, k: int = 3, algorithm: int = 1, unit: Unit = "bits") -> float:
    r"""The information of two continuous variables from k-nearest-neighbor counts.

    Algorithm 1, with :math:`\epsilon_i` the distance of sample i to its k-th neighbor in the joint space, and
    :math:`n_{x,i}` the number of other samples whose x is nearer than :math:`\epsilon_i`:

    .. math:: I = \psi(k) + \psi(N) - \langle \psi(n_x + 1) + \psi(n_y + 1) \rangle

    Algorithm 2, with :math:`\epsilon_{x,i}` the largest distance in x alone to any of the k neighbors, and
    :math:`n_{x,i}` the number of other samples whose x is no farther than that:

    .. math:: I = \psi(k) - 1/k + \psi(N) - \langle \psi(n_x) + \psi(n_y) \rangle

    Both are by Kraskov, Stögbauer & Grassberger (2004). Algorithm 1 scatters less, algorithm 2 is less biased in many
    dimensions and counts all neighbors at exactly the k-th distance.

    It reads far too low where the dependence is narrower than the distance between neighbors (about exp(I) samples are
    needed for I nats, more in many dimensions). Both variables must be continuous: where values repeat, as after a
    ReLU, see :func:`mutual_information_mixed`.

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
            constant or hold NaN or infinity, or rows repeat so often that a k-th neighbor lies at distance 0.

    Example:
        Signal and noise of equal power: half a bit.

        >>> x, noise = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
        >>> round(mutual_information_ksg(x, x + noise), 1)
        0.5
    """
    checked_unit(unit)
    checked_choice(algorithm, "algorithm", (1, 2))
    x, y = (rows.double() for rows in checked_pair(x, y, labels="use mutual_information_knn(t, y)"))
    k = _checked_k(k, len(x))
    _check_varies(x, "x")
    _check_varies(y, "y")
    inside_x, inside_y = _counts_within(x, y, k, algorithm)
    if algorithm == 1:
        return in_unit(_psi(k) + _psi(len(x)) - _mean_psi(inside_x) - _mean_psi(inside_y), unit)
    return in_unit(_psi(k) - 1 / k + _psi(len(x)) - _mean_psi(inside_x - 1) - _mean_psi(inside_y - 1), unit)


def _counts_within(x: Tensor, y: Tensor, k: int, algorithm: int) -> tuple[Tensor, Tensor]:
    """The number of samples within the reach of each sample's k neighbors, in x and in y, the sample included."""
    radii, (inside_x, inside_y) = x.new_empty(len(x), 1), _counts(x, 2)  # the sample itself is among those inside
    for block in _blocks(len(x)):
        to_x, to_y = _distances(x, block), _distances(y, block)
        to_both = torch.maximum(to_x, to_y)
        radii[block] = radius = _kth_neighbor(to_both, k)
        for distances, inside in ((to_x, inside_x), (to_y, inside_y)):
            if algorithm == 1:
                inside[block] = (distances < radius).sum(1)
            else:
                reach = distances.where(to_both <= radius, 0).amax(1, keepdim=True)
                inside[block] = (distances <= reach).sum(1)
    _check_apart(radii, k, "x and y together")
    return inside_x, inside_y


def mutual_information_knn(t: Tensor, y: Tensor, *, k: int = 3, unit: Unit = "bits") -> float:
    r"""The information of a continuous variable about a class, from nearest neighbors within and across the classes.

    With :math:`N_{y_i}` the size of the class of sample i, and :math:`m_i` the number of samples of any class that
    are no farther than its k-th neighbor of its own class:

    .. math:: I = \psi(N) + \psi(k) - \langle \psi(N_y) \rangle - \langle \psi(m) \rangle

    By Ross (2014). For one coordinate :func:`sklearn.feature_selection.mutual_info_classif` computes the same, and
    besides adds noise, lowers k in small classes, leaves out classes of one sample, and sets negative estimates to
    zero.

    It misleads where values repeat, as after a ReLU (see :func:`mutual_information_mixed`), and in many dimensions,
    where it reads too low until the classes are far apart.

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
    t = checked_rows(t, "t", labels=AS_Y).double()
    labels, counts = checked_labels(y, len(t))
    k = _checked_k(k, len(t))
    _check_varies(t, "t")
    smallest = int(counts.argmin())
    if counts[smallest] <= k:
        raise ValueError(
            f"class {y.unique()[smallest].item()} of y has {int(counts[smallest])} of {len(t)} samples, and k = {k} "
            f"neighbors of the same class need at least {k + 1}: leave the class out, or lower k."
        )
    radii, (inside,) = t.new_empty(len(t), 1), _counts(t, 1)
    for block in _blocks(len(t)):
        distances = _distances(t, block)
        same = labels[block].unsqueeze(1) == labels
        radii[block] = radius = _kth_neighbor(distances.where(same, math.inf), k)
        # m counts the k-th neighbor in place of the sample itself; here it is the other way round.
        inside[block] = (distances < radius).sum(1)
    _check_apart(radii, k, "t within a class")
    return in_unit(_psi(len(t)) + _psi(k) - _mean_psi(counts[labels]) - _mean_psi(inside), unit)


def mutual_information_mixed(x: Tensor, y: Tensor, *, k: int = 3, unit: Unit = "bits") -> float:
    r"""The information of two variables, each discrete, continuous or a mixture: k-nearest-neighbor counts with ties.

    With :math:`\rho_i` the distance of sample i to its k-th neighbor in the joint space:

    .. math:: I = \log N + \langle \psi(\tilde k) - \psi(n_x) - \psi(n_y) \rangle

    Where :math:`\rho_i > 0`, :math:`\tilde k_i = k` and :math:`n_{x,i}` counts the samples whose x is nearer than
    :math:`\rho_i`, as algorithm 1 of :func:`mutual_information_ksg` does; where :math:`\rho_i = 0` (the sample is on
    an atom), :math:`\tilde k_i` and :math:`n_{x,i}` count the samples equal to it. The sample itself is counted.

    By Gao, Kannan, Oh & Viswanath (2017), with the counts and the digamma of their program; the logarithms and closed
    balls of the algorithm as printed there have the same limit and read up to 0.3 nats lower at thousands of samples.
    It equals KSG but for :math:`\log N - \psi(N) \approx 1/2N` where all values differ, and nears the plug-in estimate,
    with less bias, where all repeat.

    It misleads where one scale hides the other. A discrete variable is given as numbers, at a distance of their
    difference: give class labels as ``range * y.double()`` with more than the range of x, which keeps classes apart;
    any one-to-one map of a discrete variable has the same information. It reads low where atoms lie amid continuous
    values: samples near an atom of one variable count all of it.

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
    x, y = (rows.double() for rows in checked_pair(x, y, labels="use mutual_information_knn(t, y)"))
    k = _checked_k(k, len(x))
    inside_x, inside_y, k_tilde = _counts(x, 3)
    for block in _blocks(len(x)):
        to_x, to_y = _distances(x, block), _distances(y, block)
        to_both = torch.maximum(to_x, to_y)
        radius = _kth_neighbor(to_both, k)
        reach = radius.nextafter(torch.zeros_like(radius))  # nearer than the radius, or at 0 where it is 0
        inside_x[block], inside_y[block] = (to_x <= reach).sum(1), (to_y <= reach).sum(1)
        k_tilde[block] = (to_both <= reach).sum(1).where(radius.squeeze(1) == 0, k)
    return in_unit(math.log(len(x)) + _mean_psi(k_tilde) - _mean_psi(inside_x) - _mean_psi(inside_y), unit)


def _blocks(n: int) -> Iterator[slice]:
    """Consecutive samples, so many at a time that their distances to all n fit a block."""
    size = max(1, _BLOCK // n)
    return (slice(start, start + size) for start in range(0, n, size))


def _counts(rows: Tensor, how_many: int) -> Tensor:
    """Memory for counts of every sample: small results kept from every block would fragment that of the large ones."""
    return torch.empty((how_many, len(rows)), dtype=torch.int64, device=rows.device)


def _distances(rows: Tensor, block: slice) -> Tensor:
    return torch.cdist(rows[block], rows, p=math.inf)


def _kth_neighbor(distances: Tensor, k: int) -> Tensor:
    """The distance to the k-th nearest, shape ``(B, 1)``: before the first comes the sample itself, at distance 0."""
    return distances.topk(k + 1, dim=1, largest=False).values[:, k:]


def _psi(count: int) -> float:
    return torch.digamma(torch.tensor(count, dtype=torch.float64)).item()


def _mean_psi(counts: Tensor) -> float:
    """The mean digamma, in one order for every order of the samples, every size of a block and every device."""
    count, times = (t.tolist() for t in torch.unique(counts, return_counts=True))
    return math.fsum(m * _psi(c) for c, m in zip(count, times)) / len(counts)


def _checked_k(k: int, n: int) -> int:
    return checked_integer(k, "k", at_least=1, at_most=n - 1, advice=f"there are {n} samples")


def _check_varies(rows: Tensor, name: str) -> None:
    if bool((rows == rows[0]).all()):
        raise ValueError(
            f"{name} is the same in all {len(rows)} rows: leave it out, a constant carries no information."
        )


def _check_apart(radius: Tensor, k: int, name: str) -> None:
    repeated = int((radius == 0).sum())
    if repeated:
        raise ValueError(
            f"{repeated} of {len(radius)} rows of {name} are repeated k = {k} times or more: their k-th neighbor is "
            "at distance 0, where the estimator is undefined; use mutual_information_mixed, or add a little noise."
        )
