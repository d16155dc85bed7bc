r"""Mutual information from the distances to nearest neighbours: nothing is binned, no density is estimated.

All three estimators use the max norm, :math:`\lVert a - b \rVert = \max_d |a_d - b_d|`, over the coordinates of a
variable and over the variables of a pair. Coordinates are taken as they come: what is measured on a larger scale
decides who is a neighbour, so bring the coordinates of one variable to one scale first. (scikit-learn divides each by
its standard deviation.)

The search is exact, every sample against every other, and takes time in proportion to :math:`N^2 D`; a block of
samples at a time, so that memory grows with N and not with its square. Distances are computed in float64 whatever the
rows came in: the difference of two float32 numbers is not a float32 number, and who is nearer must not hang on its
rounding.

An estimate scatters around the truth and can come out negative where there is little to find; it is not clipped, so
that averages over runs stay honest. Many coordinates need many samples: with few, all three read too low, and what
they can read at most grows only with log N.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_ib.functional.checks import Unit, checked_labels, checked_pair, checked_rows, checked_unit, in_unit

# How many distances are held at once in one matrix: 8 MB of float64, with about four such matrices at a time.
_BLOCK = 1_000_000


def mutual_information_ksg(x: Tensor, y: Tensor, *, k: int = 3, algorithm: int = 1, unit: Unit = "bits") -> float:
    r"""The information of two continuous variables from k-nearest-neighbour counts.

    Algorithm 1, with :math:`\epsilon_i` the distance of sample i to its k-th neighbour in the joint space, and
    :math:`n_{x,i}` the number of other samples whose x is nearer than :math:`\epsilon_i`:

    .. math:: I = \psi(k) + \psi(N) - \langle \psi(n_x + 1) + \psi(n_y + 1) \rangle

    Algorithm 2, with :math:`\epsilon_{x,i}` the largest distance in x alone to any of the k neighbours, and
    :math:`n_{x,i}` the number of other samples whose x is no farther than that:

    .. math:: I = \psi(k) - 1/k + \psi(N) - \langle \psi(n_x) + \psi(n_y) \rangle

    Both are by Kraskov, Stögbauer & Grassberger (2004). Algorithm 1 scatters less, algorithm 2 is less biased in many
    dimensions. Neighbours at exactly the k-th distance all count as neighbours in algorithm 2, so that the order of
    the samples does not matter.

    The figure misleads where the dependence is narrower than the distance between neighbours (it reads far too low:
    about exp(I) samples are needed for I nats, more in many dimensions), and where values repeat, as after a ReLU:
    both variables must be continuous, else see :func:`mutual_information_mixed`.

    Args:
        x: real numbers, shape ``(N, …)`` or ``(N,)``.
        y: real numbers, shape ``(N, …)`` or ``(N,)``: the same samples in the same order.
        k: how many neighbours, 1 to N − 1: the more, the less scatter and the more bias.
        algorithm: 1 or 2.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The information in ``unit``.

    Raises:
        TypeError: ``x`` or ``y`` is no tensor of real numbers.
        ValueError: ``k``, ``algorithm`` or ``unit`` is out of range; the variables do not fit each other, are not
            finite or do not vary; or rows repeat so often that a k-th neighbour lies at distance 0.

    Example:
        Signal and noise of equal power: half a bit.

        >>> x, noise = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
        >>> round(mutual_information_ksg(x, x + noise), 1)
        0.5
    """
    checked_unit(unit)
    if algorithm not in (1, 2):
        raise ValueError(f"algorithm must be 1 or 2, got {algorithm!r}.")
    x, y = (rows.double() for rows in checked_pair(x, y))
    _check_k(k, len(x))
    _check_varies(x, "x")
    _check_varies(y, "y")
    radii, (inside_x, inside_y) = x.new_empty(len(x), 1), _counts(x, 2)  # the sample itself is among those inside
    for block in _blocks(len(x)):
        to_x, to_y = _distances(x, block), _distances(y, block)
        to_both = torch.maximum(to_x, to_y)
        radii[block] = radius = _kth_neighbour(to_both, k)
        for distances, inside in ((to_x, inside_x), (to_y, inside_y)):
            if algorithm == 1:
                inside[block] = (distances < radius).sum(1)
            else:
                reach = distances.where(to_both <= radius, 0).amax(1, keepdim=True)
                inside[block] = (distances <= reach).sum(1)
    _check_apart(radii, k, "x and y together")
    if algorithm == 1:
        return in_unit(_psi(k) + _psi(len(x)) - _mean_psi(inside_x) - _mean_psi(inside_y), unit)
    return in_unit(_psi(k) - 1 / k + _psi(len(x)) - _mean_psi(inside_x - 1) - _mean_psi(inside_y - 1), unit)


def mutual_information_knn(t: Tensor, y: Tensor, *, k: int = 3, unit: Unit = "bits") -> float:
    r"""The information of a continuous variable about a class, from nearest neighbours within and across the classes.

    With :math:`N_{y_i}` the size of the class of sample i, and :math:`m_i` the number of samples of any class that
    are no farther than its k-th neighbour of its own class:

    .. math:: I = \psi(N) + \psi(k) - \langle \psi(N_y) \rangle - \langle \psi(m) \rangle

    By Ross (2014). For one coordinate it is what :func:`sklearn.feature_selection.mutual_info_classif` computes,
    except for what that does besides: it adds noise, lowers k in small classes, leaves out classes of one sample, and
    sets negative estimates to zero.

    The figure misleads where values repeat, as after a ReLU (see :func:`mutual_information_mixed`), and in many
    dimensions, where it reads too low until the classes are far apart.

    Args:
        t: real numbers, shape ``(N, …)`` or ``(N,)``.
        y: class labels, integers or booleans, shape ``(N,)``; only which are equal matters.
        k: how many neighbours, at least 1 and less than the samples of every class.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The information in ``unit``, up to the entropy of the labels and a little scatter.

    Raises:
        TypeError: ``t`` is no tensor of real numbers, or ``y`` no tensor of integers.
        ValueError: ``k`` or ``unit`` is out of range; a class has no more than ``k`` samples; the variables do not
            fit each other, ``t`` is not finite or does not vary; or rows repeat so often within a class that a k-th
            neighbour lies at distance 0.

    Example:
        >>> t, y = torch.linspace(0, 1, 100, dtype=torch.float64), torch.arange(100) // 50
        >>> round(mutual_information_knn(t, y), 2)
        0.98
    """
    checked_unit(unit)
    t = checked_rows(t, "t").double()
    labels, counts = checked_labels(y, len(t))
    _check_k(k, len(t))
    _check_varies(t, "t")
    smallest = int(counts.argmin())
    if counts[smallest] <= k:
        raise ValueError(
            f"class {y.unique()[smallest].item()} of y has {int(counts[smallest])} of {len(t)} samples, and k = {k} "
            f"neighbours of the same class need at least {k + 1}: leave the class out, or lower k."
        )
    radii, (inside,) = t.new_empty(len(t), 1), _counts(t, 1)
    for block in _blocks(len(t)):
        distances = _distances(t, block)
        same = labels[block].unsqueeze(1) == labels
        radii[block] = radius = _kth_neighbour(distances.where(same, math.inf), k)
        # m counts the k-th neighbour and not the sample itself; here it is the other way round.
        inside[block] = (distances < radius).sum(1)
    _check_apart(radii, k, "t within a class")
    return in_unit(_psi(len(t)) + _psi(k) - _mean_psi(counts[labels]) - _mean_psi(inside), unit)


def mutual_information_mixed(x: Tensor, y: Tensor, *, k: int = 3, unit: Unit = "bits") -> float:
    r"""The information of two variables, each discrete, continuous or a mixture: k-nearest-neighbour counts with ties.

    With :math:`\rho_i` the distance of sample i to its k-th neighbour in the joint space:

    .. math:: I = \log N + \langle \psi(\tilde k) - \psi(n_x) - \psi(n_y) \rangle

    Where :math:`\rho_i > 0`, :math:`\tilde k_i = k` and :math:`n_{x,i}` counts the samples whose x is nearer than
    :math:`\rho_i`, as algorithm 1 of :func:`mutual_information_ksg` does; where :math:`\rho_i = 0` (the sample is on
    an atom), :math:`\tilde k_i` and :math:`n_{x,i}` count the samples equal to it. The sample itself is counted.

    By Gao, Kannan, Oh & Viswanath (2017), with the counts and the digamma of their program; the logarithms and closed
    balls of the algorithm as printed there have the same limit and read up to 0.3 nats lower at thousands of samples.
    It equals KSG but for :math:`\log N - \psi(N) \approx 1/2N` where nothing repeats, and nears the plug-in estimate,
    with less bias, where everything does.

    The figure misleads where one scale hides the other: integers are numbers here, at a distance of their difference,
    also where they are names of classes. Unless neighbours of x within a class are nearer than 1, multiply such labels
    by more than the range of x; any one-to-one map of a discrete variable leaves the truth as it is. It reads
    low where atoms lie amid continuous values: samples near an atom of one variable count all of it.

    Args:
        x: numbers, shape ``(N, …)`` or ``(N,)``.
        y: numbers, shape ``(N, …)`` or ``(N,)``: the same samples in the same order.
        k: how many neighbours, 1 to N − 1.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The information in ``unit``.

    Raises:
        TypeError: ``x`` or ``y`` is no tensor of real numbers.
        ValueError: ``k`` or ``unit`` is out of range, or the variables do not fit each other or are not finite.

    Example:
        >>> x = torch.arange(1000) % 4
        >>> round(mutual_information_mixed(x, x // 2), 2)
        1.0
    """
    checked_unit(unit)
    x, y = (rows.double() for rows in checked_pair(x, y))
    _check_k(k, len(x))
    inside_x, inside_y, k_tilde = _counts(x, 3)
    for block in _blocks(len(x)):
        to_x, to_y = _distances(x, block), _distances(y, block)
        to_both = torch.maximum(to_x, to_y)
        radius = _kth_neighbour(to_both, k)
        reach = radius.nextafter(torch.zeros_like(radius))  # what is nearer than the radius, or at 0 where it is 0
        inside_x[block], inside_y[block] = (to_x <= reach).sum(1), (to_y <= reach).sum(1)
        k_tilde[block] = (to_both <= reach).sum(1).where(radius.squeeze(1) == 0, k)
    return in_unit(math.log(len(x)) + _mean_psi(k_tilde) - _mean_psi(inside_x) - _mean_psi(inside_y), unit)


def _blocks(n: int) -> Iterator[slice]:
    """Consecutive samples, so many at a time that their distances to all n fit a block."""
    size = max(1, _BLOCK // n)
    return (slice(start, start + size) for start in range(0, n, size))


def _counts(rows: Tensor, how_many: int) -> Tensor:
    """Room for counts of every sample: small results kept from every block would break up the memory of the large."""
    return torch.empty((how_many, len(rows)), dtype=torch.int64, device=rows.device)


def _distances(rows: Tensor, block: slice) -> Tensor:
    return torch.cdist(rows[block], rows, p=math.inf)


def _kth_neighbour(distances: Tensor, k: int) -> Tensor:
    """The distance to the k-th nearest, shape ``(B, 1)``: before the first comes the sample itself, at distance 0."""
    return distances.topk(k + 1, dim=1, largest=False).values[:, k:]


def _psi(count: int) -> float:
    return torch.digamma(torch.tensor(count, dtype=torch.float64)).item()


def _mean_psi(counts: Tensor) -> float:
    """The mean digamma, in one order for every order of the samples, every size of a block and every device."""
    count, times = (t.tolist() for t in torch.unique(counts, return_counts=True))
    return math.fsum(m * _psi(c) for c, m in zip(count, times)) / len(counts)


def _check_k(k: int, n: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k < n:
        raise ValueError(f"k must be an integer from 1 to {n - 1} for {n} samples, got {k!r}.")


def _check_varies(rows: Tensor, name: str) -> None:
    if bool((rows == rows[0]).all()):
        raise ValueError(
            f"{name} is the same in all {len(rows)} rows: leave it out, a constant carries no information."
        )


def _check_apart(radius: Tensor, k: int, name: str) -> None:
    repeated = int((radius == 0).sum())
    if repeated:
        raise ValueError(
            f"{repeated} of {len(radius)} rows of {name} are repeated k = {k} times or more: their k-th neighbour is "
            "at distance 0, where the estimator is undefined; use mutual_information_mixed, or add a little noise."
        )
