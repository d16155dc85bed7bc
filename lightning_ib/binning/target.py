"""The default reading of a target: as classes, as combinations of labels, in bins or in cells."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_ib.binning.bins import QuantileBins
from lightning_ib.capture.batches import described
from lightning_ib.functional import Symbols, bucketize, cells, sketch, symbols
from lightning_ib.functional.discretize.ids import splitmix64
from lightning_ib.functional.discretize.sketch import WIDTH

# Real values with at most so many different ones, all whole numbers, are classes; others have so many bins.
_N_BINS = 10

# The fewest samples that a bin of equal mass holds.
_SAMPLES_A_BIN = 10


class UnknownTarget(ValueError):
    """A target of unknown meaning: it is left out, and the message holds the reason and the remedy."""


class Target(NamedTuple):
    """A target that was read.

    Attributes:
        symbols: its symbols.
        how: how its values became symbols, in words; empty for class labels.
    """

    symbols: Symbols
    how: str


def target_values(y: Any, ignore_index: int | None = None) -> Tensor:
    """The values of the target of a batch, in memory of its own.

    Args:
        y: the target. One value a sample, ``(B,)`` or ``(B, 1)``, is a class label if it is an integer, else a real
            number; several are yes/no labels if they are 0 and 1, else real numbers ``(B, …)``.
        ignore_index: the value that marks rows to be ignored; in such a row it may stand beside others.

    Returns:
        Labels int64 ``(B,)``, real numbers float64 ``(B, 1)``, or the sketched rows of several numbers ``(B, D)``.

    Raises:
        UnknownTarget: it is of another form.
    """
    if not isinstance(y, (Tensor, str)):
        with suppress(Exception):  # NumPy's arrays, and lists of numbers
            y = torch.as_tensor(y)
    if not isinstance(y, Tensor):
        raise UnknownTarget(f"the target is {described(y)}, not a tensor. {_ADVICE}.")
    y = y.detach()
    if y.ndim == 0 or y.is_complex() or y.layout is not torch.strided or (len(y) and not y.numel()):
        kind = f"a tensor of layout {y.layout}, dtype {y.dtype}, {tuple(y.shape)}"
        what = "a single number" if y.ndim == 0 else kind
        raise UnknownTarget(f"the target is {what}, and one value a sample is needed. {_ADVICE}.")
    real = y.is_floating_point()
    if y.numel() == len(y):
        flat: Tensor = y.double().reshape(-1, 1) if real else y.long().reshape(-1)
        return flat.clone()
    if ignore_index is not None:  # such a row is unlabeled, and must not decide on the kind of labels
        y = y.masked_fill((y == ignore_index).flatten(1).any(1).reshape(-1, *[1] * (y.ndim - 1)), 0)
    if not real and (y.ndim > 2 or (y.dtype != torch.bool and not is_binary(y))):
        raise UnknownTarget(
            f"the target holds several integers a sample, {tuple(y.shape)}: the classes of tokens or pixels, or those "
            f"of several tasks. {_ADVICE}, that of one task, say, or take tokens for samples: tokens=True."
        )
    rows = sketch(y)
    if y.ndim == 2 and y.shape[1] > WIDTH:
        return torch.cat([rows.double(), _label_properties(y)], 1)
    return rows.clone() if rows.untyped_storage().data_ptr() == y.untyped_storage().data_ptr() else rows


def _label_properties(y: Tensor) -> Tensor:
    """Properties of wide rows that a sketch loses: whether all is 0 or 1, their sum, the first 1, and a hash."""
    wide = y.double()
    weights = (splitmix64(torch.arange(y.shape[1], device=y.device, dtype=torch.int64)) >> 20).double()
    binary = ((wide == 0) | (wide == 1)).all(1)
    return torch.stack([binary.double(), wide.sum(1), wide.argmax(1).double(), wide @ weights], 1)


UNPACK = "unpack=lambda batch: (x, y)"
"""The argument that names the target, as messages advise it."""

_ADVICE = f"I(X;T) and H(T) are measured without it. Give {UNPACK}, y having one label for each sample"


def is_binary(values: Tensor) -> bool:
    """Whether all values are 0 or 1."""
    return bool(((values == 0) | (values == 1)).all())


def labeled(values: Tensor) -> tuple[Tensor, str]:
    """The values of a whole pass as labels int64 ``(N,)`` where they are labels, else as they are; and their kind.

    Labels are integers; real numbers, where they are whole and at most ten different ones; rows of zeros and ones:
    their class where a single one stands in each, else the combination.
    """
    if not values.is_floating_point():
        return values, ""
    if values.shape[1] == 1:
        column = values[:, 0]
        whole = bool((column.isfinite() & (column == column.round())).all()) and len(column.unique()) <= _N_BINS
        return (column.long(), "whole numbers, taken as classes") if whole else (values, "")
    if values.shape[1] > WIDTH:
        values, (binary, sums, first, which) = values[:, :WIDTH], values[:, WIDTH:].t()
        yes_no, one_hot, what = bool((binary == 1).all()), bool((sums == 1).all()), "many"
    else:
        yes_no, one_hot, what = is_binary(values), bool((values.sum(1) == 1).all()), f"{values.shape[1]}"
        first, which = values.argmax(1), values
    if not yes_no or not len(values):
        return values, ""
    if one_hot:
        return first.long(), "one-hot rows, taken as classes"
    return which.unique(dim=0, return_inverse=True)[1], f"{what} yes/no labels a sample, each combination a symbol"


def absent_label(values: Tensor, n_classes: int) -> int | None:
    """The label that seems to mark missing labels: −100, or −1 beside two classes or more; else ``None``."""
    if values.is_floating_point():
        return -100 if bool((values == -100).any()) else None
    if not len(values):
        return None
    least = int(values.min())
    return least if least == -100 or (least == -1 and n_classes > 2) else None


def target_symbols(values: Tensor) -> Target:
    """The symbols of finite values from :func:`labeled`.

    Real numbers are put into ten bins of equal mass, fewer where a bin would hold less than ten of them; rows of
    several into cells.
    """
    if not values.is_floating_point():
        return Target(symbols(values), "")
    n = len(values)
    if values.shape[1] == 1:
        n_bins = max(2, min(_N_BINS, n // _SAMPLES_A_BIN))
        numbers = bucketize(values, edges=QuantileBins(n_bins).edges(values))[:, 0]
        return Target(symbols(numbers), f"real-valued, in {n_bins} bins of equal mass (target=Quantizer(…) for others)")
    found = cells(values)
    how = f"real-valued with {values.shape[1]} coordinates, in {found.n_cells} cells"
    return Target(symbols(found.numbers), f"{how} (unpack=lambda batch: (batch[0], None) to leave it out)")
