"""Estimators by nearest neighbors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from torch import Tensor

from lightning_ib.estimators.base import (
    Estimator,
    Rows,
    required_input,
    required_labels,
    required_target,
    whole_sequences,
    with_error,
)
from lightning_ib.functional import Unit
from lightning_ib.functional.checks import checked_choice, checked_flag, checked_integer, checked_labels, checked_rows
from lightning_ib.functional.continuous.corrected import pointwise_ksg_corrected
from lightning_ib.functional.continuous.neighbors import far_apart, pointwise_knn, pointwise_ksg, pointwise_mixed
from lightning_ib.functional.continuous.projected import pointwise_projected


class KSG(Estimator):
    """Nearest neighbors of two continuous variables (Kraskov, Stögbauer & Grassberger 2004).

    The outputs are ``I_XT`` and, where the target is real-valued, ``I_TY``. For a deterministic network the true I(X;T)
    is infinite, and the estimate grows with the number of rows.

    Args:
        k: the number of neighbors.
        algorithm: 1 or 2, as in the paper.
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
        corrected: for how low neighbors read on normals with the same correlations, see
            :func:`~lightning_ib.functional.mutual_information_ksg_corrected`: I(T;Y) of real-valued targets, in about 5
            to 20 coordinates. I(X;T) stays as it is. It takes algorithm 1.
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
        corrected: bool = False,
    ) -> None:
        super().__init__(pool, max_samples)
        self.k = checked_integer(k, "KSG: k", at_least=1)
        self.algorithm = checked_choice(algorithm, "KSG: algorithm", (1, 2))
        self.corrected = checked_flag(corrected, "KSG: corrected")
        if self.corrected and self.algorithm == 2:
            raise ValueError("KSG: corrected=True takes algorithm 1, got 2: leave algorithm out.")

    def outputs_for(self, rows: Rows) -> list[str]:
        """I(X;T), and I(T;Y) where Y is real-valued."""
        return ["I_XT"] if rows.y is None or rows.labels is not None else ["I_XT", "I_TY"]

    def estimate(self, rows: Rows, calibration: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(X;T), and I(T;Y) where Y is real-valued, and their standard errors."""
        t, x = rows.numbers, required_input(self, rows)
        values = with_error("I_XT", pointwise_ksg(t, x, k=self.k, algorithm=self.algorithm), rows, unit)
        if rows.y is None or rows.labels is not None:
            return values
        if self.corrected:
            found = pointwise_ksg_corrected(t, rows.y, k=self.k)
        else:
            found = pointwise_ksg(t, rows.y, k=self.k, algorithm=self.algorithm)
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


class Projected(Estimator):
    """Nearest neighbors in the few directions that carry the information, with the output ``I_TY``.

    They are learned on one half of the rows and read on the other: linear discriminants for class labels, canonical
    pairs for real-valued targets. A lower bound up to the error of the neighbors; see
    :func:`~lightning_ib.functional.mutual_information_projected` for what it cannot see. Its standard error is at
    least half the difference of the halves, where directions were read. Tokens of one sequence stay in one half.

    Args:
        pairs: the largest number of directions; by default chosen from 2, 4, 8, 16 and all coordinates.
        k: the number of neighbors.
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    name = "projected"

    def __init__(
        self,
        pairs: int | None = None,
        k: int = 3,
        pool: Callable[[Tensor], Tensor] | None = None,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(pool, max_samples)
        self.pairs = None if pairs is None else checked_integer(pairs, "Projected: pairs", at_least=1)
        self.k = checked_integer(k, "Projected: k", at_least=1)

    def estimate(self, rows: Rows, calibration: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(T;Y) and its standard error."""
        y = required_target(self, rows)
        groups = whole_sequences(rows, 2, "halves")
        found = pointwise_projected(rows.numbers, y, groups=groups, pairs=self.pairs, k=self.k)
        return with_error("I_TY", found, rows, unit)


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
        t = checked_rows(rows.numbers, "x")
        if rows.labels is not None:
            y = far_apart(checked_labels(rows.labels, len(t))[0], t)
        return with_error("I_TY", pointwise_mixed(t, y, k=self.k), rows, unit)
