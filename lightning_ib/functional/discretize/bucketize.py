"""Bins of real numbers: the bin number of every value, and the quantiles that edges are made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_ib.functional.checks import checked_number, checked_values

# How many values are sorted at once for the quantiles.
_BLOCK = 4_000_000

# Up to so many edges each is compared with all values, which is faster than a search.
_FEW = 4


def bucketize(values: Tensor, *, edges: Tensor) -> Tensor:
    r"""The bin number of every value: the number of edges at or below it, as :func:`numpy.digitize` counts them.

    .. math:: c_{nd} = \#\{e : \mathrm{edge}_{de} \le z_{nd}\}

    The comparison is exact for every pair of dtypes: edges of a higher precision than ``values`` are rounded up to the
    next number that ``values`` can hold, which keeps every bin number, so that the comparison itself runs in the dtype
    of ``values``.

    Args:
        values: real, floating point, shape ``(N, D)``.
        edges: ascending edges, floating point, shape ``(E,)`` for all coordinates, or ``(D, E)``, one row each.

    Returns:
        int64 codes in ``0 … E``, shape ``(N, D)``. (With many edges the memory is laid out coordinate by coordinate.) A
        NaN gets the code ``E``; :func:`row_ids` marks the rows that hold one.

    Raises:
        TypeError: ``values`` or ``edges`` are of another kind.
        ValueError: ``values`` have another shape than ``(N, D)``, or ``edges`` fit neither shape.

    Example:
        >>> bucketize(torch.tensor([[-1.0, 0.0], [0.5, 9.0]]), edges=torch.tensor([0.0, 0.5]))
        tensor([[0, 1],
                [2, 2]])
    """
    checked_values(values, "values", "(N, D)")
    checked_values(edges, "edges", "(E,) or (D, E)")
    if values.ndim != 2:
        raise ValueError(f"values must have shape (N, D), got {tuple(values.shape)}: flatten each sample first.")
    if edges.ndim not in (1, 2) or (edges.ndim == 2 and edges.shape[0] != values.shape[1]):
        raise ValueError(
            f"edges of shape {tuple(edges.shape)} do not fit values of shape {tuple(values.shape)}: "
            f"give (E,) for all coordinates, or (D, E) = ({values.shape[1]}, E)."
        )
    edges = ceil_to_dtype(edges, values.dtype)
    if 0 < edges.shape[-1] <= _FEW:
        codes = torch.full(values.shape, edges.shape[-1], dtype=torch.int64, device=values.device)
        for edge in edges.unbind(-1):
            codes.add_(values < edge, alpha=-1)  # a NaN is below none
        return codes
    return torch.searchsorted(edges.contiguous(), values.t().contiguous(), right=True).t()


def ceil_to_dtype(edges: Tensor, dtype: torch.dtype) -> Tensor:
    """The least numbers of ``dtype`` that reach ``edges``: ``z >= edge`` stays the same for every ``z`` of ``dtype``.

    Args:
        edges: floating point, any shape.
        dtype: the floating-point dtype of the values that are compared with the edges.

    Returns:
        The rounded edges, of ``dtype``.

    Raises:
        TypeError: ``edges`` are of another kind.

    Example:
        >>> ceil_to_dtype(torch.tensor([0.7], dtype=torch.float64), torch.float32).double()
        tensor([0.7000], dtype=torch.float64)
    """
    checked_values(edges, "edges", "(E,) or (D, E)")
    if edges.dtype == dtype:
        return edges
    rounded = edges.to(dtype)
    infinity = torch.full_like(rounded, float("inf"))
    return torch.where(rounded.to(edges.dtype) < edges, torch.nextafter(rounded, infinity), rounded)


def quantiles(values: Tensor, *, q: Sequence[float]) -> Tensor:
    r"""Linear quantiles of every coordinate (Hyndman & Fan 1996, type 7; NumPy's default).

    The columns are sorted in blocks, so that ``values`` may have any size (:func:`torch.quantile` ends at 16 million
    elements) and the copy of one block is all the memory it takes.

    Args:
        values: real, floating point, shape ``(N, D)``, N at least 1.
        q: probabilities in [0, 1].

    Returns:
        float64, shape ``(D, len(q))``.

    Raises:
        TypeError: ``values`` or a probability are of another kind.
        ValueError: ``values`` have another shape or hold no row, or a probability is outside [0, 1].

    Example:
        >>> quantiles(torch.tensor([[0.0], [1.0], [4.0]]), q=[0.25, 1.0])
        tensor([[0.5000, 4.0000]], dtype=torch.float64)
    """
    checked_values(values, "values", "(N, D)")
    if values.ndim != 2 or len(values) == 0:
        raise ValueError(f"values must have shape (N, D) with N at least 1, got {tuple(values.shape)}.")
    n = values.shape[0]
    position = [checked_number(p, "q", at_least=0, at_most=1) * (n - 1) for p in q]
    below = [min(int(p), n - 1) for p in position]
    above = [min(b + 1, n - 1) for b in below]
    weight = torch.tensor([p - b for p, b in zip(position, below)], dtype=torch.float64, device=values.device)
    blocks = []
    for block in values.split(max(1, _BLOCK // n), dim=1):
        ordered = block.t().sort(dim=1).values
        blocks.append(torch.lerp(ordered[:, below].double(), ordered[:, above].double(), weight))
    return torch.cat(blocks)
