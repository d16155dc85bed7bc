"""Estimators as choices of a measurement: inputs, hyperparameters calibrated at the first measurement, and outputs.

The arithmetic is in :mod:`lightning_ib.functional`; the rows are a sample of the pass, see
:class:`~lightning_ib.measurement.reservoir.Reservoir`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_ib.functional import Unit
from lightning_ib.functional.checks import checked_callable, checked_integer, checked_labels, in_unit, plain_tensor
from lightning_ib.functional.resampling import Pointwise
from lightning_ib.records.record import is_about_target, unit_of


class Rows(NamedTuple):
    """The sampled rows of one layer.

    Attributes:
        t: the representation: its sketch ``(M, D)`` with D at most 128, or for estimators with ``raw`` the output of
            the module, ``(M, …)``.
        y: the target: class labels ``(M,)``, or real values ``(M, …)``; ``None`` where there is none.
        x: the input, sketched as well; ``None`` unless an estimator asked for it.
        sequence: where tokens are the samples, the sequence of each, int64 ``(M,)``: its tokens depend on each other.
        rounding: the share by which the values of ``t`` are rounded; ``None`` where their dtype says it.
    """

    t: Tensor
    y: Tensor | None = None
    x: Tensor | None = None
    sequence: Tensor | None = None
    rounding: float | None = None

    @property
    def numbers(self) -> Tensor:
        """The representation as real numbers: integers and booleans as float64."""
        return _real(self.t)

    @property
    def labels(self) -> Tensor | None:
        """The target, where it is class labels."""
        return None if self.y is None or self.y.is_floating_point() else self.y


class Estimator(ABC):
    """One estimator at work on sampled rows.

    It sees each layer as a sketch of at most 128 coordinates, which keeps distances
    (:func:`~lightning_ib.functional.sketch`). To add your own, give it a ``name``, the first part of its tags, and
    ``outputs``, and override :meth:`estimate`.

    Args:
        pool: any callable on the output of the module, ``(M, …)``, that returns ``(M, …)``; it replaces the sketch.
        max_samples: the largest number of sampled rows it sees.
    """

    name: str
    needs_input: bool = False
    outputs: Sequence[str] = ("I_TY",)
    """The names of all values that it can give."""
    unitless: Sequence[str] = ()
    """Those of its values that are neither information nor entropy, such as a dimension; accuracies are known."""
    max_samples: int = 2000
    channels: bool = False
    """Whether it sees the channels of the output, averaged over places, in place of the sketch."""
    optional: bool = False
    """Whether it is there by default, so that it stands aside from rows it is unsuited to. See :meth:`applies`."""

    def __init__(self, pool: Callable[[Tensor], Tensor] | None = None, max_samples: int | None = None) -> None:
        owner = type(self).__name__
        checked_callable(pool, f"{owner}: pool", "rows (M, …)")
        self.pool = pool
        if max_samples is not None:
            self.max_samples = checked_max_samples(max_samples, f"{owner}: ")

    @property
    def raw(self) -> bool:
        """Whether it sees the output of the module in place of the sketch."""
        return self.pool is not None

    def pooled(self, t: Tensor) -> Tensor:
        """The rows ``(M, …)`` that it works on."""
        return t if self.pool is None else self.pool(t)

    def calibrate(self, rows: Rows) -> dict[str, float]:
        """The hyperparameters that are set from a layer's scale at its first measurement, by name, and then frozen."""
        return {}

    def outgrown(self, rows: Rows, calibration: Mapping[str, float]) -> bool:
        """Whether the scale of the layer has left the one it was calibrated to."""
        return False

    def applies(self, rows: Rows) -> bool:
        """Whether to work on such rows: one that is there by default works on those with class labels only."""
        return rows.labels is not None or not self.optional

    def unit_of(self, quantity: str, unit: str) -> str:
        """The unit of one of its values: ``unit``, or empty for a quantity without a unit."""
        return "" if quantity in self.unitless else unit_of(quantity, unit)

    def is_about_target(self, quantity: str) -> bool:
        """Whether one of its values involves the target; of several targets each then has its own.

        By its name: what begins with ``I_TY``, ``H_Y``, ``I_XT_given_Y`` or ``accuracy`` does.
        """
        return is_about_target(quantity)

    def outputs_for(self, rows: Rows) -> list[str]:
        """The names of the values that such rows allow; one that fails is NaN."""
        return [name for name in self.outputs if rows.y is not None or not self.is_about_target(name)]

    @abstractmethod
    def estimate(self, rows: Rows, calibration: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """The values of a layer by name, such as ``{"I_TY": 1.5}``; names that end in ``accuracy`` are shares.

        A name with ``_se`` after it is the standard error of that value: ``{"I_TY": 1.5, "I_TY_se": 0.02}``.

        Args:
            rows: its rows, pooled.
            calibration: the result of :meth:`calibrate` at the first measurement.
            unit: ``"bits"`` or ``"nats"``.

        Raises:
            ValueError: the rows are unsuited.
        """

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not (v is None or v is False or k == "name"))
        return f"{type(self).__name__}({options})"


