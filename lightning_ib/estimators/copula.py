"""The Gaussian copula."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_ib.estimators.base import Estimator, Rows, required_target, with_error
from lightning_ib.functional import Unit
from lightning_ib.functional.continuous.copula import pointwise_gaussian_copula, pointwise_gaussian_copula_labels


class GaussianCopula(Estimator):
    """The Gaussian formula after a rank transform (Ince et al. 2017), with the output ``I_TY``.

    A lower bound for one coordinate. With several, and for class labels the more they split the layer into clusters, it
    may exceed H(Y): the Gaussian entropy of T is then far too large.

    There must be more rows than coordinates, in each class too.

    Args:
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    name = "copula"

    def estimate(self, rows: Rows, calibration: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(T;Y) and its standard error."""
        y = required_target(self, rows)
        estimate = pointwise_gaussian_copula if rows.labels is None else pointwise_gaussian_copula_labels
        return with_error("I_TY", estimate(rows.numbers, y), rows, unit)
