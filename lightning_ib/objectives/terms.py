"""What the losses share: their weights, their terms and the checks of what they are given."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor, nn

from lightning_ib.functional.checks import checked_number, checked_values
from lightning_ib.objectives.labels import checked_targets, in_full_precision, is_soft

Reduction = Literal["mean", "none"]


class IBTerms(NamedTuple):
    """A loss and its parts: means over the batch in nats, scalars with gradients, ready for ``self.log_dict``.

    With ``reduction="none"`` each has one value per sample.

    Attributes:
        loss: the weighted sum of the two that the loss documents.
        rate: what is to be small of the code: an upper bound of an information, as the loss documents.
        distortion: the cross-entropy E[−ln q(y|z)], or the distortion that was given. With class labels, I(Z;Y) is at
            least H(Y) − distortion.
    """

    loss: Tensor
    rate: Tensor
    distortion: Tensor


class Weight:
    """A weight of a loss, at least 0, which can be set between two steps and is checked when it is.

    Args:
        meaning: what it weighs.
    """

    def __init__(self, meaning: str) -> None:
        self.__doc__ = meaning

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, loss: None, owner: type) -> Weight: ...

    @overload
    def __get__(self, loss: nn.Module, owner: type) -> float: ...

    def __get__(self, loss: nn.Module | None, owner: type) -> Weight | float:
        if loss is None:
            return self
        value: float = loss.__dict__[f"_{self.name}"]
        return value

    def __set__(self, loss: nn.Module, value: float) -> None:
        loss.__dict__[f"_{self.name}"] = checked_number(value, f"{type(loss).__name__}: {self.name}", at_least=0)


def reduced(values: Tensor, reduction: Reduction) -> Tensor:
    """The mean over all samples, or the values as they are."""
    return values.mean() if reduction == "mean" else values


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """−ln q(y|z) of every sample, in nats: shape ``(B,)`` or ``(samples, B)``, float32 or float64.

    Args:
        logits: floating point, shape ``(B, K)`` or ``(samples, B, K)``.
        y: class labels ``(B,)``, or soft labels ``(B, K)``.

    Raises:
        TypeError: an argument is of another kind; class labels as real numbers are.
        ValueError: shapes differ, or labels are out of range.
    """
    n, k = checked_logits(logits)
    return cross_entropy_of(in_full_precision(logits).log_softmax(-1), checked_targets(y, k, n))


def cross_entropy_of(log_q: Tensor, y: Tensor) -> Tensor:
    """The cross-entropy of log-probabilities and checked labels."""
    if is_soft(y):
        return -torch.where(y > 0, y.to(log_q.dtype) * log_q, 0.0).sum(-1)
    return -log_q.gather(-1, y.expand(log_q.shape[:-1])[..., None])[..., 0]


def checked_logits(logits: Any) -> tuple[int, int]:
    """B and K of logits.

    Raises:
        TypeError: they are of another kind.
        ValueError: they have another shape than ``(B, K)`` or ``(samples, B, K)``.
    """
    checked_values(logits, "logits", "(B, K)")
    if logits.ndim < 2 or logits.shape[-1] < 2 or logits.numel() == 0:
        raise ValueError(
            f"logits must have shape (B, K), or (samples, B, K), of at least one sample and two classes, got "
            f"{tuple(logits.shape)}."
        )
    return logits.shape[-2], logits.shape[-1]


def checked_per_sample(values: Any, shape: torch.Size, name: str, remedy: str) -> Tensor:
    """One value for each sample, expanded to a shape and in full precision.

    Args:
        values: floating point, shape ``(B,)``, or ``(samples, B)`` as ``shape`` is.
        shape: ``(B,)`` or ``(samples, B)``.
        name: how a message names them, what they are of included.
        remedy: what to give.

    Raises:
        TypeError: they are of another kind.
        ValueError: they have another shape.
    """
    checked_values(values, name, "(B,)")
    if values.shape not in (shape[-1:], shape):
        raise ValueError(
            f"{name} must have one value in nats for each of the {shape[-1]} samples, summed over the dimensions, got "
            f"shape {tuple(values.shape)}: {remedy}."
        )
    return in_full_precision(values).expand(shape)


def checked_rate(rate: Any, shape: torch.Size) -> Tensor:
    """The rate of each sample, as :func:`checked_per_sample` gives it."""
    return checked_per_sample(rate, shape, "rate", "give code.kl, or prior.kl(code, y)")


def checked_code(values: Any, name: str, n: int | None = None) -> Tensor:
    """The codes of B samples as rows, in full precision.

    Args:
        values: floating point, shape ``(B, D)``; further dimensions are flattened.
        name: how a message names them.
        n: B; any where None.

    Raises:
        TypeError: they are of another kind.
        ValueError: they have another shape, or there are none.
    """
    checked_values(values, name, "(B, D)")
    if values.ndim < 2 or values.numel() == 0 or (n is not None and len(values) != n):
        size = "B" if n is None else n
        raise ValueError(
            f"{name} must have shape ({size}, D) of at least one sample and one dimension, got {tuple(values.shape)}"
            f"{'' if values.ndim > 1 else f': give {name}[:, None] for one value of each sample'}."
        )
    return in_full_precision(values).flatten(1)
