"""Nearest neighbors and counts in few coordinates, with SciPy: in the max norm, exact, for rows on the CPU.

Neighbors come from a k-d tree. Counts come from ranks: the rows within reach of a row are a range of ranks in every
coordinate, and ranks are integers of 16 bits, which are compared eight times as fast as distances in float64. Both give
the values that all distances in float64 would give, to the last bit.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from lightning_ib.functional.checks import numpy_reads_tensors

# How many rows are counted for at once, and how many rows 16 bits can rank.
_TOGETHER = 64
_MOST_OF_16_BITS = 65_535


@cache
def trees() -> Any:
    """SciPy's k-d tree, or None where SciPy is absent or shares no memory with this PyTorch."""
    try:
        from scipy.spatial import cKDTree
    except Exception:  # of an installation whose parts do not fit, too
        return None
    return cKDTree if numpy_reads_tensors() else None


def kth_distance(rows: Tensor, k: int) -> Tensor:
    """The distance of every row to the k-th nearest other one.

    Args:
        rows: float64 ``(N, D)``.
        k: the number of neighbors, at most N − 1.

    Returns:
        float64 ``(N,)``.
    """
    return nearest(rows, k)[0][:, k]


def nearest(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k + 1 nearest rows of every row, the row itself included, in ascending order of distance.

    Args:
        rows: float64 ``(N, D)``.
        k: the number of neighbors, at most N − 1.

    Returns:
        Distances, float64 ``(N, k + 1)``, and row numbers, int64 ``(N, k + 1)``.
    """
    values = rows.resolve_neg().numpy()
    distances, numbers = trees()(values).query(values, k + 1, p=float("inf"))
    return torch.from_numpy(distances), torch.from_numpy(numbers)


def count_within(rows: Tensor, reach: Tensor, chosen: Tensor | None = None) -> Tensor:
    """How many rows, the row itself included, are no farther from each row than its reach.

    Args:
        rows: float64 ``(N, D)``.
        reach: float64 ``(N,)``, 0 or more.
        chosen: the rows asked for, bool ``(N,)``; all by default.

    Returns:
        int64 ``(N,)``; 0 for the rows that are not asked for.
    """
    return torch.from_numpy(_count(_ranges(rows, reach), None if chosen is None else chosen.numpy()))


def count_nearer_and_within(rows: Tensor, radii: Tensor, below: Tensor) -> tuple[Tensor, Tensor]:
    """How many rows are within two distances of each row.

    Args:
        rows: float64 ``(N, D)``.
        radii: float64 ``(N,)``, 0 or more.
        below: float64 ``(N,)``, shorter ones or the same; 0 or more.

    Returns:
        The counts within ``below`` and within ``radii``, int64 ``(N,)``, the row itself included.
    """
    import numpy as np

    shorter, longer = _ranges(rows, below), _ranges(rows, radii)
    nearer = _count(shorter, None)
    # A row that only the longer distance reaches widens the range of a coordinate: where none differs, no count does.
    differ = np.any([(a[1:] != b[1:]).any(0) for a, b in zip(shorter, longer)], axis=0)
    return torch.from_numpy(nearer), torch.from_numpy(np.where(differ, _count(longer, differ), nearer))


def _ranges(rows: Tensor, reach: Tensor) -> list[Any]:
    """Of each coordinate three rows of ``(3, N)``, see :func:`_rank_ranges`."""
    values, radii = rows.resolve_neg().numpy(), reach.numpy()
    return [_rank_ranges(column, radii) for column in values.T]


def _count(ranges: list[Any], chosen: Any) -> Any:
    """How many rows are in the ranges of ranks of all coordinates, of each row that is chosen, and 0 of others."""
    import numpy as np

    n = len(ranges[0][0])
    if len(ranges) == 1:
        _, low, high = ranges[0]
        return high - low if chosen is None else (high - low) * chosen
    # In the order of the coordinate whose ranges are shortest, the rows within reach of a few lie close together.
    lead = int(np.argmin([(high - low).sum() for _, low, high in ranges]))
    order = np.argsort(ranges[lead][0])
    asked = order if chosen is None else order[chosen[order]]
    dtype = np.uint16 if n <= _MOST_OF_16_BITS else np.uint32
    ranks = np.stack([rank[order].astype(dtype) for rank, _, _ in ranges])
    lows = np.stack([low[asked].astype(dtype) for _, low, _ in ranges])
    widths = np.stack([(high - low)[asked].astype(dtype) for _, low, high in ranges])
    first, last = ranges[lead][1][asked], ranges[lead][2][asked]
    counts = np.zeros(n, dtype=np.int64)
    for start in range(0, len(asked), _TOGETHER):
        some = slice(start, start + _TOGETHER)
        near = slice(int(first[some].min()), int(last[some].max()))
        within: Any = True
        for rank, low, width in zip(ranks[:, near], lows[:, some, None], widths[:, some, None]):
            # Unsigned: a rank below the range wraps around to a large number.
            within = np.logical_and(np.subtract(rank, low) < width, within)
        counts[asked[some]] = [np.count_nonzero(row) for row in within]  # of one row each: vectorized
    return counts


def _rank_ranges(values: Any, reach: Any) -> Any:
    """Of one coordinate ``(N,)``: the rank of every row, and the first and the end of the ranks within its reach.

    Returns:
        int64 ``(3, N)``.
    """
    import numpy as np

    n = len(values)
    order = np.argsort(values, kind="stable")
    ranked, radii, own = values[order], reach[order], np.arange(n)
    first, to = np.zeros_like(own), own.copy()
    last, below = own.copy(), np.full_like(own, n - 1)
    for _ in range(n.bit_length()):  # bisection, by the differences themselves: their rounding counts
        middle = (first + to) >> 1
        near = ranked - ranked[middle] <= radii
        to, first = np.where(near, middle, to), np.where(near, first, np.minimum(middle + 1, to))
        middle = (last + below + 1) >> 1
        near = ranked[middle] - ranked <= radii
        last, below = np.where(near, middle, last), np.where(near, below, np.maximum(middle - 1, last))
    result = np.empty((3, n), dtype=np.int64)
    result[:, order] = own, to, last + 1
    return result
