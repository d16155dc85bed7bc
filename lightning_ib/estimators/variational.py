"""Estimators that train something on the rows: probes and critics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from torch import Tensor

from lightning_ib.estimators.base import Estimator, Rows, _labels, _target
from lightning_ib.functional import Unit, decode, mutual_information_infonce, mutual_information_smile


class Probe(Estimator):
    """Usable information: H(Y) less the held-out cross-entropy of a probe on T (Xu et al. 2020).

    Gives ``I_TY``, which cannot saturate, and ``accuracy``, the share of held-out labels the probe reads off the layer.

    Args:
        probe: ``"linear"`` or ``"mlp"``; they log under ``probe`` and ``mlp_probe``.
        folds: how many parts the rows are dealt to; each is predicted by a probe fitted to the others.
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    given = ("I_TY", "accuracy")

    def __init__(
        self,
        probe: Literal["linear", "mlp"] = "linear",
        folds: int = 4,
        pool: Callable[[Tensor], Tensor] | None = None,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(pool, max_samples)
        if probe not in ("linear", "mlp"):
            raise ValueError(f"Probe: probe must be 'linear' or 'mlp', got {probe!r}.")
        if isinstance(folds, bool) or not isinstance(folds, int) or folds < 3:
            raise ValueError(f"Probe: folds must be an integer of at least 3, got {folds!r}.")
        self.probe, self.folds = probe, folds
        self.name = "probe" if probe == "linear" else "mlp_probe"

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(T;Y) and the accuracy."""
        decoded = decode(rows.t, _labels(self, rows), probe=self.probe, folds=self.folds, unit=unit)
        return {"I_TY": decoded.information, "accuracy": decoded.accuracy}


class InfoNCE(Estimator):
    """A variational lower bound with a critic network (van den Oord et al. 2018); gives ``I_TY``.

    Args:
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    name = "infonce"

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(T;Y)."""
        return {"I_TY": mutual_information_infonce(rows.t, _target(self, rows), unit=unit)}


class SMILE(Estimator):
    """A variational estimate with a critic network, of less variance (Song & Ermon 2020); gives ``I_TY``.

    Args:
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    name = "smile"

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(T;Y)."""
        return {"I_TY": mutual_information_smile(rows.t, _target(self, rows), unit=unit)}
