"""The Gaussian kernel between all pairs of rows, block by block, shared by the kernel estimators.

All of it is computed in float64 for rows of every dtype: a distance is the remainder of two large norms and a product
that cancel, of which float32 keeps too few digits.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# Rows of a block, whose kernel then takes 32 MB: enough work to a call to keep many cores busy.
_BLOCK = 2048

# The largest |x|² / 2 width² for which distances are taken from a product of matrices: rounding costs their kernel up
# to 1e-9 there. Beyond it the rows are subtracted one by one, which takes some eight times as long.
_CANCELLATION = 1e6


def kernel_blocks(rows: Tensor, width: float) -> Iterator[tuple[slice, slice, Tensor]]:
    r"""The Gaussian kernel of all pairs of rows, as the blocks on and above the diagonal.

    .. math:: k_{ij} = \exp\left(-\frac{\lVert x_i - x_j \rVert^2}{2\,\text{width}^2}\right)

    Args:
        rows: real and finite, shape ``(N, D)``.
        width: the kernel's standard deviation, positive.

    Yields:
        The rows i and the rows j of a block, and its kernel, float64. The caller may write to it and must be done with
        it before the next, which takes the same memory. The blocks below the diagonal are the transposes of those
        above it. k of a row with itself is exactly 1.

    Example:
        >>> [(i, j, kernel)] = kernel_blocks(torch.tensor([[0.0], [1.0]]), width=1.0)
        >>> kernel
        tensor([[1.0000, 0.6065],
                [0.6065, 1.0000]], dtype=torch.float64)
    """
    center = _center(rows)
    blocks = _blocks(len(rows))
    memory = rows.new_empty(blocks[0].stop ** 2, dtype=torch.float64)

    def scaled(block: slice) -> tuple[Tensor, Tensor]:
        r = rows[block].to(torch.float64, copy=True).sub_(center).div_(width)
        return r, torch.linalg.vector_norm(r, dim=1).square_().div_(2)

    for n, i in enumerate(blocks):
        r_i, h_i = scaled(i)
        for j in blocks[n:]:
            r_j, h_j = (r_i, h_i) if i == j else scaled(j)
            if max(h_i.max(), h_j.max()) < _CANCELLATION:
                out = memory[: len(r_i) * len(r_j)].view(len(r_i), len(r_j))
                exponent = torch.addmm(-h_j, r_i, r_j.T, out=out).sub_(h_i[:, None])
            else:
                exponent = torch.cdist(r_i, r_j, compute_mode="donot_use_mm_for_euclid_dist").square_().div_(-2)
            if i == j:
                exponent.fill_diagonal_(0)
            yield i, j, exponent.clamp_(max=0).exp_()


def total_variance(rows: Tensor) -> float:
    r"""The mean squared distance of the rows from their mean, the sum of the variances of the coordinates.

    .. math:: \frac{1}{N} \sum_i \lVert x_i - \bar{x} \rVert^2

    Args:
        rows: real and finite, shape ``(N, D)``.

    Returns:
        The variance; exactly 0 where all rows are equal.

    Example:
        >>> total_variance(torch.tensor([[0.0, 0.0], [2.0, 4.0]]))
        5.0
    """
    center = _center(rows)
    squares = [rows[block].to(torch.float64, copy=True).sub_(center).square_().sum() for block in _blocks(len(rows))]
    return float(torch.stack(squares).sum()) / len(rows)


def _center(rows: Tensor) -> Tensor:
    """The mean row, in float64, exactly that row where all are equal."""
    first = rows[0].double()
    shifts = [rows[block].to(torch.float64, copy=True).sub_(first).sum(0) for block in _blocks(len(rows))]
    return first + torch.stack(shifts).sum(0) / len(rows)


def _blocks(n: int) -> list[slice]:
    return [slice(start, min(start + _BLOCK, n)) for start in range(0, n, _BLOCK)]
