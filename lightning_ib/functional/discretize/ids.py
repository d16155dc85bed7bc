"""64-bit ids for rows of bin numbers, and the random bits that they are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_ib.functional.checks import checked_integer, checked_integers

# The seed of the hash tables: the first 64 bits of the fractional part of pi, as a signed integer. It belongs to the
# ids alone; the random states of the user stay as they are.
_SEED = 0x243F6A8885A308D3

_COLUMNS = 4096  # hashed at a time

NOT_FINITE: int = -(2**63)
"""The id reserved for a row with a NaN or an infinity in it, set by :func:`row_ids` where it is given the values."""


def hash_table(*, n_coordinates: int, n_codes: int, device: torch.device | str | None = None) -> Tensor:
    """64 random bits for every code of every coordinate, the same on every device and in every process.

    The bits come from the SplitMix64 generator (Steele, Lea & Flood 2014) with a fixed seed, computed on ``device``:
    nothing is copied, and the global random states stay as they are.

    Args:
        n_coordinates: the number D of coordinates of a row.
        n_codes: the number of codes that a coordinate can take, one more than its edges.
        device: the device of the table.

    Returns:
        int64, shape ``(D, n_codes)``.

    Raises:
        TypeError: a number is of another kind than an integer.
        ValueError: a number is below 1.
    """
    n_coordinates = checked_integer(n_coordinates, "n_coordinates", at_least=1)
    n_codes = checked_integer(n_codes, "n_codes", at_least=1)
    coordinate = torch.arange(n_coordinates, device=device, dtype=torch.int64).unsqueeze(1)
    code = torch.arange(n_codes, device=device, dtype=torch.int64)
    return splitmix64((coordinate << 32) + code)


def row_ids(codes: Tensor, *, table: Tensor, values: Tensor | None = None) -> Tensor:
    r"""One 64-bit id for every row of codes, by simple tabulation hashing.

    .. math:: \mathrm{id}_n = \sum_d \mathrm{table}_{d, c_{nd}} \mod 2^{64}

    Equal rows have equal ids. For a table of random bits two different rows share an id with probability exactly
    :math:`2^{-64}` (Carter & Wegman 1979), so that among N rows the chance of any collision is below
    :math:`N^2 / 2^{65}`: 2.8e-6 for ten million rows.

    Args:
        codes: integer codes, shape ``(N, D)``, each within ``0 … n_codes − 1``: other codes give meaningless ids or
            an error of PyTorch, since a check of their range would wait for the device.
        table: from :func:`hash_table`, shape ``(D, n_codes)``, on the device of ``codes``.
        values: the values that were discretized, shape ``(N, D)``. Where given, a row with a NaN or an infinity in it
            gets the id :data:`NOT_FINITE`.

    Returns:
        int64 ids, shape ``(N,)``.

    Raises:
        TypeError: ``codes`` are of another kind than a tensor of integers.
        ValueError: ``codes`` have another number of coordinates than the table.

    Example:
        >>> ids = row_ids(torch.tensor([[0, 1], [1, 0], [0, 1]]), table=hash_table(n_coordinates=2, n_codes=2))
        >>> bool(ids[0] == ids[2]), bool(ids[0] == ids[1])
        (True, False)
    """
    checked_integers(codes, "codes must be bin numbers", "(N, D)", "bucketize gives them")
    if codes.ndim != 2 or codes.shape[1] != len(table):
        raise ValueError(
            f"codes of shape {tuple(codes.shape)} do not fit a table of {len(table)} coordinates: give "
            f"(N, {len(table)})."
        )
    if codes.is_contiguous():
        first = torch.arange(len(table), device=table.device) * table.shape[1]
        ids = table.flatten().index_select(0, (codes + first).flatten()).view(codes.shape).sum(1)
    else:
        ids = table.gather(1, codes.t().long()).sum(0)
    return ids if values is None else finite_ids(ids, values)


def finite_ids(ids: Tensor, values: Tensor) -> Tensor:
    """The ids of rows of values ``(N, D)``: :data:`NOT_FINITE` for a row with a NaN or an infinity in it."""
    finite = values.mul(0).sum(1) == 0  # a NaN or an infinity makes it NaN
    return torch.where(finite, ids, NOT_FINITE)


def value_ids(rows: Tensor) -> Tensor:
    """One 64-bit id for every row of numbers, equal where all values are.

    Every value is hashed with its place and the hashes are added up, so that different rows share an id with a
    probability of about 2⁻⁶⁴. A row with a NaN or an infinity in it gets the id :data:`NOT_FINITE`.

    Args:
        rows: real, shape ``(N, …)``.

    Returns:
        int64, shape ``(N,)``.

    Example:
        >>> ids = value_ids(torch.tensor([[0.0, 1.0], [1.0, 0.0], [-0.0, 1.0]]))
        >>> bool(ids[0] == ids[2]), bool(ids[0] == ids[1])
        (True, False)
    """
    rows = rows.detach().reshape(len(rows), -1)
    finite = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    ids = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    for start in range(0, rows.shape[1], _COLUMNS):
        part = rows[:, start : start + _COLUMNS]
        finite &= part.isfinite().all(1)
        # Every integer and float of up to 64 bits has bits of its own; −0 is 0.
        bits = part.long() if not part.is_floating_point() else (part.double() + 0.0).view(torch.int64)
        places = splitmix64(torch.arange(start, start + part.shape[1], device=rows.device))
        ids += splitmix64(bits ^ places).sum(1)
    return ids.masked_fill(~finite, NOT_FINITE)


def splitmix64(counter: Tensor) -> Tensor:
    """64 random bits for every integer, all different: the SplitMix64 generator (Steele, Lea & Flood 2014).

    Args:
        counter: int64, any shape.

    Returns:
        int64, the same shape, the same on every device.
    """
    x = (counter + 1) * _signed(0x9E3779B97F4A7C15) + _SEED
    x = (x ^ _shift_right(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift_right(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift_right(x, 31)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """The logical shift, which int64 lacks: zeros come in from the left."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
