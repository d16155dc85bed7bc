"""Ids of values in few bins: the bin numbers of four coordinates are looked up together."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_EDGES = 3
"""The most edges of a coordinate: its bin number has two bits."""

# Four bin numbers stand in the four bytes of an integer; this factor moves them together into its highest byte.
_TOGETHER, _BITS, _MASK = (1 << 24) + (1 << 18) + (1 << 12) + (1 << 6), 24, 255


def packed_table(table: Tensor) -> Tensor:
    r"""The sums of a hash table over all bin numbers of four coordinates.

    .. math:: \mathrm{packed}_{256 g + p(c)} = \sum_{j < 4} \mathrm{table}_{4 g + j,\; c_j} \mod 2^{64}

    with p(c) the place that :func:`packed_ids` gives to four bin numbers.

    Args:
        table: from :func:`~lightning_ib.functional.hash_table`, shape ``(D, n_codes)``, with at most four codes.

    Returns:
        int64, shape ``(256 ⌈D / 4⌉,)``, on the device of ``table``.
    """
    n_groups = -(-len(table) // 4)
    whole = table.new_zeros(4 * n_groups, MAX_EDGES + 1)
    whole[: table.shape[0], : table.shape[1]] = table
    number = torch.arange(256, device=table.device)
    codes = torch.stack([number >> (2 * j) & 3 for j in range(4)], 1)
    sums = whole.view(n_groups, 4, -1)[:, torch.arange(4, device=table.device), codes].sum(2)
    packed = torch.zeros_like(sums)
    packed[:, _places(codes.to(torch.uint8)).squeeze(1).long()] = sums
    return packed.flatten()


def packed_ids(values: Tensor, *, edges: Tensor, packed: Tensor) -> Tensor:
    """The ids of :func:`~lightning_ib.functional.row_ids` for the bins of :func:`~lightning_ib.functional.bucketize`.

    A bin number of at most three edges has two bits, so that one look-up serves four coordinates.

    Args:
        values: floating point, shape ``(N, D)``. The id of a row with a NaN in it is arbitrary.
        edges: ascending, of the dtype of ``values``, shape ``(E,)`` or ``(D, E)``, E at most 3.
        packed: from :func:`packed_table`.

    Returns:
        int64, shape ``(N,)``.

    Example:
        >>> from lightning_ib.functional import bucketize, hash_table, row_ids
        >>> values, edges = torch.rand(9, 6), torch.tensor([0.3, 0.6])
        >>> table = hash_table(n_coordinates=6, n_codes=3)
        >>> ids = packed_ids(values, edges=edges, packed=packed_table(table))
        >>> bool((ids == row_ids(bucketize(values, edges=edges), table=table)).all())
        True
    """
    n, d = values.shape
    codes = torch.zeros(n, -(-d // 4) * 4, dtype=torch.uint8, device=values.device)
    own = codes[:, :d]
    for edge in edges.unbind(-1):
        own.add_((values >= edge).view(torch.uint8))
    places = _places(codes)
    places.add_(torch.arange(0, len(packed), 256, dtype=torch.int32, device=values.device))
    return packed.index_select(0, places.flatten()).view(places.shape).sum(1)


def _places(codes: Tensor) -> Tensor:
    """The place of every four bin numbers in a row, ``(N, 4 G)`` to int32 ``(N, G)``."""
    return codes.view(torch.int32).mul(_TOGETHER).bitwise_right_shift_(_BITS).bitwise_and_(_MASK)
