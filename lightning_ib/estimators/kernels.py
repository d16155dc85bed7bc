"""Estimators with kernels: the mixture bounds of Kolchinsky & Tracey, and matrix Rényi."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import Tensor

from lightning_ib.estimators.base import Estimator, Rows, _input
from lightning_ib.functional import (
    Unit,
    kernel_width_of,
    mutual_information_bounds_kde,
    mutual_information_renyi,
    noise_variance_of,
)

# By which factor a layer's scale may differ from the one that a kernel was set to.
_OUTGROWN = 3.0


class KDE(Estimator):
    """Information of the representation with Gaussian noise added (Kolchinsky & Tracey 2017; Saxe et al. 2018).

    Gives ``I_XT`` and ``I_TY`` from the upper bounds of the entropies, ``I_XT_lower`` and ``I_TY_lower`` from the lower
    ones. See :func:`~lightning_ib.functional.mutual_information_bounds_kde`.

    Args:
        noise_variance: σ², in the squared unit of the activations; by default a share of the layer's mean variance, at
            every measurement anew (see :func:`~lightning_ib.functional.noise_variance_of`). It is given as
            ``noise_variance``.
        frozen: keep the σ² of the first measurement, which compares epochs at one absolute resolution. A layer may
            outgrow it: the verdict says so.
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    name = "kde"
    given = ("I_XT", "I_TY", "I_XT_lower", "I_TY_lower", "noise_variance")

    def __init__(
        self,
        noise_variance: float | None = None,
        frozen: bool = False,
        pool: Callable[[Tensor], Tensor] | None = None,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(pool, max_samples)
        if noise_variance is not None and not (
            isinstance(noise_variance, (int, float)) and 0 < noise_variance < math.inf
        ):
            raise ValueError(
                f"KDE: noise_variance must be a number above 0, or None (set from the layer), got {noise_variance!r}."
            )
        self.noise_variance, self.frozen = noise_variance, frozen

    def _set(self, settled: Mapping[str, float]) -> float | None:
        """σ², where it was given or frozen."""
        frozen = settled.get("noise_variance") if self.frozen else None
        return frozen if self.noise_variance is None else self.noise_variance

    def gives(self, rows: Rows) -> list[str]:
        """Those about the target with class labels only."""
        return [name for name in self.given if rows.labels is not None or not name.startswith("I_TY")]

    def settle(self, rows: Rows) -> dict[str, float]:
        """σ², where it is to be frozen and was not given."""
        frozen = self.frozen and self.noise_variance is None
        return {"noise_variance": noise_variance_of(rows.t)} if frozen else {}

    def outgrown(self, rows: Rows, settled: Mapping[str, float]) -> bool:
        """Whether the layer's own scale is three times as large or as small as σ says."""
        variance = self._set(settled)
        return variance is not None and _far_apart(variance**0.5, noise_variance_of(rows.t) ** 0.5)

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(X;T) and, with class labels, I(T;Y), from either bound."""
        variance = self._set(settled)
        variance = noise_variance_of(rows.t) if variance is None else variance
        found = {"I_XT": mutual_information_bounds_kde(rows.t, noise_variance=variance, unit=unit)}
        if rows.labels is not None:
            found["I_TY"] = mutual_information_bounds_kde(rows.t, rows.labels, noise_variance=variance, unit=unit)
        bounds = {k: v.upper for k, v in found.items()} | {f"{k}_lower": v.lower for k, v in found.items()}
        return bounds | {"noise_variance": variance}


class Renyi(Estimator):
    """Matrix Rényi entropies (Sanchez Giraldo et al. 2015; for convolutions Wickstrøm et al. 2019).

    Gives ``I_XT`` and ``I_TY``. The time grows with the cube of the number of rows.

    Args:
        alpha: the order of the entropy.
        kernel_width: of the layer's kernel, in the unit of the activations; by default from the layer's scale, at every
            measurement anew (see :func:`~lightning_ib.functional.kernel_width_of`). It is given as ``kernel_width``.
        frozen: keep the width of the first measurement. A layer may outgrow it: the verdict says so.
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    name = "renyi"
    needs_input = True
    given = ("I_XT", "I_TY", "kernel_width")

    def __init__(
        self,
        alpha: float = 1.01,
        kernel_width: float | None = None,
        frozen: bool = False,
        pool: Callable[[Tensor], Tensor] | None = None,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(pool, max_samples)
        if not isinstance(alpha, (int, float)) or not 0 < alpha < math.inf:
            raise ValueError(f"Renyi: alpha must be a number above 0, got {alpha!r}.")
        if kernel_width is not None and not (isinstance(kernel_width, (int, float)) and 0 < kernel_width < math.inf):
            raise ValueError(f"Renyi: kernel_width must be a number above 0 or None, got {kernel_width!r}.")
        self.alpha, self.kernel_width, self.frozen = alpha, kernel_width, frozen

    def _set(self, settled: Mapping[str, float]) -> float | None:
        """The kernel's width, where it was given or frozen."""
        frozen = settled.get("kernel_width") if self.frozen else None
        return frozen if self.kernel_width is None else self.kernel_width

    def settle(self, rows: Rows) -> dict[str, float]:
        """The kernel's width, where it is to be frozen and was not given."""
        frozen = self.frozen and self.kernel_width is None
        return {"kernel_width": kernel_width_of(rows.t)} if frozen else {}

    def outgrown(self, rows: Rows, settled: Mapping[str, float]) -> bool:
        """Whether the layer's own scale is three times as large or as small as the kernel's width says."""
        width = self._set(settled)
        return width is not None and _far_apart(width, kernel_width_of(rows.t))

    def figures(self, rows: Rows, settled: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(X;T), and I(T;Y) where there is a target."""
        width = self._set(settled)
        width = kernel_width_of(rows.t) if width is None else width
        others = {"I_XT": _input(self, rows), "I_TY": rows.y}
        return {
            name: mutual_information_renyi(rows.t, other, alpha=self.alpha, kernel_width_x=width, unit=unit)
            for name, other in others.items()
            if other is not None
        } | {"kernel_width": width}


def _far_apart(a: float, b: float) -> bool:
    """Whether two scales differ by more than a factor of three."""
    return not _OUTGROWN > a / b > 1 / _OUTGROWN
