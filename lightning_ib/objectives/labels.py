"""The labels of a loss: class numbers or distributions over the classes, checked before anything is computed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_ib.functional.checks import checked_integers, plain_tensor

_SUM_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4}
_HALF_TOLERANCE = 1e-2


def in_full_precision(values: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def values_can_be_read() -> bool:
    """Whether values may decide what happens next: inside a graph of ``torch.compile`` they may not."""
    return not torch.compiler.is_compiling()


def is_soft(y: Tensor) -> bool:
    """Whether checked labels are distributions, shape ``(B, K)``, rather than class numbers, shape ``(B,)``."""
    return y.is_floating_point()


def checked_targets(y: Any, num_classes: int, n: int | None = None, *, soft: bool = True, name: str = "y") -> Tensor:
    """Labels of B samples, in the form that the losses work on.

    The values are read once, which waits for the device; inside ``torch.compile`` they are left unchecked.

    Args:
        y: class labels, integers from 0 to K − 1 of shape ``(B,)``, or distributions over the classes, floating point
            of shape ``(B, K)``.
        num_classes: K.
        n: B; any where None.
        soft: whether distributions are allowed.
        name: how a message names them.

    Returns:
        int64 ``(B,)``, or float32 or float64 ``(B, K)``.

    Raises:
        TypeError: they are of another kind; class labels as real numbers are.
        ValueError: they have another shape, are out of range, or are no distributions.
    """
    size = "B" if n is None else n
    if soft and isinstance(y, Tensor) and y.is_floating_point() and y.ndim == 2:
        return _checked_rows(y, num_classes, n, name)
    allowed = f"{name} must be class labels"
    remedy = f"give {name}.long() for class numbers" + (f", or soft labels of shape ({size}, {num_classes})" * soft)
    checked_integers(y, allowed, f"({size},)", remedy)
    if y.ndim != 1 or (n is not None and len(y) != n):
        advice = f": give {name}.argmax(1) for one-hot rows" if y.ndim == 2 and y.shape[1] == num_classes else ""
        raise ValueError(f"{allowed} of shape ({size},), got {tuple(y.shape)}{advice}.")
    numbers: Tensor = plain_tensor(y.detach()).long()
    if values_can_be_read() and bool(((numbers < 0) | (numbers >= num_classes)).any()):
        outside = numbers[(numbers < 0) | (numbers >= num_classes)]
        raise ValueError(
            f"{allowed} from 0 to {num_classes - 1}, as there are {num_classes} classes, got {int(outside[0])} in "
            f"{len(outside)} of {len(y)} samples: leave these samples out, or number the classes from 0."
        )
    return numbers


def checked_class_numbers(y: Any, n: int | None, name: str = "y") -> Tensor:
    """Class labels that may be any integers, as int64.

    Args:
        y: integers or booleans, shape ``(B,)``; samples are of one class where their labels are equal.
        n: B; any where None.
        name: how a message names them.

    Raises:
        TypeError: they are of another kind.
        ValueError: they have another shape, or there are none.
    """
    size = "B" if n is None else n
    rows = isinstance(y, Tensor) and y.ndim == 2
    remedy = f"give {name}.argmax(1) for soft labels" if rows else f"give {name}.long() for class numbers"
    checked_integers(y, f"{name} must be class labels", f"({size},)", remedy)
    if y.ndim != 1 or y.numel() == 0 or (n is not None and len(y) != n):
        raise ValueError(f"{name} must be class labels of shape ({size},), got {tuple(y.shape)}.")
    numbers: Tensor = plain_tensor(y.detach()).long()
    return numbers


def _checked_rows(y: Tensor, num_classes: int, n: int | None, name: str) -> Tensor:
    if y.shape[1] != num_classes or (n is not None and len(y) != n):
        raise ValueError(
            f"{name} must hold a distribution over the classes for each sample, shape "
            f"({'B' if n is None else n}, {num_classes}) as the logits have, got {tuple(y.shape)}."
        )
    tolerance = _SUM_TOLERANCE.get(y.dtype, _HALF_TOLERANCE)
    rows = in_full_precision(plain_tensor(y))
    off = (rows.sum(1) - 1).abs()
    # NaN fails each comparison.
    if values_can_be_read() and not bool(((rows >= 0).all(1) & (off <= tolerance)).all()):
        bad = int((~((rows >= 0).all(1) & (off <= tolerance))).sum())
        if bool(rows.isnan().any()):
            raise ValueError(f"{name} has NaN in {int(rows.isnan().any(1).sum())} of {len(rows)} rows: leave them out.")
        raise ValueError(
            f"{name} must hold a distribution over the classes in each row, not negative and summing to 1, which "
            f"{bad} of {len(rows)} rows do not: give probabilities, such as logits.softmax(1)."
        )
    return rows


def target_distribution(y: Tensor, num_classes: int, smoothing: float | None, dtype: torch.dtype) -> Tensor:
    r"""The distribution :math:`\tilde p(y|x)` of the dual term, from checked labels.

    .. math:: \tilde p = (1 - s)\, p + s / K

    Args:
        y: class numbers ``(B,)``, or distributions ``(B, K)``.
        num_classes: K.
        smoothing: s, or None to take distributions as they are.
        dtype: of the result.

    Returns:
        Shape ``(B, K)``, all entries positive.

    Raises:
        ValueError: without smoothing, the labels are class numbers or a probability is 0.
    """
    remedy = "give VariationalDualIBLoss(…, smoothing=0.1), say, which mixes each label with the uniform distribution"
    if smoothing is None:
        if not is_soft(y):
            raise ValueError(
                "The dual term needs p(y|x) > 0 for every class, and class labels without smoothing give it 0 for all "
                f"but one: {remedy}, or give soft labels of shape (B, K)."
            )
        if values_can_be_read() and bool((y <= 0).any()):
            raise ValueError(
                f"The dual term needs p(y|x) > 0 for every class, and {int((y <= 0).sum())} of {y.numel()} soft labels "
                f"are 0: {remedy}."
            )
        return y.to(dtype)
    if is_soft(y):
        return (1 - smoothing) * y.to(dtype) + smoothing / num_classes
    p = torch.full((len(y), num_classes), smoothing / num_classes, dtype=dtype, device=y.device)
    return p.scatter_(1, y[:, None], 1 - smoothing + smoothing / num_classes)
