"""The Gaussian copula."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_ib.estimators.base import Estimator, Rows, _target
from lightning_ib.functional import Unit, mutual_information_gaussian_copula


class GaussianCopula(Estimator):
    """The Gaussian formula after a rank transform (Ince et al. 2017); gives ``I_TY``.

    A lower bound for one coordinate. With several, and for class labels the more they split the layer into clusters, it
    may exceed H(Y): the Gaussian entropy of T is then far too large.

    There must be more rows than coordinates, in each class too.

    Args:
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    name = "copula"

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(T;Y)."""
        return {"I_TY": mutual_information_gaussian_copula(rows.t, _target(self, rows), unit=unit)}
