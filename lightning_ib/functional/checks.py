"""Checks of arguments, shared by the whole package: each fault has one sentence, which names the remedy.

A check returns the value that it accepts. A wrong kind raises :exc:`TypeError`, a wrong value :exc:`ValueError`, and
the sentence says which value came, which ones are allowed and how to mend it. ``True`` and ``False`` fail as numbers.
"""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal, TypeGuard, TypeVar, get_args

import torch
from torch import Tensor

Unit = Literal["bits", "nats"]

_T = TypeVar("_T")

AS_Y = "give them as y"
"""The way to give class labels to a function of a representation t and labels y."""


def checked_integer(
    value: Any, name: str, *, at_least: int | None = None, at_most: int | None = None, advice: str = ""
) -> int:
    """An integer within a range, Python's or NumPy's.

    Args:
        value: the argument.
        name: how a message names it, its owner included: ``"Probe: folds"``.
        at_least: the smallest value allowed.
        at_most: the largest value allowed.
        advice: the remedy for a value outside the range; by default the nearest one inside.

    Raises:
        TypeError: ``value`` is of another kind; booleans are.
        ValueError: it is outside the range.

    Example:
        >>> checked_integer(5, "k", at_least=1)
        5
    """
    allowed = f"an integer{_range(at_least, at_most)}"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        example = next(bound for bound in (at_least, at_most, 1) if bound is not None)
        raise TypeError(f"{name} must be {allowed}, got {_shown(value)}: give a whole number such as {example}.")
    number = int(value)
    if at_least is not None and number < at_least:
        raise ValueError(f"{name} must be {allowed}, got {number}: {advice or f'give at least {at_least}'}.")
    if at_most is not None and number > at_most:
        raise ValueError(f"{name} must be {allowed}, got {number}: {advice or f'give at most {at_most}'}.")
    return number


def checked_number(
    value: Any,
    name: str,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    infinite: bool = False,
    advice: str = "",
) -> float:
    """A real number within a range: Python's, NumPy's, or a tensor with one element.

    Args:
        value: the argument.
        name: how a message names it, its owner included.
        above: the value must exceed this one.
        at_least: the smallest value allowed.
        at_most: the largest value allowed.
        infinite: whether infinity is allowed.
        advice: the remedy for a value outside the range.

    Raises:
        TypeError: ``value`` is of another kind; booleans are.
        ValueError: it is outside the range, or NaN.

    Example:
        >>> checked_number(0.5, "alpha", above=0)
        0.5
    """
    single = isinstance(value, Tensor) and value.numel() == 1 and (value.is_floating_point() or holds_integers(value))
    finite = "" if infinite else "finite "
    if above == 0:
        allowed = f"a positive {finite}number{_range(at_least, at_most)}"
    else:
        allowed = f"a {finite}number{_range(at_least, at_most)}{'' if above is None else f' above {above}'}"
    if isinstance(value, bool) or not (isinstance(value, numbers.Real) or single):
        raise TypeError(f"{name} must be {allowed}, got {_shown(value)}: give a float.")
    number = float(value)
    inside = (
        (infinite or abs(number) < math.inf)
        and (above is None or number > above)
        and (at_least is None or number >= at_least)
        and (at_most is None or number <= at_most)
    )
    if math.isnan(number) or not inside:
        raise ValueError(f"{name} must be {allowed}, got {value}{f': {advice}' if advice else ''}.")
    return number


def checked_choice(value: Any, name: str, choices: Sequence[_T]) -> _T:
    """One of a few values; the message names the nearest right one.

    Args:
        value: the argument.
        name: how a message names it, its owner included.
        choices: the values allowed.

    Raises:
        TypeError: ``value`` is of a kind that none of the choices has.
        ValueError: it is of their kind, and none of them.

    Example:
        >>> checked_choice("bit", "unit", ("bits", "nats"))
        Traceback (most recent call last):
        ValueError: unit must be 'bits' or 'nats', got 'bit': did you mean 'bits'?
    """
    for choice in choices:
        if isinstance(value, type(choice)) and not isinstance(value, bool) and value == choice:
            return choice
    *others, last = map(repr, choices)
    allowed = f"{', '.join(others)} or {last}" if others else last
    near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1, cutoff=0.6)
    nearest = next((choice for choice in choices if near and str(choice) == near[0]), None)
    remedy = "." if nearest is None else f": did you mean {nearest!r}?"
    kind = ValueError if isinstance(value, tuple({type(choice) for choice in choices})) else TypeError
    raise (TypeError if isinstance(value, bool) else kind)(f"{name} must be {allowed}, got {_shown(value)}{remedy}")


