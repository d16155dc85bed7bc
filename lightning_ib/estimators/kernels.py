"""Estimators with kernels: the mixture bounds of Kolchinsky & Tracey, and matrix Rényi."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from lightning_ib.estimators.base import Estimator, Rows, required_input
from lightning_ib.functional import (
    Unit,
    kernel_width_of,
    mutual_information_renyi,
    mutual_information_renyi_labels,
    noise_variance_of,
)
from lightning_ib.functional.checks import checked_number
from lightning_ib.functional.continuous.kde_errors import information_with_errors_kde
from lightning_ib.functional.continuous.renyi_errors import standard_error_renyi

# By which factor a layer's scale may differ from the one that a kernel was calibrated to.
_OUTGROWN = 3.0


class KDE(Estimator):
    """Information of the representation with Gaussian noise added (Kolchinsky & Tracey 2017).

    The outputs are ``I_XT`` and ``I_TY`` from the upper bounds of the entropies, ``I_XT_lower`` and ``I_TY_lower`` from
    the lower ones, and ``noise_variance``. See :func:`~lightning_ib.functional.mutual_information_bounds_kde`.

    Cost:
        About 0.15 s for 2 000 rows of 10 to 128 coordinates, on one core; it grows with the square of the rows.

    Samples:
        I(X;T) is at most the log of their number. One coordinate is read well from 1 000; of five it reads 0.95 and
        more of 0.49 bits from 5 000, at a hundredth of a class's variance.

    Args:
        noise_variance: σ², in the squared unit of the activations; by default a share of the layer's mean variance, at
            every measurement anew (see :func:`~lightning_ib.functional.noise_variance_of`).
        frozen: keep the σ² of the first measurement, which compares epochs at one absolute resolution. A layer may
            outgrow it, as the verdict then says.
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    name = "kde"
    outputs = ("I_XT", "I_TY", "I_XT_lower", "I_TY_lower", "noise_variance")

    def __init__(
        self,
        noise_variance: float | None = None,
        frozen: bool = False,
        pool: Callable[[Tensor], Tensor] | None = None,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(pool, max_samples)
        if noise_variance is not None:
            noise_variance = checked_number(noise_variance, "KDE: noise_variance", above=0, advice=_FROM_THE_LAYER)
        self.noise_variance, self.frozen = noise_variance, frozen

    def _fixed(self, calibration: Mapping[str, float]) -> float | None:
        """σ², where it is an argument or frozen."""
        frozen = calibration.get("noise_variance") if self.frozen else None
        return frozen if self.noise_variance is None else self.noise_variance

    def outputs_for(self, rows: Rows) -> list[str]:
        """Those about the target with class labels only."""
        return [name for name in self.outputs if rows.labels is not None or not name.startswith("I_TY")]

    def calibrate(self, rows: Rows) -> dict[str, float]:
        """σ², where it is frozen at the scale of the layer."""
        frozen = self.frozen and self.noise_variance is None
        return {"noise_variance": noise_variance_of(rows.numbers)} if frozen else {}

    def outgrown(self, rows: Rows, calibration: Mapping[str, float]) -> bool:
        """Whether the layer's own scale is three times as large or as small as σ says."""
        variance = self._fixed(calibration)
        return variance is not None and _far_apart(variance**0.5, noise_variance_of(rows.numbers) ** 0.5)

    def estimate(self, rows: Rows, calibration: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(X;T) and, with class labels, I(T;Y), from either bound, and their standard errors."""
        t, fixed = rows.numbers, self._fixed(calibration)
        variance = noise_variance_of(t) if fixed is None else fixed
        found = information_with_errors_kde(
            t, rows.labels, noise_variance=variance, follows=fixed is None, clusters=rows.sequence, unit=unit
        )
        values: dict[str, float] = {}
        for end in ("upper", "lower"):
            for name, one in found.items():
                name = name if end == "upper" else f"{name}_lower"
                values |= {name: getattr(one.bounds, end), f"{name}_se": getattr(one.errors, end)}
        return values | {"noise_variance": variance}


class Renyi(Estimator):
    """Matrix Rényi entropies (Sanchez Giraldo et al. 2015; for convolutions Wickstrøm et al. 2019).

    The outputs are ``I_XT``, ``I_TY`` and ``kernel_width``.

    Cost:
        The cube of the number of rows: about 4.5 s for 2 000, on one core, standard errors included.

    Samples:
        It is defined for any number, and its values compare at one number only, which the kernel's width depends on.

    Args:
        alpha: the order of the entropy.
        kernel_width: of the layer's kernel, in the unit of the activations; by default from the layer's scale, at every
            measurement anew (see :func:`~lightning_ib.functional.kernel_width_of`).
        frozen: keep the width of the first measurement. A layer may outgrow it, as the verdict then says.
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    name = "renyi"
    needs_input = True
    outputs = ("I_XT", "I_TY", "kernel_width")

    def __init__(
        self,
        alpha: float = 1.01,
        kernel_width: float | None = None,
        frozen: bool = False,
        pool: Callable[[Tensor], Tensor] | None = None,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(pool, max_samples)
        if kernel_width is not None:
            kernel_width = checked_number(kernel_width, "Renyi: kernel_width", above=0, advice=_FROM_THE_LAYER)
        self.alpha = checked_number(alpha, "Renyi: alpha", above=0)
        self.kernel_width, self.frozen = kernel_width, frozen

    def _fixed(self, calibration: Mapping[str, float]) -> float | None:
        """The kernel's width, where it is an argument or frozen."""
        frozen = calibration.get("kernel_width") if self.frozen else None
        return frozen if self.kernel_width is None else self.kernel_width

    def calibrate(self, rows: Rows) -> dict[str, float]:
        """The kernel's width, where it is frozen at the scale of the layer."""
        frozen = self.frozen and self.kernel_width is None
        return {"kernel_width": kernel_width_of(rows.numbers)} if frozen else {}

    def outgrown(self, rows: Rows, calibration: Mapping[str, float]) -> bool:
        """Whether the layer's own scale is three times as large or as small as the kernel's width says."""
        width = self._fixed(calibration)
        return width is not None and _far_apart(width, kernel_width_of(rows.numbers))

    def estimate(self, rows: Rows, calibration: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(X;T), and I(T;Y) where there is a target, and their standard errors."""
        t, fixed = rows.numbers, self._fixed(calibration)
        width = kernel_width_of(t) if fixed is None else fixed
        x = required_input(self, rows)
        found = {"I_XT": mutual_information_renyi(t, x, alpha=self.alpha, kernel_width_x=width, unit=unit)}
        if rows.labels is not None:
            found["I_TY"] = mutual_information_renyi_labels(
                t, rows.labels, alpha=self.alpha, kernel_width=width, unit=unit
            )
        elif rows.y is not None:
            found["I_TY"] = mutual_information_renyi(t, rows.y, alpha=self.alpha, kernel_width_x=width, unit=unit)
        for name, other in (("I_XT", x), ("I_TY", rows.y)):
            if name in found:
                assert other is not None
                found[f"{name}_se"] = standard_error_renyi(
                    *(t, other),
                    alpha=self.alpha,
                    kernel_width_x=width,
                    kernel_width_y=kernel_width_of(other) if other.is_floating_point() else None,
                    follows=(fixed is None, True),
                    clusters=rows.sequence,
                    unit=unit,
                )
        return found | {"kernel_width": width}


_FROM_THE_LAYER = "give None to set it from the layer"


def _far_apart(a: float, b: float) -> bool:
    """Whether two scales differ by more than a factor of three."""
    return not _OUTGROWN > a / b > 1 / _OUTGROWN