def with_error(name: str, found: Pointwise, rows: Rows, unit: Unit) -> dict[str, float]:
    """A value under its name, and its standard error; tokens of one sequence count as dependent.

    Args:
        name: of the value.
        found: the estimate, and the influence of each row.
        rows: those rows.
        unit: ``"bits"`` or ``"nats"``.
    """
    return {name: in_unit(found.nats, unit), f"{name}_se": found.standard_error(rows.sequence, unit=unit)}


def whole_sequences(rows: Rows, parts: int, name: str) -> Tensor | None:
    """The sequence of each row, where tokens are the samples, to be dealt to parts as a whole.

    Args:
        rows: the rows.
        parts: how many parts there are.
        name: of the parts, as a message names them.

    Raises:
        ValueError: there are fewer sequences than parts.
    """
    if rows.sequence is not None and (n := len(rows.sequence.unique())) < parts:
        raise ValueError(f"the tokens are of {n} sequences, and {parts} {name} need as many: show more.")
    return rows.sequence


def checked_max_samples(max_samples: int, owner: str = "") -> int:
    """The number of rows to sample.

    Raises:
        TypeError: it is of another kind than an integer.
        ValueError: it is below 2.
    """
    return checked_integer(max_samples, f"{owner}max_samples", at_least=2)


def required_labels(estimator: Estimator, rows: Rows) -> Tensor:
    """The class labels of an estimator that needs some.

    Raises:
        ValueError: there is no target, or it is real-valued.
    """
    if rows.labels is None:
        came = "there is no target" if rows.y is None else "the target is real-valued"
        raise ValueError(f"{came}, and {type(estimator).__name__} needs class labels.")
    return rows.labels


def required_input(estimator: Estimator, rows: Rows) -> Tensor:
    """The input as real numbers.

    Raises:
        ValueError: there is no input.
    """
    if rows.x is None:
        raise ValueError(
            f"the input has no row for each sample, which {type(estimator).__name__} needs: give unpack=lambda batch: "
            "(x, y), x having the batch first, or input=Quantizer(select=…), which takes it out of x."
        )
    return _real(rows.x)


def required_target(estimator: Estimator, rows: Rows) -> Tensor:
    """The target, labels or real values.

    Raises:
        ValueError: there is none.
    """
    if rows.y is None:
        raise ValueError(f"there is no target, and {type(estimator).__name__} needs one.")
    return rows.y


def one_hot(labels: Tensor, n: int) -> Tensor:
    """Class labels ``(n,)`` as float64 rows ``(n, K)``, one coordinate for each label that occurs."""
    numbers, counts = checked_labels(labels, n)
    return torch.nn.functional.one_hot(numbers, len(counts)).double()


def _real(values: Tensor) -> Tensor:
    values = plain_tensor(values)
    return values if values.is_floating_point() or values.is_complex() else values.double()
