"""Exact counting of networks that compute with few bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import get_args

from torch import Tensor

from lightning_ib.estimators.base import Estimator, Rows
from lightning_ib.functional import (
    Unit,
    add_entropies,
    entropy_of_counts,
    joint,
    quantized_ids,
    standard_error,
    symbols,
)
from lightning_ib.functional.checks import checked_choice, checked_labels
from lightning_ib.functional.discretize.quantized import Per, checked_bits


class Quantized(Estimator):
    """Exact counts of activations that are quantized to b bits (Lorenzen, Igel & Nielsen 2022).

    The outputs are ``I_XT``, which is H(T), and ``I_TY``, counted over the sampled rows: at most the logarithm of their
    number.

    Args:
        bits: b; ``None`` where the network is quantized already, and its activations are counted as they are.
        per: the range that is divided into 2^b levels: that of the whole ``"layer"``, at its first measurement and
            frozen, or of each sample's ``"tensor"``.
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    outputs = ("I_XT", "I_TY")

    def __init__(
        self,
        bits: int | None = 8,
        per: Per = "layer",
        pool: Callable[[Tensor], Tensor] | None = None,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(pool, max_samples)
        self.bits = checked_bits(bits, "Quantized: bits")
        self.per = checked_choice(per, "Quantized: per", get_args(Per))
        self.name = "quantized" if bits is None else f"quantized{bits}"

    @property
    def raw(self) -> bool:
        """It counts the activations as they are."""
        return True

    def outputs_for(self, rows: Rows) -> list[str]:
        """I(X;T), and I(T;Y) with class labels."""
        return ["I_XT"] if rows.labels is None else ["I_XT", "I_TY"]

    def calibrate(self, rows: Rows) -> dict[str, float]:
        """The range of the layer, once it has one."""
        low, high = float(rows.t.min()), float(rows.t.max())
        ranged = self.bits is not None and self.per == "layer" and math.isfinite(high - low) and low < high
        return {"low": low, "high": high} if ranged else {}

    def estimate(self, rows: Rows, calibration: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(X;T) and, with class labels, I(T;Y), and their standard errors by the delta method."""
        ranged = calibration and self.bits is not None and self.per == "layer"
        bounds = (calibration["low"], calibration["high"]) if ranged else None
        ids, clusters = quantized_ids(rows.numbers, bits=self.bits, per=self.per, bounds=bounds), rows.sequence
        t = symbols(ids)
        h_t = entropy_of_counts(t.counts, unit=unit)
        found = {"I_XT": h_t, "I_XT_se": standard_error((1, t), unit=unit, clusters=clusters)}
        if rows.labels is None:
            return found
        labels, _ = checked_labels(rows.labels, len(ids))
        y = symbols(labels.to(ids.device))
        ty = joint(t, y)
        h_y, h_ty = (entropy_of_counts(of.counts, unit=unit) for of in (y, ty))
        error = standard_error((1, t), (1, y), (-1, ty), unit=unit, clusters=clusters)
        return found | {"I_TY": add_entropies(h_t, h_y, -h_ty), "I_TY_se": error}
