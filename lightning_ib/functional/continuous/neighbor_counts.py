"""How many rows are within a distance of each row: in the max norm, exact, with NumPy, for rows on the CPU.

The rows within reach of a row are a range of ranks in every coordinate: those below its end without those below its
first rank. With sets of rows kept as bits, of which one operation takes 64, a count is the number of bits that the
ranges of all coordinates share. It is what all distances in float64 would give, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# How many rows a set holds at most, and for how many rows one operation counts: the sets of a coordinate take 128 kB.
_TOGETHER = 1024

# A block that more than N / 8 rows touch is worth a table of all N ranks; the ranks of others are searched for.
_FEW = 8


def count_within(rows: Tensor, reach: Tensor) -> Tensor:
    """How many rows, the row itself included, are no farther from each row than its reach.

    Args:
        rows: float64 ``(N, D)``.
        reach: float64 ``(N,)``, 0 or more.

    Returns:
        int64 ``(N,)``.
    """
    (ranges,) = rank_ranges(rows, reach)
    return count(ranges)


def count_nearer_and_within(shorter: Sequence[Any], longer: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """How many rows are within two distances of each row.

    Args:
        shorter: the ranges of the shorter distance, of all coordinates.
        longer: those of the longer one.

    Returns:
        The counts within either, int64 ``(N,)``, the row itself included.
    """
    import numpy as np

    nearer = count(shorter)
    # A row that only the longer distance reaches widens the range of a coordinate: where none differs, no count does.
    differ = torch.from_numpy(np.any([(a[1:] != b[1:]).any(0) for a, b in zip(shorter, longer)], axis=0))
    return nearer, torch.where(differ, count(longer, differ), nearer)


def rank_ranges(rows: Tensor, *reaches: Tensor) -> list[list[Any]]:
    """The ranks of all rows, and the ranges of ranks that are no farther from each row than its reach.

    Args:
        rows: float64 ``(N, D)``.
        *reaches: float64 ``(N,)`` each, 0 or more.

    Returns:
        Of each reach, of each coordinate: the rank of every row, and the first and the end of the ranks within reach
        of it, an int32 array ``(3, N)``. :func:`count` takes those of one reach, of any coordinates.
    """
    values, radii = rows.resolve_neg().numpy(), [reach.numpy() for reach in reaches]
    return [list(of) for of in zip(*(_rank_ranges(column, radii) for column in values.T))]


def count(ranges: Sequence[Any], chosen: Tensor | None = None) -> Tensor:
    """How many rows are in the ranges of ranks of all coordinates.

    Args:
        ranges: of each coordinate, see :func:`rank_ranges`.
        chosen: the rows asked for, bool ``(N,)``; all by default.

    Returns:
        int64 ``(N,)``; 0 for the rows that are not asked for.
    """
    import numpy as np

    n = len(ranges[0][0])
    asked = np.arange(n) if chosen is None else np.flatnonzero(chosen.numpy())
    counts = np.zeros(n, dtype=np.int64)
    if len(ranges) == 1:
        _, low, high = ranges[0]
        counts[asked] = high[asked] - low[asked]
        return torch.from_numpy(counts)
    # Blocks follow the coordinate with the shortest ranges: then the range of a row touches few of them.
    lead, lows, highs = min(ranges, key=lambda ranked: (ranked[2] - ranked[1]).sum(dtype=np.int64))
    order = np.empty(n, dtype=np.int64)
    order[lead] = np.arange(n)
    for start in range(0, n, _TOGETHER):
        block = order[start : start + _TOGETHER]
        touching = asked[(lows[asked] < start + len(block)) & (highs[asked] > start)]
        if len(touching):
            table = n if len(touching) > n // _FEW else 0
            sets = [_Prefixes(ranks[block], table) for ranks, _, _ in ranges]
            for at in range(0, len(touching), _TOGETHER):
                rows = touching[at : at + _TOGETHER]
                counts[rows] += _shared(sets, [(low[rows], high[rows]) for _, low, high in ranges])
    return torch.from_numpy(counts)


class _Prefixes:
    """The rows of a block as sets of bits, in the order of one coordinate: of the first 0 … M of them.

    Args:
        ranks: of the rows of the block in that coordinate, int32 ``(M,)``; the bit of a row is its place here.
        table: the number N of all ranks, to keep how many of the block are below each; 0 to search for that number.
    """

    def __init__(self, ranks: Any, table: int) -> None:
        import numpy as np

        order = np.argsort(ranks)
        self.ranks = ranks[order]
        self.n_below = None
        if table:
            self.n_below = np.zeros(table + 1, dtype=np.int16)  # numbers up to _TOGETHER
            np.cumsum(np.bincount(ranks, minlength=table), out=self.n_below[1:])
        sets = np.zeros((len(ranks) + 1, -(-len(ranks) // 64)), dtype=np.uint64)
        sets[np.arange(1, len(sets)), order // 64] = np.uint64(1) << (order % 64).astype(np.uint64)
        self.sets = np.bitwise_or.accumulate(sets, axis=0)

    def below(self, ranks: Any) -> Any:
        """The sets of the rows below some ranks, uint64 ``(R, ⌈M / 64⌉)``."""
        return self.sets.take(self.ranks.searchsorted(ranks) if self.n_below is None else self.n_below[ranks], 0)


def _shared(sets: Sequence[_Prefixes], ranges: Sequence[tuple[Any, Any]]) -> Any:
    """How many rows of a block are in the ranges of all coordinates, of each of R rows."""
    within: Any = None
    for prefixes, (low, high) in zip(sets, ranges):
        in_range = prefixes.below(low) ^ prefixes.below(high)
        within = in_range if within is None else within & in_range
    return _ones(within)


def _ones(sets: Any) -> Any:
    """How many bits are set in each row of uint64 ``(R, W)``, ``(R,)``."""
    import numpy as np

    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(sets).sum(1, dtype=np.int64)
    return np.unpackbits(sets.view(np.uint8), axis=1).sum(1, dtype=np.int64)  # before NumPy 2


def _rank_ranges(values: Any, reaches: Sequence[Any]) -> list[Any]:
    """Of one coordinate ``(N,)``: the rank of every row, and the first and the end of the ranks within its reach.

    Returns:
        Of each reach, int32 ``(3, N)``.
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
        result = np.empty((3, len(values)), dtype=np.int32)
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
