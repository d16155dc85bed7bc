"""What estimators ask of their arguments, checked in one place: rows of numbers, labels, units."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

Unit = Literal["bits", "nats"]


def checked_unit(unit: str) -> str:
    """The unit, where it is one.

    Raises:
        ValueError: it is neither ``"bits"`` nor ``"nats"``.
    """
    if unit not in get_args(Unit):
        raise ValueError(f"unit must be 'bits' or 'nats', got {unit!r}.")
    return unit


def logarithm(unit: str) -> Callable[[float], float]:
    """The logarithm that gives entropies in a unit: to base 2 or base e."""
    return math.log2 if checked_unit(unit) == "bits" else math.log


def plain_tensor(values: Tensor) -> Tensor:
    """A tensor of torch's own class with the same values: a subclass may do arithmetic of its own (MONAI's MetaTensor).

    One that is quantized is dequantized. One without a storage of its own (a nested or distributed tensor) stays.
    """
    if type(values) is not Tensor and type(values).__torch_dispatch__ is Tensor.__torch_dispatch__:
        values = values.as_subclass(Tensor)
    return values.dequantize() if values.is_quantized else values


def checked_positive(value: float, name: str) -> float:
    """A number above zero.

    Raises:
        ValueError: it is zero, negative, infinite or NaN.
    """
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive finite number, got {value}.")
    return float(value)


def in_unit(nats: float, unit: str) -> float:
    """A figure in nats, in the unit asked for."""
    return nats / math.log(2) if checked_unit(unit) == "bits" else nats


def checked_rows(values: Tensor, name: str, *, at_least: int = 2) -> Tensor:
    """Real rows, one a sample, as an estimator works on them.

    Args:
        values: real numbers, shape ``(N, …)`` or ``(N,)``.
        name: what to call them in an error.
        at_least: the least N that will do.

    Returns:
        Shape ``(N, D)``, on the same device, without gradient: float32 and float64 as they are, half precision as
        float32, integers as float64.

    Raises:
        TypeError: they are no tensor, or complex.
        ValueError: there are too few, they have no coordinate, or one is NaN or infinite.
    """
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a tensor of shape (N, D), got a {type(values).__name__}.")
    if values.is_complex():
        raise TypeError(f"{name} must be real, got {values.dtype}: give torch.view_as_real({name}).")
    if values.ndim == 0 or len(values) < at_least or values[0].numel() == 0:
        raise ValueError(
            f"{name} must have shape (N, D) with N at least {at_least} and D at least 1, got {tuple(values.shape)}."
        )
    rows = plain_tensor(values.detach()).reshape(len(values), -1)
    if not rows.is_floating_point():
        return rows.double()
    rows = rows if rows.dtype in (torch.float32, torch.float64) else rows.float()
    missing = int((~rows.isfinite()).any(1).sum())
    if missing:
        raise ValueError(f"{name} has NaN or infinite values in {missing} of {len(rows)} rows: leave those rows out.")
    return rows


def checked_pair(
    x: Tensor, y: Tensor, names: tuple[str, str] = ("x", "y"), *, at_least: int = 2
) -> tuple[Tensor, Tensor]:
    """Two variables of the same samples, each as :func:`checked_rows` gives it.

    Raises:
        TypeError: one is no real tensor.
        ValueError: one has no usable rows, or they have different numbers of rows.
    """
    rows = [checked_rows(values, name, at_least=at_least) for values, name in zip((x, y), names)]
    _same_number(len(rows[0]), len(rows[1]), names)
    return rows[0], rows[1]


def checked_labels(y: Tensor, n: int, names: tuple[str, str] = ("t", "y")) -> tuple[Tensor, Tensor]:
    """Class labels, numbered.

    Args:
        y: integers or booleans, shape ``(N,)``; any values, only which are equal matters.
        n: how many samples there are.
        names: what to call the rows and the labels in an error.

    Returns:
        int64 ``(N,)`` in ``0 … K − 1``, in ascending order of the labels, and int64 ``(K,)``, how many of each.

    Raises:
        TypeError: the labels are no tensor of integers.
        ValueError: they do not have shape ``(n,)``.
    """
    if not isinstance(y, Tensor) or y.is_floating_point() or y.is_complex():
        came = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(f"{names[1]} must be class labels, a tensor of integers of shape (N,), got {came}.")
    if y.ndim != 1:
        raise ValueError(f"{names[1]} must be class labels of shape (N,), got {tuple(y.shape)}.")
    _same_number(n, len(y), names)
    _, numbers, counts = torch.unique(plain_tensor(y.detach()), return_inverse=True, return_counts=True)
    return numbers, counts


def _same_number(n: int, m: int, names: tuple[str, str]) -> None:
    if n != m:
        raise ValueError(f"{names[0]} and {names[1]} must be of the same samples, got {n} of one and {m} of the other.")


def sentence(error: Exception) -> str:
    """The message of an error, with the stop at its end."""
    message = str(error)
    return message if message.endswith(".") else f"{message}."
