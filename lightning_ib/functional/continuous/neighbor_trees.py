"""Nearest neighbors and counts in few coordinates, with SciPy: in the max norm, exact, for rows on the CPU.

Neighbors come from a k-d tree. Counts come from ranks: the rows within reach of a row are a range of ranks in every
coordinate, and ranks are integers of 16 bits, which are compared eight times as fast as distances in float64. Both give
the values that all distances in float64 would give, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    ranges = [ranked for (ranked,) in _ranges(rows, reach)]
    return torch.from_numpy(_count(ranges, None if chosen is None else chosen.numpy()))


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

    shorter, longer = zip(*_ranges(rows, below, radii))
    nearer = _count(shorter, None)
    # A row that only the longer distance reaches widens the range of a coordinate: where none differs, no count does.
    differ = np.any([(a[1:] != b[1:]).any(0) for a, b in zip(shorter, longer)], axis=0)
    return torch.from_numpy(nearer), torch.from_numpy(np.where(differ, _count(longer, differ), nearer))


def _ranges(rows: Tensor, *reaches: Tensor) -> list[list[Any]]:
    """Of each coordinate, and of each reach, three rows of ``(3, N)``, see :func:`_rank_ranges`."""
    values, radii = rows.resolve_neg().numpy(), [reach.numpy() for reach in reaches]
    return [_rank_ranges(column, radii) for column in values.T]


def _count(ranges: Sequence[Any], chosen: Any) -> Any:
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


def _rank_ranges(values: Any, reaches: Sequence[Any]) -> list[Any]:
    """Of one coordinate ``(N,)``: the rank of every row, and the first and the end of the ranks within its reach.

    Returns:
        Of each reach, int64 ``(3, N)``.
    """
    import numpy as np

    order = np.argsort(values, kind="stable")
    ranked, own = values[order], np.arange(len(values))
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
    distinct, ends = ranked[starts], np.append(starts[1:], len(values))
    results = []
    for reach in reaches:
        radii = reach[order]
        last = _last_within(distinct, ranked, radii)
        first = len(distinct) - 1 - _last_within(-distinct[::-1], -ranked, radii)
        result = np.empty((3, len(values)), dtype=np.int64)
        result[:, order] = own, starts[first], ends[last]
        results.append(result)
    return results


def _last_within(distinct: Any, values: Any, reach: Any) -> Any:
    """The number of the largest value that is no farther above each of some values than its reach.

    The sum of value and reach gives a first guess. The difference of two values, which rounds differently, decides: the
    guess moves to the next value or the previous one. Where values are closer than rounding, bisection finds it.

    Args:
        distinct: float64 ``(M,)``, ascending, without repetition.
        values: float64 ``(N,)``, each of them one of these.
        reach: float64 ``(N,)``, 0 or more.

    Returns:
        int64 ``(N,)``.
    """
    import numpy as np

    fence = np.append(distinct, np.nan)  # which is within nothing's reach, and beyond nothing's

    def off(at: Any) -> Any:
        return (fence[at + 1] - values <= reach).astype(np.int64) - (fence[at] - values > reach)

    with np.errstate(over="ignore"):
        last = np.searchsorted(distinct, values + reach, side="right") - 1
    last += off(last)
    wrong = np.flatnonzero(off(last))
    if len(wrong):
        value, radius = values[wrong], reach[wrong]
        low = np.searchsorted(distinct, value)
        high = np.full_like(low, len(distinct) - 1)
        for _ in range(len(distinct).bit_length()):
            middle = (low + high + 1) >> 1
            near = distinct[middle] - value <= radius
            low, high = np.where(near, middle, low), np.where(near, high, middle - 1)
        last[wrong] = low
    return last