def checked_flag(value: Any, name: str) -> bool:
    """True or False.

    Raises:
        TypeError: ``value`` is anything else.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {_shown(value)}.")
    return value


def checked_callable(value: Any, name: str, takes: str) -> None:
    """A callable, or None.

    Args:
        value: the argument.
        name: how a message names it, its owner included.
        takes: the argument of the callable, in words.

    Raises:
        TypeError: ``value`` is neither.
    """
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a callable on {takes} or None, got {value!r}.")


def checked_unit(unit: str) -> str:
    """The unit, where it is one.

    Raises:
        TypeError: it is of another kind than a string.
        ValueError: it is neither ``"bits"`` nor ``"nats"``.
    """
    known: tuple[str, ...] = get_args(Unit)
    return checked_choice(unit, "unit", known)


def logarithm(unit: str) -> Callable[[float], float]:
    """The logarithm that gives entropies in a unit: to base 2 or base e."""
    return math.log2 if checked_unit(unit) == "bits" else math.log


def in_unit(nats: float, unit: str) -> float:
    """An amount in nats, converted to the unit."""
    return nats / math.log(2) if checked_unit(unit) == "bits" else nats


def plain_tensor(values: Tensor) -> Tensor:
    """A tensor of torch's own class with the same values: a subclass may do arithmetic of its own (MONAI's MetaTensor).

    One that is quantized is dequantized. A nested or distributed tensor, which has no storage of its own, stays.
    """
    if type(values) is not Tensor and type(values).__torch_dispatch__ is Tensor.__torch_dispatch__:
        values = values.as_subclass(Tensor)
    return values.dequantize() if values.is_quantized else values


def checked_values(values: Any, name: str, shape: str) -> Tensor:
    """A floating-point tensor, as it is.

    Args:
        values: the argument.
        name: how a message names it.
        shape: the shape it should have, in words.

    Raises:
        TypeError: it is of another kind or dtype.
    """
    if not isinstance(values, Tensor) or not values.is_floating_point():
        remedy = f": give {name}.double()" if holds_integers(values) else ""
        raise TypeError(f"{name} must be a floating-point tensor of shape {shape}, got {_dtype(values)}{remedy}.")
    return values


def checked_integers(values: Any, name: str, shape: str, remedy: str = "") -> Tensor:
    """A tensor of integers or booleans, as it is.

    Args:
        values: the argument.
        name: how a message names it, its meaning included.
        shape: the shape it should have, in words.
        remedy: for real numbers.

    Raises:
        TypeError: it is of another kind or dtype.
    """
    if not holds_integers(values):
        real = remedy and isinstance(values, Tensor) and values.is_floating_point()
        remedy = f": {remedy}" if real else ""
        raise TypeError(f"{name}, a tensor of integers of shape {shape}, got {_dtype(values)}{remedy}.")
    return values


def moved(values: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device: asynchronously, but to the host, which would read it too soon."""
    return values.to(device, non_blocking=device.type != "cpu")


def checked_rows(values: Any, name: str, *, at_least: int = 2, labels: str | None = None) -> Tensor:
    """Rows of real numbers, one row per sample, in the form that the estimators work on.

    Args:
        values: real numbers, shape ``(N, …)`` or ``(N,)``.
        name: how a message names them.
        at_least: the smallest N allowed.
        labels: where the caller may hold class labels, the way to give those: :data:`AS_Y`, say.

    Returns:
        Shape ``(N, D)``, on the same device, detached: float32 and float64 as they are, half precision as float32.

    Raises:
        TypeError: they are of another kind: complex, integers or booleans.
        ValueError: there are too few, a row is empty, or a value is NaN or infinite.
    """
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a tensor of shape (N, D), got {kind_of(values)}.")
    if values.is_complex():
        raise TypeError(f"{name} must be real, got {values.dtype}: give torch.view_as_real({name}).")
    rows = plain_tensor(values.detach())
    if not rows.is_floating_point():
        remedy = f"give {name}.double() if these are numbers"
        remedy += "" if labels is None else f", or {labels} if they are class labels"
        raise TypeError(f"{name} must be real numbers in floating point, got {rows.dtype}: {remedy}.")
    if rows.ndim == 0 or len(rows) < at_least or rows[0].numel() == 0:
        raise ValueError(
            f"{name} must have shape (N, D) with N at least {at_least} and D at least 1, got {tuple(rows.shape)}."
        )
    rows = rows.reshape(len(rows), -1)
    rows = rows if rows.dtype in (torch.float32, torch.float64) else rows.float()
    if math.isfinite(float(rows.sum())):  # then so is every value; where finite values overflow each is looked at
        return rows
    missing = int((~rows.isfinite()).any(1).sum())
    if missing:
        raise ValueError(f"{name} has NaN or infinite values in {missing} of {len(rows)} rows: leave those rows out.")
    return rows


