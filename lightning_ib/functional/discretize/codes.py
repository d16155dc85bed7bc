"""From real numbers to symbols: edges give codes, a row of codes gives one 64-bit id."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# The seed of the hash tables: the first 64 bits of the fractional part of pi, as a signed integer. It belongs to the
# ids alone; no random state of the user's is read or moved.
_SEED = 0x243F6A8885A308D3

# How many values are sorted at once for the quantiles.
_BLOCK = 4_000_000

NOT_FINITE: int = -(2**63)
"""The id kept for a row with a NaN or an infinity in it, set by :func:`row_ids` where it is given the values."""


def codes(z: Tensor, edges: Tensor) -> Tensor:
    r"""Discretise every coordinate: the code of a value is the number of edges that are not above it.

    .. math:: c_{nd} = \#\{e : \mathrm{edge}_{de} \le z_{nd}\}

    A value equal to an edge belongs above it, as in :func:`numpy.digitize`. The comparison is exact for every pair of
    dtypes: edges of a higher precision than ``z`` are rounded up to the next number ``z`` can hold, which changes no
    code, so that the comparison itself runs in the dtype of ``z``.

    Args:
        z: real values, floating point, shape ``(N, D)``.
        edges: ascending edges, shape ``(E,)`` for all coordinates, or ``(D, E)``, one row each.

    Returns:
        int64 codes in ``0 … E``, shape ``(N, D)``. (The memory is laid out coordinate by coordinate.) A NaN gets the
        code ``E``: see :data:`NOT_FINITE` for how such rows are told apart.

    Raises:
        ValueError: ``z`` is not ``(N, D)``, or ``edges`` fit neither shape.

    Example:
        >>> codes(torch.tensor([[-1.0, 0.0], [0.5, 9.0]]), torch.tensor([0.0, 0.5]))
        tensor([[0, 1],
                [2, 2]])
    """
    if z.ndim != 2:
        raise ValueError(f"codes needs z of shape (N, D), got {tuple(z.shape)}.")
    if edges.ndim not in (1, 2) or (edges.ndim == 2 and edges.shape[0] != z.shape[1]):
        raise ValueError(
            f"edges of shape {tuple(edges.shape)} do not fit z of shape {tuple(z.shape)}: "
            f"give (E,) for all coordinates, or (D, E) = ({z.shape[1]}, E)."
        )
    columns = z.t().contiguous()
    return torch.searchsorted(ceil_to_dtype(edges, z.dtype).contiguous(), columns, right=True).t()


def ceil_to_dtype(edges: Tensor, dtype: torch.dtype) -> Tensor:
    """The least numbers of ``dtype`` not below ``edges``: ``z >= edge`` stays the same for every ``z`` of ``dtype``.

    Example:
        >>> ceil_to_dtype(torch.tensor([0.7], dtype=torch.float64), torch.float32).double()
        tensor([0.7000], dtype=torch.float64)
    """
    if edges.dtype == dtype:
        return edges
    rounded = edges.to(dtype)
    infinity = torch.full_like(rounded, float("inf"))
    return torch.where(rounded.to(edges.dtype) < edges, torch.nextafter(rounded, infinity), rounded)


def hash_table(n_coordinates: int, n_codes: int, device: torch.device | str | None = None) -> Tensor:
    """64 random bits for every code of every coordinate, the same on every device and in every process.

    The bits come from the SplitMix64 generator (Steele, Lea & Flood 2014) with a fixed seed, computed on ``device``,
    so that nothing is copied and no random state is touched.

    Args:
        n_coordinates: the number D of coordinates of a row.
        n_codes: the number of codes a coordinate can take, one more than its edges.
        device: where the table shall live.

    Returns:
        int64, shape ``(D, n_codes)``.
    """
    coordinate = torch.arange(n_coordinates, device=device, dtype=torch.int64).unsqueeze(1)
    code = torch.arange(n_codes, device=device, dtype=torch.int64)
    return splitmix64((coordinate << 32) + code)


def splitmix64(counter: Tensor) -> Tensor:
    """64 random bits for every integer, no two alike: the SplitMix64 generator (Steele, Lea & Flood 2014).

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


def row_ids(codes: Tensor, table: Tensor, values: Tensor | None = None) -> Tensor:
    r"""One 64-bit id for every row of codes: simple tabulation hashing.

    .. math:: \mathrm{id}_n = \sum_d \mathrm{table}_{d, c_{nd}} \mod 2^{64}

    Equal rows have equal ids. For a table of random bits two different rows share an id with probability exactly
    :math:`2^{-64}` (Carter & Wegman 1979), so that among N rows the chance of any collision is below
    :math:`N^2 / 2^{65}`: 2.8e-6 for ten million rows.

    Args:
        codes: integer codes, shape ``(N, D)``, each within ``0 … n_codes − 1``.
        table: from :func:`hash_table`, shape ``(D, n_codes)``, on the device of ``codes``.
        values: the values that were discretised, shape ``(N, D)``. Where given, a row with a NaN or an infinity in it
            gets the id :data:`NOT_FINITE`.

    Returns:
        int64 ids, shape ``(N,)``.

    Example:
        >>> ids = row_ids(torch.tensor([[0, 1], [1, 0], [0, 1]]), hash_table(2, 2))
        >>> bool(ids[0] == ids[2]), bool(ids[0] == ids[1])
        (True, False)
    """
    ids = table.gather(1, codes.t().long()).sum(0)
    if values is None:
        return ids
    finite = values.mul(0).sum(1) == 0  # a NaN or an infinity makes it NaN
    return torch.where(finite, ids, NOT_FINITE)


def quantiles(z: Tensor, q: Sequence[float]) -> Tensor:
    r"""Linear quantiles of every coordinate (Hyndman & Fan 1996, type 7; NumPy's default).

    Column by column in blocks, so that there is no limit on the size of ``z`` (:func:`torch.quantile` has one, at 16
    million elements) and a block's copy is all the memory it takes.

    Args:
        z: real values, floating point, shape ``(N, D)``, N at least 1.
        q: probabilities in [0, 1].

    Returns:
        float64, shape ``(D, len(q))``.

    Example:
        >>> quantiles(torch.tensor([[0.0], [1.0], [4.0]]), [0.25, 1.0])
        tensor([[0.5000, 4.0000]], dtype=torch.float64)
    """
    n = z.shape[0]
    position = [p * (n - 1) for p in q]
    below = [min(int(p), n - 1) for p in position]
    above = [min(b + 1, n - 1) for b in below]
    weight = torch.tensor([p - b for p, b in zip(position, below)], dtype=torch.float64, device=z.device)
    blocks = []
    for block in z.split(max(1, _BLOCK // n), dim=1):
        ordered = block.t().sort(dim=1).values
        blocks.append(torch.lerp(ordered[:, below].double(), ordered[:, above].double(), weight))
    return torch.cat(blocks)
