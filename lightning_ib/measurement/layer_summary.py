"""From the symbols of a layer to its point: entropies, informations, standard errors, baseline and verdict."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import Tensor

from lightning_ib.functional import (
    Correction,
    Symbols,
    Unit,
    add_entropies,
    entropy_of_counts,
    expected_mutual_information,
    joint,
    joint_counts,
    permuted_mutual_information,
    saturation,
    singleton_fraction,
    standard_error,
)
from lightning_ib.functional.checks import in_unit, logarithm
from lightning_ib.functional.discrete.corrections import COUNT_TERMS
from lightning_ib.functional.discrete.fano import fano_error, fano_information
from lightning_ib.measurement.head import Head
from lightning_ib.records.points import InformationPoint
from lightning_ib.records.record import STANDARD_ERRORS
from lightning_ib.records.reliability import verdict

# The tolerance for rounding when a bound is reached.
_ROUNDING = 1e-9

# How many permutations are drawn where a closed form is lacking.
_N_PERMUTATIONS = 5


class CountedLayer(NamedTuple):
    """The symbols of a layer, and how they were obtained.

    Attributes:
        symbols: its symbols.
        source: ``"cells"`` or ``"binned"``.
        clipped_fraction: the fraction of its values outside the bins; NaN where undefined.
        nominal_tail_mass: the fraction that its bins leave outside by design.
        explained_variance: the fraction of its variance between its cells; NaN for bins.
    """

    symbols: Symbols
    source: str
    clipped_fraction: float = math.nan
    nominal_tail_mass: float = 0.0
    explained_variance: float = math.nan


def head_bound(head: Head | None, y: Symbols | None, unit: Unit) -> float:
    """The least I(T;Y) that the accuracy of the head proves, on the samples that it was counted on."""
    if head is None or y is None:
        return math.nan
    return fano_information(
        head.accuracy, h_y=entropy_of_counts(y.counts, unit=unit), n_classes=head.n_classes, unit=unit
    )


class LayerSummary:
    """Entropies and informations of layers with one X and one Y, each of which is counted once.

    Where X is the identity of the sample it determines T, and the joint entropies are known:
    H(X) = H(X,T) = H(X,T,Y) = log N.

    Args:
        n: how many samples were counted.
        x: the input; ``None`` if it is the identity of the sample, or non-finite.
        y: the target; ``None`` if it is absent or non-finite.
        identity: whether the input is the identity of the sample.
        unit: of all values.
        correction: of the plug-in entropies; saturation and verdict are of the counts as they are.
        n_permutations: how often the labels are shuffled for the spread of the permutation baseline.
        head: the head of the network, where one was measured.
        bound: the least I(T;Y) that its accuracy proves.
        clusters: the sequence of each sample, where the samples are tokens: errors are taken over sequences.
    """

    def __init__(
        self,
        n: int,
        x: Symbols | None,
        y: Symbols | None,
        *,
        identity: bool,
        unit: Unit,
        correction: Correction | None,
        n_permutations: int,
        head: Head | None = None,
        bound: float = math.nan,
        clusters: Tensor | None = None,
    ) -> None:
        self.n, self.x, self.y, self.identity, self.clusters = n, x, y, identity, clusters
        self.unit, self.correction = unit, correction
        self.log_n = logarithm(unit)(n)
        self.h_x, self.h_x_se = (self.log_n, 0.0) if identity else (self._h(x), self._error((1, x)))
        self.h_y, self.h_y_se = self._h(y), self._error((1, y))
        self.xy = None if x is None or y is None else joint(x, y)
        self.h_xy = self._h(self.xy)
        self.has_target = y is not None and len(y.counts) > 1
        self.n_permutations, self.head, self.bound = n_permutations, head, bound

    def point(self, layer: str, counted: CountedLayer | None) -> InformationPoint:
        """The point of a layer; one of NaNs where ``counted`` is ``None``."""
        if counted is None:
            return InformationPoint.missing(layer, n_samples=self.n, unit=self.unit)
        t, n = counted.symbols, self.n
        plug_in = self._plug_in(t)
        point = InformationPoint(
            epoch=0,
            step=0,
            layer=layer,
            h_t=plug_in if self.correction is None else self._h(t),
            h_t_se=self._error((1, t)),
            h_x=self.h_x,
            h_x_se=self.h_x_se,
            h_y=self.h_y,
            h_y_se=self.h_y_se,
            i_xt=math.nan,
            i_ty=math.nan,
            h_y_given_t=math.nan,
            i_xt_given_y=math.nan,
            n_samples=n,
            n_codes=len(t.counts),
            saturation=saturation(plug_in, n_samples=n, unit=self.unit),
            unit=self.unit,
            singleton_fraction=singleton_fraction(t.counts),
            clipped_fraction=counted.clipped_fraction,
            correction=self.correction or "",
            source=counted.source,
            explained_variance=counted.explained_variance,
            i_ty_fano=self.bound,
        )
        point = self._with_target_information(self._with_input_information(point, t), t)
        point = self._with_fano_bound(self._with_permutation_baseline(point, t))
        return self._with_verdict(point, counted)

    def _with_fano_bound(self, point: InformationPoint) -> InformationPoint:
        if math.isnan(self.bound) or math.isnan(point.i_ty):
            return point
        point = point._replace(fano_shortfall=max(0.0, self.bound - point.i_ty))
        own = self.head is not None and point.layer == self.head.layer
        return point._replace(accuracy=self.head.accuracy) if own and self.head is not None else point

    def _below_fano(self, point: InformationPoint, counted: CountedLayer) -> bool:
        """Whether I(T;Y) of the head lies below the Fano bound from its accuracy by over two standard errors of both.

        Like all verdicts it uses the plug-in values.
        """
        if math.isnan(point.accuracy) or self.y is None or self.head is None:
            return False
        t, i_ty = counted.symbols, point.i_ty
        if self.correction is not None:
            pairs = entropy_of_counts(joint_counts(t, self.y), unit=self.unit)
            i_ty = add_entropies(self._plug_in(t), self._plug_in(self.y), -pairs)
        of_bound = fano_error(self.head.accuracy, n_samples=self.head.n_samples, n_classes=self.head.n_classes)
        error = math.hypot(point.i_ty_se, in_unit(of_bound, self.unit))
        return i_ty < self.bound - STANDARD_ERRORS * error - _ROUNDING

    def _with_verdict(self, point: InformationPoint, counted: CountedLayer) -> InformationPoint:
        y = self.y
        return point._replace(
            verdict=verdict(
                saturation=point.saturation,
                singleton_fraction=point.singleton_fraction,
                n_codes=point.n_codes,
                n_samples=self.n,
                clipped_fraction=counted.clipped_fraction,
                nominal_tail_mass=counted.nominal_tail_mass,
                target_saturation=math.nan
                if y is None
                else saturation(self._plug_in(y), n_samples=self.n, unit=self.unit),
                target_singleton_fraction=math.nan if y is None else singleton_fraction(y.counts),
                below_fano=self._below_fano(point, counted),
            )
        )

    def _with_input_information(self, point: InformationPoint, t: Symbols) -> InformationPoint:
        if self.identity:
            return point._replace(i_xt=point.h_t, i_xt_se=point.h_t_se)
        if self.x is None:
            return point
        xt = joint(t, self.x)
        return point._replace(
            i_xt=add_entropies(self.h_x, point.h_t, -self._h(xt)),
            i_xt_se=self._error((1, self.x), (1, t), (-1, xt)),
        )

    def _with_target_information(self, point: InformationPoint, t: Symbols) -> InformationPoint:
        if not self.has_target or self.y is None:
            return point
        ty = joint(t, self.y)
        h_ty = self._h(ty)
        point = point._replace(
            i_ty=add_entropies(point.h_t, self.h_y, -h_ty),
            i_ty_se=self._error((1, t), (1, self.y), (-1, ty)),
            h_y_given_t=add_entropies(h_ty, -point.h_t),
            h_y_given_t_se=self._error((1, ty), (-1, t)),
        )
        if self.identity:  # X determines T and Y: I(X;T|Y) = H(T|Y)
            return point._replace(
                i_xt_given_y=add_entropies(h_ty, -self.h_y), i_xt_given_y_se=self._error((1, ty), (-1, self.y))
            )
        if self.xy is None:
            return point
        xty = joint(t, self.xy)
        return point._replace(
            i_xt_given_y=add_entropies(self.h_xy, h_ty, -self.h_y, -self._h(xty)),
            i_xt_given_y_se=self._error((1, self.xy), (1, ty), (-1, self.y), (-1, xty)),
        )

    def _with_permutation_baseline(self, point: InformationPoint, t: Symbols) -> InformationPoint:
        if not self.has_target or self.y is None:
            return point
        options: dict[str, Any] = {"correction": self.correction, "unit": self.unit}
        exact = self.correction is None or self.correction in COUNT_TERMS
        if exact:
            mean = expected_mutual_information(t.counts, self.y.counts, **options)
            point = point._replace(i_ty_permuted=mean)
        if self.n_permutations or not exact:
            n_permutations = self.n_permutations or _N_PERMUTATIONS
            baseline = permuted_mutual_information(t.counts, self.y.counts, n_permutations=n_permutations, **options)
            point = point._replace(i_ty_permuted_sd=baseline.standard_deviation)
            point = point if exact else point._replace(i_ty_permuted=baseline.mean)
        return point

    def _plug_in(self, variable: Symbols) -> float:
        return entropy_of_counts(variable.counts, unit=self.unit)

    def _h(self, variable: Symbols | None) -> float:
        if variable is None:
            return math.nan
        return entropy_of_counts(variable.counts, unit=self.unit, correction=self.correction)

    def _error(self, *terms: tuple[int, Symbols | None]) -> float:
        known = [(sign, variable) for sign, variable in terms if variable is not None]
        if len(known) != len(terms):
            return math.nan
        return standard_error(*known, unit=self.unit, clusters=self.clusters)
