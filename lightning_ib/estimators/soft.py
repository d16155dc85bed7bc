"""Soft entropy."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_ib.estimators.base import Estimator, Rows
from lightning_ib.functional import SoftEntropy, SoftInformation, Unit
from lightning_ib.functional.checks import checked_integer, checked_number, checked_rows
from lightning_ib.functional.resampling import Pointwise, spread_rows


class Soft(Estimator):
    """Soft entropy: rows softly assigned to fixed random directions.

    See :class:`~lightning_ib.functional.SoftEntropy`. The outputs are ``H_T``, ``I_XT``, ``I_TY``, the mean
    ``I_TY_floor`` of the latter under permuted labels, and ``I_TY_above_floor``, their difference. From the second
    measurement on it sums over every sample of the pass, in memory independent of their number and of the width of the
    layer; the first one sees the sampled rows, whose mean becomes the center of the next pass. Blunter than cells,
    finite by construction, and the way to very wide layers and very long passes.

    Args:
        n_anchors: the number of directions; fewer for fewer than some thousand samples.
        beta: the sharpness of the assignment, by default ten times the root of the width.
        max_classes: labels are 0 … ``max_classes`` − 1.
    """

    name = "soft"
    outputs = ("H_T", "I_XT", "I_TY", "I_TY_floor", "I_TY_above_floor")
    max_samples = 1_000_000_000  # all there are in the sample

    def __init__(self, n_anchors: int = 512, beta: float | None = None, max_classes: int = 1024) -> None:
        super().__init__()
        self.n_anchors = checked_integer(n_anchors, "Soft: n_anchors", at_least=1)
        self.beta = None if beta is None else checked_number(beta, "Soft: beta", above=0)
        self.max_classes = checked_integer(max_classes, "Soft: max_classes", at_least=1)

    def sums(self, center: Tensor) -> SoftEntropy:
        """Running sums that begin at zero."""
        return SoftEntropy(center, n_anchors=self.n_anchors, beta=self.beta, max_classes=self.max_classes)

    def outputs_for(self, rows: Rows) -> list[str]:
        """Those about the target with class labels only."""
        return [name for name in self.outputs if rows.labels is not None or not name.startswith("I_TY")]

    def named(self, found: SoftInformation, *, labeled: bool) -> dict[str, float]:
        """The values by name.

        Args:
            found: the values.
            labeled: whether there are class labels; otherwise the values about the target are left out.

        Raises:
            ValueError: a value is undefined; the sentence gives the reason.
        """
        if math.isnan(found.i_ty if labeled else found.h_t):
            raise ValueError(found.reason)
        values = {"H_T": found.h_t, "I_XT": found.i_xt}
        if not labeled:
            return values
        floor = {"I_TY_floor": found.i_ty_floor, "I_TY_above_floor": found.i_ty - found.i_ty_floor}
        return values | {"I_TY": found.i_ty} | floor

    def estimate(self, rows: Rows, calibration: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """From the rows alone, centered on their mean, by the same sums and with the same labels as those of a pass."""
        t = checked_rows(rows.numbers, "t")
        sums = self.sums(t.double().mean(0))
        sums.update(t, rows.labels)
        values = self.named(sums.result(unit=unit), labeled=rows.labels is not None)
        return values | self.errors(sums, rows, len(t), unit)

    def errors(self, sums: SoftEntropy, rows: Rows, n_samples: int, unit: Unit) -> dict[str, float]:
        """The standard errors of the values of sums over many samples, by the deviation over some of them.

        The floor has none: it changes little from sample to sample.

        Args:
            sums: those of all samples.
            rows: some of the samples; up to 500 of these are looked at, all where they are tokens of sequences.
            n_samples: the number of all.
            unit: ``"bits"`` or ``"nats"``.
        """
        # Of dependent rows all: few of one sequence would be among some.
        some = spread_rows(len(rows.t)) if rows.sequence is None else torch.arange(len(rows.t), device="cpu")
        t = rows.numbers[some.to(rows.t.device)].flatten(1)
        if t.shape[1] != len(sums.center) or not bool(t.isfinite().all()):
            return {}
        labels = None if rows.labels is None else rows.labels[some.to(rows.labels.device)]
        found = {
            name: Pointwise(0.0, influence, some, n_samples).standard_error(rows.sequence, unit=unit)
            for name, influence in sums.influences(t, labels).items()
        }
        names = {"H_T_se": "h_t", "I_XT_se": "i_xt", "I_TY_se": "i_ty", "I_TY_above_floor_se": "i_ty"}
        return {name: found[key] for name, key in names.items() if key in found}
