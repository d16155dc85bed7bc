"""Estimators by nearest neighbors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from torch import Tensor

from lightning_ib.estimators.base import Estimator, Rows, _input, _labels, _target
from lightning_ib.functional import Unit, mutual_information_knn, mutual_information_ksg, mutual_information_mixed


class KSG(Estimator):
    """Nearest neighbours of two continuous variables (Kraskov, Stögbauer & Grassberger 2004).

    Gives ``I_XT`` and, where the target is real-valued, ``I_TY``. For a network without noise the true I(X;T) has no
    bound, and the estimate grows with the number of rows.

    Args:
        k: the number of neighbours.
        algorithm: 1 or 2, as in the paper.
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    name = "ksg"
    needs_input = True
    given = ("I_XT", "I_TY")

    def __init__(
        self,
        k: int = 3,
        algorithm: Literal[1, 2] = 1,
        pool: Callable[[Tensor], Tensor] | None = None,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(pool, max_samples)
        if algorithm not in (1, 2):
            raise ValueError(f"KSG: algorithm must be 1 or 2, got {algorithm!r}.")
        self.k, self.algorithm = _checked_k(k, "KSG"), algorithm

    def gives(self, rows: Rows) -> list[str]:
        """I(X;T), and I(T;Y) where Y is real-valued."""
        return ["I_XT"] if rows.y is None or rows.labels is not None else ["I_XT", "I_TY"]

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(X;T), and I(T;Y) where Y is real-valued."""
        others = {"I_XT": _input(self, rows), "I_TY": None if rows.labels is not None else rows.y}
        return {
            name: mutual_information_ksg(rows.t, other, k=self.k, algorithm=self.algorithm, unit=unit)
            for name, other in others.items()
            if other is not None
        }


class KNN(Estimator):
    """Nearest neighbours within and across classes (Ross 2014); gives ``I_TY`` for class labels.

    Args:
        k: the number of neighbours.
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    name = "knn"

    def __init__(
        self, k: int = 3, pool: Callable[[Tensor], Tensor] | None = None, max_samples: int | None = None
    ) -> None:
        super().__init__(pool, max_samples)
        self.k = _checked_k(k, "KNN")

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(T;Y)."""
        return {"I_TY": mutual_information_knn(rows.t, _labels(self, rows), k=self.k, unit=unit)}


class MixedKNN(Estimator):
    """Nearest neighbours of variables that are neither discrete nor continuous (Gao et al. 2017); gives ``I_TY``.

    Repeated rows, such as those of a dead layer, are no fault here.

    Args:
        k: the number of neighbours.
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    name = "mixed"

    def __init__(
        self, k: int = 3, pool: Callable[[Tensor], Tensor] | None = None, max_samples: int | None = None
    ) -> None:
        super().__init__(pool, max_samples)
        self.k = _checked_k(k, "MixedKNN")

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(T;Y)."""
        y = _target(self, rows)
        if rows.labels is not None:  # numbers farther apart than any two rows: classes have no order
            y = y.double() * 2 * (1 + float(rows.t.max() - rows.t.min()))
        return {"I_TY": mutual_information_mixed(rows.t, y, k=self.k, unit=unit)}


def _checked_k(k: int, owner: str) -> int:
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"{owner}: k must be an integer of at least 1, got {k!r}.")
    return k
