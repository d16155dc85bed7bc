"""Estimators by nearest neighbors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from torch import Tensor

from lightning_ib.estimators.base import Estimator, Rows, required_input, required_labels, required_target, with_error
from lightning_ib.functional import Unit
from lightning_ib.functional.checks import checked_choice, checked_integer
from lightning_ib.functional.continuous.neighbors import pointwise_knn, pointwise_ksg, pointwise_mixed


class KSG(Estimator):
    """Nearest neighbors of two continuous variables (Kraskov, Stögbauer & Grassberger 2004).

    The outputs are ``I_XT`` and, where the target is real-valued, ``I_TY``. For a deterministic network the true I(X;T)
    is infinite, and the estimate grows with the number of rows.

    Args:
        k: the number of neighbors.
        algorithm: 1 or 2, as in the paper.
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    name = "ksg"
    needs_input = True
    outputs = ("I_XT", "I_TY")

    def __init__(
        self,
        k: int = 3,
        algorithm: Literal[1, 2] = 1,
        pool: Callable[[Tensor], Tensor] | None = None,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(pool, max_samples)
        self.k = checked_integer(k, "KSG: k", at_least=1)
        self.algorithm = checked_choice(algorithm, "KSG: algorithm", (1, 2))

    def outputs_for(self, rows: Rows) -> list[str]:
        """I(X;T), and I(T;Y) where Y is real-valued."""
        return ["I_XT"] if rows.y is None or rows.labels is not None else ["I_XT", "I_TY"]

    def estimate(self, rows: Rows, calibration: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(X;T), and I(T;Y) where Y is real-valued, and their standard errors."""
        found = pointwise_ksg(rows.numbers, required_input(self, rows), k=self.k, algorithm=self.algorithm)
        values = with_error("I_XT", found, rows, unit)
        if rows.y is None or rows.labels is not None:
            return values
        found = pointwise_ksg(rows.numbers, rows.y, k=self.k, algorithm=self.algorithm)
        return values | with_error("I_TY", found, rows, unit)


class KNN(Estimator):
    """Nearest neighbors within and across classes (Ross 2014), with the output ``I_TY`` for class labels.

    Args:
        k: the number of neighbors.
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    name = "knn"

    def __init__(
        self, k: int = 3, pool: Callable[[Tensor], Tensor] | None = None, max_samples: int | None = None
    ) -> None:
        super().__init__(pool, max_samples)
        self.k = checked_integer(k, "KNN: k", at_least=1)

    def estimate(self, rows: Rows, calibration: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(T;Y) and its standard error."""
        return with_error("I_TY", pointwise_knn(rows.numbers, required_labels(self, rows), k=self.k), rows, unit)


class MixedKNN(Estimator):
    """Nearest neighbors of mixtures of discrete and continuous variables (Gao et al. 2017), with the output ``I_TY``.

    Repeated rows, such as those of a dead layer, are allowed.

    Args:
        k: the number of neighbors.
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    name = "mixed"

    def __init__(
        self, k: int = 3, pool: Callable[[Tensor], Tensor] | None = None, max_samples: int | None = None
    ) -> None:
        super().__init__(pool, max_samples)
        self.k = checked_integer(k, "MixedKNN: k", at_least=1)

    def estimate(self, rows: Rows, calibration: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(T;Y) and its standard error."""
        y = required_target(self, rows)
        if rows.labels is not None:  # numbers farther apart than any two rows: classes have no order
            y = y.double() * 2 * (1 + float(rows.t.max() - rows.t.min()))
        return with_error("I_TY", pointwise_mixed(rows.numbers, y, k=self.k), rows, unit)
