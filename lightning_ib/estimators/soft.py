"""Soft entropy."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from lightning_ib.estimators.base import Estimator, Rows
from lightning_ib.functional import SoftEntropy, SoftInformation, Unit
from lightning_ib.functional.checks import checked_rows


class Soft(Estimator):
    """Soft entropy: rows softly assigned to fixed random directions.

    See :class:`~lightning_ib.functional.SoftEntropy`. Gives ``H_T``, ``I_XT``, ``I_TY``, the mean ``I_TY_floor`` of the
    latter under permuted labels, and ``I_TY_above_floor``, their difference. From the second measurement on it sums
    over every sample of the pass, in memory that grows with neither their number nor the width of the layer; the first
    one sees the sampled rows, whose mean becomes the center of the next pass. Blunter than cells, finite by
    construction, and the way to very wide layers and very long passes.

    Args:
        n_anchors: the number of directions; fewer for fewer than some thousand samples.
        beta: the sharpness of the assignment, by default ten times the root of the width.
        max_classes: labels are 0 … ``max_classes`` − 1.
    """

    name = "soft"
    given = ("H_T", "I_XT", "I_TY", "I_TY_floor", "I_TY_above_floor")
    max_samples = 1_000_000_000  # all there are in the sample

    def __init__(self, n_anchors: int = 512, beta: float | None = None, max_classes: int = 1024) -> None:
        super().__init__()
        for name, value in (("n_anchors", n_anchors), ("max_classes", max_classes)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"Soft: {name} must be an integer of at least 1, got {value!r}.")
        if beta is not None and not 0 < beta < math.inf:
            raise ValueError(f"Soft: beta must be a number above 0 or None, got {beta!r}.")
        self.n_anchors, self.beta, self.max_classes = n_anchors, beta, max_classes

    def sums(self, center: Tensor) -> SoftEntropy:
        """Running sums that begin at zero."""
        return SoftEntropy(center, self.n_anchors, beta=self.beta, max_classes=self.max_classes)

    def gives(self, rows: Rows) -> list[str]:
        """Those about the target with class labels only."""
        return [name for name in self.given if rows.labels is not None or not name.startswith("I_TY")]

    def named(self, found: SoftInformation, *, labeled: bool) -> dict[str, float]:
        """The values by name.

        Args:
            found: the values.
            labeled: whether there are class labels; without them, only what is not about the target.

        Raises:
            ValueError: a value is undefined; the sentence says why.
        """
        if math.isnan(found.i_ty if labeled else found.h_t):
            raise ValueError(found.reason)
        values = {"H_T": found.h_t, "I_XT": found.i_xt}
        if not labeled:
            return values
        floor = {"I_TY_floor": found.i_ty_floor, "I_TY_above_floor": found.i_ty - found.i_ty_floor}
        return values | {"I_TY": found.i_ty} | floor

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """From the rows alone, centered on their mean, by the same sums and with the same labels as those of a pass."""
        t = checked_rows(rows.t, "t")
        sums = self.sums(t.double().mean(0))
        sums.update(t, rows.labels)
        return self.named(sums.result(unit), labeled=rows.labels is not None)