def checked_pair(
    x: Any, y: Any, names: tuple[str, str] = ("x", "y"), *, at_least: int = 2, labels: str = ""
) -> tuple[Tensor, Tensor]:
    """Two real variables of the same samples, each as :func:`checked_rows` gives it.

    Args:
        x: the one, shape ``(N, …)``.
        y: the other, shape ``(N, …)``.
        names: how a message names them.
        at_least: the smallest N allowed.
        labels: the way to give class labels; by default as one-hot rows.

    Raises:
        TypeError: one is of another kind; integers and booleans are, as they may be labels or numbers.
        ValueError: one has too few or unusable rows, or they have different numbers of rows.
    """
    rows = [
        checked_rows(
            values, name, at_least=at_least, labels=labels or f"use torch.nn.functional.one_hot({name}).double()"
        )
        for values, name in zip((x, y), names)
    ]
    check_same_samples(len(rows[0]), len(rows[1]), names)
    return rows[0], rows[1]


def checked_labels(y: Any, n: int, names: tuple[str, str] = ("t", "y")) -> tuple[Tensor, Tensor]:
    """Class labels, numbered.

    Args:
        y: integers or booleans, shape ``(N,)``; two samples are of one class where their labels are equal.
        n: the number of samples.
        names: how a message names the rows and the labels.

    Returns:
        int64 ``(N,)`` in ``0 … K − 1``, in ascending order of the labels, and the count of each, int64 ``(K,)``.

    Raises:
        TypeError: the labels are of another kind than a tensor of integers.
        ValueError: they have another shape than ``(n,)``.
    """
    name = names[1]
    remedy = f"give {name}.long() for class numbers, or use an estimator of two real variables"
    checked_integers(y, f"{name} must be class labels", "(N,)", remedy)
    if y.ndim != 1:
        raise ValueError(f"{name} must be class labels of shape (N,), got {tuple(y.shape)}.")
    check_same_samples(n, len(y), names)
    _, inverse, counts = torch.unique(plain_tensor(y.detach()), return_inverse=True, return_counts=True)
    return inverse, counts


def checked_ids(ids: Any, name: str = "ids") -> Tensor:
    """The symbols of a variable, one integer per sample.

    Args:
        ids: integers or booleans, shape ``(N,)``, N at least 1.
        name: how a message names them.

    Raises:
        TypeError: they are of another kind.
        ValueError: they have another shape, or there are none.
    """
    checked_integers(ids, f"{name} must be symbols", "(N,)", "discretize real values first (bucketize, row_ids)")
    if ids.ndim != 1 or ids.numel() == 0:
        raise ValueError(f"{name} must have shape (N,) with N at least 1, got {tuple(ids.shape)}.")
    checked: Tensor = ids
    return checked


def check_same_samples(n: int, m: int, names: tuple[str, str]) -> None:
    """Raise where two variables have different numbers of samples.

    Raises:
        ValueError: they do.
    """
    if n != m:
        raise ValueError(f"{names[0]} and {names[1]} must be of the same samples, got {n} of one and {m} of the other.")


def sentence(error: Exception) -> str:
    """The message of an error, with the stop at its end."""
    message = str(error)
    return message if message.endswith((".", "?")) else f"{message}."


def _range(at_least: float | None, at_most: float | None) -> str:
    if at_least is not None and at_most is not None:
        return f" from {at_least} to {at_most}"
    return (
        f" of at least {at_least}" if at_least is not None else f" of at most {at_most}" if at_most is not None else ""
    )


@cache
def numpy_reads_tensors() -> bool:
    """Whether NumPy is there, and this PyTorch shares memory with it: one built for NumPy 1 refuses NumPy 2."""
    try:
        torch.zeros(1, device="cpu").numpy()
    except (RuntimeError, ImportError):
        return False
    return True


def holds_integers(values: Any) -> TypeGuard[Tensor]:
    """Whether this is a tensor of integers or booleans: class labels or symbols rather than real numbers."""
    return isinstance(values, Tensor) and not (values.is_floating_point() or values.is_complex() or values.is_quantized)


def _dtype(value: Any) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else kind_of(value)


def kind_of(value: Any) -> str:
    """Of which type a value is, with an article, for messages: ``an int``, ``a list``."""
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _shown(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
