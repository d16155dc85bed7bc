"""Nearest neighbors in few coordinates with SciPy: a k-d tree in the max norm, exact, for rows on the CPU."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from lightning_ib.functional.checks import numpy_reads_tensors


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
