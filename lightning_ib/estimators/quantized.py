"""Exact counting of networks that compute with few bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

from torch import Tensor

from lightning_ib.estimators.base import Estimator, Rows
from lightning_ib.functional import Unit, mutual_information_quantised


class Quantised(Estimator):
    """The exact measure for a network whose activations are quantised to b bits (Lorenzen, Igel & Nielsen 2022).

    Gives ``I_XT``, which is H(T), and ``I_TY``, counted over the sampled rows: at most the logarithm of their number.

    Args:
        bits: b; ``None`` where the network is quantised already, and its activations are counted as they are.
        per: where the range comes from that is divided into 2^b levels: the whole ``"layer"``, at its first measurement
            and frozen, or each sample's own ``"tensor"``.
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    given = ("I_XT", "I_TY")

    def __init__(
        self,
        bits: int | None = 8,
        per: Literal["layer", "tensor"] = "layer",
        pool: Callable[[Tensor], Tensor] | None = None,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(pool, max_samples)
        if bits is not None and (isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 16):
            raise ValueError(f"Quantised: bits must be an integer from 1 to 16, or None, got {bits!r}.")
        if per not in ("layer", "tensor"):
            raise ValueError(f"Quantised: per must be 'layer' or 'tensor', got {per!r}.")
        self.bits, self.per = bits, per
        self.name = "quantised" if bits is None else f"quantised{bits}"

    @property
    def raw(self) -> bool:
        """It counts the activations as they are."""
        return True

    def gives(self, rows: Rows) -> list[str]:
        """I(X;T), and I(T;Y) with class labels."""
        return ["I_XT"] if rows.labels is None else ["I_XT", "I_TY"]

    def settle(self, rows: Rows) -> dict[str, float]:
        """The range of the layer, once it has one."""
        low, high = float(rows.t.min()), float(rows.t.max())
        ranged = self.bits is not None and self.per == "layer" and math.isfinite(high - low) and low < high
        return {"low": low, "high": high} if ranged else {}

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(X;T) and, with class labels, I(T;Y)."""
        ranged = settled and self.bits is not None and self.per == "layer"
        bounds = (settled["low"], settled["high"]) if ranged else None
        others = {"I_XT": None} | ({} if rows.labels is None else {"I_TY": rows.labels})
        return {
            name: mutual_information_quantised(rows.t, y, bits=self.bits, per=self.per, bounds=bounds, unit=unit)
            for name, y in others.items()
        }
