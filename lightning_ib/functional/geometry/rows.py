"""Rows in float64, their center and their Gram matrix."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_ib.functional.checks import numpy_reads_tensors

_SMALL = 1e-30
"""The largest value below which rows are scaled."""

_BLOCK = 256
"""The fewest coordinates of a block of a Gram matrix: smaller products are slow."""


def rounding_of(dtype: torch.dtype) -> float:
    """The share by which the values of a layer are rounded: half precision once, others in each of many sums.

    Example:
        >>> rounding_of(torch.bfloat16), rounding_of(torch.float32) < 1e-6
        (0.00390625, True)
    """
    if not dtype.is_floating_point:
        return 0.0
    eps = torch.finfo(dtype).eps
    return eps / 2 if eps > torch.finfo(torch.float32).eps else 4 * eps


def within_rounding(variance: float, mean_square: float, u: float) -> bool:
    """Whether rows that are all the same, each value rounded by a share u at most, can have such a variance.

    Args:
        variance: the mean squared distance of the rows from their mean, or the sum of all.
        mean_square: the mean squared length of the rows, uncentered, or the sum of all.
        u: see :func:`rounding_of`.
    """
    return variance <= u * u * mean_square


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
    return _times_power_of_2(z, torch.tensor(-math.frexp(largest)[1], device=z.device))


def rows_scaled(x: Tensor) -> Tensor:
    """Each row times a power of two of its own, by which its largest value comes near 1; rows of zeros stay."""
    return _times_power_of_2(x, -torch.frexp(x.abs().amax(1, keepdim=True)).exponent)


def _times_power_of_2(z: Tensor, exponent: Tensor) -> Tensor:
    half = exponent // 2  # one factor alone may leave the range
    found: Tensor = torch.ldexp(torch.ldexp(z, half), exponent - half)
    return found


def centered_rows(rows: Tensor, rounding: float | None = None) -> Tensor:
    """Rows in float64, centered, times a power of two where their squares would leave the range.

    Zeros where all rows are the same, up to rounding.

    Args:
        rows: real floating point.
        rounding: the share by which values are rounded; by default that of their dtype.
    """
    z = centered(x := scaled(in_float64(rows)))
    u = rounding_of(rows.dtype) if rounding is None else rounding
    return z.zero_() if within_rounding(squares_of(z), squares_of(x), u) else scaled(z)


def squares_of(x: Tensor) -> float:
    """The sum of the squares of all values."""
    return float(torch.linalg.vector_norm(x)) ** 2


def squared_lengths(z: Tensor) -> Tensor:
    """The squared length of each row."""
    lengths: Tensor = torch.linalg.vector_norm(z, dim=1)
    return lengths.square()


def gram(z: Tensor) -> Tensor:
    """The products of all pairs of rows, ``(N, D)`` to ``(N, N)``: half of them, which are mirrored."""
    if z.device.type == "cpu" and numpy_reads_tensors():
        values = z.numpy()
        products: Tensor = torch.from_numpy(values @ values.T)  # NumPy sees one matrix, and computes a half
        return products
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


def eigenvalues(products: Tensor) -> Tensor:
    """The eigenvalues of a symmetric matrix in descending order, on the host."""
    if products.device.type == "cpu" and numpy_reads_tensors():
        import numpy as np

        found: Tensor = torch.from_numpy(np.linalg.eigvalsh(products.numpy()))
    else:
        found = torch.linalg.eigvalsh(products).cpu()
    return found.flip(0)
