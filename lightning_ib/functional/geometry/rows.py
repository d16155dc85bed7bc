"""Rows in float64, their center and their Gram matrix."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SMALL = 1e-30
"""The largest value below which rows are scaled."""

_BLOCK = 256
"""The fewest coordinates of a block of a Gram matrix: smaller products are slow."""


def in_float64(rows: Tensor) -> Tensor:
    """Rows in float64, on the host where the device lacks it."""
    return (rows.cpu() if rows.device.type == "mps" else rows).double()


def centered(x: Tensor) -> Tensor:
    """Rows less their mean; zeros exactly where all are the same, as the first is taken off before."""
    z = x - x[0]
    return z.sub_(z.mean(0))


def scaled(z: Tensor) -> Tensor:
    """Rows times one power of two where their fourth powers would leave the range; all digits stay."""
    low, high = torch.aminmax(z)
    largest = max(-float(low), float(high))
    if largest == 0 or _SMALL < largest < 1 / _SMALL:
        return z
    found: Tensor = torch.ldexp(z, torch.tensor(-math.frexp(largest)[1], device=z.device))
    return found


def squared_lengths(z: Tensor) -> Tensor:
    """The squared length of each row."""
    lengths: Tensor = torch.linalg.vector_norm(z, dim=1)
    return lengths.square()


def gram(z: Tensor) -> Tensor:
    """The products of all pairs of rows, ``(N, D)`` to ``(N, N)``; a large one by blocks, whose mirror is copied."""
    n = len(z)
    size = max(_BLOCK, -(-n // 4))
    if n <= size:
        return z @ z.T
    found = z.new_empty(n, n)
    for start in range(0, n, size):
        rows = slice(start, start + size)
        torch.mm(z[rows], z[start:].T, out=(block := z.new_empty(len(z[rows]), n - start)))
        found[rows, start:] = block
        found[start:, rows] = block.T
    return found
