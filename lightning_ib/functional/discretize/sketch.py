"""A representation of any width as rows of at most 128 numbers that keep the distances of the whole layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from lightning_ib.functional.checks import checked_integer, numpy_reads_tensors, plain_tensor
from lightning_ib.functional.discretize.ids import splitmix64

WIDTH = 128
"""The most coordinates of a sketched row: 512 bytes in float32."""

# Wider rows are folded to this many coordinates before they meet the dense matrix, which keeps the cost linear.
_FOLDED = 512

# How many values are folded at once on a GPU: half of as many are held meanwhile, in float32 64 MiB.
_AT_ONCE = 2**25

# Offsets of the counters that the signs are hashed from, so that every use has bits of its own.
_SIGNS_OF_FOLD, _SIGNS_OF_MATRIX = (3 << 50) + (1 << 40), (3 << 50) + (1 << 41)


def sketch(values: Tensor, *, width: int = WIDTH) -> Tensor:
    r"""Project every sample onto at most ``width`` coordinates that keep distances.

    .. math:: z = \frac{1}{\sqrt{m}} S\, x, \qquad S_{ij} = \pm 1

    with m = ``width`` and fixed random signs (Johnson & Lindenstrauss 1984; signs: Achlioptas 2003): for two samples
    :math:`\mathbb{E} \lVert z - z' \rVert^2 = \lVert x - x' \rVert^2`, with a relative standard deviation of at most
    :math:`\sqrt{2/m}` = 12.5 %. Above 512 coordinates, every 512th is first added up with random signs
    (feature hashing; Weinberger et al. 2009), which keeps the same law for layers whose variance is spread over many
    coordinates and costs one pass over the activation. A sample of at most ``width`` coordinates is kept as it is.

    The product is taken in float64 and rounded once, so that the result is the same for every batch size. Zeros at the
    end of a sample of more than ``width`` coordinates leave it as it is: sequences of different lengths compare as if
    padded.

    Args:
        values: the activation, shape ``(B, …)``, any real dtype.
        width: the most coordinates to keep.

    Returns:
        Shape ``(B, min(D, width))``, detached: float64 for float64 and integer activations, float32 for all
        others. It may share the memory of ``values`` where D is at most ``width``.

    Raises:
        TypeError: ``width`` is of another kind than an integer.
        ValueError: the values are complex, lack a batch dimension, or ``width`` is below 1.

    Example:
        >>> sketch(torch.ones(2, 16, 28, 28)).shape, sketch(torch.ones(2, 3, 4)).shape
        (torch.Size([2, 128]), torch.Size([2, 12]))
    """
    width = checked_integer(width, "width", at_least=1)
    return project([fold(values, width=width)], width=width)[0]


def fold(values: Tensor, *, width: int = WIDTH) -> Tensor:
    """The first half of :func:`sketch`: samples ``(B, …)`` as rows of at most 512 numbers.

    Returns:
        Shape ``(B, min(D, 512))``, of the dtype that :func:`sketch` returns; the sample as it is, where D is at most
        ``width``.

    Raises:
        ValueError: the values are complex or lack a batch dimension.
    """
    rows = real(values.detach())
    if rows.ndim == 0:
        raise ValueError("got a single number, not a batch (B, …): this module's output has no samples.")
    rows = rows.flatten(1) if rows.ndim > 1 else rows.unsqueeze(1)
    return rows if rows.shape[1] <= width else _folded(rows)


def project(folded: Sequence[Tensor], *, width: int = WIDTH) -> list[Tensor]:
    """The second half of :func:`sketch`: one product with the signs for all rows of one length, dtype and device.

    Args:
        folded: from :func:`fold`, of any number of layers.
        width: as there.

    Returns:
        The sketches in the same order; rows of at most ``width`` numbers are returned as they are.
    """
    alike: dict[tuple[int, torch.dtype, torch.device], list[int]] = {}
    for i, rows in enumerate(folded):
        if rows.shape[1] > width:
            alike.setdefault((rows.shape[1], rows.dtype, rows.device), []).append(i)
    projected = list(folded)
    for (n_coordinates, dtype, device), places in alike.items():
        rows = torch.cat([folded[i] for i in places]) if len(places) > 1 else folded[places[0]]
        # Divided at the end: sums of simple numbers stay exact, and those that cancel are 0 whatever the batch.
        whole = (rows.double() @ _matrix(n_coordinates, width, device)).div_(width**0.5).to(dtype)
        for i, part in zip(places, whole.split([folded[i].shape[0] for i in places])):
            projected[i] = part
    return projected


def real(values: Tensor) -> Tensor:
    """Real numbers to compute with: half precision as float32, integers and booleans as float64, in a plain tensor.

    Raises:
        ValueError: they are complex.
    """
    values = plain_tensor(values)
    if values.is_complex():
        raise ValueError("got complex values: take real ones, with pool=torch.view_as_real for one.")
    if not values.is_floating_point():
        return values.double()
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def _folded(rows: Tensor) -> Tensor:
    """Add up every 512th coordinate with a fixed random sign: ``(B, D)`` to ``(B, min(D, 512))``.

    In an order of additions that is fixed, each rounded as the processor must: neither the batch size, nor vector
    units, nor zeros at the end change a bit. The order on a GPU is another one than on the host.
    """
    n, n_coordinates = rows.shape
    signs = _fold_signs(n_coordinates, rows.device).to(rows.dtype)
    if n_coordinates >= 2 * _FOLDED and rows.device.type != "cpu":
        blocks = rows.split(max(1, _AT_ONCE // n_coordinates))
        return torch.cat([_halved_folds(block, signs) for block in blocks])
    if n_coordinates >= 2 * _FOLDED and rows.is_contiguous() and numpy_reads_tensors():
        sums, added = _whole_folds(rows, signs), n_coordinates // _FOLDED * _FOLDED
    else:
        sums, added = rows.new_zeros(n, min(n_coordinates, _FOLDED)), 0
    for start in range(added, n_coordinates, _FOLDED):
        part = rows[:, start : start + _FOLDED]
        sums[:, : part.shape[1]].addcmul_(part, signs[start : start + part.shape[1]])
    return sums


def _halved_folds(rows: Tensor, signs: Tensor) -> Tensor:
    """The sums, ``(B, 512)``, over at least two folds: the second half added to the first, until one is left.

    On a GPU, where every call takes its time: 13 of them for 802 816 coordinates, which are 1 568 folds. Halves are
    powers of two, so that folds of zeros at the end leave the others in their pairs.
    """
    n_whole, rest = divmod(rows.shape[1], _FOLDED)
    added = n_whole * _FOLDED
    folds, of_folds = rows[:, :added].unflatten(1, (n_whole, _FOLDED)), signs[:added].view(n_whole, _FOLDED)
    half = 1 << ((n_whole + (rest > 0) - 1).bit_length() - 1)
    sums: Tensor = folds[:, :half] * of_folds[:half]
    sums[:, : n_whole - half].addcmul_(folds[:, half:], of_folds[half:])
    if rest:
        sums[:, n_whole - half, :rest].addcmul_(rows[:, added:], signs[added:])
    while half > 1:
        half //= 2
        sums[:, :half].add_(sums[:, half : 2 * half])
    return sums[:, 0].clone()  # the rest of the memory goes


def _whole_folds(rows: Tensor, signs: Tensor) -> Tensor:
    """The sums in the order of the folds, ``(B, 512)``, over all whole folds of contiguous rows on the host.

    NumPy's loop passes over the memory once: it adds fold after fold to rows of sums that stay in the cache. A product
    with a sign is exact, so that a fused multiplication and addition rounds as the two do.
    """
    import numpy as np

    n_folds = rows.shape[1] // _FOLDED
    shape, whole = (-1, n_folds, _FOLDED), n_folds * _FOLDED
    folds, of_folds = rows.resolve_neg().numpy()[:, :whole].reshape(shape), signs.numpy()[:whole].reshape(shape[1:])
    return torch.from_numpy(np.einsum("bkj,kj->bj", folds, of_folds))


def _signs(counters: Tensor) -> Tensor:
    return (splitmix64(counters) & 1).double() * 2 - 1


def _fold_signs(n_coordinates: int, device: torch.device) -> Tensor:
    """The signs of the coordinates, which depend on their places alone: the first of the next power of two of them."""
    return _most_fold_signs(1 << (n_coordinates - 1).bit_length(), device)[:n_coordinates]


@lru_cache(maxsize=32)
def _most_fold_signs(n_coordinates: int, device: torch.device) -> Tensor:
    return _signs(torch.arange(n_coordinates, device=device, dtype=torch.int64) + _SIGNS_OF_FOLD).float()


@lru_cache(maxsize=32)
def _matrix(n_coordinates: int, width: int, device: torch.device) -> Tensor:
    counters = torch.arange(n_coordinates * width, device=device, dtype=torch.int64).view(n_coordinates, width)
    return _signs(counters + _SIGNS_OF_MATRIX)
