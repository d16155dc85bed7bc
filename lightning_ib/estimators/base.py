"""Estimators that do not bin, as choices of a measurement: what each needs, what it sets once, what it gives.

The arithmetic is in :mod:`lightning_ib.functional`; the rows are a sample of the pass, see
:class:`~lightning_ib.measurement.reservoir.Reservoir`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from lightning_ib.functional import (
    Unit,
)


class Rows(NamedTuple):
    """The sampled rows of one layer.

    Attributes:
        t: the representation: its sketch ``(M, D)`` with D at most 128, or for estimators with ``raw`` as the module
            put it out, ``(M, …)``.
        y: the target: class labels ``(M,)``, or real values ``(M, …)``; ``None`` where there is none.
        x: the input, sketched as well; ``None`` where no estimator asked for it.
    """

    t: Tensor
    y: Tensor | None = None
    x: Tensor | None = None

    @property
    def labels(self) -> Tensor | None:
        """The target, where it is class labels."""
        return None if self.y is None or self.y.is_floating_point() else self.y


class Estimator(ABC):
    """One estimator at work on sampled rows.

    It sees each layer as a sketch of at most 128 coordinates, which keeps distances
    (:func:`~lightning_ib.functional.sketch`). To add your own, give it a ``name``, the first part of what it logs, and
    override :meth:`figures`.

    Args:
        pool: any callable on the rows as the module put them out, ``(M, …)``, that returns ``(M, …)``; it takes the
            place of the sketch.
        max_samples: how many of the sampled rows it sees.
    """

    name: str
    needs_input: bool = False
    given: Sequence[str] = ("I_TY",)
    max_samples: int = 2000
    optional: bool = False
    """Whether it is there by default: what hinders it is no fault of the user's then. See :meth:`applies`."""

    def __init__(self, pool: Callable[[Tensor], Tensor] | None = None, max_samples: int | None = None) -> None:
        if pool is not None and not callable(pool):
            raise TypeError(f"{type(self).__name__}: pool must be a callable on rows (M, …) or None, got {pool!r}.")
        self.pool = pool
        if max_samples is not None:
            self.max_samples = checked_max_samples(max_samples, f"{type(self).__name__}: ")

    @property
    def raw(self) -> bool:
        """Whether it is shown the rows as the module put them out, instead of their sketch."""
        return self.pool is not None

    def pooled(self, t: Tensor) -> Tensor:
        """The rows ``(M, …)`` that it works on."""
        return t if self.pool is None else self.pool(t)

    def settle(self, rows: Rows) -> dict[str, float]:
        """What is set from a layer's scale at its first measurement, by name, and frozen from then on."""
        return {}

    def outgrown(self, rows: Rows, settled: Mapping[str, float]) -> bool:
        """Whether the layer has left behind what was set at its first measurement."""
        return False

    def applies(self, rows: Rows) -> bool:
        """Whether to work on such rows: where it is there by default, on those with class labels only."""
        return rows.labels is not None or not self.optional

    def gives(self, rows: Rows) -> list[str]:
        """The names of the values that can be had of such rows; those that fail are NaN."""
        return [name for name in self.given if rows.y is not None or not name.startswith(("I_TY", "accuracy"))]

    @abstractmethod
    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """The values of a layer by name, such as ``{"I_TY": 1.5}``; names that end in ``accuracy`` are shares.

        Args:
            rows: its rows, pooled.
            settled: what :meth:`settle` gave at the first measurement.
            unit: ``"bits"`` or ``"nats"``.

        Raises:
            ValueError: the rows are of no use to it.
        """

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not (v is None or v is False or k == "name"))
        return f"{type(self).__name__}({options})"


def checked_max_samples(max_samples: int, owner: str = "") -> int:
    """How many rows to sample.

    Raises:
        ValueError: fewer than two.
    """
    if isinstance(max_samples, bool) or not isinstance(max_samples, int) or max_samples < 2:
        raise ValueError(f"{owner}max_samples must be an integer of at least 2, got {max_samples!r}.")
    return max_samples


def _labels(estimator: Estimator, rows: Rows) -> Tensor:
    if rows.labels is None:
        came = "there is no target" if rows.y is None else "the target is real-valued"
        raise ValueError(f"{came}, and {type(estimator).__name__} needs class labels.")
    return rows.labels


def _input(estimator: Estimator, rows: Rows) -> Tensor:
    """The input as real numbers."""
    if rows.x is None:
        raise ValueError(
            f"the input has no row for each sample, which {type(estimator).__name__} needs: give unpack=lambda batch: "
            "(x, y), x having the batch first, or input=Quantizer(select=…), which takes it out of x."
        )
    return rows.x if rows.x.is_floating_point() else rows.x.double()


def _target(estimator: Estimator, rows: Rows) -> Tensor:
    if rows.y is None:
        raise ValueError(f"there is no target, and {type(estimator).__name__} needs one.")
    return rows.y
