r"""Cells: a partition of a representation that follows the data, by entropy-constrained vector quantization.

Every sample belongs to the cell whose centroid is near and whose code is short (Chou, Lookabaugh & Gray 1989):

.. math:: k(z) = \arg\min_k \frac{\lVert z - c_k \rVert^2}{\sigma^2} - \lambda \ln p_k

A cell that is dearer to describe than it is worth empties, so that H(T) falls where a layer gathers its samples into
clusters. The partition is a deterministic function of the rows it is fitted to.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_ib.functional.checks import checked_integer, checked_rows
from lightning_ib.functional.discretize.ids import splitmix64

MAX_CELLS = 256

# The leading principal coordinates that cells are fitted in; more where they have as much of the first one's variance.
_COORDINATES, _COMPARABLE = 32, 0.25

# Rows farther from the median than this many times the 90 % quantile of the distances are drawn in to it.
_FAR = 2.0

# Of how many rows, the first in their own order, the median is taken: sorting takes as long as a third of the steps.
_OF_MEDIAN = 2048

# How many rows are hashed at a time: so many stay in the processor's cache.
_AT_A_TIME = 512

# Below this share of the mean square of a row, the median one, a variance is rounding: the layer is constant.
_CONSTANT = 1e-12

# Lloyd steps after each doubling, after the last one, and with the cost of the description.
_STEPS, _LAST_STEPS, _PRICED_STEPS = 2, 3, 10

# A cell holds several clusters where a cut takes away so large a share of its spread, or where it spreads so many times
# as far as cells do on average; how many such are split at once, and how often.
_CLUSTERED, _WIDE, _AT_ONCE, _REPAIRS = 0.6, 8.0, 16, 32

# The price of a nat of description, as a share of the variance that it explains on average at price 0.
_PRICE = 0.5


class Cells(NamedTuple):
    r"""A partition of rows into cells, and the share of their variance that lies between the cells.

    .. math:: 1 - \frac{\sum_n \|z_n - c_{k(n)}\|^2}{\sum_n \|z_n - \bar z\|^2}

    with the principal coordinates z of the rows, outliers drawn in, and the center c of the cell of each.

    Cost:
        0.1 to 0.6 s for 10 000 rows of 128 coordinates, on one core.

    Samples:
        About 50 for a cell: 128 cells take 6 400 samples, 256 take 12 800 (:func:`cell_limit`).

    Attributes:
        numbers: int64 ``(N,)``: the cell of each row, in ``0 … K − 1``.
        n_cells: K, how many cells are in use.
        explained: the share of the variance between the cells, 0 … 1; NaN for a constant layer.
    """

    numbers: Tensor
    n_cells: int
    explained: float


def cell_limit(n_samples: int, *, max_cells: int = MAX_CELLS, expected_clusters: int = 2) -> int:
    """The largest number of cells for N samples: a power of two, about one cell for 50 samples.

    Below about 1 000 samples one for 20, while that is at most 32; at least two. Where more clusters are expected, one
    for each while that leaves ten samples a cell.

    Args:
        n_samples: N, at least 1.
        max_cells: the largest number of cells for any N, at least 2.
        expected_clusters: the number of clusters expected, such as the classes in the output of a classifier.

    Returns:
        A power of two between 2 and ``max_cells``.

    Raises:
        TypeError: a number is of another kind than an integer.
        ValueError: a number is too small.

    Example:
        >>> [cell_limit(n) for n in (10, 100, 600, 2000, 10_000, 60_000)]
        [2, 4, 16, 32, 128, 256]
        >>> cell_limit(300), cell_limit(300, expected_clusters=10)
        (8, 16)
    """
    n_samples = checked_integer(n_samples, "n_samples", at_least=1)
    max_cells = checked_integer(max_cells, "max_cells", at_least=2)
    clusters = checked_integer(expected_clusters, "expected_clusters", at_least=0)
    expected = min(2 ** math.ceil(math.log2(max(clusters, 2))), n_samples / 10)
    allowed = max(n_samples / 50, min(n_samples / 20, 32.0), expected, 2.0)
    return 1 << int(math.log2(min(allowed, max_cells)) + 1e-9)


def cells(t: Tensor, *, max_cells: int = MAX_CELLS, expected_clusters: int = 2) -> Cells:
    r"""Cut a representation into cells.

    1. Coordinate by coordinate the median (that of 2 048 rows, the first in an order of their own) is subtracted, rows
       are drawn in to at most twice the 90 % quantile of their norms (few outliers would own the cells otherwise), the
       mean is subtracted, and the rows are rotated onto their leading principal coordinates: 32, or as many as have a
       quarter of the variance of the first.
       :math:`\sigma^2` is their total variance.
    2. One cell is doubled until there are :func:`cell_limit`, each cell split along its most varying coordinate (Linde,
       Buzo & Gray 1980), with Lloyd steps in between. They leave the share :math:`D_0` of the variance within cells,
       and have the entropy :math:`H_0` in nats. Cells that were left with several clusters are split, and neighbors
       merged in their place, while that pays.
    3. With :math:`\lambda = \frac{1}{2} (1 - D_0) / H_0`, half of the variance that a nat of description explains on
       average in this layer, ten more Lloyd steps minimize the cost above; cells that empty leave.

    It is free of the scale and the offset of the layer, and the same rows give the same cells in any order: rows are
    put into an order of their own first. Rows that are equal share a cell.

    Source:
        Entropy-constrained vector quantization (Chou, Lookabaugh & Gray 1989).

    Trap:
        Cells follow the directions of large variance and miss information in the others: a class in one coordinate
        beside others of ten times the spread, or an exclusive or. Isotropic noise has an entropy near log K.

    Args:
        t: the representation, real and finite, shape ``(N, …)``, flattened to ``(N, D)``. All is computed in float64.
        max_cells: the largest number of cells, at least 2; see :func:`cell_limit`.
        expected_clusters: the number of clusters expected: few samples may have as many cells, see :func:`cell_limit`.

    Returns:
        The cell of every row, the number of cells, and the share of the variance between them. Rows that are all alike,
        up to rounding, are in one cell.

    Raises:
        TypeError: ``t`` is of another kind (integers are), or a number is.
        ValueError: ``t`` is empty or has a value that is NaN or infinite, or a number is too small.

    Example:
        Two points, fifty samples at each.

        >>> found = cells(torch.cat([torch.zeros(50, 3), torch.ones(50, 3)]))
        >>> found.n_cells, found.explained, len(found.numbers.unique_consecutive())
        (2, 1.0, 2)
    """
    checked_integer(max_cells, "max_cells", at_least=2)
    checked_integer(expected_clusters, "expected_clusters", at_least=0)
    rows = checked_rows(t, "t", at_least=1).double()
    scale = rows.abs().amax()
    rows = rows / torch.where(scale > 0, scale, 1.0)  # first of all, so that the order is free of the scale, too
    order = _own_order(rows)
    rows = rows[order]
    z = _principal(rows)
    if z is None:
        return Cells(order.new_zeros(len(rows)), 1, math.nan)
    numbers, explained = _quantized(z, cell_limit(len(rows), max_cells=max_cells, expected_clusters=expected_clusters))
    used, numbers = numbers[_first_alike(rows)].unique(return_inverse=True)
    return Cells(torch.empty_like(numbers).scatter_(0, order, numbers), len(used), explained)


def _own_order(rows: Tensor) -> Tensor:
    """An order of the rows that depends on their values alone, by a hash of each: equal rows may stand either way."""
    factors = splitmix64(torch.arange(rows.shape[1], device=rows.device, dtype=torch.int64)) | 1
    hashes = []
    for part in rows.split(_AT_A_TIME):
        bits = (part + 0.0).view(torch.int64)  # −0 is 0
        bits = bits ^ (bits >> 32)  # the last bits of simple numbers are all zero
        bits = bits ^ (bits >> 20)
        hashes.append((bits * factors).sum(1))
    return splitmix64(torch.cat(hashes)).argsort(stable=True)


def _first_alike(rows: Tensor) -> Tensor:
    """The first of the rows equal to each, equal ones standing together: products may round them apart at a tie."""
    places = torch.arange(len(rows), device=rows.device)
    places[1:].masked_fill_((rows[1:] == rows[:-1]).all(1), 0)
    return places.cummax(0).values


def _principal(rows: Tensor) -> Tensor | None:
    """Rows in −1 … 1 on their leading principal coordinates, of total variance 1; None where they are all alike."""
    center = _medians(rows[:_OF_MEDIAN])
    z = rows - center
    norm = torch.linalg.vector_norm(z, dim=1)
    far = _FAR * norm.sort().values[math.ceil(0.9 * len(norm)) - 1]
    if float(norm.amax()) > float(far) > 0:
        z *= (far / norm.clamp_min(1e-300)).clamp_max(1.0).unsqueeze(1)
    shift = z.mean(0)
    z -= shift
    covariance = z.t() @ z / len(z)
    variance = float(covariance.trace())
    size = variance + float((center + shift).square().sum())
    if not variance > _CONSTANT * size:
        return None
    variances, directions = torch.linalg.eigh(covariance)
    n = max(_COORDINATES, int((variances > _COMPARABLE * variances[-1]).sum()))
    kept: Tensor = z @ directions[:, -n:]
    scale: Tensor = (kept.square().sum() / len(kept)).sqrt()
    return kept / scale


def _medians(rows: Tensor) -> Tensor:
    """The lower median of each coordinate, ``(D,)``."""
    return rows.median(0).values if rows.device.type == "cpu" else _medians_by_sorting(rows)


def _medians_by_sorting(rows: Tensor) -> Tensor:
    """The same on CUDA, where ``median`` is refused to programs that ask for deterministic algorithms."""
    return rows.sort(0).values[(len(rows) - 1) // 2]


class _Partition(NamedTuple):
    """A partition at work: the cell of each row, the centroids ``(K, d)``, and the shares of the rows ``(K,)``."""

    numbers: Tensor
    centroids: Tensor
    shares: Tensor


def _quantized(z: Tensor, most: int) -> tuple[Tensor, float]:
    """The cell of each row, and the share of the variance between cells, from rows of total variance 1."""
    whole = torch.zeros(len(z), dtype=torch.int64, device=z.device)
    found = _Partition(whole, z.mean(0, keepdim=True), z.new_ones(1))
    doublings = int(math.log2(most))
    for doubling in range(1, doublings + 1):
        centroids = _split(z, found)
        if centroids is None:
            break
        for _ in range(_LAST_STEPS if doubling == doublings else _STEPS):
            found = _lloyd_step(z, centroids)
            centroids = found.centroids
    found = _repaired(z, found, most)
    within = _within(z, found)
    if len(found.shares) > 1:
        price = _price(found, within)
        for _ in range(_PRICED_STEPS):
            found = _lloyd_step(z, found.centroids, -price * found.shares.log())
        found = found._replace(numbers=_nearest(z, found.centroids, -price * found.shares.log()))
        within = _within(z, found)
    return found.numbers, 1 - within


def _repaired(z: Tensor, found: _Partition, most: int) -> _Partition:
    """Splits cells that hold two clusters or more, and merges those that cost least where there are too many.

    Such cells are cut where their spread is more than the description of one more cell costs. Splits and merges are
    tried several at a time, and kept while they bring rows nearer.
    """
    for _ in range(_REPAIRS):
        counts, within = found.shares * len(z), _within(z, found)
        halves, gain, spread = _halved(z, found)
        several = (gain > _CLUSTERED * spread) | (spread > _WIDE * spread.mean())
        worth = several & (spread > math.log(2) * _price(found, within) * found.shares)
        chosen = [k for k in gain.argsort(descending=True, stable=True)[:_AT_ONCE].tolist() if worth[k]]
        merges = _cheapest_merges(found.centroids, counts, len(chosen) + len(counts) - most, chosen)
        room, kept, new = most - len(counts), set(range(len(counts))), []
        for k in chosen:
            if room <= 0:
                if not merges or float(gain[k]) < 2 * merges[0][0]:
                    break
                _, first, second = merges.pop(0)
                both = counts[[first, second]].unsqueeze(1)
                new.append((found.centroids[[first, second]] * both).sum(0, keepdim=True) / both.sum())
                kept -= {first, second}
                room += 1
            new.append(halves[k])
            kept.remove(k)
            room -= 1
        if not new:
            break
        tried = _lloyd_step(z, torch.cat([found.centroids[sorted(kept)], *new]))
        tried = _lloyd_step(z, tried.centroids)
        if _within(z, tried) >= within:
            break
        found = tried
    return found


def _price(found: _Partition, within: float) -> float:
    """λ: the price of a nat of description, relative to the variance that it explains on average."""
    entropy = -float((found.shares * found.shares.log()).sum())
    return _PRICE * (1 - within) / entropy if entropy > 0 else math.inf


def _halved(z: Tensor, found: _Partition) -> tuple[Tensor, Tensor, Tensor]:
    """Each cell cut at its centroid, along its most varying coordinate.

    Returns:
        The centroids of the halves, ``(K, 2, d)``; the amount by which the cut lowers the mean squared distance, and
        the present share of the cell in it, each ``(K,)``.
    """
    k, d = found.centroids.shape
    residual = z - found.centroids[found.numbers]
    squares = _sums(residual.square(), found.numbers, k)
    along = squares.argmax(1)
    above = residual.gather(1, along[found.numbers].unsqueeze(1)).squeeze(1) > 0
    half = 2 * found.numbers + above
    counts = torch.bincount(half, minlength=2 * k).to(z.dtype)
    moved = _sums(residual, half, 2 * k) / counts.clamp_min(1).unsqueeze(1)
    gain = (counts * moved.square().sum(1)).view(k, 2).sum(1) / len(z)
    return found.centroids.unsqueeze(1) + moved.view(k, 2, d), gain, squares.sum(1) / len(z)


def _cheapest_merges(centroids: Tensor, counts: Tensor, n: int, but: list[int]) -> list[tuple[float, int, int]]:
    """The ``n`` pairs of cells, each cell in one, whose merging adds least to the mean squared distance (Ward 1963)."""
    k = len(counts)
    if n <= 0 or k < 2:
        return []
    distance = torch.cdist(centroids, centroids, compute_mode="donot_use_mm_for_euclid_dist").square()
    cost = distance * (counts.unsqueeze(1) * counts / (counts.unsqueeze(1) + counts)) / counts.sum()
    cost = cost.masked_fill(torch.ones_like(cost, dtype=torch.bool).tril(), math.inf)
    found: list[tuple[float, int, int]] = []
    taken = set(but)
    for pair in cost.flatten().argsort(stable=True)[: 8 * n].tolist():
        first, second = divmod(pair, k)
        if first not in taken and second not in taken and len(found) < n and math.isfinite(cost[first, second]):
            found.append((float(cost[first, second]), first, second))
            taken |= {first, second}
    return found


def _split(z: Tensor, found: _Partition) -> Tensor | None:
    """Each centroid twice, moved apart by half a standard deviation along its cell's most varying coordinate.

    Cells of spread 0 stay whole; None where all are.
    """
    counts = found.shares * len(z)
    variance = _sums(z.square(), found.numbers, len(counts)) / counts.unsqueeze(1) - found.centroids.square()
    most, along = variance.max(1)
    rounding = 1e-14 * found.centroids.square().amax(1)
    splits = most > rounding
    if not bool(splits.any()):
        return None
    move = torch.zeros_like(found.centroids)
    move.scatter_(1, along.unsqueeze(1), most.clamp_min(0).sqrt().unsqueeze(1) / 2)
    return torch.cat([found.centroids + move, (found.centroids - move)[splits]])


def _lloyd_step(z: Tensor, centroids: Tensor, costs: Tensor | None = None) -> _Partition:
    """The cell of least cost for each row, and the cells that result; empty cells leave."""
    numbers = _nearest(z, centroids, costs)
    counts = torch.bincount(numbers, minlength=len(centroids))
    used = counts > 0
    counts, numbers = counts[used].double(), (used.cumsum(0) - 1)[numbers]
    return _Partition(numbers, _sums(z, numbers, len(counts)) / counts.unsqueeze(1), counts / len(z))


def _nearest(z: Tensor, centroids: Tensor, costs: Tensor | None = None) -> Tensor:
    """The cell of least squared distance plus cost for each row, ``(N,)``."""
    offset = centroids.square().sum(1)
    if costs is not None:
        offset = offset + costs
    return torch.addmm(offset, z, centroids.t(), alpha=-2).min(1).indices


def _sums(z: Tensor, numbers: Tensor, n_cells: int) -> Tensor:
    """The sum of the rows of each cell, ``(K, d)``, in an order that is the same at every call."""
    if z.device.type == "cpu":
        return z.new_zeros(n_cells, z.shape[1]).index_add_(0, numbers, z)
    # Elsewhere index_add_ adds up in an order that may change from call to call.
    members = torch.zeros(n_cells, len(z), dtype=z.dtype, device=z.device)
    members.scatter_(0, numbers.unsqueeze(0), 1.0)
    return members @ z


def _within(z: Tensor, found: _Partition) -> float:
    """The mean squared distance of the rows from their centroids."""
    return float((z - found.centroids[found.numbers]).square().sum()) / len(z)
