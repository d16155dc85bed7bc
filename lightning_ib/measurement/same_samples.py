"""Fingerprints of inputs, by which the samples of two measurements are seen to be the same, in the same order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from lightning_ib.functional.checks import holds_integers, moved, plain_tensor
from lightning_ib.functional.discretize.ids import splitmix64
from lightning_ib.functional.discretize.sketch import fold

_ROUNDING, _EXACT = 1e-5, 1e-12
"""The difference up to which a sum counts as the same, as a share of the length of its own row: real, whole numbers."""

_MOST_TENSORS = 8
"""The tensors of an input that are looked at."""

_WEIGHTS = (3 << 50) + (1 << 45)  # the offset of the counters that weights are hashed from

COLUMNS = 3
"""The numbers of a fingerprint for each tensor: two weighted sums, and the difference that is rounding."""


def fingerprints(x: Any, rows: Tensor, *, n: int, n_samples: int) -> Tensor | None:
    """A few numbers of each of some rows, which change with any of its values and with their order.

    All tensors in an input count that have a row a sample. A row is folded, as for a sketch, and multiplied with two
    columns of fixed weights, all of them different. Where tokens are the rows, each has the numbers of its sequence
    and its place.

    Args:
        x: the input of a batch, as it came.
        rows: which rows, int64 ``(m,)`` on the host.
        n: how many rows the batch has.
        n_samples: how many samples it has: of sequences, where tokens are the rows.

    Returns:
        float64 ``(m, 3 T)`` for T tensors, on their device; ``None`` where there is none.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> same_rows(*(fingerprints(one, torch.arange(2), n=2, n_samples=2) for one in (x, x.flip(1))))
        tensor([False, False])
    """
    if n_samples == 0 or n % n_samples:
        return None
    n_places = n // n_samples
    samples, of_rows = (rows // n_places).unique(return_inverse=True)
    parts = []
    for values in _tensors(x):
        if values.ndim and len(values) == n_samples and values.numel() and values.layout is torch.strided:
            parts.append(_of_samples(values[moved(samples, values.device)]))
            if len(parts) == _MOST_TENSORS:
                break
    if not parts:
        return None
    device = next((part.device for part in parts if part.device.type != "cpu"), parts[0].device)
    whole = torch.cat([moved(part, device) for part in parts], dim=1)
    found = whole[moved(of_rows, device)]
    if n_places == 1:
        return found
    places = torch.zeros(len(rows), COLUMNS, dtype=torch.float64, device="cpu")
    places[:, 0] = rows % n_places
    return torch.cat([found, moved(places, device)], dim=1)


def same_rows(before: Tensor, now: Tensor) -> Tensor:
    """Which rows have the same fingerprint up to rounding, bool ``(m,)``; none where their shapes differ."""
    if before.shape != now.shape:
        return torch.zeros(len(now), dtype=torch.bool, device=now.device)
    a, b = (of.reshape(len(of), -1, COLUMNS) for of in (before, now))
    apart, rounding = (a - b).abs()[..., :-1], torch.maximum(a, b)[..., -1:]
    alike = (apart <= rounding) | (a == b)[..., :-1] | (a.isnan() & b.isnan())[..., :-1]
    return alike.flatten(1).all(1)


def _of_samples(values: Tensor) -> Tensor:
    values = plain_tensor(values.detach())
    rows = fold(torch.view_as_real(values) if values.is_complex() else values).double()
    share = _EXACT if holds_integers(values) else _ROUNDING
    width = rows.shape[1]
    sums = rows @ _weights(1 << (width - 1).bit_length(), rows.device)[:width]
    return torch.cat([sums, share * torch.linalg.vector_norm(rows, dim=1, keepdim=True)], dim=1)


@lru_cache(maxsize=32)
def _weights(width: int, device: torch.device) -> Tensor:
    """Two columns of weights of either sign, between 0.5 and 1.5, float64 ``(width, 2)``."""
    bits = splitmix64(torch.arange(2 * width, dtype=torch.int64, device=device) + _WEIGHTS).view(width, 2)
    return (0.5 + (bits >> 12 & (1 << 51) - 1).double() / 2**51) * ((bits & 1).double() * 2 - 1)


def _tensors(x: Any) -> Iterator[Tensor]:
    """The tensors in an input, those of mappings in the order of their keys."""
    if isinstance(x, Tensor):
        if not x.is_nested:
            yield x
    elif isinstance(x, Mapping):
        for key in sorted(x, key=str):
            yield from _tensors(x[key])
    elif isinstance(x, (tuple, list)):
        for one in x:
            yield from _tensors(one)
